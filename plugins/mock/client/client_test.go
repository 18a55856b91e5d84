package client_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/client"
	"github.com/deskhost/deskhost/plugins/mock/deskapi"
	"github.com/deskhost/deskhost/plugins/mock/mockdesk"
)

func TestAFeedThatFallsSilentIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("\n" + `{"key":"k","type":"agent_read","seq":1}` + "\n"))
			<-r.Context().Done()
		})
		c, err := client.New("http://desk.test", mockdesk.Transport(stalled))
		if err != nil {
			t.Fatal(err)
		}
		feed, err := c.Feed(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer feed.Close()
		if e, err := feed.Next(); err != nil || e.Key != "k" || e.Type != deskapi.AgentRead {
			t.Fatalf("got %+v, %v", e, err)
		}
		began := time.Now()
		if _, err := feed.Next(); err == nil || time.Since(began) > 4*deskapi.FeedSilence {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

func TestAFeedIsKeptAliveBySilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script, err := mockdesk.ParseScript(nil)
		if err != nil {
			t.Fatal(err)
		}
		desk := mockdesk.New(script, "")
		defer desk.Close()
		c, err := client.New("http://desk.test", mockdesk.Transport(desk))
		if err != nil {
			t.Fatal(err)
		}
		feed, err := c.Feed(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer feed.Close()
		// The feed may tell of the chat before the start of it is answered.
		answered := make(chan error, 1)
		time.AfterFunc(time.Hour, func() {
			_, err := c.Start(t.Context(), "k", &deskapi.StartRequest{})
			answered <- err
		})
		if e, err := feed.Next(); err != nil || e.Type != deskapi.Started {
			t.Errorf("got %+v, %v", e, err)
		}
		if err := <-answered; err != nil {
			t.Error(err)
		}
	})
}

func TestErrorsTellWhatHappened(t *testing.T) {
	answer := func(status int, header, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if header != "" {
				w.Header().Set("Retry-After", header)
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for name, c := range map[string]struct {
		desk http.HandlerFunc
		want client.Error
	}{
		"busy":      {answer(429, "7", `{"code": "busy", "message": "later"}`), client.Error{Status: 429, RetryAfter: 7 * time.Second, Body: deskapi.Error{Code: "busy", Message: "later"}}},
		"a proxy":   {answer(502, "", `<h1>Bad Gateway</h1>`), client.Error{Status: 502}},
		"no JSON":   {answer(200, "", `hello`), client.Error{Status: 200}},
		"no number": {answer(503, "soon", `{"code": "busy"}`), client.Error{Status: 503, Body: deskapi.Error{Code: "busy"}}},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(c.desk)
			defer server.Close()
			desk, err := client.New(server.URL+"/base", nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = desk.Availability(t.Context())
			var e *client.Error
			if !errors.As(err, &e) || e.Status != c.want.Status || e.RetryAfter != c.want.RetryAfter || e.Body != c.want.Body || !e.Sent {
				t.Errorf("got %+v", err)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		server := httptest.NewServer(nil)
		server.Close()
		desk, err := client.New(server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = desk.Availability(t.Context())
		var e *client.Error
		if !errors.As(err, &e) || e.Sent || e.Status != 0 {
			t.Errorf("got %+v", err)
		}
	})
}
