// Package deskapi is the mock desk's HTTP API as Go types: JSON both ways, one
// stream of events. The desk server and its client share it; it has no
// code of either and knows nothing of deskhost.
//
//	GET    /v1/desk                           who answers here: [Info]
//	GET    /v1/availability                   [Availability]
//	PUT    /v1/conversations/{key}            start, or join what was started: [StartRequest] → [Conversation]
//	PATCH  /v1/conversations/{key}            what is now known of the user: [Context]
//	DELETE /v1/conversations/{key}?by=user    end
//	POST   /v1/conversations/{key}/messages   [Message] → [MessageTaken]; the same id, the same message
//	POST   /v1/conversations/{key}/typing     [Typing]
//	POST   /v1/conversations/{key}/read
//	GET    /v1/conversations/{key}/events?after=N   [History]
//	POST   /v1/catch-up                       the histories of many: [CatchUpRequest] → [CatchUpResponse]
//	GET    /v1/feed                           what happens from now on in all conversations: one [Event] a line
//
// A key is made by the caller. An error is an [Error] with a 4xx or 5xx status.
package deskapi

import (
	"encoding/json"
	"time"
)

// Product is what a mock desk calls itself in [Info].
const Product = "deskhost mock desk"

// FeedSilence is how long a feed stays silent at most: with nothing to tell it
// sends an empty line. A feed that is silent for much longer is dead.
const FeedSilence = 2 * time.Second

// Info tells who answers.
type Info struct {
	Product string `json:"product"`
}

// User is who talks to the agent.
type User struct {
	ID         string            `json:"id,omitempty"`
	Verified   bool              `json:"verified,omitempty"`
	Name       string            `json:"name,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Context is what is known of the user and the page.
type Context struct {
	User               User   `json:"user"`
	Locale             string `json:"locale,omitempty"`
	AssistantSessionID string `json:"assistant_session_id,omitempty"`
}

// HistoryItem is one line of the conversation before the agent.
type HistoryItem struct {
	From string    `json:"from"`
	Text string    `json:"text"`
	Time time.Time `json:"time,omitzero"`
}

// StartRequest asks for an agent.
type StartRequest struct {
	Context        Context         `json:"context"`
	Text           string          `json:"text,omitempty"`
	History        []HistoryItem   `json:"history,omitempty"`
	ConnectMessage json.RawMessage `json:"connect_message,omitempty"`
}

// Conversation is the answer to a start.
type Conversation struct {
	// ID is the desk's own. A key that is used again after the desk has
	// forgotten it gets another ID.
	ID string `json:"id"`
	// Seq is that of the last event so far.
	Seq uint64 `json:"seq"`
}

// Message is one message of the user.
type Message struct {
	ID   string          `json:"id"`
	Text string          `json:"text"`
	Data json.RawMessage `json:"data,omitempty"`
	Time time.Time       `json:"time,omitzero"`
}

// MessageTaken says that the desk has the message.
type MessageTaken struct {
	// ID is the desk's own id of the message.
	ID string `json:"id"`
}

// Typing is whether the user types.
type Typing struct {
	Typing bool `json:"typing"`
}

// Availability is whether anybody is there. Online is null if nobody knows.
type Availability struct {
	Online      *bool  `json:"online"`
	WaitMinutes *int   `json:"wait_minutes,omitempty"`
	Position    *int   `json:"position,omitempty"`
	Message     string `json:"message,omitempty"`
}

// History is what happened in a conversation after a cursor.
type History struct {
	// ID is the conversation's, as in [Conversation].
	ID string `json:"id"`
	// Seq is that of the conversation's last event.
	Seq    uint64  `json:"seq"`
	Events []Event `json:"events"`
	// More says that there is more behind the last of Events.
	More bool `json:"more,omitempty"`
}

// CatchUpRequest names a cursor for each of the conversations: the seq of the
// last event known. At most [MaxCatchUp] of them.
type CatchUpRequest struct {
	After map[string]uint64 `json:"after"`
}

// MaxCatchUp is how many conversations one catch-up may name.
const MaxCatchUp = 256

// CatchUpResponse has a history for each conversation that the desk knows.
type CatchUpResponse struct {
	Conversations map[string]History `json:"conversations"`
}

// The types of events. Those without a seq are passing news: not kept, not in
// any history.
const (
	Started      = "started"       // Start
	UserMessage  = "user_message"  // MessageID, Text
	Updated      = "updated"       // Context
	AgentJoined  = "agent_joined"  // Agent
	AgentLeft    = "agent_left"    // AgentID
	AgentMessage = "agent_message" // AgentID, Parts
	AgentRead    = "agent_read"    //
	AgentTyping  = "agent_typing"  // AgentID, Typing; no seq
	Transfer     = "transfer"      // Agent, if known
	InQueue      = "in_queue"      // Availability; no seq
	Capable      = "capable"       // Capabilities
	InTrouble    = "in_trouble"    // Trouble
	Ended        = "ended"         // By, Reason; the last one
)

// Event is something that happened in a conversation. Conversation and Seq
// together name it for good.
type Event struct {
	Key          string    `json:"key"`
	Conversation string    `json:"conversation"`
	Seq          uint64    `json:"seq,omitempty"`
	Time         time.Time `json:"time"`
	Type         string    `json:"type"`

	MessageID    string        `json:"message_id,omitempty"`
	Text         string        `json:"text,omitempty"`
	Parts        []Part        `json:"parts,omitempty"`
	AgentID      string        `json:"agent_id,omitempty"`
	Agent        *Agent        `json:"agent,omitempty"`
	Typing       bool          `json:"typing,omitempty"`
	By           string        `json:"by,omitempty"` // "user" or "agent"
	Reason       string        `json:"reason,omitempty"`
	Availability *Availability `json:"availability,omitempty"`
	Capabilities *Capabilities `json:"capabilities,omitempty"`
	Trouble      *Trouble      `json:"trouble,omitempty"`
	Start        *StartRequest `json:"start,omitempty"`
	Context      *Context      `json:"context,omitempty"`
}

// Last tells whether no other event of the conversation follows.
func (e *Event) Last() bool {
	return e.Type == Ended || e.Type == InTrouble && e.Trouble.Kind == NoAgent
}

// Agent is a person at the desk.
type Agent struct {
	ID        string `json:"id"`
	Nickname  string `json:"nickname"`
	AvatarURL string `json:"avatar_url,omitempty"`
	Bot       bool   `json:"bot,omitempty"`
}

// Part is one thing of a message to show: Type says which, and which of the
// other members it has.
type Part struct {
	// Type is text, image, video, link, inline_error, file, quick_replies or
	// user_defined.
	Type      string         `json:"type"`
	Text      string         `json:"text,omitempty"`
	URL       string         `json:"url,omitempty"`
	Title     string         `json:"title,omitempty"`
	AltText   string         `json:"alt_text,omitempty"`
	Label     string         `json:"label,omitempty"`
	Name      string         `json:"name,omitempty"`
	MediaType string         `json:"media_type,omitempty"`
	Size      int64          `json:"size,omitempty"`
	Replies   []QuickReply   `json:"replies,omitempty"`
	Data      map[string]any `json:"data,omitempty"`
}

// QuickReply is one answer to choose.
type QuickReply struct {
	Label string `json:"label"`
	Value string `json:"value,omitempty"`
}

// Capabilities is what the user may do.
type Capabilities struct {
	FileUploads         bool     `json:"file_uploads"`
	MultipleFileUploads bool     `json:"multiple_file_uploads"`
	FileUploadTypes     []string `json:"file_upload_types,omitempty"`
}

// The kinds of trouble.
const (
	NoAgent       = "no_agent"       // nobody can be reached; the last event of the conversation
	LinkLost      = "link_lost"      // the desk has lost its agent's line
	LinkBack      = "link_back"      //
	MessageFailed = "message_failed" // the user's last message was not shown
)

// Trouble is something that went wrong at the desk.
type Trouble struct {
	Kind string `json:"kind"`
	// Message is for the user.
	Message string `json:"message,omitempty"`
	// MessageID is the message that failed.
	MessageID string `json:"message_id,omitempty"`
}

// The codes of errors.
const (
	CodeInvalid = "invalid" // 400, 409, 413, 415, 422
	CodeUnknown = "unknown" // 404: no such conversation
	CodeOver    = "over"    // 410: the conversation has ended
	CodeRefused = "refused" // 422: the desk declines
	CodeBusy    = "busy"    // 429 or 503, with Retry-After: no effect, try later
	CodeFault   = "fault"   // 500: nobody knows whether it took effect
)

// Error is the body of a 4xx or 5xx answer.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// UserMessage may be shown to the user.
	UserMessage string `json:"user_message,omitempty"`
}
