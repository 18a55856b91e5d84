package sdk

import (
	"context"
	"errors"

	"github.com/hashicorp/go-hclog"
)

// Host is what a plugin can ask of deskhost. It is safe for concurrent use.
type Host interface {
	// Emit tells the host what happened at the desk. It returns nil only when
	// the event is durable in the host (or, for passing news, has arrived), so
	// a webhook may be answered, or a cursor moved, after it.
	//
	// Events of one chat keep the order in which Emit was called; call it from
	// one goroutine a chat, or hold a lock of the chat over it. It waits while
	// too many events are not yet acknowledged, whether of this chat or of all.
	//
	// Errors: a [*RefusedError] if the event was not taken and never will be;
	// ctx.Err() if ctx ended first, when the event may still become durable: to
	// be sure emit it again with the same ID; [ErrStreamClosed] if the host is
	// gone, in which case the process is about to end.
	Emit(ctx context.Context, ev *Event) error
	// Logger writes to the host's log, named after the desk. Secrets, and the
	// text of messages above debug level, do not belong there.
	Logger() hclog.Logger
}

// ErrStreamClosed says that the host has closed the event stream, or is gone.
var ErrStreamClosed = errors.New("sdk: event stream closed")

// RefusedError says that the host did not take an event.
type RefusedError struct {
	Code RefusalCode
	// Reason tells more, for a log.
	Reason string
}

// Error returns the code and the reason.
func (e *RefusedError) Error() string {
	return "sdk: event refused: " + e.Code.String() + ": " + e.Reason
}

// RefusalCode says why an event was refused.
type RefusalCode int

// The reasons for a refusal.
const (
	// RefusedChatOver: the chat has ended; the conversation can be let go.
	RefusedChatOver RefusalCode = iota + 1
	// RefusedChatUnknown: the host does not know the chat.
	RefusedChatUnknown
	// RefusedMoved: another process serves the chat now.
	RefusedMoved
	// RefusedInvalid: the event breaks a rule; the reason tells which.
	RefusedInvalid
	// RefusedTooLarge: the event is over a limit.
	RefusedTooLarge
)

// String returns the code's name as it stands in logs.
func (c RefusalCode) String() string {
	switch c {
	case RefusedChatOver:
		return "chat_over"
	case RefusedChatUnknown:
		return "chat_unknown"
	case RefusedMoved:
		return "moved"
	case RefusedTooLarge:
		return "too_large"
	default:
		return "invalid"
	}
}
