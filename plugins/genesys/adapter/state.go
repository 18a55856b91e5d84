package adapter

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/deskhost/deskhost/sdk"
)

const (
	// stateFormat is the number of state's form.
	stateFormat = 1
	// maxRecent is how many messages are remembered by id.
	maxRecent = 64
	// overlap is how far before the cursor a history is read again, for messages
	// that a later one had overtaken. What is known of it is known by its id.
	overlap = 30 * time.Second
)

// state is a chat's resume state: what another process needs to go on. It holds
// the keys to the conversation, so it never goes into a log.
type state struct {
	Mode string `json:"mode"`
	// Token is the session of web messaging.
	Token string `json:"token,omitempty"`
	// SignedIn says that the session needs the page's sign-in token, which is not kept.
	SignedIn bool `json:"signed_in,omitempty"`
	// Chat is the conversation of web chat.
	Chat *chatKeys `json:"chat,omitempty"`
	// Sent is the last message of the user that is known to be at the desk.
	Sent sent `json:"sent,omitzero"`
	// Agent has joined and not left; nil if there is none. Served says that there has
	// been one.
	Agent  *agent `json:"agent,omitempty"`
	Served bool   `json:"served,omitempty"`
	// Transferring says that another agent has been announced.
	Transferring bool `json:"transferring,omitempty"`
	// Cursor is the latest vendor time of what the host has, and Recent the ids of
	// the last messages of it.
	Cursor time.Time `json:"cursor,omitzero"`
	Recent []string  `json:"recent,omitempty"`
	// Away is set while the user believes that the link is lost.
	Away bool `json:"away,omitempty"`
}

// chatKeys open a conversation of web chat.
type chatKeys struct {
	ID     string `json:"id"`
	JWT    string `json:"jwt"`
	Member string `json:"member"`
	Stream string `json:"stream"`
}

// sent names a message of the user, by the host's id and the vendor's.
type sent struct {
	MessageID string    `json:"message_id,omitempty"`
	DeskID    string    `json:"desk_id,omitempty"`
	At        time.Time `json:"at,omitzero"`
}

// agent is who has joined.
type agent struct {
	ID       string `json:"id"`
	Nickname string `json:"nickname,omitempty"`
	Avatar   string `json:"-"`
	Bot      bool   `json:"bot,omitempty"`
}

func readState(s *sdk.ResumeState) (state, error) {
	var st state
	if s.Format != stateFormat {
		return st, fmt.Errorf("resume state of format %d, want %d", s.Format, stateFormat)
	}
	if err := json.Unmarshal(s.Data, &st); err != nil {
		// The error may quote a key.
		return st, fmt.Errorf("the resume state is not understood")
	}
	return st, nil
}

func (st *state) resume() *sdk.ResumeState {
	data, err := json.Marshal(st)
	if err != nil {
		panic(err) // texts, times and bools
	}
	return &sdk.ResumeState{Data: data, Format: stateFormat}
}

// used tells whether anything was said in the conversation.
func (st *state) used() bool { return st.Sent.DeskID != "" || st.Served || len(st.Recent) > 0 }

// known tells whether the host has a message of the vendor's, as far as is remembered.
func (st *state) known(id string) bool { return slices.Contains(st.Recent, id) }

// past tells whether something is so old that the host must have it.
func (st *state) past(at time.Time) bool {
	return !at.IsZero() && !st.Cursor.IsZero() && at.Before(st.Cursor.Add(-overlap))
}

// remember notes that the host has a message.
func (st *state) remember(id string, at time.Time) {
	if at.After(st.Cursor) {
		st.Cursor = at
	}
	recent := append(slices.Clip(st.Recent), id) // a copy: others may hold the old one
	st.Recent = recent[max(0, len(recent)-maxRecent):]
}
