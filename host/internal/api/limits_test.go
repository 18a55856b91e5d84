package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRateAllowsAMinutesWorthAndRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRates[string](60)
		for i := range 60 {
			if wait := r.take("a"); wait != 0 {
				t.Fatalf("request %d has to wait for %v", i+1, wait)
			}
		}
		if wait := r.take("a"); wait <= 0 || wait > time.Second {
			t.Fatalf("request 61 has to wait for %v, expected up to 1 s", wait)
		}
		if wait := r.take("b"); wait != 0 {
			t.Fatal("one client's requests are counted for another")
		}
		time.Sleep(time.Second)
		if wait := r.take("a"); wait != 0 {
			t.Fatalf("after a second: still %v to wait; a refused request was counted", wait)
		}
	})
}

func TestRatesForgetTheQuietest(t *testing.T) {
	r := newRates[int](1)
	r.take(-1)
	r.take(-2)
	for i := range 10 * maxRates {
		r.take(i)
		if i%maxRates == 0 && r.take(-1) == 0 {
			t.Fatal("a busy client was forgotten")
		}
		if len(r.recent)+len(r.older) > 2*maxRates {
			t.Fatalf("%d clients are remembered", len(r.recent)+len(r.older))
		}
	}
	if r.take(-2) != 0 {
		t.Fatal("a quiet client was not forgotten")
	}
}

// What is counted for a client costs little, whatever it sends as the id of a
// session.
func TestRatesKeepNothingOfARequest(t *testing.T) {
	const requests, length = 2000, 30 << 10
	limits := unlimited()
	limits.ChatsPerMinute = 10
	a := newAPI(t, Options{Sessions: newFake(t), Limits: limits})
	defer a.Close(t.Context())
	memory := func() int64 {
		runtime.GC()
		runtime.GC() // What pools hold goes with the second.
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := memory()
	for i := range requests {
		path := fmt.Sprintf("/v1/sessions/%d%s/chat", i, strings.Repeat("x", length))
		r := httptest.NewRequest("POST", path, strings.NewReader(`{"id":"1"}`))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		if a.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
	}
	if kept := memory() - before; kept > requests*length/10 {
		t.Errorf("%d bytes are kept of %d requests", kept, requests)
	}
	runtime.KeepAlive(a)
}

func TestAddress(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, tt := range []struct{ remote, forwarded, want string }{
		{"192.0.2.1:1234", "", "192.0.2.1/32"},
		{"192.0.2.1:1234", "198.51.100.7", "192.0.2.1/32"}, // No proxy: not believed.
		{"[2001:db8:1:2:3::4]:1234", "", "2001:db8:1:2::/64"},
		{"[::ffff:192.0.2.1]:1234", "", "192.0.2.1/32"},
		{"[fe80::1%eth0]:1234", "", "fe80::/64"},
		{"10.1.1.1:80", "198.51.100.7", "198.51.100.7/32"},
		{"10.1.1.1:80", "1.1.1.1, 198.51.100.7, 10.2.2.2", "198.51.100.7/32"},
		{"[fd00::1]:80", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
		{"10.1.1.1:80", "", "10.1.1.1/32"},
		{"10.1.1.1:80", "198.51.100.7, unknown", "10.1.1.1/32"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.remote
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		if got := address(r, proxies); got.String() != tt.want {
			t.Errorf("%s, forwarded for %q: got %v, expected %s", tt.remote, tt.forwarded, got, tt.want)
		}
	}
}

func TestLimitsAnswer429(t *testing.T) {
	const own = "/v1/sessions/" + testID
	for _, tt := range []struct {
		name   string
		limit  func(*Limits)
		method string
		path   string
		body   string
		other  string // a path that goes on being served
	}{
		{"requests", func(l *Limits) { l.RequestsPerMinute = 2 }, "GET", "/openapi.json", "", ""},
		{"sessions", func(l *Limits) { l.SessionsPerMinute = 2 }, "POST", "/v1/sessions", `{}`, own},
		{"chats", func(l *Limits) { l.ChatsPerMinute = 2 }, "POST", own + "/chat", `{"id":"1"}`, own},
		{"messages", func(l *Limits) { l.MessagesPerMinute = 2 }, "POST", own + "/messages", `{"id":"1","text":"x"}`, own},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limits := unlimited()
			tt.limit(&limits)
			server := serve(t, newAPI(t, Options{Sessions: newFake(t), Limits: limits}))
			for range 2 {
				if got := send(t, tt.method, server.URL+tt.path, tt.body); got.StatusCode >= 400 {
					t.Fatalf("got %d %s within the limit", got.StatusCode, got.body)
				}
			}
			got := send(t, tt.method, server.URL+tt.path, tt.body)
			if got.StatusCode != http.StatusTooManyRequests || got.code(t) != "too_many_requests" || got.Header.Get("Retry-After") == "" {
				t.Errorf("over the limit: got %d %s, Retry-After %q", got.StatusCode, got.body, got.Header.Get("Retry-After"))
			}
			if tt.other != "" {
				if got := send(t, "GET", server.URL+tt.other, ""); got.StatusCode != http.StatusOK {
					t.Errorf("another call: got %d %s", got.StatusCode, got.body)
				}
			}
		})
	}
}
