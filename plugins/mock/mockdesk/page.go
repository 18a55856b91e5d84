package mockdesk

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/deskhost/deskhost/plugins/internal/console"
	"github.com/deskhost/deskhost/plugins/mock/deskapi"
)

// page returns the console, on which a person plays the agents.
func (d *Desk) page() http.Handler {
	names := make([]string, len(d.script.Agents))
	for i := range d.script.Agents {
		names[i] = d.script.Agents[i].Nickname
	}
	return console.New(console.Options{
		Title:  "Mock desk",
		Agents: names,
		More: []console.Button{
			{Do: "image", Label: "Image"},
			{Do: "video", Label: "Video"},
			{Do: "link", Label: "Link"},
			{Do: "file", Label: "File"},
			{Do: "quick_replies", Label: "Quick replies"},
			{Do: "markdown", Label: "Markdown"},
			{Do: "inline_error", Label: "Inline error"},
			{Do: "user_defined", Label: "Custom"},
			{Do: "allow_files", Label: "Allow files"},
			{Do: "link_lost", Label: "Line lost"},
			{Do: "link_back", Label: "Line back"},
		},
		Online: d.pageOnline,
	}, onPage{d})
}

// pageOnline returns what the desk says of itself, in the page's words.
func (d *Desk) pageOnline() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.online == nil:
		return console.Unknown
	case *d.online:
		return console.Online
	default:
		return console.Offline
	}
}

// onPage is the desk as the console sees it. A conversation goes by the id that
// the desk gave it, so that one of a desk that has begun anew is another.
type onPage struct{ d *Desk }

// Conversations returns all conversations, the latest first.
func (p onPage) Conversations() []console.Conversation {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	all := p.d.latest()
	shown := make([]console.Conversation, len(all))
	for i, c := range all {
		shown[i] = c.onPage()
	}
	return shown
}

func (c *conversation) onPage() console.Conversation {
	agent := ""
	switch {
	case c.agent != nil && c.manual:
		agent = c.agent.Nickname
	case c.agent != nil:
		agent = c.agent.Nickname + " (script)"
	case c.next != nil:
		agent = c.next.Nickname
	}
	said := uint64(0) // the last time that the agent did
	for _, e := range slices.Backward(c.events) {
		if e.Type == deskapi.AgentMessage {
			said = e.Seq
			break
		}
	}
	return console.Conversation{
		ID: c.id, Name: c.name(), State: c.state(), Agent: agent, Typing: c.userTyping, Unread: c.unread,
		Seen: said > 0 && c.userRead >= said, Preview: c.preview, Changed: c.changed, Facts: c.facts(),
	}
}

// facts are what an agent is shown of the customer.
func (c *conversation) facts() []console.Fact {
	user := &c.context.User
	var facts []console.Fact
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, console.Fact{Name: name, Value: value})
		}
	}
	add("Name", user.Name)
	switch {
	case user.ID != "" && user.Verified:
		add("Id", user.ID+" (verified)")
	case user.ID != "":
		add("Id", user.ID+" (not verified)")
	}
	add("Language", c.context.Locale)
	add("Assistant session", c.context.AssistantSessionID)
	for _, name := range slices.Sorted(maps.Keys(user.Attributes)) {
		add(name, user.Attributes[name])
	}
	add("Summary", c.start.Text)
	var before []string
	for _, h := range c.start.History {
		who := "Assistant: "
		if h.From == "user" {
			who = "Customer: "
		}
		before = append(before, who+h.Text)
	}
	add("Before the agent", strings.Join(before, "\n"))
	var connect bytes.Buffer
	if json.Indent(&connect, c.start.ConnectMessage, "", " ") == nil {
		add("Connect message", connect.String())
	}
	return facts
}

// Transcript returns the lines of a conversation behind the first so many.
func (p onPage) Transcript(id string, after int) []console.Line {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	c := p.d.byID(id)
	if c == nil {
		return nil
	}
	var lines []console.Line
	for _, e := range c.events {
		lines = append(lines, p.d.lines(e)...)
	}
	return lines[min(after, len(lines)):]
}

// byID returns a conversation by the id that the desk gave it, or nil.
func (d *Desk) byID(id string) *conversation {
	for _, c := range d.conversations {
		if c.id == id {
			return c
		}
	}
	return nil
}

// lines are what the page shows of an event.
func (d *Desk) lines(e *deskapi.Event) []console.Line {
	who := "The agent"
	if e.Agent != nil {
		who = e.Agent.Nickname
	} else if a := d.script.agent(e.AgentID); a != nil {
		who = a.Nickname
	}
	note := func(text string) []console.Line { return []console.Line{{Time: e.Time, Text: text}} }
	switch e.Type {
	case deskapi.Started:
		return note("Conversation started")
	case deskapi.UserMessage:
		return []console.Line{{Time: e.Time, From: "customer", Text: e.Text}}
	case deskapi.AgentMessage:
		lines := make([]console.Line, len(e.Parts))
		for i := range e.Parts {
			lines[i] = line(&e.Parts[i])
			lines[i].Time, lines[i].From, lines[i].Who = e.Time, "agent", who
		}
		return lines
	case deskapi.AgentJoined:
		return note(who + " joined")
	case deskapi.AgentLeft:
		return note(who + " left")
	case deskapi.Transfer:
		if e.Agent == nil {
			return note("Transferred")
		}
		return note("Transferred to " + who)
	case deskapi.Updated:
		return note("What is known of the customer has changed")
	case deskapi.Capable:
		if e.Capabilities.FileUploads {
			return note("The customer may send files")
		}
		return note("The customer may not send files")
	case deskapi.InTrouble:
		return note(map[string]string{
			deskapi.NoAgent:       "No agent could be reached; the conversation is over",
			deskapi.LinkLost:      "The line to the customer is reported as lost",
			deskapi.LinkBack:      "The line to the customer is reported as back",
			deskapi.MessageFailed: "The customer's last message is reported as failed",
		}[e.Trouble.Kind])
	case deskapi.Ended:
		text := map[string]string{"agent": "Ended by the agent", "user": "Ended by the customer"}[e.By]
		text = cmp.Or(text, "Ended by the customer's side")
		if e.Reason != "" {
			text += ": " + e.Reason
		}
		return note(text)
	}
	return nil // what an agent has read
}

// line is a part of a message.
func line(p *deskapi.Part) console.Line {
	l := console.Line{Text: p.Text, URL: p.URL}
	switch p.Type {
	case "image":
		l.Media, l.Text = console.Image, p.Title
	case "video":
		l.Media, l.Text = console.Video, p.Title
	case "link":
		l.Text = p.Label
	case "file":
		l.Text = "File: " + cmp.Or(p.Name, p.URL)
	case "inline_error":
		l.Text = "Error: " + p.Text
	case "quick_replies":
		for i := range p.Replies {
			l.Choices = append(l.Choices, p.Replies[i].Label)
		}
	case "user_defined":
		data, err := json.MarshalIndent(p.Data, "", " ")
		if err != nil {
			data = []byte(err.Error())
		}
		l.Text = string(data)
	}
	return l
}

// Do plays what a person at the page does, in the words of a script.
func (p onPage) Do(a console.Action) error {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if a.Do == console.Attend {
		return p.d.attend(a.Text)
	}
	c := p.d.byID(a.Conversation)
	if c == nil {
		return errUnknown
	}
	me, err := p.d.named(a.Agent)
	if err != nil {
		return err
	}
	steps := []Step{}
	switch a.Do {
	case console.Transfer:
		to, err := p.d.named(a.Text)
		if err != nil {
			return err
		}
		steps = append(steps, Step{Transfer: &to.ID})
	case console.Join:
		// The same agent goes on where the script was; another one joins.
		if c.agent != me {
			steps = append(steps, Step{Join: &me.ID})
		}
	default:
		st, ok := step(&a)
		if !ok {
			return invalid("this desk cannot do that")
		}
		steps = append(steps, st)
	}
	return p.d.perform(c.key, me.ID, steps)
}

// named returns the agent whom the page calls so.
func (d *Desk) named(nickname string) (*deskapi.Agent, error) {
	for i := range d.script.Agents {
		if a := &d.script.Agents[i]; a.Nickname == nickname {
			return a, nil
		}
	}
	return nil, invalid("no such agent")
}

// attend sets what the desk says of itself.
func (d *Desk) attend(as string) error {
	yes, no := true, false
	online, ok := map[string]*bool{console.Online: &yes, console.Offline: &no, console.Unknown: nil}[as]
	if !ok {
		return invalid("a desk is online, offline or unknown")
	}
	d.online = online
	d.change()
	return nil
}

// step returns what an action of the page is in a script.
func step(a *console.Action) (Step, bool) {
	text := func(otherwise string) string { return cmp.Or(a.Text, otherwise) }
	part := func(p deskapi.Part) (Step, bool) { return Step{Message: []deskapi.Part{p}}, true }
	switch a.Do {
	case console.Say:
		return Step{Say: a.Text}, true
	case console.Typing, console.StopTyping:
		on := a.Do == console.Typing
		return Step{Typing: &on}, true
	case console.Read:
		return Step{Read: true}, true
	case console.Leave:
		return Step{Leave: true}, true
	case console.End:
		return Step{End: new(string)}, true
	case "image":
		return part(deskapi.Part{Type: "image", URL: deskLink + "samples/picture.svg", Title: text("Our office"), AltText: "A desk under a lamp at dusk"})
	case "video":
		return part(deskapi.Part{Type: "video", URL: deskLink + "samples/film.webm", Title: text("How it works")})
	case "link":
		return part(deskapi.Part{Type: "link", URL: deskLink + "samples/terms.txt", Label: text("Read the terms")})
	case "file":
		return part(deskapi.Part{Type: "file", URL: deskLink + "samples/terms.txt", Name: "terms.txt", MediaType: "text/plain"})
	case "quick_replies":
		return part(deskapi.Part{Type: "quick_replies", Text: text("When suits you?"), Replies: []deskapi.QuickReply{
			{Label: "Today"}, {Label: "Tomorrow"}, {Label: "Next week"},
		}})
	case "markdown":
		return Step{Say: text("**Bold**, *italic*, `code` and a list:\n\n- one\n- two")}, true
	case "inline_error":
		return part(deskapi.Part{Type: "inline_error", Text: text("That order number does not exist.")})
	case "user_defined":
		return part(deskapi.Part{Type: "user_defined", Data: map[string]any{"kind": "order", "number": 4711}})
	case "allow_files":
		return Step{Capabilities: &deskapi.Capabilities{FileUploads: true, MultipleFileUploads: true, FileUploadTypes: []string{"image/*", ".pdf"}}}, true
	case deskapi.LinkLost, deskapi.LinkBack:
		return Step{Trouble: &deskapi.Trouble{Kind: a.Do}}, true
	}
	return Step{}, false
}
