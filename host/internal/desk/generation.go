package desk

import (
	"context"
	"slices"
	"time"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// Generation is one run of a desk's process, from ready to its end. Its calls
// may be made concurrently, each waits for no longer than its ctx, which must have
// a deadline, and each fails with a [*CallError].
type Generation interface {
	// Desk is the desk's name; Number counts its generations from 1 over the
	// life of the host.
	Desk() string
	Number() uint64
	// Describe is what the plugin said of itself. Not to be changed.
	Describe() *deskv1.DescribeResponse

	StartChat(ctx context.Context, req *deskv1.StartChatRequest) (*deskv1.StartChatResponse, error)
	EndChat(ctx context.Context, req *deskv1.EndChatRequest) error
	SendMessageToAgent(ctx context.Context, req *deskv1.SendMessageToAgentRequest) (*deskv1.SendMessageToAgentResponse, error)
	AreAnyAgentsOnline(ctx context.Context, req *deskv1.AreAnyAgentsOnlineRequest) (*deskv1.AreAnyAgentsOnlineResponse, error)
	UpdateState(ctx context.Context, req *deskv1.UpdateStateRequest) error
	UserTyping(ctx context.Context, req *deskv1.UserTypingRequest) error
	UserReadMessages(ctx context.Context, req *deskv1.UserReadMessagesRequest) error
	ResumeChat(ctx context.Context, req *deskv1.ResumeChatRequest) error
	QuiesceChat(ctx context.Context, req *deskv1.QuiesceChatRequest) (*deskv1.QuiesceChatResponse, error)
	HandleHTTP(ctx context.Context, req *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error)

	// Settle says that the event with this seq is durable or not needed, or
	// with a refusal that it will never be taken. Each event handed over is
	// settled exactly once, in any order. It never blocks.
	Settle(seq uint64, refusal *Refusal)
}

// Has tells whether a generation declared a capability.
func Has(g Generation, c deskv1.Capability) bool {
	return slices.Contains(g.Describe().GetCapabilities(), c)
}

// Refusal is why an event is not taken.
type Refusal struct {
	Code   deskv1.RefusalCode
	Reason string
}

// Handler is what a desk hands upwards. For one generation: Fits and Ready first,
// then Events any number of times, one call at a time, then Down. Each may block
// to slow the plugin down, and only this desk's plugin.
type Handler interface {
	// Fits tells why a generation cannot take the desk's chats, nil if it can.
	Fits(g Generation) error
	// Ready says that a generation serves its desk from now on. One that served
	// it before lives until it has no chats left: they are to be handed over
	// where both can resume. Ready comes a second time for a generation that
	// serves again because the one after it has ended.
	Ready(g Generation)
	// Events hands over a batch that keeps the limits of the wire. The callee
	// owns the events and settles each.
	Events(g Generation, events []*deskv1.Event)
	// Down says that a generation serves no more, and why. Calls in flight fail.
	Down(g Generation, cause error)
	// Chats is how many chats a generation of a desk has. One that another has
	// replaced is ended when it has none.
	Chats(desk string, generation uint64) int
}

// CallError is why a call of a plugin failed.
type CallError struct {
	// Kind says what the call did. Anything that is not a Failure of the
	// plugin (transport lost, deadline, panic) is OUTCOME_UNKNOWN.
	Kind deskv1.FailureKind
	// RetryAfter is the plugin's wish, 0 if it had none.
	RetryAfter time.Duration
	// UserMessage may be shown to the user; may be empty.
	UserMessage string
	// Err is for the operator.
	Err error
}

// Error returns what went wrong.
func (e *CallError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *CallError) Unwrap() error { return e.Err }
