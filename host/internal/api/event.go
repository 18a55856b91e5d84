package api

import (
	"encoding/json"
	"time"
)

// Event is the form of an entry or of passing news, for the API's description.
// appendNews writes it. Which members a type has is told in docs/http-api.md.
type Event struct {
	Seq    uint64    `json:"seq,omitempty" doc:"Its place in the session's log; passing news has none."`
	Time   time.Time `json:"time"`
	Type   string    `json:"type" enum:"chat_requested,chat_started,agent_joined,message,message_status,agent_left,transfer_started,agent_read,error,capabilities,state_updated,desk_away,desk_back,chat_ended,gap,agent_typing,availability"`
	ChatID string    `json:"chat_id,omitempty"`

	Desk   string          `json:"desk,omitempty"`
	From   string          `json:"from,omitempty" enum:"user,agent"`
	Typing *bool           `json:"typing,omitempty"`
	ID     string          `json:"id,omitempty"`
	Status string          `json:"status,omitempty" enum:"delivered,failed,unknown"`
	Text   *string         `json:"text,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`

	AgentID string  `json:"agent_id,omitempty"`
	Agent   *agent  `json:"agent,omitempty"`
	Parts   *[]part `json:"parts,omitempty" nullable:"false"`

	Kind         string `json:"kind,omitempty" enum:"connecting,disconnected"`
	Disconnected *bool  `json:"disconnected,omitempty"`

	FileUploads         *bool     `json:"file_uploads,omitempty"`
	MultipleFileUploads *bool     `json:"multiple_file_uploads,omitempty"`
	FileUploadTypes     *[]string `json:"file_upload_types,omitempty" nullable:"false"`

	By     string `json:"by,omitempty" enum:"user,agent,desk,host"`
	Reason string `json:"reason,omitempty"`

	WaitMinutes *uint32 `json:"wait_minutes,omitempty"`
	Position    *uint32 `json:"position,omitempty"`
	Message     string  `json:"message,omitempty" doc:"May be shown to the user."`
}

// agent is a human or bot at the desk.
type agent struct {
	ID        string `json:"id"`
	Nickname  string `json:"nickname"`
	AvatarURL string `json:"avatar_url,omitempty"`
	Bot       bool   `json:"bot,omitempty"`
}

// part is one thing to show of an agent's message.
type part struct {
	Type      string          `json:"type" enum:"text,image,video,link,inline_error,file,quick_replies,user_defined"`
	Text      *string         `json:"text,omitempty"`
	URL       string          `json:"url,omitempty"`
	Title     string          `json:"title,omitempty"`
	AltText   string          `json:"alt_text,omitempty"`
	Label     string          `json:"label,omitempty"`
	Name      string          `json:"name,omitempty"`
	MediaType string          `json:"media_type,omitempty"`
	Size      uint64          `json:"size,omitempty" doc:"In bytes."`
	Replies   *[]reply        `json:"replies,omitempty" nullable:"false"`
	Data      json.RawMessage `json:"data,omitempty"`
}

// reply is one answer to choose.
type reply struct {
	Label string `json:"label"`
	Value string `json:"value" doc:"What is sent as the user's message."`
}
