package api

import (
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
)

func TestOrigins(t *testing.T) {
	const listed = "https://www.example.com"
	for _, tt := range []struct {
		name    string
		origins []string
		origin  string
		allowed bool
	}{
		{"listed", []string{listed}, listed, true},
		{"listed, other case", []string{listed}, "https://WWW.example.com", true},
		{"other scheme", []string{listed}, "http://www.example.com", false},
		{"other port", []string{listed}, listed + ":8443", false},
		{"begins alike", []string{listed}, listed + ".evil.test", false},
		{"null", []string{listed}, "null", false},
		{"any", []string{"*"}, "https://anything.test", true},
		{"none listed", nil, listed, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := serve(t, newAPI(t, Options{Sessions: newFake(t), Origins: tt.origins}))
			url := server.URL + "/v1/sessions"
			got := send(t, "POST", url, `{}`, "Origin", tt.origin)
			preflight := send(t, "OPTIONS", url, "", "Origin", tt.origin, "Access-Control-Request-Method", "POST", "Authorization", "")
			if !strings.Contains(got.Header.Get("Vary"), "Origin") {
				t.Errorf("got Vary %q", got.Header.Get("Vary"))
			}
			if !tt.allowed {
				if got.StatusCode != 403 || preflight.StatusCode != 403 || got.Header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("got %d %v, preflight %d", got.StatusCode, got.Header, preflight.StatusCode)
				}
				return
			}
			if got.StatusCode != 201 || got.Header.Get("Access-Control-Allow-Origin") != tt.origin {
				t.Errorf("got %d %v", got.StatusCode, got.Header)
			}
			h := preflight.Header
			if preflight.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != tt.origin ||
				!strings.Contains(h.Get("Access-Control-Allow-Methods"), "PATCH") ||
				!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") {
				t.Errorf("preflight: got %d %v", preflight.StatusCode, h)
			}
		})
	}
}

func TestOwnOriginIsAllowed(t *testing.T) {
	server := serve(t, newAPI(t, Options{Sessions: newFake(t)}))
	if got := send(t, "POST", server.URL+"/v1/sessions", `{}`, "Origin", server.URL); got.StatusCode != 201 {
		t.Errorf("got %d %s", got.StatusCode, got.body)
	}
	for _, other := range []string{server.URL + "0", strings.Replace(server.URL, "http://", "http://x.", 1), "127.0.0.1", "null", "http://"} {
		if got := send(t, "POST", server.URL+"/v1/sessions", `{}`, "Origin", other); got.StatusCode != 403 {
			t.Errorf("%s: got %d %s", other, got.StatusCode, got.body)
		}
	}
}

// A page can read a problem, too: the headers that let it are there.
func TestProblemsAreReadableAcrossOrigins(t *testing.T) {
	server := serve(t, newAPI(t, Options{Sessions: newFake(t), Origins: []string{"https://www.example.com"}}))
	got := send(t, "GET", server.URL+"/v1/sessions/"+testID, "", "Origin", "https://www.example.com", "Authorization", "")
	if got.StatusCode != 401 || got.Header.Get("Access-Control-Allow-Origin") != "https://www.example.com" {
		t.Errorf("got %d %v", got.StatusCode, got.Header)
	}
}

func TestBadOriginsAreRefusedAtStart(t *testing.T) {
	for _, bad := range []string{"www.example.com", "https://www.example.com/", "https://www.example.com/chat", "ftp://example.com", "https://", ""} {
		if _, err := New(Options{Origins: []string{bad}}); err == nil || !strings.Contains(err.Error(), `"`+bad+`"`) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestFiles(t *testing.T) {
	bridge := fstest.MapFS{"bridge.js": {Data: []byte("export {}")}, "bridge.d.ts": {Data: []byte("export {};")}}
	demo := fstest.MapFS{"index.html": {Data: []byte("<p>")}, "demo.css": {Data: []byte("p{}")}, "carbon/index.html": {Data: []byte("<b>")}}
	server := serve(t, newAPI(t, Options{
		Sessions: newFake(t), Bridge: bridge, Demo: demo, Origins: []string{"https://www.example.com"},
	}))

	for _, tt := range []struct{ path, mediaType, body string }{
		{"/bridge.js", "text/javascript; charset=utf-8", "export {}"},
		{"/bridge.d.ts", "text/plain; charset=utf-8", "export {};"},
		{"/", "text/html; charset=utf-8", "<p>"},
		{"/demo.css", "text/css; charset=utf-8", "p{}"},
		{"/carbon/", "text/html; charset=utf-8", "<b>"},
		{"/openapi.json", "application/json", ""},
	} {
		got := send(t, "GET", server.URL+tt.path, "", "Origin", "https://www.example.com")
		if got.StatusCode != 200 || got.Header.Get("Content-Type") != tt.mediaType || tt.body != "" && string(got.body) != tt.body {
			t.Errorf("%s: got %d %v %s", tt.path, got.StatusCode, got.Header, got.body)
		}
		if got.Header.Get("Access-Control-Allow-Origin") == "" || got.Header.Get("Cache-Control") != "no-cache" || got.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got %v", tt.path, got.Header)
		}
		tag := got.Header.Get("ETag")
		if again := send(t, "GET", server.URL+tt.path, "", "If-None-Match", tag); again.StatusCode != http.StatusNotModified || len(again.body) > 0 {
			t.Errorf("%s with its tag %s: got %d", tt.path, tag, again.StatusCode)
		}
	}
	for _, path := range []string{"/index.html", "/demo", "/carbon/x", "/docs", "/openapi.yaml", "/schemas/Info"} {
		if got := send(t, "GET", server.URL+path, ""); got.StatusCode != 404 || got.code(t) != "not_found" {
			t.Errorf("%s: got %d %s", path, got.StatusCode, got.body)
		}
	}
	if got := send(t, "POST", server.URL+"/bridge.js", "{}"); got.StatusCode != 405 || !strings.Contains(got.Header.Get("Allow"), "GET") {
		t.Errorf("POST: got %d %v", got.StatusCode, got.Header)
	}
}

func TestNoDemoUnlessAsked(t *testing.T) {
	server := serve(t, newAPI(t, Options{Sessions: newFake(t)}))
	if got := send(t, "GET", server.URL+"/", ""); got.StatusCode != 404 {
		t.Errorf("got %d", got.StatusCode)
	}
}

func TestTwoFilesOfOneNameAreRefused(t *testing.T) {
	tree := fstest.MapFS{"bridge.js": {Data: []byte("x")}}
	if _, err := New(Options{Limits: unlimited(), Bridge: tree, Demo: tree}); err == nil || !strings.Contains(err.Error(), "/bridge.js") {
		t.Errorf("got %v", err)
	}
}
