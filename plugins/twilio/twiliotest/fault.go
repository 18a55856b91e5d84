package twiliotest

import (
	"context"
	"net/http"
	"time"

	"github.com/deskhost/deskhost/sdk/desktest"
)

// Call is a kind of call that a [Fault] is meant for: those that begin a
// conversation, a message of the customer in one that has begun (which is one
// where he has said something), and those that end it. Empty is any call.
type Call = desktest.Call

// The kinds of calls.
const (
	CallStart = desktest.CallStart
	CallSend  = desktest.CallSend
	CallEnd   = desktest.CallEnd
)

// Fault is what goes wrong with calls.
type Fault struct {
	Call Call
	// Times is how many calls it is good for; 0 is 1.
	Times int
	// Status and Code are answered; with a Status of 0 the call is answered as
	// it would be, once Late is over.
	Status, Code int
	// RetryAfter is told to the caller.
	RetryAfter time.Duration
	// Done has the call carried out all the same: the caller cannot know.
	Done bool
	// Cut closes the connection in place of the answer.
	Cut bool
	// Late is how long the answer takes. The call is carried out before.
	Late time.Duration
}

// Fail has a fault happen to the next calls of its kind, after those that were
// asked for before.
func (s *Simulator) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Times = max(f.Times, 1)
	s.faults = append(s.faults, &f)
}

// takeFault returns what goes wrong with a call, or nil.
func (s *Simulator) takeFault(call Call) *Fault {
	for i, f := range s.faults {
		if f.Call != "" && f.Call != call {
			continue
		}
		if f.Times--; f.Times == 0 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		}
		return f
	}
	return nil
}

// callOf tells what a call is for: a route may serve more than one kind.
func (s *Simulator) callOf(call Call, r *request) Call {
	c := s.conversations[r.PathValue("conversation")]
	switch {
	case call == CallSend && (c == nil || !c.begun):
		return ""
	case call == CallEnd && r.Method == http.MethodPost && c != nil && r.form.Get("State") != stateClosed:
		return ""
	}
	return call
}

// spoil returns what a call is answered with in place of a, once it is time.
func (s *Simulator) spoil(ctx context.Context, f *Fault, a *answer) *answer {
	if f.Late > 0 {
		late := time.NewTimer(f.Late)
		defer late.Stop()
		select {
		case <-late.C:
		case <-ctx.Done():
		case <-s.ctx.Done():
		}
	}
	if f.Status != 0 {
		a = encode(fail(f.Status, f.Code, "%s, as asked for", http.StatusText(f.Status)))
		a.retryAfter = f.RetryAfter
	}
	a.cut = f.Cut
	return a
}
