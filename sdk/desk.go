package sdk

import (
	"context"
	"encoding/json"
	"time"
)

// Desk is what every plugin must do. The host calls the methods concurrently,
// also for one chat, except that SendMessageToAgent calls of a chat come one at
// a time and in order. Each ctx has a deadline.
//
// An error says by its [Failure] what became of the call. An error that is no
// Failure means that nobody knows whether the call took effect.
type Desk interface {
	// StartChat opens a conversation at the desk. It is idempotent by ChatID: a
	// call for a chat that is open, or is being opened, joins it. It returns
	// nil once the desk has taken the chat, not when an agent joins. Events for
	// the chat may be emitted before it returns.
	StartChat(ctx context.Context, req *StartChatRequest) (*StartChatResponse, error)
	// EndChat ends the conversation for the user, and is idempotent. For a chat
	// that is gone it fails with [ChatUnknown] or [ChatOver]; both settle it.
	// The chat may have been served by an earlier process: State tells.
	EndChat(ctx context.Context, req *EndChatRequest) error
	// SendMessageToAgent hands over one message of the user. With Attempt > 1
	// an earlier try may have arrived: a plugin that declared [DedupeByLookup]
	// looks first.
	SendMessageToAgent(ctx context.Context, req *SendMessageRequest) (*SendMessageResponse, error)
}

// StartChatRequest asks the desk for an agent.
type StartChatRequest struct {
	// ChatID names the chat in every later call and event. Made by the host,
	// at most 64 bytes of [a-z0-9-].
	ChatID string
	// Attempt is 1, or more if an earlier call may have reached the desk.
	Attempt int
	// State is what an earlier attempt saved, or nil.
	State *ResumeState
	// Context tells who asks.
	Context UserContext
	// ConnectMessage is the page's connect message as it came, a JSON object;
	// empty if there is none.
	ConnectMessage json.RawMessage
	// Text is what the agent should read first; may be empty.
	Text string
	// History is the conversation so far, oldest first; may be empty.
	History []HistoryItem
	// SignInToken is the desk's own token for this user, if the page has one.
	// It is a secret, and absent from an attempt after a restart of the host.
	SignInToken string
}

// StartChatResponse says that the desk has taken the chat. A nil response is
// as good as an empty one.
type StartChatResponse struct {
	// State is the chat's resume state, if it is new. It is not taken if an event
	// of the chat has carried one since the call began: answers and events are
	// not in order, and a plugin that emits state while it starts a chat does
	// so for the last one too.
	State *ResumeState
}

// EndChatRequest ends a chat for the user.
type EndChatRequest struct {
	ChatID  string
	Attempt int
	// State is the chat's latest resume state, or nil.
	State *ResumeState
	// ByUser is true if the user ended the chat, false if a limit of the host did.
	ByUser bool
	// Reason is for the desk's records; may be empty.
	Reason string
}

// SendMessageRequest carries one message of the user.
type SendMessageRequest struct {
	ChatID string
	// MessageID is unique in the chat, at most 128 bytes.
	MessageID string
	// Attempt is 1, or more if an earlier call may have reached the desk.
	Attempt int
	// Text may be empty when Data carries the content.
	Text string
	// Data is the page's additional data as it came, a JSON object, or empty.
	Data json.RawMessage
	// Time is when the host took the message.
	Time time.Time
}

// SendMessageResponse says that the desk has the message. A nil response is as
// good as an empty one.
type SendMessageResponse struct {
	// DeskMessageID is the desk's own id of the message, if it has one.
	DeskMessageID string
}

// UserContext is what is known of the user and the page. All fields may be empty.
type UserContext struct {
	User User
	// Locale is a BCP 47 tag such as "en-GB".
	Locale string
	// AssistantSessionID is the assistant's own session.
	AssistantSessionID string
}

// User is who talks to the agent.
type User struct {
	ID string
	// Verified says that the host has checked ID by a signed identity token.
	// Without it everything here is only what the page claims.
	Verified   bool
	Name       string
	Attributes map[string]string
}

// HistoryItem is one line of the conversation before the agent.
type HistoryItem struct {
	// From is "user" or "assistant".
	From string
	Text string
	// Time is zero if the page did not tell.
	Time time.Time
}

// ResumeState is what a plugin needs to pick a chat up again after a restart:
// a vendor's session token, a cursor. The host keeps the latest one of each
// chat and does not look into it.
type ResumeState struct {
	// Data is at most 64 KiB.
	Data []byte
	// Format is the plugin's own number for what Data looks like, 1 and up. A
	// plugin lists the formats that it reads in [Plugin.StateFormats].
	Format uint32
}
