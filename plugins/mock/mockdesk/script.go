package mockdesk

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/deskapi"
)

// Script is how a desk behaves with nobody at its console. [ParseScript] makes
// one; the JSON Schema of the plugin's configuration describes each member.
type Script struct {
	Console   bool            `json:"console"`
	Agents    []deskapi.Agent `json:"agents"`
	Online    *bool           `json:"online"`
	Queue     *Queue          `json:"queue"`
	JoinDelay Millis          `json:"join_delay_ms"`
	Typing    Millis          `json:"typing_ms"`
	// Answer may hold {text}, which stands for what the user wrote.
	Answer     string `json:"answer"`
	OnStart    []Step `json:"on_start"`
	Rules      []Rule `json:"rules"`
	LeaveAfter int    `json:"leave_after"`
	EndAfter   int    `json:"end_after"`
	// Dedupe is whether a message that comes again is known to be the same.
	Dedupe bool `json:"dedupe"`

	Faults
}

// Faults are how a desk goes wrong. They may change while it runs.
type Faults struct {
	Calls map[string]*Fault `json:"calls"`
	Feed  FeedFault         `json:"feed"`
}

// FeedFault makes the feed careless: each so-manieth event comes twice, or
// changes places with the one behind it if both are on their way; 0: none does.
type FeedFault struct {
	Duplicate int `json:"duplicate_every"`
	Swap      int `json:"swap_every"`
}

// Queue is what a waiting user is told, step by step, until an agent joins.
type Queue struct {
	Position    int    `json:"position"`
	WaitMinutes int    `json:"wait_minutes"`
	Step        Millis `json:"step_ms"`
	Message     string `json:"message"`
}

// Rule is what the agent does when the user's whole text is When, ignoring case
// and the space around it. A When that ends with "*" matches a beginning.
type Rule struct {
	When string `json:"when"`
	Do   []Step `json:"do"`
}

// Step is one thing that an agent does: exactly one member is set. Scripts and
// the console are made of the same steps.
type Step struct {
	// Say is a text; {text} stands for what the user wrote.
	Say string `json:"say,omitempty"`
	// Message is any parts. {desk} in a link stands for the desk's own address.
	Message []deskapi.Part `json:"message,omitempty"`
	// TypingFor shows the agent typing for so long.
	TypingFor Millis `json:"typing_ms,omitempty"`
	// Typing begins or ends the agent's typing.
	Typing *bool `json:"typing,omitempty"`
	// Wait does nothing for so long.
	Wait Millis `json:"wait_ms,omitempty"`
	// Join has an agent join, by id; empty: who the chat is transferred to, or
	// else the first.
	Join *string `json:"join,omitempty"`
	// Transfer announces another agent, by id; empty: the next in the list.
	Transfer *string `json:"transfer,omitempty"`
	Leave    bool    `json:"leave,omitempty"`
	// End ends the conversation with a reason, which may be empty.
	End          *string               `json:"end,omitempty"`
	Read         bool                  `json:"read,omitempty"`
	Availability *deskapi.Availability `json:"availability,omitempty"`
	Capabilities *deskapi.Capabilities `json:"capabilities,omitempty"`
	Trouble      *deskapi.Trouble      `json:"trouble,omitempty"`

	// answers marks the plain answer, which needs an agent to give it.
	answers bool
}

// Fault makes calls of one kind slow, or fail, or both.
type Fault struct {
	Delay Millis `json:"delay_ms"`
	// Fail is one of the keys of failures, or empty.
	Fail        string `json:"fail"`
	UserMessage string `json:"user_message"`
	// RetryAfter goes with "retry" and "busy".
	RetryAfter Millis `json:"retry_after_ms"`
	// First touches so many calls and no more; Every each so-manieth only.
	First int `json:"first"`
	Every int `json:"every"`

	// late keeps the answer back, of a call that is done at once.
	late Millis
}

// touches tells whether a fault concerns the n-th call.
func (f *Fault) touches(n int) bool {
	if f == nil || f.First > 0 && n > f.First {
		return false
	}
	return f.Every < 2 || n%f.Every == 0
}

// Millis is a duration, in JSON a number of milliseconds.
type Millis time.Duration

// UnmarshalJSON reads milliseconds.
func (m *Millis) UnmarshalJSON(b []byte) error {
	var n int64
	if err := json.Unmarshal(b, &n); err != nil || n < 0 || n > maxMillis {
		return fmt.Errorf("want milliseconds, 0 to %d", maxMillis)
	}
	*m = Millis(time.Duration(n) * time.Millisecond)
	return nil
}

const maxMillis = 24 * 60 * 60 * 1000

// The calls that a script can slow down or fail.
const (
	callStart        = "start"
	callEnd          = "end"
	callSend         = "send"
	callUpdate       = "update"
	callTyping       = "typing"
	callRead         = "read"
	callAvailability = "availability"
	callCatchUp      = "catch_up"
)

var calls = []string{callStart, callEnd, callSend, callUpdate, callTyping, callRead, callAvailability, callCatchUp}

// commands are the rules of every script, after its own: what a user can type
// to see each event of the contract.
//
//go:embed commands.json
var commandsJSON []byte

var commands = func() []Rule {
	var rules []Rule
	if err := decodeStrictly(commandsJSON, &rules); err != nil {
		panic("mockdesk: commands.json: " + err.Error())
	}
	return rules
}()

// ParseScript reads a script, a JSON object; empty is as good as {}. What is
// left out is as plain as can be: Ada joins within a second and answers each
// message with "You said: " and the text.
func ParseScript(text []byte) (*Script, error) {
	online := true
	s := &Script{
		Online:    &online,
		JoinDelay: Millis(300 * time.Millisecond),
		Typing:    Millis(150 * time.Millisecond),
		Answer:    "You said: {text}",
		Dedupe:    true,
	}
	if len(bytes.TrimSpace(text)) > 0 {
		if err := decodeStrictly(text, s); err != nil {
			return nil, err
		}
	}
	if len(s.Agents) == 0 {
		s.Agents = []deskapi.Agent{{ID: "ada", Nickname: "Ada"}, {ID: "grace", Nickname: "Grace"}}
	}
	return s, s.check()
}

func decodeStrictly(text []byte, to any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(to); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

func (s *Script) check() error {
	if err := s.checkAgents(); err != nil {
		return err
	}
	if q := s.Queue; q != nil && (q.Position < 0 || q.Position > 1000 || q.WaitMinutes < 0) {
		return errors.New("queue: want a position of 0 to 1000 and a wait of 0 minutes or more")
	}
	if s.LeaveAfter < 0 || s.EndAfter < 0 {
		return errors.New("leave_after, end_after: want 0 or more")
	}
	for i := range s.OnStart {
		if err := s.checkStep(&s.OnStart[i]); err != nil {
			return fmt.Errorf("on_start[%d]: %w", i, err)
		}
	}
	for i, r := range s.Rules {
		if strings.TrimSpace(r.When) == "" || len(r.Do) == 0 {
			return fmt.Errorf("rules[%d]: want a text in when and steps in do", i)
		}
		for k := range r.Do {
			if err := s.checkStep(&r.Do[k]); err != nil {
				return fmt.Errorf("rules[%d].do[%d]: %w", i, k, err)
			}
		}
	}
	return s.Faults.check()
}

func (s *Faults) check() error {
	for name, f := range s.Calls {
		if f == nil || !slices.Contains(calls, name) {
			return fmt.Errorf("calls.%s: no such call; there are %s", name, strings.Join(calls, ", "))
		}
		if _, ok := failures[f.Fail]; f.Fail != "" && !ok {
			return fmt.Errorf("calls.%s.fail: no such failure", name)
		}
		if f.First < 0 || f.Every < 0 {
			return fmt.Errorf("calls.%s: first and every want 0 or more", name)
		}
	}
	if s.Feed.Duplicate < 0 || s.Feed.Swap < 0 {
		return errors.New("feed: duplicate_every and swap_every want 0 or more")
	}
	return nil
}

func (s *Script) checkAgents() error {
	seen := map[string]bool{}
	for i, a := range s.Agents {
		switch {
		case a.ID == "" || len(a.ID) > 128 || seen[a.ID]:
			return fmt.Errorf("agents[%d].id: want an id of 1 to 128 bytes that no other agent has", i)
		case a.Nickname == "":
			return fmt.Errorf("agents[%d].nickname: must not be empty", i)
		case a.AvatarURL != "" && !isLink(a.AvatarURL):
			return fmt.Errorf("agents[%d].avatar_url: want an http or https link", i)
		}
		seen[a.ID] = true
	}
	return nil
}

// checkStep tells what is wrong with a step from a script or a console.
func (s *Script) checkStep(st *Step) error {
	n := 0
	for _, set := range []bool{
		st.Say != "", len(st.Message) > 0, st.TypingFor > 0, st.Typing != nil, st.Wait > 0, st.Join != nil,
		st.Transfer != nil, st.Leave, st.End != nil, st.Read, st.Availability != nil, st.Capabilities != nil,
		st.Trouble != nil,
	} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("a step does exactly one thing, this one %d", n)
	}
	for _, id := range []*string{st.Join, st.Transfer} {
		if id != nil && *id != "" && s.agent(*id) == nil {
			return errors.New("names an agent that is not in agents")
		}
	}
	for i := range st.Message {
		if err := checkPart(&st.Message[i]); err != nil {
			return fmt.Errorf("message[%d]: %w", i, err)
		}
	}
	if t := st.Trouble; t != nil {
		switch t.Kind {
		case deskapi.NoAgent, deskapi.LinkLost, deskapi.LinkBack, deskapi.MessageFailed:
		default:
			return errors.New("trouble.kind: want no_agent, link_lost, link_back or message_failed")
		}
	}
	return nil
}

func checkPart(p *deskapi.Part) error {
	switch p.Type {
	case "text", "inline_error":
		if p.Text == "" {
			return errors.New("text must not be empty")
		}
	case "image", "video", "link", "file":
		if !strings.HasPrefix(p.URL, deskLink) && !isLink(p.URL) {
			return errors.New("url: want an http or https link, or one that begins with " + deskLink)
		}
	case "quick_replies":
		if len(p.Replies) == 0 {
			return errors.New("replies must not be empty")
		}
		for _, r := range p.Replies {
			if r.Label == "" {
				return errors.New("a reply's label must not be empty")
			}
		}
	case "user_defined":
		if len(p.Data) == 0 {
			return errors.New("data must not be empty")
		}
	default:
		return errors.New("type: want text, image, video, link, inline_error, file, quick_replies or user_defined")
	}
	return nil
}

func isLink(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// agent returns the agent with the id, or nil.
func (s *Script) agent(id string) *deskapi.Agent {
	for i := range s.Agents {
		if s.Agents[i].ID == id {
			return &s.Agents[i]
		}
	}
	return nil
}

// agentAfter returns the agent behind the given one in the list, the first
// behind the last and behind none.
func (s *Script) agentAfter(a *deskapi.Agent) *deskapi.Agent {
	for i := range s.Agents {
		if a != nil && s.Agents[i].ID == a.ID {
			return &s.Agents[(i+1)%len(s.Agents)]
		}
	}
	return &s.Agents[0]
}

// rule returns the first rule for a text, or nil.
func (s *Script) rule(text string) *Rule {
	text = strings.ToLower(strings.TrimSpace(text))
	for _, rules := range [][]Rule{s.Rules, commands} {
		for i := range rules {
			when := strings.ToLower(strings.TrimSpace(rules[i].When))
			if prefix, ok := strings.CutSuffix(when, "*"); ok && strings.HasPrefix(text, prefix) || text == when {
				return &rules[i]
			}
		}
	}
	return nil
}
