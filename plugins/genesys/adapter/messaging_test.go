package adapter

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/plugins/genesys/webmessaging"
	"github.com/deskhost/deskhost/sdk"
)

// answering is a session's half at a vendor that answers each request with a frame,
// or not at all if that is empty.
func answering(t *testing.T, answer func(request map[string]any) string) *messaging {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			_, frame, err := conn.ReadMessage()
			if err != nil {
				return
			}
			var request map[string]any
			if err := json.Unmarshal(frame, &request); err != nil {
				t.Error(err)
			}
			if reply := answer(request); reply != "" {
				_ = conn.WriteMessage(websocket.TextMessage, []byte(reply))
			}
		}
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse("ws" + strings.TrimPrefix(server.URL, "http"))
	if err != nil {
		t.Fatal(err)
	}
	client := webmessaging.New(cloud.New(cloud.Endpoints{API: u, Sockets: u}, "", nil), "d", time.Minute)
	return &messaging{client: client, log: hclog.NewNullLogger(), connectTime: time.Minute}
}

// TestPutOutWhileConnecting has the vendor close a connection before it is ready.
func TestPutOutWhileConnecting(t *testing.T) {
	for body, want := range map[string]sdk.FailureKind{`{}`: sdk.Retry, `{"reason":"signedIn"}`: sdk.ChatOver} {
		g := answering(t, func(map[string]any) string {
			return `{"type":"message","class":"ConnectionClosedEvent","code":200,"body":` + body + `}`
		})
		_, _, err := g.connect(t.Context(), &state{Token: "t"})
		if f := failure(err); f.Kind != want || errors.Is(err, errCrowded) != (want == sdk.Retry) {
			t.Errorf("%s: %v", body, f)
		}
	}
}

// TestAClearThatTheVendorRefuses is sent again if that is about its rate, and let be
// if guests may not clear.
func TestAClearThatTheVendorRefuses(t *testing.T) {
	const (
		tooMany   = `{"type":"response","class":"TooManyRequestsErrorMessage","code":429,"tracingId":"clear","body":{"retryAfter":1}}`
		forbidden = `{"type":"response","class":"string","code":403,"tracingId":"clear","body":"not enabled"}`
		broken    = `{"type":"response","class":"string","code":500,"tracingId":"clear","body":"later"}`
		cleared   = `{"type":"message","class":"StructuredMessage","code":200,"tracingId":"clear","body":{"type":"Event","direction":"Inbound"}}`
	)
	for name, c := range map[string]struct {
		answers []string
		want    []string
		fails   bool
	}{
		"too many":  {[]string{tooMany, cleared}, []string{"onMessage", "onMessage", "closeSession"}, false},
		"forbidden": {[]string{forbidden}, []string{"onMessage", "closeSession"}, false},
		"broken":    {[]string{broken}, []string{"onMessage"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			answers := c.answers
			g := answering(t, func(r map[string]any) string {
				action := r["action"].(string)
				if action == "configureSession" {
					return `{"class":"SessionResponse","code":200,"body":{"connected":true,"newSession":true}}`
				}
				got = append(got, action)
				if action == "closeSession" || len(answers) == 0 {
					return `{"class":"SessionResponse","code":200,"body":{"connected":false}}`
				}
				answer := answers[0]
				answers = answers[1:]
				return answer
			})
			l, _, err := g.connect(t.Context(), &state{Token: "t"})
			if err != nil {
				t.Fatal(err)
			}
			read := make(chan error, 1)
			go func() {
				for {
					if _, err := l.read(t.Context()); err != nil {
						read <- err
						return
					}
				}
			}()
			if err := l.end(t.Context()); (err != nil) != c.fails {
				t.Errorf("ended: %v", err)
			}
			l.close()
			<-read
			if !slices.Equal(got, c.want) {
				t.Errorf("the vendor had %q, want %q", got, c.want)
			}
		})
	}
}
