package sdk

import "time"

// Event is something that happened at the desk, at most 256 KiB encoded.
type Event struct {
	ChatID string
	// ID is the desk's own id of the occurrence, at most 128 bytes. An event
	// with an ID that the chat has had already is acknowledged and dropped, but
	// for its State, so after an unclear Emit the same event may be emitted
	// again. Without an id from the vendor derive one from the occurrence
	// (message id, vendor time), never from the person: an agent may join
	// twice. Empty: never a duplicate.
	ID string
	// Time is when it happened, by the vendor's clock; optional. The order of
	// events is the order in which they are emitted.
	Time time.Time
	// State is the chat's new resume state, if this event changed it. The host
	// stores event and state together or neither.
	State *ResumeState
	// Payload says what happened.
	Payload Payload
}

// Payload is one of [AgentJoined], [AgentLeft], [AgentEndedChat],
// [AgentTyping], [AgentReadMessages], [MessageToUser], [TransferStarted],
// [AvailabilityChanged], [CapabilitiesChanged], [ErrorStatus] and [StateSaved].
type Payload interface{ payload() }

// Agent is a human or a bot at the desk.
type Agent struct {
	ID       string
	Nickname string
	// AvatarURL is an http or https link, or empty.
	AvatarURL string
	// Bot is true for a machine.
	Bot bool
}

// AgentJoined says that an agent has taken the chat. It may come again, for
// the same or another agent.
type AgentJoined struct{ Agent Agent }

// AgentLeft says that the agent has gone; the chat stays open.
type AgentLeft struct{ AgentID string }

// AgentEndedChat says that the desk has ended the chat. It comes after all
// other events of the chat: later ones are refused.
type AgentEndedChat struct {
	// Reason may be shown to the user; may be empty.
	Reason string
}

// AgentTyping is passing news: shown to a page that is there, never stored.
type AgentTyping struct {
	Typing  bool
	AgentID string
}

// AgentReadMessages says that the agent has seen all that the user wrote.
type AgentReadMessages struct{}

// MessageToUser is one message of the agent.
type MessageToUser struct {
	// MessageID is the desk's id of the message; empty: the event's ID.
	MessageID string
	// AgentID is who wrote it; empty: the agent who joined last.
	AgentID string
	// Parts are shown in this order. At least one.
	Parts []Part
}

// TransferStarted says that the chat is on its way to another agent, named if
// known; AgentJoined follows.
type TransferStarted struct{ Agent *Agent }

// AvailabilityChanged is passing news for a waiting user. Any of the fields may
// be set; the page shows the first that is.
type AvailabilityChanged struct {
	WaitMinutes *int
	Position    *int
	Message     string
}

// CapabilitiesChanged says what the user may do in the chat from now on.
type CapabilitiesChanged struct {
	FileUploads         bool
	MultipleFileUploads bool
	// FileUploadTypes are media types or file endings, as in HTML's accept.
	FileUploadTypes []string
}

// ErrorStatus is trouble that the page is told about.
type ErrorStatus struct {
	Kind ErrorKind
	// Disconnected is for LinkTrouble: true when the link is lost, false when it is back.
	Disconnected bool
	// MessageID is for MessageTrouble: the user's message that failed.
	MessageID string
	// UserMessage may be shown to the user.
	UserMessage string
	// LogMessage is for the operator. No secrets.
	LogMessage string
}

// ErrorKind says what an [ErrorStatus] is about.
type ErrorKind int

// The kinds of trouble.
const (
	// ConnectTrouble: no agent can be reached. The chat is over.
	ConnectTrouble ErrorKind = iota + 1
	// LinkTrouble: the link to the desk for this chat was lost, or is back.
	LinkTrouble
	// MessageTrouble: a message that the desk had taken was not shown to an agent.
	MessageTrouble
)

// StateSaved carries nothing but the event's State.
type StateSaved struct{}

func (AgentJoined) payload()         {}
func (AgentLeft) payload()           {}
func (AgentEndedChat) payload()      {}
func (AgentTyping) payload()         {}
func (AgentReadMessages) payload()   {}
func (MessageToUser) payload()       {}
func (TransferStarted) payload()     {}
func (AvailabilityChanged) payload() {}
func (CapabilitiesChanged) payload() {}
func (ErrorStatus) payload()         {}
func (StateSaved) payload()          {}

// Part is one thing to show: [Text], [Image], [Video], [Link], [InlineError],
// [File], [QuickReplies] or [UserDefined]. All links are http or https.
type Part interface{ part() }

// Text is text; Markdown is rendered.
type Text string

// Image is a picture by link.
type Image struct{ URL, Title, AltText string }

// Video is a film by link.
type Video struct{ URL, Title, AltText string }

// Link is a button that opens a link.
type Link struct{ URL, Label string }

// InlineError is text shown as an error.
type InlineError string

// File is a file to download by link.
type File struct {
	URL       string
	Name      string
	MediaType string
	// Size is in bytes; 0 if not known.
	Size int64
}

// QuickReplies offers answers to choose from.
type QuickReplies struct {
	Text    string
	Replies []QuickReply
}

// QuickReply is one answer to choose.
type QuickReply struct {
	Label string
	// Value is sent as the user's message; empty: the label.
	Value string
}

// UserDefined is for pages that know their desk. Its values are those of
// encoding/json, nested at most 1000 levels deep.
type UserDefined map[string]any

func (Text) part()         {}
func (Image) part()        {}
func (Video) part()        {}
func (Link) part()         {}
func (InlineError) part()  {}
func (File) part()         {}
func (QuickReplies) part() {}
func (UserDefined) part()  {}
