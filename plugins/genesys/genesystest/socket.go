package genesystest

import (
	"encoding/json"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// maxFrame bounds a frame of a guest.
	maxFrame = 128 << 10
	// writeLimit bounds the writing of a frame to one who does not read.
	writeLimit = 10 * time.Second
)

// socket is an open connection to a guest. Frames leave in the order in which
// they were pushed.
type socket struct {
	conn *websocket.Conn
	// session is the one of Web Messaging that was configured on it. The server's
	// lock guards it.
	session *session
	// lost is set once the line is dead without either end knowing.
	lost atomic.Bool

	mu      sync.Mutex
	queue   [][]byte
	closing bool // close when the queue is empty
	wake    chan struct{}
}

// serveSocket serves a connection until it ends. Opened and closed are called
// with the server locked, handle is not.
func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request, beat []byte, opened func(*socket), handle func(*socket, []byte), closed func(*socket)) {
	// Whoever has the answer to the handshake is connected to all that follows, so
	// the lock is held over it; it fits into the buffer of a new connection.
	s.mu.Lock()
	conn, err := s.upgrader.Upgrade(w, r, nil)
	if err != nil {
		s.mu.Unlock()
		return // it has answered
	}
	k := &socket{conn: conn, wake: make(chan struct{}, 1)}
	conn.SetReadLimit(maxFrame)
	conn.SetPingHandler(func(data string) error {
		if k.lost.Load() {
			return nil
		}
		return conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(writeLimit))
	})
	if s.closed {
		s.mu.Unlock()
		k.cut()
		return
	}
	s.serving.Add(1)
	defer s.serving.Done()
	s.sockets[k] = struct{}{}
	opened(k)
	s.mu.Unlock()

	ended := make(chan struct{})
	written := make(chan struct{})
	go func() {
		defer close(written)
		k.write(beat, s.options.Heartbeat, ended)
	}()
	for {
		_, frame, err := conn.ReadMessage()
		if err != nil {
			break
		}
		if !k.lost.Load() {
			handle(k, frame)
		}
	}
	close(ended)
	<-written
	k.cut()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sockets, k)
	closed(k)
}

// push queues a frame. It does not wait.
func (k *socket) push(frame any) {
	raw, err := json.Marshal(frame)
	if err != nil {
		panic("genesystest: a frame that is no JSON: " + err.Error())
	}
	k.mu.Lock()
	k.queue = append(k.queue, raw)
	k.mu.Unlock()
	k.nudge()
}

// finish closes the connection when all that was pushed is written.
func (k *socket) finish() {
	k.mu.Lock()
	k.closing = true
	k.mu.Unlock()
	k.nudge()
}

// cut drops the connection with no goodbye.
func (k *socket) cut() { _ = k.conn.NetConn().Close() }

func (k *socket) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *socket) write(beat []byte, every time.Duration, ended <-chan struct{}) {
	var beats <-chan time.Time
	if beat != nil {
		t := time.NewTicker(every)
		defer t.Stop()
		beats = t.C
	}
	for {
		var frames [][]byte
		closing := false
		select {
		case <-ended:
			return
		case <-beats:
			frames = [][]byte{beat}
		case <-k.wake:
			k.mu.Lock()
			frames, closing = k.queue, k.closing
			k.queue = nil
			k.mu.Unlock()
		}
		for _, frame := range frames {
			if k.lost.Load() {
				break
			}
			_ = k.conn.SetWriteDeadline(time.Now().Add(writeLimit))
			if err := k.conn.WriteMessage(websocket.TextMessage, frame); err != nil {
				k.cut() // ends the reader, and so this
				closing = false
				break
			}
		}
		if closing {
			goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
			_ = k.conn.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(writeLimit))
			// The guest's own goodbye ends the reader, and so this.
			_ = k.conn.SetReadDeadline(time.Now().Add(time.Second))
		}
	}
}
