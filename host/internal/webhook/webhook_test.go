package webhook

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	"github.com/deskhost/deskhost/host/internal/desk"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// plugin is a generation that takes webhooks by a function.
type plugin struct {
	desk.Generation
	capabilities []deskv1.Capability
	handle       func(context.Context, *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error)
}

func (p *plugin) Desk() string { return "support" }

func (p *plugin) Describe() *deskv1.DescribeResponse {
	return &deskv1.DescribeResponse{Name: "test", Version: "1.0.0", Capabilities: p.capabilities}
}

func (p *plugin) HandleHTTP(ctx context.Context, req *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error) {
	return p.handle(ctx, req)
}

// taking returns a plugin that takes webhooks.
func taking(handle func(context.Context, *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error)) *plugin {
	return &plugin{capabilities: []deskv1.Capability{deskv1.Capability_CAPABILITY_HTTP}, handle: handle}
}

func failing(err error) *plugin {
	return taking(func(context.Context, *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error) { return nil, err })
}

func answering(status uint32, body []byte) *plugin {
	return taking(func(context.Context, *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error) {
		return &deskv1.HandleHTTPResponse{Status: status, Body: body}, nil
	})
}

// desks knows "support", served by a plugin, and "starting", served by none.
type desks struct{ support desk.Generation }

func (d desks) Current(name string) (desk.Generation, bool) {
	switch name {
	case "support":
		return d.support, true
	case "starting":
		return nil, true
	}
	return nil, false
}

func handler(g desk.Generation) *Handler {
	return New(Options{Desks: desks{g}, Log: hclog.NewNullLogger()})
}

func TestRequestAndAnswerPassAsTheyAre(t *testing.T) {
	var got *deskv1.HandleHTTPRequest
	g := taking(func(ctx context.Context, req *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("a call without a deadline")
		}
		got = req
		return &deskv1.HandleHTTPResponse{
			Status: 418,
			Headers: []*deskv1.HTTPHeader{
				{Name: "content-type", Value: "text/xml"}, {Name: "Set-Cookie", Value: "a=b"}, {Name: "ETag", Value: `"t"`},
				{Name: "Access-Control-Allow-Origin", Value: "*"}, {Name: "Content-Security-Policy", Value: "none"}, {Name: "Retry-After", Value: "7"},
			},
			Body: []byte("<r/>"),
		}, nil
	})
	server := httptest.NewServer(handler(g))
	defer server.Close()

	body := []byte("\x00raw\xff")
	req, err := http.NewRequest("PUT", server.URL+"/webhooks/support/a%2Fb//c;d/?q=%20+&q=2", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	passing := map[string]string{
		"X-Twilio-Signature": "s1", "I-Twilio-Idempotency-Token": "s2", "X-Hub-Signature-256": "s3", "Webhook-Signature": "s4",
		"Authorization": "Bearer vendor", "Content-Type": "application/x-www-form-urlencoded", "Accept": "text/xml", "User-Agent": "vendor/1",
	}
	for name, value := range passing {
		req.Header.Set(name, value)
	}
	for _, name := range []string{"Cookie", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Origin", "Referer", "Accept-Language"} {
		req.Header.Set(name, "kept back")
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}

	if got.GetMethod() != "PUT" || got.GetPath() != "a%2Fb//c;d/" || got.GetQuery() != "q=%20+&q=2" || !bytes.Equal(got.GetBody(), body) || got.GetRemoteAddress() == "" {
		t.Errorf("the plugin got %v", got)
	}
	for _, h := range got.GetHeaders() {
		if passing[h.GetName()] != h.GetValue() {
			t.Errorf("the plugin got the header %s: %s", h.GetName(), h.GetValue())
		}
		delete(passing, h.GetName())
	}
	if len(passing) > 0 {
		t.Errorf("the plugin did not get the headers %v", passing)
	}

	if resp.StatusCode != 418 || string(answer) != "<r/>" {
		t.Errorf("got %d %s", resp.StatusCode, answer)
	}
	want := map[string]string{
		"Content-Type": "text/xml", "Etag": `"t"`, "Retry-After": "7", "Set-Cookie": "", "Access-Control-Allow-Origin": "",
		"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox",
	}
	for name, value := range want {
		if resp.Header.Get(name) != value {
			t.Errorf("got %s: %q, expected %q", name, resp.Header.Get(name), value)
		}
	}
}

func TestRefusals(t *testing.T) {
	call := func(kind deskv1.FailureKind) desk.Generation {
		return failing(fmt.Errorf("wrapped: %w", &desk.CallError{Kind: kind, RetryAfter: 9 * time.Second, Err: errors.New("secret")}))
	}
	big := bytes.Repeat([]byte("x"), deskv1.MaxHTTPBytes+1)
	for _, tt := range []struct {
		name   string
		path   string
		g      desk.Generation
		body   []byte
		status int
		code   string
		retry  string
	}{
		{"unknown desk", "/webhooks/nobody/x", answering(200, nil), nil, 404, "not_found", ""},
		{"no desk", "/webhooks/", answering(200, nil), nil, 404, "not_found", ""},
		{"other path", "/elsewhere/support/x", answering(200, nil), nil, 404, "not_found", ""},
		{"desk not ready", "/webhooks/starting/x", answering(200, nil), nil, 503, "desk_unavailable", "5"},
		{"no capability", "/webhooks/support/x", &plugin{}, nil, 404, "not_found", ""},
		{"body over the limit", "/webhooks/support/x", answering(200, nil), big, 413, "body_too_large", ""},
		{"plugin wants a retry", "/webhooks/support/x", call(deskv1.FailureKind_FAILURE_KIND_RETRY), nil, 503, "desk_unavailable", "9"},
		{"plugin does not accept", "/webhooks/support/x", call(deskv1.FailureKind_FAILURE_KIND_INVALID), nil, 400, "bad_request", ""},
		{"plugin has no such function", "/webhooks/support/x", call(deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED), nil, 404, "not_found", ""},
		{"plugin died", "/webhooks/support/x", call(deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN), nil, 502, "plugin_failed", ""},
		{"anything else", "/webhooks/support/x", failing(errors.New("secret")), nil, 502, "plugin_failed", ""},
		{"no status", "/webhooks/support/x", answering(0, nil), nil, 502, "bad_response", ""},
		{"impossible status", "/webhooks/support/x", answering(600, nil), nil, 502, "bad_response", ""},
		{"informational status", "/webhooks/support/x", answering(101, nil), nil, 502, "bad_response", ""},
		{"answer over the limit", "/webhooks/support/x", answering(200, big), nil, 502, "bad_response", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			handler(tt.g).ServeHTTP(w, httptest.NewRequest("POST", tt.path, bytes.NewReader(tt.body)))
			var problem struct{ Code string }
			if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil {
				t.Fatal(err, w.Body)
			}
			if w.Code != tt.status || problem.Code != tt.code || w.Header().Get("Retry-After") != tt.retry {
				t.Errorf("got %d %s, Retry-After %q", w.Code, w.Body, w.Header().Get("Retry-After"))
			}
			if strings.Contains(w.Body.String(), "secret") || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("got %v %s", w.Header(), w.Body)
			}
		})
	}
}

func TestBodyAtTheLimitPasses(t *testing.T) {
	body := bytes.Repeat([]byte("x"), deskv1.MaxHTTPBytes)
	w := httptest.NewRecorder()
	handler(answering(200, body)).ServeHTTP(w, httptest.NewRequest("POST", "/webhooks/support/x", bytes.NewReader(body)))
	if w.Code != 200 || w.Body.Len() != len(body) {
		t.Errorf("got %d, %d bytes", w.Code, w.Body.Len())
	}
}

func TestSlowPluginIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := taking(func(ctx context.Context, _ *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		start := time.Now()
		w := httptest.NewRecorder()
		handler(g).ServeHTTP(w, httptest.NewRequest("POST", "/webhooks/support/x", nil))
		if w.Code != http.StatusGatewayTimeout || time.Since(start) != timeout {
			t.Errorf("got %d after %v", w.Code, time.Since(start))
		}
	})
}

// pipe is a listener with one connection.
type pipe chan net.Conn

func (p pipe) Accept() (net.Conn, error) {
	conn, open := <-p
	if !open {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (p pipe) Close() error   { return nil }
func (p pipe) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// Who stalls, with a body or in reading the answer, is given up.
func TestStalledRequestsAreGivenUp(t *testing.T) {
	big := answering(200, bytes.Repeat([]byte("x"), deskv1.MaxHTTPBytes))
	for _, tt := range []struct {
		name   string
		target string
		body   string // with the headers that tell its length
		read   bool   // whether the answer is read
		status int
		within time.Duration
	}{
		{"body of a webhook", "/webhooks/support/x", "Content-Length: 10\r\n\r\n123", true, 408, timeout},
		{"body over the limit", "/webhooks/support/x", "Transfer-Encoding: chunked\r\n\r\n100001\r\n" + strings.Repeat("x", 0x100001) + "\r\n", true, 413, timeout},
		{"body for no desk", "/webhooks/nobody/x", "Content-Length: 10\r\n\r\n", true, 404, timeout},
		{"answer", "/webhooks/support/x", "\r\n", false, 0, answerTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer ours.Close()
				_ = ours.SetDeadline(time.Now().Add(time.Hour)) // so that a test fails in place of waiting
				conns := make(pipe, 1)
				conns <- theirs
				h := handler(big)
				server := &http.Server{Handler: h}
				go server.Serve(conns)
				defer server.Close()
				defer close(conns)

				go fmt.Fprintf(ours, "POST %s HTTP/1.1\r\nHost: host\r\n%s", tt.target, tt.body)
				start := time.Now()
				if tt.read {
					resp, err := http.ReadResponse(bufio.NewReader(ours), nil)
					if err != nil || resp.StatusCode != tt.status {
						t.Fatalf("got %v, %v", resp, err)
					}
				} else {
					time.Sleep(tt.within + time.Second)
				}
				if n, err := io.Copy(io.Discard, ours); err != nil || n >= deskv1.MaxHTTPBytes {
					t.Errorf("at the end of the connection: %v, after %d bytes", err, n)
				}
				if waited := time.Since(start); waited > tt.within+time.Second {
					t.Errorf("the connection was closed after %v", waited)
				}
				synctest.Wait()
				h.mu.Lock()
				defer h.mu.Unlock()
				if n := h.underWay["support"]; n != 0 {
					t.Errorf("%d requests are under way", n)
				}
			})
		})
	}
}

// What is not UTF-8 does not keep a webhook from its plugin.
func TestWhatIsNotUTF8Passes(t *testing.T) {
	g := taking(func(_ context.Context, req *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error) {
		if _, err := proto.Marshal(req); err != nil {
			return nil, err
		}
		return &deskv1.HandleHTTPResponse{Status: 200, Body: []byte(req.GetQuery() + " " + req.GetHeaders()[0].GetValue())}, nil
	})
	r := httptest.NewRequest("POST", "/webhooks/support/x?a=caf\xe9", nil)
	r.Header.Set("User-Agent", "Vendor \xa9")
	w := httptest.NewRecorder()
	handler(g).ServeHTTP(w, r)
	if w.Code != 200 || w.Body.String() != "a=caf\uFFFD Vendor \uFFFD" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// One desk may have so many requests under way, and the next one is refused
// until one of them is done.
func TestCapOfADesk(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	h := handler(taking(func(context.Context, *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error) {
		entered <- struct{}{}
		<-release
		return &deskv1.HandleHTTPResponse{Status: 200}, nil
	}))
	call := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/webhooks/support/x", nil))
		return w.Code
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		codes []int
	)
	for range maxUnderWay {
		wg.Go(func() {
			code := call()
			mu.Lock()
			codes = append(codes, code)
			mu.Unlock()
		})
		<-entered
	}
	if code := call(); code != http.StatusServiceUnavailable {
		t.Errorf("one too many: got %d", code)
	}
	close(release)
	wg.Wait()
	if slices.ContainsFunc(codes, func(c int) bool { return c != 200 }) {
		t.Errorf("got %v", codes)
	}
	go func() { <-entered }()
	if code := call(); code != 200 {
		t.Errorf("when all are done: got %d", code)
	}
}
