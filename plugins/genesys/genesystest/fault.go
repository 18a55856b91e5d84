package genesystest

import (
	"net/http"
	"time"
)

// The kinds of calls that a script fails or stalls. There are more, see [Act].
const (
	callStart = "start"
	callSend  = "send"
	callEnd   = "end"
)

// fault is what happens to a call.
type fault struct {
	late   time.Duration
	lost   bool   // the call is done, its answer never comes
	status int    // or else it is refused with this
	code   string // and this
	after  int    // seconds, with 429
}

func (f *fault) fails() bool { return f.status != 0 }

// frame is what Web Messaging says.
func (f *fault) frame(tracingID string) *reply {
	if f.status == http.StatusTooManyRequests {
		return tooMany(f.after, tracingID)
	}
	return failure(f.status, "refused on request", tracingID)
}

// refusal is what the platform's API says.
func (f *fault) refusal() *apiError {
	if f.status == http.StatusTooManyRequests {
		return errTooMany(f.after)
	}
	e := newError(f.status, "internal.server.error", "Refused on request.")
	if f.code != "" {
		e.Code = f.code
	}
	return e
}

// hit returns what is to happen to a call, and forgets it.
func (s *Server) hit(call string) *fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.faults[call]
	if len(waiting) == 0 {
		return nil
	}
	s.faults[call] = waiting[1:]
	return &waiting[0]
}

// stall waits, and tells whether the simulator still runs.
func (s *Server) stall(late time.Duration) bool {
	t := time.NewTimer(late)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.done:
		return false
	}
}

// call has an endpoint meet the faults of a kind.
func (s *Server) call(kind string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f := s.hit(kind)
		switch {
		case f == nil:
			h(w, r)
		case f.fails():
			writeError(w, f.refusal())
		case f.lost:
			h(&discard{header: http.Header{}}, r)
			panic(http.ErrAbortHandler) // cuts the connection
		default:
			if s.stall(f.late) {
				h(w, r)
			}
		}
	}
}

// discard takes an answer that nobody gets.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}
