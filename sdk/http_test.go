package sdk

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

func headersOf(r *deskv1.HandleHTTPResponse) http.Header {
	h := http.Header{}
	for _, line := range r.GetHeaders() {
		h.Add(line.GetName(), line.GetValue())
	}
	return h
}

func TestAForwardedRequestArrivesAsItCame(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got := fmt.Sprintf("%s %s %s %q %v %s %s %d", r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header["X-Signature"],
			r.Host, r.RemoteAddr, body, r.ContentLength)
		want := `POST //a%2Fb/c x=1&x=%20 ["s1" "s2"] chat.example.com 192.0.2.1:99 {} 2`
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if r.RequestURI != "//a%2Fb/c?x=1&x=%20" {
			t.Errorf("RequestURI %s", r.RequestURI)
		}
		w.Header().Set("X-Kept", "1")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusCreated)
		w.WriteHeader(http.StatusTeapot) // too late, as in net/http
		w.Header().Set("X-Late", "1")
		if _, err := io.WriteString(w, "done"); err != nil {
			t.Error(err)
		}
	})
	resp := serveHTTP(t.Context(), h, &deskv1.HandleHTTPRequest{
		Method: "POST", Path: "/a%2Fb/c", Query: "x=1&x=%20", Body: []byte("{}"), RemoteAddress: "192.0.2.1:99",
		Headers: []*deskv1.HTTPHeader{
			{Name: "x-signature", Value: "s1"}, {Name: "X-Signature", Value: "s2"}, {Name: "Host", Value: "chat.example.com"},
		},
	})
	header := headersOf(resp)
	if resp.GetStatus() != http.StatusCreated || string(resp.GetBody()) != "done" ||
		header.Get("X-Kept") != "1" || header.Get("X-Late") != "" {
		t.Errorf("answer %v", resp)
	}
}

func TestAnswersOfAHandler(t *testing.T) {
	write := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for range n >> 10 {
				_, _ = w.Write(make([]byte, 1<<10))
			}
		}
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		status  uint32
		size    int
		text    string
	}{
		"nothing":         {func(http.ResponseWriter, *http.Request) {}, 200, 0, ""},
		"at the limit":    {write(deskv1.MaxHTTPBytes), 200, deskv1.MaxHTTPBytes, ""},
		"over the limit":  {write(deskv1.MaxHTTPBytes + 1<<10), 500, -1, "over the limit of 1048576 bytes"},
		"headers too big": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", maxHeaderBytes)) }, 500, -1, "headers"},
		"no such status":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(700) }, 500, -1, "status 700"},
	} {
		t.Run(name, func(t *testing.T) {
			resp := serveHTTP(t.Context(), test.handler, &deskv1.HandleHTTPRequest{Method: "GET"})
			if resp.GetStatus() != test.status || (test.size >= 0 && len(resp.GetBody()) != test.size) {
				t.Errorf("status %d with %d bytes", resp.GetStatus(), len(resp.GetBody()))
			}
			if test.text != "" && !strings.Contains(string(resp.GetBody()), test.text) {
				t.Errorf("body %q, want it to say %q", resp.GetBody(), test.text)
			}
		})
	}
}

func TestAForwardedRequestThatCannotBeRead(t *testing.T) {
	h := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })
	for _, req := range []*deskv1.HandleHTTPRequest{{Method: "GET", Path: "%zz"}, {Method: "B AD"}} {
		if resp := serveHTTP(t.Context(), h, req); resp.GetStatus() != http.StatusBadRequest {
			t.Errorf("%v: status %d, want 400", req, resp.GetStatus())
		}
	}
}
