package session

import (
	"encoding/json"
	"time"

	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
)

// Code names an error for programs; docs/http-api.md lists them.
type Code string

// The errors of this package.
const (
	CodeSessionUnknown  Code = "session_unknown"
	CodeTokenWrong      Code = "token_wrong"
	CodeInvalid         Code = "invalid"
	CodeDeskUnknown     Code = "desk_unknown"
	CodeDeskUnavailable Code = "desk_unavailable"
	CodeChatOpen        Code = "chat_open"
	CodeNoChat          Code = "no_chat"
	CodeIDReused        Code = "id_reused"
	CodeTextTooLong     Code = "text_too_long"
	CodeStartRefused    Code = "start_refused"
	CodeStartFailed     Code = "start_failed"
	CodeStartTimeout    Code = "start_timeout"
	CodeTooManyMessages Code = "too_many_messages"
	CodeStopping        Code = "stopping"
	CodeStorageFull     Code = "storage_full"
)

// Error is a refused command. It changed nothing unless its code begins with
// "start_", where a chat was requested, could not start and is ended.
type Error struct {
	Code Code
	// Detail is a sentence for a developer. It never holds what was sent.
	Detail string
	// ChatID is the open chat, with CodeChatOpen.
	ChatID string
	// UserMessage may be shown to the user, from the desk; may be empty.
	UserMessage string
}

// Error returns the detail.
func (e *Error) Error() string { return e.Detail }

// Ref names a session and proves the right to use it.
type Ref struct {
	ID string
	// Token is the bearer token as it came.
	Token string
}

// Context is what a page tells of its user.
type Context struct {
	UserID             string
	UserVerified       bool
	UserName           string
	UserAttributes     map[string]string
	Locale             string
	AssistantSessionID string
}

// CreateRequest asks for a session.
type CreateRequest struct {
	// Desk is the desk's name; empty: the default desk.
	Desk    string
	Context Context
}

// Created is a new session.
type Created struct {
	ID string
	// Token is shown this once; only its hash is kept.
	Token        string
	ExpiresAt    time.Time
	Capabilities Capabilities
}

// Capabilities is what a session's desk can do as far as is known now.
type Capabilities struct {
	Availability bool
	UpdateState  bool
	UserTyping   bool
	UserRead     bool
	// Known is false while the desk has not been ready yet.
	Known bool
}

// Info is the state of a session.
type Info struct {
	ID           string
	Desk         string
	ExpiresAt    time.Time
	LastSeq      uint64
	Capabilities Capabilities
	// Chat is the open chat, or nil.
	Chat *ChatInfo
}

// ChatInfo is the state of an open chat.
type ChatInfo struct {
	ID          string
	RequestID   string
	State       string // "starting", "waiting" or "connected"
	RequestedAt time.Time
	// Agent is who joined last and has not left, or nil.
	Agent *recordv1.Agent
	// DeskAway is true while the desk does not serve the chat.
	DeskAway bool
}

// Update is what updateState changes; nil fields stay as they are.
type Update struct {
	// User replaces id, name and attributes.
	User               *User
	Locale             *string
	AssistantSessionID *string
}

// User is who talks to the agent.
type User struct {
	ID         string
	Verified   bool
	Name       string
	Attributes map[string]string
}

// Availability answers whether anybody is there.
type Availability struct {
	// Online is nil if nobody knows.
	Online      *bool
	WaitMinutes *uint32
	Position    *uint32
	Message     string
}

// StartRequest asks for an agent.
type StartRequest struct {
	// ID is the page's own, at most 128 bytes: the same id, the same answer.
	ID             string
	ConnectMessage json.RawMessage
	Text           string
	History        []HistoryItem
	// SignInToken is the desk's own; a secret, not kept.
	SignInToken string
}

// HistoryItem is one line of the conversation before the agent.
type HistoryItem struct {
	From string
	Text string
	Time time.Time
}

// Message is one message of the user.
type Message struct {
	// ID is the page's own, unique in the chat, at most 128 bytes.
	ID string
	// ChatID is the chat that the message is for; empty: the open one.
	ChatID string
	Text   string
	Data   json.RawMessage
}

// Sent is how far a message has come.
type Sent struct {
	Seq uint64
	// Status is WAITING or SENDING (accepted, the outcome will be an entry),
	// DELIVERED, FAILED or UNKNOWN.
	Status recordv1.OutState
	// Reason tells more of FAILED and UNKNOWN.
	Reason string
}

// News is what a subscription delivers: an entry, or passing news, or a gap.
type News struct {
	// Entry is set for a line of the log.
	Entry *recordv1.Entry
	// GapTo is set if the entries up to this seq are no longer kept.
	GapTo uint64
	// Typing and Availability are passing news of the chat ChatID.
	ChatID       string
	Typing       *Typing
	Availability *Availability
	Time         time.Time
}

// Typing is whether the agent types.
type Typing struct {
	Typing  bool
	AgentID string
}

// Feed is a subscription to a session's news: replay from the journal, then
// live. One goroutine at a time may call Pull.
type Feed interface {
	// Pull returns the next news, at most limit, without waiting; none if there
	// is nothing now, in which case the wake function given to Subscribe will
	// be called once when there is. After an error the feed is of no use:
	// the session is gone (an *Error) or the journal failed.
	Pull(limit int) ([]News, error)
	// Close ends the subscription. Wake is not called after it has returned.
	Close()
}

// Limits are the numbers of the design that concern sessions and chats.
type Limits struct {
	// SessionTTL is how long a session lives after its last use.
	SessionTTL time.Duration
	// StartTimeout bounds StartChat, waiting for the desk included.
	StartTimeout time.Duration
	// SendWait bounds how long SendMessage waits for the outcome.
	SendWait time.Duration
	// MessageWait is how long a message waits for its desk.
	MessageWait time.Duration
	// AbandonWaiting and AbandonConnected end a chat that no page attends.
	AbandonWaiting   time.Duration
	AbandonConnected time.Duration
	// JoinTimeout ends a chat that no agent has joined.
	JoinTimeout time.Duration
	// DeskAwayLimit ends a chat whose desk is down.
	DeskAwayLimit time.Duration
	// EndRetry is for how long EndChat is tried.
	EndRetry time.Duration
	// TextBytes bounds the text of a message.
	TextBytes int
	// QueuedMessages bounds how many messages of a chat may wait.
	QueuedMessages int
}

// useGrain is how exactly the last use of a session is kept in the journal: not
// every request is worth a write.
func (l *Limits) useGrain() time.Duration { return min(time.Hour, l.SessionTTL/24) }

// sessionLife is for how long a session can be used again after the last use that
// the journal knows of.
func (l *Limits) sessionLife() time.Duration { return l.SessionTTL + l.useGrain() }

// DefaultLimits returns the limits of the design.
func DefaultLimits() Limits {
	return Limits{
		SessionTTL:       24 * time.Hour,
		StartTimeout:     10 * time.Second,
		SendWait:         2500 * time.Millisecond,
		MessageWait:      5 * time.Minute,
		AbandonWaiting:   time.Minute,
		AbandonConnected: 10 * time.Minute,
		JoinTimeout:      time.Hour,
		DeskAwayLimit:    10 * time.Minute,
		EndRetry:         10 * time.Minute,
		TextBytes:        32 << 10,
		QueuedMessages:   256,
	}
}
