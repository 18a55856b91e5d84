// Package console is the page on which a person plays the agents of a vendor's
// simulator: the list of conversations, what was said in one, and what an agent
// can do there.
//
// It owns the page and the calls behind it, and keeps nothing: a simulator shows
// its conversations through [Desk]. It must not know any vendor. The simulators
// of plugins import it; a plugin has it only with the mock desk, which it brings.
package console

import (
	_ "embed"
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a person at the page can do; [Options.More] has what else a simulator can.
const (
	// Join has an agent take the conversation.
	Join = "join"
	// Say has an agent write Text, who joins first if need be.
	Say = "say"
	// Typing tells the customer that the agent types. It is sent every few
	// seconds, and StopTyping when the agent has stopped. Saying something is the
	// end of it too.
	Typing     = "typing"
	StopTyping = "stop_typing"
	// Read tells that the agent has read what is unread; not sent where nothing is.
	Read = "read"
	// Transfer hands the conversation to the agent named in Text.
	Transfer = "transfer"
	// Leave has the agent leave a conversation that goes on.
	Leave = "leave"
	// End has the agent end the conversation.
	End = "end"
	// Attend sets what [Options.Online] says, to Text. It is of no conversation.
	Attend = "attend"
)

// Whether anybody is at the desk.
const (
	Online  = "online"
	Offline = "offline"
	Unknown = "unknown"
)

// The states of a conversation.
const (
	Waiting   = "waiting"
	Connected = "connected"
	Ended     = "ended"
)

// Desk is a simulator. Its methods are called at any time and by several
// goroutines at once; they must not wait.
type Desk interface {
	// Conversations returns all conversations, the latest first. The page shows
	// those that go on before those that ended, and a hundred at most.
	Conversations() []Conversation
	// Transcript returns what was said and done in a conversation, oldest first,
	// without the first so many lines. Lines never change.
	Transcript(id string, after int) []Line
	// Do has an agent do something. The page shows the text of the error.
	Do(a Action) error
}

// Conversation is a conversation as the list shows it.
type Conversation struct {
	ID string `json:"id"`
	// Name is what the customer is called; the page has an answer to an empty one.
	Name  string `json:"name"`
	State string `json:"state"` // Waiting, Connected or Ended
	// Agent has joined, or was called and has not joined yet.
	Agent string `json:"agent,omitempty"`
	// Typing tells whether the customer types.
	Typing bool `json:"typing"`
	// Unread is how much of the customer's the agent has not read, and Seen
	// whether the customer has seen all that the agent said; where a desk tells.
	Unread int  `json:"unread"`
	Seen   bool `json:"seen"`
	// Preview is what was said last. The page shows its beginning.
	Preview string    `json:"preview"`
	Changed time.Time `json:"changed"`
	// Facts are what is known of the customer and the conversation.
	Facts []Fact `json:"facts,omitempty"`
}

// Fact is a name with a value.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Line is a line of a transcript.
type Line struct {
	Time time.Time `json:"time"`
	// From is "customer" or "agent", or empty for what happened.
	From string `json:"from"`
	// Who is the agent's name.
	Who  string `json:"who,omitempty"`
	Text string `json:"text"`
	// URL is what the text stands for, http or https, as Media says.
	URL   string `json:"url,omitempty"`
	Media string `json:"media,omitempty"` // Image, Video, or empty for a link
	// Choices are answers that the customer may choose from.
	Choices []string `json:"choices,omitempty"`
}

// What a line shows above its text.
const (
	Image = "image"
	Video = "video"
)

// Action is what an agent does in a conversation.
type Action struct {
	Conversation string `json:"conversation"`
	Do           string `json:"do"`
	Agent        string `json:"agent"`
	Text         string `json:"text"`
}

// Options say what the page shows beside the conversations.
type Options struct {
	// Title heads the page.
	Title string
	// Agents are the names of those who can be played: at least one.
	Agents []string
	// More are buttons for what only this simulator can, each with the word that
	// the action has in Do. Its Text is what stands in the field for messages.
	More []Button
	// Online, if it is set, returns Online, Offline or Unknown: what the desk says
	// of itself. The page has a switch for it then. It is called like a Desk.
	Online func() string
}

// Button is one of [Options.More].
type Button struct {
	Do    string `json:"do"`
	Label string `json:"label"`
}

//go:embed console.html
var page []byte

// maxList bounds the conversations in the list.
const maxList = 100

// maxAction bounds the JSON of an action.
const maxAction = 1 << 20

// What one answer to the page has at most, in bytes: an answer that goes through
// a host may have 1 MiB. The page asks for further lines at once.
const (
	maxPreview = 200
	maxFact    = 32 << 10
	maxLines   = 256 << 10
)

// state is what the page asks for twice a second.
type state struct {
	Title         string         `json:"title"`
	Agents        []string       `json:"agents"`
	More          []Button       `json:"more"`
	Online        string         `json:"online,omitempty"`
	Counts        map[string]int `json:"counts"`
	Conversations []Conversation `json:"conversations"`
	// Lines are the transcript of the open conversation, Open, behind what the
	// page has; not all of it if Further.
	Open    *Conversation `json:"open,omitempty"`
	Lines   []Line        `json:"lines"`
	Further bool          `json:"further"`
}

// New returns the page. Its links are relative: it may be mounted anywhere, with
// a slash at the end and the prefix stripped. Whoever reaches it is an agent.
func New(options Options, desk Desk) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; connect-src 'self'; img-src data: http: https:; media-src http: https:; script-src 'unsafe-inline'; style-src 'unsafe-inline'")
		_, _ = w.Write(page) // the reader has gone if this fails
	})
	m.HandleFunc("GET /state", func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.Atoi(r.URL.Query().Get("after"))
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(options.state(desk, r.URL.Query().Get("open"), max(after, 0))) // as above
	})
	m.HandleFunc("POST /do", func(w http.ResponseWriter, r *http.Request) {
		// No web page of another origin can send this type unasked.
		if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
			http.Error(w, "want Content-Type: application/json", http.StatusUnsupportedMediaType)
			return
		}
		var a Action
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAction)).Decode(&a); err != nil {
			http.Error(w, "want an action as a JSON object", http.StatusBadRequest)
			return
		}
		if err := desk.Do(a); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return m
}

func (o *Options) state(desk Desk, open string, after int) *state {
	s := &state{
		Title: o.Title, Agents: o.Agents, More: o.More, Conversations: desk.Conversations(), Lines: []Line{},
		Counts: map[string]int{Waiting: 0, Connected: 0, Ended: 0},
	}
	if o.Online != nil {
		s.Online = o.Online()
	}
	for i := range s.Conversations {
		c := &s.Conversations[i]
		s.Counts[c.State]++
		c.Preview = cut(c.Preview, maxPreview)
		if c.ID == open {
			found := *c
			found.Facts = slices.Clone(c.Facts)
			for i := range found.Facts {
				found.Facts[i].Value = cut(found.Facts[i].Value, maxFact)
			}
			s.Open = &found
			s.addLines(desk.Transcript(open, after))
		}
		c.Facts = nil // the list does without
	}
	slices.SortStableFunc(s.Conversations, func(a, b Conversation) int {
		return over(a) - over(b)
	})
	s.Conversations = s.Conversations[:min(len(s.Conversations), maxList)]
	return s
}

// addLines takes as many lines as an answer has room for, one at least.
func (s *state) addLines(lines []Line) {
	size := 0
	for i := range lines {
		size += len(lines[i].Text)
		if i > 0 && size > maxLines {
			s.Further = true
			return
		}
		s.Lines = append(s.Lines, lines[i])
	}
}

func over(c Conversation) int {
	if c.State == Ended {
		return 1
	}
	return 0
}

// cut returns the beginning of a text, of at most so many bytes and a mark.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
