package adapter

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/deskhost/deskhost/sdk"
)

// stateFormat is the number of state's form.
const stateFormat = 1

// state is a chat's resume state: what the host knows of the conversation, and
// what takes a call to find out.
type state struct {
	// Conversation is CH…, Identity the customer's in it.
	Conversation string `json:"conversation"`
	Identity     string `json:"identity"`
	// Interaction and Channel are KD… and UO…, if known.
	Interaction string `json:"interaction,omitempty"`
	Channel     string `json:"channel,omitempty"`
	// Webhook is WH…, which calls WebhookURL.
	Webhook    string `json:"webhook,omitempty"`
	WebhookURL string `json:"webhook_url,omitempty"`
	// Last is the index of the last message that is settled, Own that of the
	// customer's last, Read how far the host knows the agents to have read; -1
	// if there is none.
	Last int `json:"last"`
	Own  int `json:"own"`
	Read int `json:"read"`
	// Agents are those who have joined and not left, Others the participants
	// who are neither the customer nor agents.
	Agents []person `json:"agents,omitempty"`
	Others []string `json:"others,omitempty"`
	// Moves counts joins and leaves that were told.
	Moves int `json:"moves,omitempty"`
	// Left is the participant whose leaving left nobody, if that has happened.
	Left string `json:"left,omitempty"`
	// Unattended says that the user knows that nobody is there.
	Unattended bool `json:"unattended,omitempty"`
	// Away says that the user knows that Twilio does not answer, which has
	// happened Outages times.
	Away    bool `json:"away,omitempty"`
	Outages int  `json:"outages,omitempty"`
}

// person is a participant, MB…, and who that is.
type person struct {
	SID      string `json:"sid"`
	Identity string `json:"identity"`
}

func newState(conversation, identity string) state {
	return state{Conversation: conversation, Identity: identity, Last: -1, Own: -1, Read: -1}
}

func readState(s *sdk.ResumeState) (state, error) {
	st := newState("", "")
	if s.Format != stateFormat {
		return st, fmt.Errorf("resume state of format %d, want %d", s.Format, stateFormat)
	}
	if err := json.Unmarshal(s.Data, &st); err != nil {
		return st, fmt.Errorf("resume state: %w", err)
	}
	if st.Conversation == "" || st.Identity == "" {
		return st, errors.New("resume state: it names no conversation")
	}
	return st, nil
}

func (st *state) resume() *sdk.ResumeState {
	data, err := json.Marshal(st)
	if err != nil {
		panic(err) // strings, numbers and bools
	}
	return &sdk.ResumeState{Data: data, Format: stateFormat}
}

// clone returns a state that can be changed by itself.
func (st *state) clone() state {
	next := *st
	next.Agents = slices.Clone(st.Agents)
	next.Others = slices.Clone(st.Others)
	return next
}

// agent returns the place among the agents of a participant, or of who has the
// identity if no participant is named; -1 if there is none.
func (st *state) agent(sid, identity string) int {
	return slices.IndexFunc(st.Agents, func(a person) bool {
		return a.SID == sid || sid == "" && a.Identity == identity
	})
}
