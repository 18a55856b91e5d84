package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/deskhost/deskhost/host/internal/session"
)

const eventsURL = "/v1/sessions/" + testID + "/events"

// dial opens a socket as a browser does.
func dial(t testing.TB, d *websocket.Dialer, url string) *websocket.Conn {
	t.Helper()
	d.Subprotocols = []string{subprotocol, tokenProtocol + testToken}
	c, resp, err := d.Dial("ws"+strings.TrimPrefix(url, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if got := resp.Header["Sec-Websocket-Protocol"]; len(got) != 1 || got[0] != subprotocol {
		t.Fatalf("the server chose the subprotocols %q", got)
	}
	return c
}

// next reads one event.
func next(c *websocket.Conn) (Event, error) {
	var e Event
	kind, b, err := c.ReadMessage()
	if err != nil {
		return e, err
	}
	if kind != websocket.TextMessage {
		return e, fmt.Errorf("got a message of kind %d", kind)
	}
	return e, json.Unmarshal(b, &e)
}

// wantSeqs reads events and expects the seqs from to to, in order.
func wantSeqs(c *websocket.Conn, from, to uint64) error {
	for want := from; want <= to; want++ {
		e, err := next(c)
		if err != nil {
			return err
		}
		if e.Seq != want {
			return fmt.Errorf("got seq %d, expected %d", e.Seq, want)
		}
	}
	return nil
}

// wantClose expects the server's close frame next.
func wantClose(t testing.TB, c *websocket.Conn, code int) {
	t.Helper()
	_, err := next(c)
	if !websocket.IsCloseError(err, code) {
		t.Errorf("got %v, expected close code %d", err, code)
	}
}

func TestSocketReplaysThenGoesOn(t *testing.T) {
	f := newFake(t)
	for range 200 {
		f.write(said("old"))
	}
	server := serve(t, newAPI(t, Options{Sessions: f}))

	c := dial(t, &websocket.Dialer{}, server.URL+eventsURL+"?after=50")
	for range 100 {
		f.write(said("new"))
	}
	if err := wantSeqs(c, 51, 300); err != nil {
		t.Fatal(err)
	}
	f.pass(session.News{ChatID: testChat, Time: testTime, Typing: &session.Typing{Typing: true}})
	if e, err := next(c); err != nil || e.Type != "agent_typing" || e.Seq != 0 {
		t.Fatalf("got %+v, %v", e, err)
	}
	f.write(said("after the news"))
	if err := wantSeqs(c, 301, 301); err != nil {
		t.Fatal(err)
	}
}

func TestSocketTakesTheHeaderToo(t *testing.T) {
	f := newFake(t)
	f.write(said("x"))
	server := serve(t, newAPI(t, Options{Sessions: f}))
	d := websocket.Dialer{Subprotocols: []string{subprotocol}}
	c, _, err := d.Dial("ws"+strings.TrimPrefix(server.URL, "http")+eventsURL, http.Header{"Authorization": {"Bearer " + testToken}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := wantSeqs(c, 1, 1); err != nil {
		t.Fatal(err)
	}
}

// What can be refused is refused with a problem, before the upgrade.
func TestSocketIsRefusedReadably(t *testing.T) {
	limits := unlimited()
	limits.SocketsPerSession = 1
	f := newFake(t)
	server := serve(t, newAPI(t, Options{Sessions: f, Limits: limits}))
	url := "ws" + strings.TrimPrefix(server.URL, "http")
	good := []string{subprotocol, tokenProtocol + testToken}

	for _, tt := range []struct {
		name      string
		path      string
		protocols []string
		header    http.Header
		status    int
		code      string
	}{
		{"no token", eventsURL, []string{subprotocol}, nil, 401, "token_missing"},
		{"empty token", eventsURL, []string{subprotocol, "bearer."}, nil, 401, "token_missing"},
		{"wrong token", eventsURL, []string{subprotocol, tokenProtocol + marker}, nil, 401, "token_wrong"},
		{"token in query", eventsURL + "?token=" + marker, good, nil, 400, "token_in_query"},
		{"no version", eventsURL, []string{tokenProtocol + testToken}, nil, 400, "bad_request"},
		{"unknown session", "/v1/sessions/" + marker + "/events", good, nil, 404, "session_unknown"},
		{"after not a number", eventsURL + "?after=" + marker, good, nil, 400, "bad_request"},
		{"foreign origin", eventsURL, good, http.Header{"Origin": {"https://" + marker + ".test"}}, 403, "origin_not_allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := websocket.Dialer{Subprotocols: tt.protocols}
			_, resp, err := d.Dial(url+tt.path, tt.header)
			if !errors.Is(err, websocket.ErrBadHandshake) {
				t.Fatalf("got %v", err)
			}
			body, _ := io.ReadAll(resp.Body)
			if got := (gotAnswer{resp, body}); resp.StatusCode != tt.status || got.code(t) != tt.code {
				t.Errorf("got %d %s", resp.StatusCode, body)
			}
			if strings.Contains(string(body), marker) {
				t.Errorf("the answer repeats what was sent: %s", body)
			}
		})
	}

	t.Run("not a handshake", func(t *testing.T) {
		got := send(t, "GET", server.URL+eventsURL, "", "Connection", "Upgrade", "Upgrade", "websocket",
			"Sec-WebSocket-Version", "13", "Sec-WebSocket-Protocol", subprotocol, "Sec-WebSocket-Key", marker)
		if got.StatusCode != 400 || got.code(t) != "bad_request" || strings.Contains(string(got.body), marker) {
			t.Errorf("got %d %s", got.StatusCode, got.body)
		}
	})

	t.Run("too many", func(t *testing.T) {
		first := dial(t, &websocket.Dialer{}, server.URL+eventsURL)
		got := send(t, "GET", server.URL+eventsURL, "", "Accept", "text/event-stream")
		if got.StatusCode != 429 || got.code(t) != "too_many_requests" || got.Header.Get("Retry-After") == "" {
			t.Errorf("got %d %s", got.StatusCode, got.body)
		}
		for range len(f.closed) {
			<-f.closed
		}
		_ = first.Close()
		<-f.closed
		// The place is free as soon as the feed's closer has counted it out.
		for {
			c, _, err := (&websocket.Dialer{Subprotocols: good}).Dial(url+eventsURL, nil)
			if err == nil {
				_ = c.Close()
				break
			}
			if !errors.Is(err, websocket.ErrBadHandshake) {
				t.Fatal(err)
			}
		}
	})
}

func TestCloseCodes(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		code int
	}{
		{"session deleted", &session.Error{Code: session.CodeSessionUnknown, Detail: "Gone."}, closeGone},
		{"journal failed", errors.New("disk"), websocket.CloseInternalServerErr},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			server := serve(t, newAPI(t, Options{Sessions: f}))
			f.write(said("x"))
			c := dial(t, &websocket.Dialer{}, server.URL+eventsURL)
			if err := wantSeqs(c, 1, 1); err != nil {
				t.Fatal(err)
			}
			f.failWith(tt.err)
			wantClose(t, c, tt.code)
			<-f.closed
		})
	}
}

// Close ends every socket and stream politely and waits for them.
func TestCloseEndsAll(t *testing.T) {
	f := newFake(t)
	f.write(said("x"))
	a := newAPI(t, Options{Sessions: f})
	server := serve(t, a)
	c := dial(t, &websocket.Dialer{}, server.URL+eventsURL)
	s := openStream(t, server.URL+eventsURL)
	if err := wantSeqs(c, 1, 1); err != nil {
		t.Fatal(err)
	}
	s.want(t, "1")

	closed := make(chan error)
	go func() { closed <- a.Close(context.Background()) }()
	wantClose(t, c, websocket.CloseServiceRestart)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if n := f.openFeeds(); n != 0 {
		t.Errorf("%d feeds are open after Close", n)
	}
	if _, err := s.next(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream's end: got %v", err)
	}
	got := send(t, "GET", server.URL+eventsURL, "", "Accept", "text/event-stream")
	if got.StatusCode != 503 || got.code(t) != "stopping" {
		t.Errorf("a stream after Close: got %d %s", got.StatusCode, got.body)
	}
}

func TestChattyClientIsShownTheDoor(t *testing.T) {
	f := newFake(t)
	server := serve(t, newAPI(t, Options{Sessions: f}))
	c := dial(t, &websocket.Dialer{}, server.URL+eventsURL)
	for range maxUnasked {
		if err := c.WriteMessage(websocket.TextMessage, []byte("hello?")); err != nil {
			t.Fatal(err)
		}
	}
	wantClose(t, c, websocket.ClosePolicyViolation)
	<-f.closed

	c = dial(t, &websocket.Dialer{}, server.URL+eventsURL)
	if err := c.WriteMessage(websocket.BinaryMessage, make([]byte, maxInbound+1)); err != nil {
		t.Fatal(err)
	}
	wantClose(t, c, websocket.CloseMessageTooBig)
	<-f.closed
}

// A reader that has stopped reading is dropped after its deadline, and nobody
// else waits for it.
func TestSlowReaderHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p, stop := servePipes(t, newAPI(t, Options{Sessions: f}))
		defer stop()
		slow := dial(t, &websocket.Dialer{NetDialContext: p.Dial}, "http://host"+eventsURL)
		fast := dial(t, &websocket.Dialer{NetDialContext: p.Dial}, "http://host"+eventsURL)

		// The writer to slow blocks on its pipe from now on.
		start := time.Now()
		for range 1000 {
			f.write(said("x"))
		}
		if err := wantSeqs(fast, 1, 1000); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited > 0 {
			t.Errorf("the fast reader waited for %v", waited)
		}
		<-f.closed
		if waited := time.Since(start); waited != DefaultLimits().SocketWrite {
			t.Errorf("the slow reader was dropped after %v", waited)
		}
		if _, err := next(slow); err == nil || websocket.IsCloseError(err, websocket.CloseServiceRestart) {
			t.Errorf("the slow reader got %v", err)
		}
		f.write(said("x"))
		if err := wantSeqs(fast, 1001, 1001); err != nil {
			t.Fatal(err)
		}
		_ = fast.Close()
		<-f.closed
	})
}

// A socket that answers pings lives for hours of silence; one that does not is
// dropped, whichever slot it is in.
func TestSilentSocketsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p, stop := servePipes(t, newAPI(t, Options{Sessions: f}))
		defer stop()
		d := &websocket.Dialer{NetDialContext: p.Dial}
		alive := dial(t, d, "http://host"+eventsURL)
		pings := 0
		answer := alive.PingHandler()
		alive.SetPingHandler(func(data string) error { pings++; return answer(data) })
		got := make(chan error)
		go func() { got <- wantSeqs(alive, 1, 1) }()

		start := time.Now()
		silent := dial(t, d, "http://host"+eventsURL)
		silent.SetPingHandler(func(string) error { return nil })
		go func() { _, _ = next(silent) }()

		<-f.closed
		// The first ping comes within an interval, the third would be two later.
		waited, interval := time.Since(start), DefaultLimits().PingInterval
		if waited < 2*interval || waited > 3*interval {
			t.Errorf("the silent socket was dropped after %v", waited)
		}
		time.Sleep(2 * time.Hour)
		if f.openFeeds() != 1 {
			t.Fatal("the answering socket was dropped")
		}
		f.write(said("x"))
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		if want := int(time.Since(start) / DefaultLimits().PingInterval); pings < want-1 || pings > want+1 {
			t.Errorf("got %d pings in %v", pings, time.Since(start))
		}
		_ = alive.Close()
		<-f.closed
	})
}

// A client on a slow line that takes each entry within its deadline is not taken
// for silent while the pings wait behind them.
func TestSlowButSteadyReaderStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const entries = maxPull
		f := newFake(t)
		for range entries {
			f.write(said("x"))
		}
		p, stop := servePipes(t, newAPI(t, Options{Sessions: f}))
		defer stop()
		c := dial(t, &websocket.Dialer{NetDialContext: p.Dial}, "http://host"+eventsURL)
		for seq := range uint64(entries) {
			time.Sleep(DefaultLimits().SocketWrite - time.Second)
			if err := wantSeqs(c, seq+1, seq+1); err != nil {
				t.Fatalf("entry %d: %v", seq+1, err)
			}
		}
		_ = c.Close()
		<-f.closed
	})
}

// When its context ends first, Close cuts whoever does not go.
func TestCloseCutsWhoeverStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := newAPI(t, Options{Sessions: f})
		p, stop := servePipes(t, a)
		defer stop()
		dial(t, &websocket.Dialer{NetDialContext: p.Dial}, "http://host"+eventsURL)
		conn, err := p.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: host\r\nAccept: text/event-stream\r\nAuthorization: Bearer %s\r\n\r\n", eventsURL, testToken); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // Both are open, and neither reads.
		f.write(said("x"))
		synctest.Wait()

		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		if err := a.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("Close took %v", waited)
		}
		if f.openFeeds() != 0 {
			t.Error("feeds are open after Close")
		}
	})
}

// A client that has been told good-bye cannot stay by sending pongs.
func TestCloseDoesNotWaitForAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := newAPI(t, Options{Sessions: f})
		p, stop := servePipes(t, a)
		defer stop()
		c := dial(t, &websocket.Dialer{NetDialContext: p.Dial}, "http://host"+eventsURL)
		c.SetCloseHandler(func(int, string) error {
			return c.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Second))
		})
		go func() { _, _ = next(c) }()
		start := time.Now()
		if err := a.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != closeWait {
			t.Errorf("Close took %v", waited)
		}
	})
}

// closingConn is a connection on which nothing can be written behind a close frame.
type closingConn struct {
	conn

	closes   []int
	isClosed bool
}

func (c *closingConn) WriteText([]byte, time.Time) error { return c.write(0) }
func (c *closingConn) WriteClose(code int, _ string, _ time.Time) error {
	return c.write(code)
}

func (c *closingConn) write(code int) error {
	if len(c.closes) > 0 {
		return websocket.ErrCloseSent
	}
	c.closes = append(c.closes, code)
	return nil
}

func (c *closingConn) SetReadDeadline(time.Time) error { return nil }

func (c *closingConn) Close() error {
	c.isClosed = true
	return nil
}

// deletedFeed is of a session that is deleted, of which there is news while it is
// looked at.
type deletedFeed struct{ wake func() }

func (f *deletedFeed) Pull(int) ([]session.News, error) {
	f.wake()
	return nil, &session.Error{Code: session.CodeSessionUnknown}
}
func (f *deletedFeed) Close() {}

// News that comes while the close frame is about to be written does not take the
// client's time to answer it.
func TestNewsBesideACloseFrame(t *testing.T) {
	c := new(closingConn)
	s := &socket{listeners: &listeners{limits: DefaultLimits()}, conn: c, writing: true, due: dueNews}
	s.feed = &deletedFeed{wake: s.wake}
	s.write()
	if !slices.Equal(c.closes, []int{closeGone}) || c.isClosed {
		t.Errorf("close frames %v, closed: %v", c.closes, c.isClosed)
	}
	if s.writing {
		t.Error("its reader does not give it back")
	}
}

// deadlined is a response that notes its deadline.
type deadlined struct {
	*httptest.ResponseRecorder

	deadline time.Time
}

func (d *deadlined) SetWriteDeadline(t time.Time) error {
	d.deadline = t
	return nil
}

// A stream that is cut while it is about to write gets no more time to.
func TestCutBesideAWrite(t *testing.T) {
	w := &deadlined{ResponseRecorder: httptest.NewRecorder()}
	s := &stream{w: w, control: http.NewResponseController(w), timeout: time.Hour, leave: func() {}}
	s.cut()
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	if w.deadline.After(time.Now()) {
		t.Errorf("it may write for %v", time.Until(w.deadline))
	}
}

func TestThousandSockets(t *testing.T) {
	const sockets, entries = 1000, 20
	f := newFake(t)
	server := serve(t, newAPI(t, Options{Sessions: f}))
	var done sync.WaitGroup
	for range sockets {
		c := dial(t, &websocket.Dialer{}, server.URL+eventsURL)
		done.Go(func() {
			if err := wantSeqs(c, 1, entries); err != nil {
				t.Error(err)
			}
		})
	}
	for range entries {
		f.write(said("Hello"))
	}
	done.Wait()
}

// Sockets come, go and come back by their cursor while entries are written from
// all sides: each sees every entry once, in order.
func TestNothingIsLostBetweenWakeAndPull(t *testing.T) {
	const clients, writers, each = 8, 4, 250
	f := newFake(t)
	server := serve(t, newAPI(t, Options{Sessions: f}))

	var writing, reading sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for i := range each {
				f.write(said("x"))
				if i%10 == 0 {
					f.pass(session.News{Time: testTime, Typing: &session.Typing{}})
				}
			}
		})
	}
	for i := range clients {
		reading.Go(func() {
			var cursor uint64
			for cursor < writers*each {
				c := dial(t, &websocket.Dialer{}, fmt.Sprint(server.URL, eventsURL, "?after=", cursor))
				// Each client drops its connection at another pace.
				for range 10 + 17*i {
					e, err := next(c)
					if err != nil {
						t.Error(err)
						return
					}
					if e.Seq == 0 {
						continue
					}
					if e.Seq != cursor+1 {
						t.Errorf("got seq %d behind %d", e.Seq, cursor)
						return
					}
					if cursor = e.Seq; cursor == writers*each {
						break
					}
				}
				_ = c.Close()
			}
		})
	}
	writing.Wait()
	reading.Wait()
}

// sseClient is a client of server-sent events.
type sseClient struct {
	body  io.ReadCloser
	lines *bufio.Reader
}

type sseEvent struct{ id, data string }

func openStream(t testing.TB, url string, headers ...string) *sseClient {
	t.Helper()
	return openStreamBy(t, http.DefaultTransport, url, headers...)
}

func openStreamBy(t testing.TB, by http.RoundTripper, url string, headers ...string) *sseClient {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Authorization", "Bearer "+testToken)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := by.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("got %d %v", resp.StatusCode, resp.Header)
	}
	return &sseClient{resp.Body, bufio.NewReader(resp.Body)}
}

// next reads one event, or a comment as an event with neither id nor data.
func (s *sseClient) next() (sseEvent, error) {
	var e sseEvent
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return e, err
		}
		switch line = strings.TrimSuffix(line, "\n"); {
		case line == "":
			return e, nil
		case strings.HasPrefix(line, "id: "):
			e.id = line[len("id: "):]
		case strings.HasPrefix(line, "data: "):
			e.data = line[len("data: "):]
		case line != ":":
			return e, fmt.Errorf("got the line %q", line)
		}
	}
}

// want expects events with these ids; "" is passing news.
func (s *sseClient) want(t testing.TB, ids ...string) {
	t.Helper()
	for _, id := range ids {
		e, err := s.next()
		if err != nil {
			t.Fatal(err)
		}
		if e.id != id || !json.Valid([]byte(e.data)) {
			t.Fatalf("got %+v, expected id %q", e, id)
		}
	}
}

func TestStreamReplaysThenGoesOn(t *testing.T) {
	f := newFake(t)
	f.write(said("one"), said("two"), said("three"))
	server := serve(t, newAPI(t, Options{Sessions: f}))
	c := fetchContract(t, server.URL)

	s := openStream(t, server.URL+eventsURL+"?after=1")
	s.want(t, "2", "3")
	f.pass(session.News{ChatID: testChat, Time: testTime, Typing: &session.Typing{Typing: true}})
	s.want(t, "")
	f.write(said("four\nlines\r\nare one"))
	e, err := s.next()
	if err != nil || e.id != "4" {
		t.Fatalf("got %+v, %v", e, err)
	}
	c.valid("/components/schemas/Event", []byte(e.data))

	// Who comes back by Last-Event-ID goes on there, whatever its first URL said.
	openStream(t, server.URL+eventsURL+"?after=1", "Last-Event-ID", "3").want(t, "4")

	_ = s.body.Close()
	<-f.closed
}

func TestStreamEndsWithItsSession(t *testing.T) {
	f := newFake(t)
	f.write(said("x"))
	server := serve(t, newAPI(t, Options{Sessions: f}))
	s := openStream(t, server.URL+eventsURL)
	s.want(t, "1")
	f.failWith(&session.Error{Code: session.CodeSessionUnknown, Detail: "Gone."})
	if e, err := s.next(); !errors.Is(err, io.EOF) {
		t.Errorf("got %+v, %v", e, err)
	}
	<-f.closed
}

func TestIdleStreamHearsAComment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p, stop := servePipes(t, newAPI(t, Options{Sessions: f}))
		defer stop()
		by := &http.Transport{DialContext: p.Dial}
		s := openStreamBy(t, by, "http://host"+eventsURL)
		start := time.Now()
		for range 10 {
			if e, err := s.next(); err != nil || e != (sseEvent{}) {
				t.Fatalf("got %+v, %v", e, err)
			}
		}
		waited, interval := time.Since(start), DefaultLimits().PingInterval
		if waited < 9*interval || waited > 10*interval {
			t.Errorf("ten comments took %v", waited)
		}
		_ = s.body.Close()
		<-f.closed
	})
}

func TestSlowStreamIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p, stop := servePipes(t, newAPI(t, Options{Sessions: f}))
		defer stop()
		conn, err := p.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: host\r\nAccept: text/event-stream\r\nAuthorization: Bearer %s\r\n\r\n", eventsURL, testToken); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		<-f.closed
		if waited := time.Since(start); waited != DefaultLimits().SocketWrite {
			t.Errorf("dropped after %v", waited)
		}
	})
}
