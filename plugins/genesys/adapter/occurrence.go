package adapter

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/deskhost/deskhost/sdk"
)

// occurrence is one thing that happened in a conversation, in the same words for
// both of the vendor's APIs.
type occurrence struct {
	// id is the vendor's, or derived from what the vendor says of the occurrence.
	id string
	// at is by the vendor's clock; zero if it does not tell.
	at time.Time
	// listed says that it is found in the vendor's history, by id.
	listed bool
	// what is one of the types below.
	what any
}

type (
	// said is a message to the user. The agent may be nil: the desk itself.
	said struct {
		agent *agent
		parts []sdk.Part
	}
	// came says that an agent has joined, went that one has left; went without an id
	// means whoever is there.
	came struct{ agent agent }
	went struct{ agentID string }
	// present says which agents are there now.
	present struct{ agents []agent }
	// called says that another agent is being asked to take the chat.
	called struct{ agent agent }
	// typing says whether the agent types, and how long that holds.
	typing struct {
		on    bool
		lasts time.Duration
	}
	// waits tells a waiting user how long it takes.
	waits struct{ minutes int }
	// linked says whether there is a link to the conversation.
	linked struct{ lost bool }
	// over says that the conversation has ended.
	over struct{ reason string }
	// kept asks for nothing but that the state be stored; done is told.
	kept struct{ done chan<- error }
	// wrote is a message of the user's own that the desk has; messageID is the
	// host's if it is known.
	wrote struct{ messageID, text string }
	// declined says that the desk did not take a message of the user's.
	declined struct {
		messageID string
		err       error
	}
)

// step is an event for the host with the state that goes with it.
type step struct {
	id      string
	payload sdk.Payload
	after   state
}

// steps are what the host is told of an occurrence, one after the other. The last
// state is also returned if there is nothing to tell. Each step's state is such
// that a process which resumes from it tells the steps that follow, and no others.
func (st state) steps(o *occurrence) ([]step, state) {
	t := &telling{id: o.id, st: st}
	switch w := o.what.(type) {
	case said:
		id := ""
		if w.agent != nil {
			t.join(w.agent)
			id = w.agent.ID
		}
		if len(w.parts) > 0 {
			t.tell("", sdk.MessageToUser{MessageID: o.id, AgentID: id, Parts: w.parts})
		}
	case came:
		t.join(&w.agent)
	case went:
		if st.Agent != nil && (w.agentID == "" || w.agentID == st.Agent.ID) {
			t.leave()
		} else {
			t.st.Transferring = false // whoever was called does not come
		}
	case present:
		if st.Agent != nil && !slices.ContainsFunc(w.agents, func(a agent) bool { return a.ID == st.Agent.ID }) {
			t.leave()
		}
		if t.st.Agent == nil && len(w.agents) > 0 {
			t.join(&w.agents[0])
		}
	case called:
		// The first one to be called is no transfer, and so is who is there already.
		if st.Served && (st.Agent == nil || st.Agent.ID != w.agent.ID) {
			t.transfer(&w.agent)
		}
	case linked:
		t.st.Away = w.lost
		t.tell("", sdk.ErrorStatus{Kind: sdk.LinkTrouble, Disconnected: w.lost, LogMessage: "the connection to the conversation at Genesys"})
	case over:
		t.tell("", sdk.AgentEndedChat{Reason: w.reason})
	case kept:
		t.tell("", sdk.StateSaved{})
	default:
		return st.passing(w), st
	}
	if o.listed {
		t.st.remember(o.id, o.at)
		if n := len(t.all); n > 0 {
			t.all[n-1].after = t.st
		}
	}
	return t.all, t.st
}

// passing is news that changes nothing and is not kept.
func (st state) passing(what any) []step {
	switch w := what.(type) {
	case typing:
		id := ""
		if st.Agent != nil {
			id = st.Agent.ID
		}
		return []step{{"", sdk.AgentTyping{Typing: w.on, AgentID: id}, st}}
	case waits:
		if st.Agent == nil {
			return []step{{"", sdk.AvailabilityChanged{WaitMinutes: &w.minutes}, st}}
		}
	}
	return nil
}

// telling gathers the steps of one occurrence.
type telling struct {
	id  string
	st  state
	all []step
}

func (t *telling) tell(suffix string, p sdk.Payload) {
	t.all = append(t.all, step{eventID(t.id, suffix), p, t.st})
}

func (t *telling) join(a *agent) {
	if t.st.Agent != nil {
		if t.st.Agent.ID == a.ID || a.Bot {
			return // a machine's word while somebody is there is no hand-over to it
		}
		t.transfer(a)
	}
	t.st.Agent, t.st.Served, t.st.Transferring = a, true, false
	t.tell("joined", sdk.AgentJoined{Agent: *a.toSDK()})
}

func (t *telling) transfer(to *agent) {
	if !t.st.Transferring {
		t.st.Transferring = true
		t.tell("transfer", sdk.TransferStarted{Agent: to.toSDK()})
	}
}

func (t *telling) leave() {
	left := t.st.Agent.ID
	t.st.Agent = nil
	t.tell("left", sdk.AgentLeft{AgentID: left})
}

// toSDK is the agent as the host has it.
func (a *agent) toSDK() *sdk.Agent {
	s := &sdk.Agent{ID: a.ID, Nickname: a.Nickname, Bot: a.Bot}
	if isLink(a.Avatar) {
		s.AvatarURL = a.Avatar
	}
	return s
}

// clipID makes a text of the vendor's an id that the host takes, with a suffix.
func clipID(id string) string {
	const limit = 100
	if len(id) <= limit {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// clipName bounds a name, since the state holds it.
func clipName(name string) string {
	const limit = 200
	if utf8.RuneCountInString(name) <= limit {
		return name
	}
	return string([]rune(name)[:limit]) + "…"
}

// eventID is the id of one of the events of an occurrence.
func eventID(id, suffix string) string {
	if id == "" || suffix == "" {
		return id
	}
	return id + "-" + suffix
}

// isLink tells whether a page may open an address.
func isLink(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// stamp is a time within an id.
func stamp(at time.Time) string { return strconv.FormatInt(at.UnixNano(), 36) }
