package sdk

import (
	"context"
	"encoding/json"
	"net/http"
)

// Configurer takes the desk's configuration. Configure is called once, before
// any chat call. It should find a wrong address or credential now rather than
// in the first chat. [Invalid] says that an operator must change something,
// [Retry] that the same configuration may work later.
//
// A desk without Configure accepts the empty configuration only.
type Configurer interface {
	Configure(ctx context.Context, req *ConfigureRequest) error
}

// ConfigureRequest carries a desk's configuration.
type ConfigureRequest struct {
	// DeskName is the desk's name in the host's configuration.
	DeskName string
	// Config is a JSON object, secrets filled in, valid by [Plugin.ConfigSchema].
	Config json.RawMessage
	// WebhookBaseURL is where the vendor reaches [HTTPHandler], with a slash at
	// the end; empty if the host has no public address.
	WebhookBaseURL string
}

// AvailabilityReporter answers whether anybody is there, before a chat is
// started. An answer that nobody waits for any more is of no use: it has about
// three seconds.
type AvailabilityReporter interface {
	AreAnyAgentsOnline(ctx context.Context, req *AvailabilityRequest) (*AvailabilityResponse, error)
}

// AvailabilityRequest asks whether anybody is there.
type AvailabilityRequest struct {
	Context UserContext
}

// AvailabilityResponse answers as far as the desk knows.
type AvailabilityResponse struct {
	Online Online
	// WaitMinutes and Position are optional.
	WaitMinutes *int
	Position    *int
	// Message may be shown to the user.
	Message string
}

// Online is yes, no, or not known.
type Online int

// The answers to "are any agents online?".
const (
	OnlineUnknown Online = iota
	OnlineYes
	OnlineNo
)

// StateUpdater learns what changed about the user of an open chat.
type StateUpdater interface {
	UpdateState(ctx context.Context, req *UpdateStateRequest) error
}

// UpdateStateRequest tells what is now known of the user of a chat.
type UpdateStateRequest struct {
	ChatID  string
	Context UserContext
}

// TypingReceiver learns that the user types, or has stopped. News may be
// skipped when the plugin is slower than the user.
type TypingReceiver interface {
	UserTyping(ctx context.Context, req *UserTypingRequest) error
}

// UserTypingRequest passes on whether the user types.
type UserTypingRequest struct {
	ChatID string
	Typing bool
}

// ReadReceiver learns that the user has seen all messages so far.
type ReadReceiver interface {
	UserReadMessages(ctx context.Context, req *UserReadRequest) error
}

// UserReadRequest passes on that the user has seen all messages so far.
type UserReadRequest struct {
	ChatID string
}

// Resumer lets chats outlive the process: after a crash, at a restart of the
// host, and when the plugin is upgraded in working hours.
type Resumer interface {
	// ResumeChat picks an open chat up by its state. What the desk said
	// meanwhile follows as events. It is idempotent, and also asks a process to
	// take a chat back that it has quiesced. [ChatUnknown] and [ChatOver] end the
	// chat; any other failure is tried again.
	ResumeChat(ctx context.Context, req *ResumeChatRequest) error
	// QuiesceChat lets a chat go without ending it: stop reading, have every
	// event emitted, return the final state. Another process resumes it. After
	// [ChatUnknown] that is done from the state that the host has; [ChatOver] ends
	// the chat; after any other failure this process is asked to resume it.
	QuiesceChat(ctx context.Context, req *QuiesceChatRequest) (*QuiesceChatResponse, error)
}

// ResumeChatRequest hands an open chat to this process.
type ResumeChatRequest struct {
	ChatID  string
	Attempt int
	// State is the chat's latest resume state, nil if it never saved any.
	State   *ResumeState
	Context UserContext
}

// QuiesceChatRequest asks to let go of a chat.
type QuiesceChatRequest struct {
	ChatID string
}

// QuiesceChatResponse is the last word on a chat. A nil response is as good as
// an empty one.
type QuiesceChatResponse struct {
	// State is the final resume state, if it changed.
	State *ResumeState
}

// HTTPHandler receives what a vendor sends to the desk's webhook address. The
// request's URL holds the path behind [ConfigureRequest.WebhookBaseURL], with a
// leading slash, and the query. Body and answer are at most 1 MiB; the answer
// is not streamed and has four seconds.
//
// An answer that lets the vendor forget the event may be given once Emit has
// returned nil.
type HTTPHandler interface {
	http.Handler
}

// HealthChecker says whether the plugin can serve; the error tells the operator
// why not. It must answer at once, without asking the vendor. After three
// failures in a row the host starts the process anew, so it reports what a new
// start may mend, and not an outage of the vendor. A desk without it is healthy
// while it answers at all.
type HealthChecker interface {
	Health(ctx context.Context) error
}

// Drainer is told before the process is ended: flush what was read from the
// vendor, begin nothing new.
type Drainer interface {
	Drain(ctx context.Context) error
}
