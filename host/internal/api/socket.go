package api

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/deskhost/deskhost/host/internal/problem"
	"github.com/deskhost/deskhost/host/internal/session"
)

const (
	// maxInbound bounds a message that a client sends. Clients have nothing to
	// say here: what they send is dropped, and with the last of maxUnasked
	// messages the connection.
	maxInbound = 1024
	maxUnasked = 64
	// maxUnanswered bounds the pings that a client leaves without an answer. When
	// the next is due it is dropped.
	maxUnanswered = 2
	// closeWait is how long a client may take to answer a close frame.
	closeWait = 2 * time.Second
	// closeGone is the close code, of the range for private use, that says that
	// the session is no more: there is nothing to come back for.
	closeGone = 4404
)

// conn is what a socket needs of a WebSocket connection. One goroutine reads,
// one writes text and pings; the other methods may be called by any.
type conn interface {
	// NextMessage waits for a message of the client and drops it.
	NextMessage() error
	WriteText(b []byte, deadline time.Time) error
	WritePing(deadline time.Time) error
	WriteClose(code int, reason string, deadline time.Time) error
	SetReadDeadline(t time.Time) error
	OnPong(fn func())
	Close() error
}

var upgrader = websocket.Upgrader{
	ReadBufferSize:   128,
	WriteBufferSize:  4096,
	WriteBufferPool:  &sync.Pool{},
	CheckOrigin:      func(*http.Request) bool { return true }, // ServeHTTP has.
	HandshakeTimeout: 10 * time.Second,
	Error: func(w http.ResponseWriter, _ *http.Request, _ int, _ error) {
		problem.New(http.StatusBadRequest, codeBadRequest, "This is not a valid WebSocket handshake of version 13.").Write(w)
	},
}

// chosen is not taken from the request, lest the token beside it be kept.
var chosen = http.Header{"Sec-Websocket-Protocol": {subprotocol}}

// buffers holds what sockets encode into while they have something to send.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// What a socket's writer is asked to do.
const (
	dueNews = 1 << iota
	duePing
	dueEnd
)

// socket is an open WebSocket. It has one goroutine, which reads. A second one
// lives only while something is due to be written, so that an idle socket costs
// one small stack. Whichever ends last gives the socket back.
type socket struct {
	listeners *listeners
	at        place
	feed      session.Feed
	conn      conn

	mu         sync.Mutex
	due        uint8
	unanswered uint8 // pings that were written since the last pong
	writing    bool  // a writer runs
	ending     bool  // a close frame has been sent, or is about to be
	gone       bool  // the reader has ended
}

func (a *API) serveSocket(w http.ResponseWriter, r *http.Request, sub subscription, at place) {
	// No writer may start before there is a connection.
	s := &socket{listeners: a.listeners, at: at, writing: true}
	feed, err := a.subscribe(r, sub, s.wake)
	if err != nil {
		a.listeners.leave(at, nil)
		a.problemOf(err).Write(w)
		return
	}
	c, err := upgrader.Upgrade(w, r, chosen)
	if err != nil {
		feed.Close()
		a.listeners.leave(at, nil)
		return
	}
	s.feed, s.conn = feed, newGorilla(c)
	s.conn.OnPong(s.pong)
	s.post(dueNews)
	a.listeners.add(at, s)
	// Returning from here frees all that belongs to the request.
	go s.write()
	go s.read()
}

// read waits for the connection to end. Here a goroutine spends its life that
// must live on the smallest stack: what is done afterwards is not done here.
func (s *socket) read() {
	for range maxUnasked {
		if s.conn.NextMessage() != nil {
			s.left()
			return
		}
	}
	s.chatty()
}

// chatty ends the connection of a client that talks.
func (s *socket) chatty() {
	_ = s.conn.WriteClose(websocket.ClosePolicyViolation, "nothing is expected here", s.deadline())
	s.left()
}

// left is the end of the reader.
func (s *socket) left() {
	_ = s.conn.Close()

	s.mu.Lock()
	s.gone = true
	last := !s.writing
	s.mu.Unlock()
	if last {
		s.release()
	}
}

// write does what is due until nothing is.
func (s *socket) write() {
	for {
		s.mu.Lock()
		due := s.due
		s.due = 0
		if due == 0 || s.gone || s.ending { // nothing is written behind a close frame
			s.writing = false
			last := s.gone
			s.mu.Unlock()
			if last {
				s.release()
			}
			return
		}
		s.mu.Unlock()

		if err := s.do(due); err != nil {
			// A client that does not read, or has gone; the reader ends too.
			_ = s.conn.Close()
		}
	}
}

func (s *socket) do(due uint8) error {
	if due&dueEnd != 0 {
		return s.bye(websocket.CloseServiceRestart, "the host restarts")
	}
	if due&duePing != 0 {
		s.mu.Lock()
		s.unanswered++
		s.mu.Unlock()
		if err := s.conn.WritePing(s.deadline()); err != nil {
			return err
		}
	}
	if due&dueNews == 0 {
		return nil
	}
	news, err := s.feed.Pull(maxPull)
	if err != nil {
		var refusal *session.Error
		if errors.As(err, &refusal) && refusal.Code == session.CodeSessionUnknown {
			return s.bye(closeGone, "the session is no more")
		}
		return s.bye(websocket.CloseInternalServerErr, "the host failed")
	}
	if len(news) == 0 {
		return nil
	}
	buf, _ := buffers.Get().(*[]byte) // It holds nothing else.
	defer buffers.Put(buf)
	for i := range news {
		*buf = appendNews((*buf)[:0], &news[i])
		if err := s.conn.WriteText(*buf, s.deadline()); err != nil {
			return err
		}
	}
	// There may be more; pings and the end come in between.
	s.post(dueNews)
	return nil
}

// bye sends a close frame and gives the client a moment to answer it.
func (s *socket) bye(code int, reason string) error {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	if err := s.conn.WriteClose(code, reason, s.deadline()); err != nil {
		return err
	}
	return s.conn.SetReadDeadline(time.Now().Add(closeWait))
}

func (s *socket) deadline() time.Time { return time.Now().Add(s.listeners.limits.SocketWrite) }

// post asks for something to be written. It does not block.
func (s *socket) post(due uint8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.ending {
		return
	}
	s.due |= due
	if !s.writing {
		s.writing = true
		go s.write()
	}
}

// ping asks for a ping to be written, and drops a client that answers none. So
// nothing waits for its pong: a deadline of its connection would be a timer for
// each socket, and all of those together keep the runtime from tidying up the
// timers of calls that have long ended.
func (s *socket) ping() {
	s.mu.Lock()
	silent := s.unanswered >= maxUnanswered
	s.mu.Unlock()
	if silent {
		s.cut()
		return
	}
	s.post(duePing)
}

func (s *socket) pong() {
	s.mu.Lock()
	s.unanswered = 0
	s.mu.Unlock()
}

// release gives back what the socket holds. No goroutine of it is left but the
// caller's.
func (s *socket) release() {
	s.feed.Close()
	s.listeners.leave(s.at, s)
}

func (s *socket) wake() { s.post(dueNews) }
func (s *socket) end()  { s.post(dueEnd) }
func (s *socket) cut()  { _ = s.conn.Close() }

// gorilla is a conn of gorilla/websocket.
type gorilla struct{ c *websocket.Conn }

func newGorilla(c *websocket.Conn) gorilla {
	c.SetReadLimit(maxInbound)
	return gorilla{c}
}

func (g gorilla) NextMessage() error {
	_, _, err := g.c.NextReader()
	return err
}

func (g gorilla) WriteText(b []byte, deadline time.Time) error {
	if err := g.c.SetWriteDeadline(deadline); err != nil {
		return err
	}
	return g.c.WriteMessage(websocket.TextMessage, b)
}

func (g gorilla) WritePing(deadline time.Time) error {
	return g.c.WriteControl(websocket.PingMessage, nil, deadline)
}

func (g gorilla) WriteClose(code int, reason string, deadline time.Time) error {
	return g.c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), deadline)
}

func (g gorilla) SetReadDeadline(t time.Time) error { return g.c.SetReadDeadline(t) }

func (g gorilla) OnPong(fn func()) {
	g.c.SetPongHandler(func(string) error { fn(); return nil })
}

func (g gorilla) Close() error { return g.c.Close() }
