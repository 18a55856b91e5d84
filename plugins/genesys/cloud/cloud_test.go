package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

func parse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestTrustedAddresses(t *testing.T) {
	region := InRegion("mypurecloud.de")
	api := parse(t, "http://127.0.0.1:9000")
	plain := Endpoints{API: api, Sockets: parse(t, "ws://127.0.0.1:9000")}
	secure := Endpoints{API: parse(t, "https://api.example.com"), Sockets: parse(t, "wss://ws.example.com")}
	for _, c := range []struct {
		at      Endpoints
		address string
		want    bool
	}{
		{region, "wss://streaming.mypurecloud.de/channels/x", true},
		{region, "wss://api.mypurecloud.de/x", true},
		{region, "ws://streaming.mypurecloud.de/x", false},
		{region, "wss://streaming.mypurecloud.de:444/x", false},
		{region, "wss://evilmypurecloud.de/x", false},
		{region, "wss://mypurecloud.de.evil.example/x", false},
		{region, "wss://u@streaming.mypurecloud.de/x", false},
		{plain, "ws://127.0.0.1:9000/x", true},
		{plain, "ws://127.0.0.1:9001/x", false},
		{plain, "http://127.0.0.1:9000/x", false},
		{secure, "wss://api.example.com/x", true},
		{secure, "ws://api.example.com/x", false},
		{secure, "wss://streaming.example.com/x", false},
	} {
		if got := c.at.trusts(parse(t, c.address)); got != c.want {
			t.Errorf("%s: %t", c.address, got)
		}
	}
}

// service is a login and a queue.
type service struct {
	logins  int
	expires int
	reject  map[string]bool // tokens
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/oauth/token" {
		id, secret, _ := r.BasicAuth()
		body, _ := io.ReadAll(r.Body)
		if id != "client" || secret != "s%3Ae" || string(body) != "grant_type=client_credentials" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"invalid_client","description":"client authentication failed"}`)
			return
		}
		s.logins++
		fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"bearer","expires_in":%d}`, s.logins, s.expires)
		return
	}
	if token := r.Header.Get("Authorization"); token != fmt.Sprintf("Bearer token-%d", s.logins) || s.reject[token] {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodGet {
		_, _ = io.WriteString(w, `{"results":[{"intent":"ALL","formula":"BEST","estimatedWaitTimeSeconds":90}]}`)
		return
	}
	_, _ = io.WriteString(w, `{"results":[{"group":{"queueId":"q"},"data":[
		{"metric":"oOnQueueUsers","qualifier":"IDLE","stats":{"count":2}},{"metric":"oOnQueueUsers","qualifier":"INTERACTING","stats":{"count":1}},
		{"metric":"oOnQueueUsers","qualifier":"OFF_QUEUE","stats":{"count":9}},{"metric":"oWaiting","stats":{"count":7}}]}]}`)
}

func login(t *testing.T, s *service, secret string) *OAuth {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	u := parse(t, server.URL)
	return NewOAuth(New(Endpoints{API: u, Login: u}, "", nil), "client", secret)
}

func TestTokensAreKeptAndRenewed(t *testing.T) {
	s := &service{expires: 3600}
	o := login(t, s, "s:e")
	ask := func(wantLogins int) {
		t.Helper()
		if n, err := o.AgentsOnQueue(t.Context(), "q"); err != nil || n != 3 {
			t.Errorf("%d agents, %v", n, err)
		}
		if wait, err := o.EstimatedWait(t.Context(), "q"); err != nil || wait != 90*time.Second {
			t.Errorf("a wait of %s, %v", wait, err)
		}
		if s.logins != wantLogins {
			t.Errorf("%d logins, want %d", s.logins, wantLogins)
		}
	}
	ask(1)
	ask(1)
	s.reject = map[string]bool{"Bearer token-1": true} // withdrawn
	ask(2)
	s.expires = 1 // the next one is as good as expired
	s.reject["Bearer token-2"] = true
	ask(4)
}

func TestWrongCredentials(t *testing.T) {
	o := login(t, &service{}, "wrong")
	e := (*Error)(nil)
	if err := o.Login(t.Context()); !errors.As(err, &e) || e.Status != http.StatusUnauthorized || e.Code != "invalid_client" {
		t.Errorf("%v", err)
	}
}

func TestTheProxyIsUsed(t *testing.T) {
	asked := make(chan string, 2)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.URL.Host + r.Host
		w.WriteHeader(http.StatusTeapot)
	}))
	defer proxy.Close()
	c := New(Endpoints{}, "", parse(t, proxy.URL))
	e := (*Error)(nil)
	if err := c.Call(t.Context(), http.MethodGet, parse(t, "http://desk.invalid/x"), "", nil, nil); !errors.As(err, &e) || e.Status != http.StatusTeapot {
		t.Errorf("%v", err)
	}
	if got := <-asked; got != "GET desk.invaliddesk.invalid" {
		t.Error(got)
	}
	if _, err := c.Dial(t.Context(), parse(t, "ws://desk.invalid/v1"), time.Minute); err == nil {
		t.Error("connected")
	}
	if got := <-asked; got != "CONNECT desk.invalid:80desk.invalid:80" {
		t.Error(got)
	}
}

func TestNeverSent(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	u := parse(t, server.URL)
	server.Close()
	err := New(Endpoints{}, "", nil).Call(t.Context(), http.MethodGet, u, "", nil, nil)
	if e := (*Error)(nil); !errors.As(err, &e) || e.Status != 0 || e.Sent {
		t.Errorf("%+v", err)
	}
}

// TestASocketOverTLS has frames go both ways, and a connection that falls silent.
func TestASocketOverTLS(t *testing.T) {
	upgrader := websocket.Upgrader{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, frame, err := conn.ReadMessage()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.WriteMessage(websocket.TextMessage, frame)
		<-r.Context().Done() // and no answer to pings
	}))
	defer server.Close()
	u := parse(t, "wss"+strings.TrimPrefix(server.URL, "https"))
	c := New(Endpoints{}, "", nil)
	c.dialer.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig
	s, err := c.Dial(t.Context(), u, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Write(t.Context(), map[string]string{"text": "Grüße"}); err != nil {
		t.Fatal(err)
	}
	s.silence = 50 * time.Millisecond // behind the next frame
	if frame, err := s.Read(); err != nil || string(frame) != `{"text":"Grüße"}` {
		t.Errorf("%s, %v", frame, err)
	}
	if err := s.Ping(time.Minute); err != nil {
		t.Error(err)
	}
	e := (*Error)(nil)
	if frame, err := s.Read(); !errors.As(err, &e) {
		t.Errorf("%s, %v from a dead connection", frame, err)
	}
}

// TestDialEndsWithItsContext has a server that takes a connection and says nothing.
func TestDialEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		u := parse(t, "ws://desk.invalid")
		c := New(Endpoints{API: u, Sockets: u}, "", nil)
		c.dialer.NetDialContext = func(context.Context, string, string) (net.Conn, error) {
			near, silent := net.Pipe()
			go func() {
				_, _ = silent.Read(make([]byte, 1)) // the handshake has begun
				cancel()
				_, _ = io.Copy(io.Discard, silent) // until the dialer gives up
				_ = silent.Close()
			}()
			return near, nil
		}
		began := time.Now()
		if _, err := c.Dial(ctx, u, time.Minute); err == nil {
			t.Error("connected")
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("the dialer waits for an answer although its context has ended, for %s", waited)
		}
	})
}

// TestNothingArrivesBehindAClose has the vendor's side see a reset, with which the
// system discards what is not on its way yet.
func TestNothingArrivesBehindAClose(t *testing.T) {
	ended := make(chan error, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			ended <- err
			return
		}
		defer conn.Close()
		_, err = io.Copy(io.Discard, conn.NetConn())
		ended <- err
	}))
	defer server.Close()
	u := parse(t, "ws"+strings.TrimPrefix(server.URL, "http"))
	s, err := New(Endpoints{API: u, Sockets: u}, "", nil).Dial(t.Context(), u, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), "Hello"); err != nil {
		t.Error(err)
	}
	s.Close()
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ended with %v", err)
	}
}
