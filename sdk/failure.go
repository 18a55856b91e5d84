package sdk

import (
	"fmt"
	"time"
)

// FailureKind says what a failed call did, which decides what the host does.
type FailureKind int

// The kinds of failure.
const (
	// OutcomeUnknown: the call may or may not have taken effect.
	OutcomeUnknown FailureKind = iota
	// Retry: the call had no effect; the same call may work later.
	Retry
	// ChatOver: the conversation has ended at the desk.
	ChatOver
	// ChatUnknown: the desk does not know the conversation.
	ChatUnknown
	// Invalid: no effect, and never will have: what was asked is not acceptable.
	Invalid
	// Unsupported: the plugin or its vendor has no such function.
	Unsupported
	// Refused: no effect: the desk declines (closed, queue full).
	Refused
)

// String returns the kind's name as it stands in logs.
func (k FailureKind) String() string {
	switch k {
	case Retry:
		return "retry"
	case ChatOver:
		return "chat_over"
	case ChatUnknown:
		return "chat_unknown"
	case Invalid:
		return "invalid"
	case Unsupported:
		return "unsupported"
	case Refused:
		return "refused"
	default:
		return "outcome_unknown"
	}
}

// Failure is the error by which a plugin says what became of a call. It is
// found with errors.As, so it may be wrapped.
type Failure struct { //nolint:errname // it is named as in the contract
	Kind FailureKind
	// RetryAfter is for Retry: the shortest wait that makes sense. 0: the host's
	// own back-off.
	RetryAfter time.Duration
	// UserMessage may be shown to the user, if set.
	UserMessage string
	// Err tells the operator what went wrong and what to do. No secrets.
	Err error
}

// Fail returns a Failure; format and args are as for fmt.Errorf.
func Fail(kind FailureKind, format string, args ...any) *Failure {
	return &Failure{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// Error returns the kind and what went wrong.
func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Kind.String()
	}
	return f.Kind.String() + ": " + f.Err.Error()
}

// Unwrap returns Err.
func (f *Failure) Unwrap() error { return f.Err }
