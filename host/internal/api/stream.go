package api

import (
	"context"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/deskhost/deskhost/host/internal/session"
)

// stream is an open stream of server-sent events. The goroutine of its request
// is the only one that writes.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	feed    session.Feed
	buf     []byte

	news  chan struct{} // capacity 1
	pings chan struct{} // capacity 1
	leave context.CancelFunc
	isCut atomic.Bool
}

func (a *API) serveStream(w http.ResponseWriter, r *http.Request, sub subscription, at place) {
	ctx, leave := context.WithCancel(r.Context())
	defer leave()
	s := &stream{
		w: w, control: http.NewResponseController(w), timeout: a.limits.SocketWrite,
		news: make(chan struct{}, 1), pings: make(chan struct{}, 1), leave: leave,
	}
	feed, err := a.subscribe(r, sub, func() { signal(s.news) })
	if err != nil {
		a.listeners.leave(at, nil)
		a.problemOf(err).Write(w)
		return
	}
	s.feed = feed
	a.listeners.add(at, s)
	defer a.listeners.leave(at, s)
	defer feed.Close()

	w.Header().Set("Content-Type", eventStream)
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep events back.
	if err := s.run(ctx); err != nil {
		a.log.Debug("event stream dropped", "session", sub.ref.ID, "error", err)
	}
	s.allow() // for the server, which writes the stream's end
}

func (s *stream) run(ctx context.Context) error {
	if err := s.flush(); err != nil {
		return err
	}
	signal(s.news)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.pings:
			s.buf = append(s.buf, ":\n\n"...)
		case <-s.news:
			news, err := s.feed.Pull(maxPull)
			if err != nil {
				return err
			}
			if len(news) == 0 {
				continue
			}
			for i := range news {
				s.buf = appendStreamed(s.buf, &news[i])
			}
			signal(s.news)
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
}

func (s *stream) flush() error {
	s.allow()
	if _, err := s.w.Write(s.buf); err != nil {
		return err
	}
	s.buf = s.buf[:0]
	return s.control.Flush()
}

func (s *stream) ping() { signal(s.pings) }
func (s *stream) end()  { s.leave() }

func (s *stream) cut() {
	s.isCut.Store(true)
	s.leave()
	_ = s.control.SetWriteDeadline(time.Now())
}

// allow gives what is written next its time. It does not undo a cut, which may come
// at any moment.
func (s *stream) allow() {
	_ = s.control.SetWriteDeadline(time.Now().Add(s.timeout))
	if s.isCut.Load() {
		_ = s.control.SetWriteDeadline(time.Now())
	}
}

// appendStreamed appends news as one server-sent event. Passing news has no
// seq and so no id: the client keeps the last one.
func appendStreamed(b []byte, n *session.News) []byte {
	seq := n.GapTo
	if n.Entry != nil {
		seq = n.Entry.GetSeq()
	}
	if seq > 0 {
		b = append(b, "id: "...)
		b = strconv.AppendUint(b, seq, 10)
		b = append(b, '\n')
	}
	b = append(b, "data: "...)
	b = appendNews(b, n)
	return append(b, "\n\n"...)
}

// signal puts a token into a channel of capacity 1, unless one is there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
