package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/deskhost/deskhost/host/internal/client"
)

// escapes matches the sequences with which a text would command the terminal:
// those of ECMA-48 that begin with "[", strings such as window titles, and the
// short ones; each also with its 8-bit beginning.
var escapes = regexp.MustCompile("(?s)(?:\x1b\\[|\u009b)[0-?]*[ -/]*[@-~]" +
	"|(?:\x1b[\\]PX^_]|[\u009d\u0090\u0098\u009e\u009f])[^\x07\x1b\u009c]*(?:\x07|\x1b\\\\|\u009c)" +
	"|\x1b[ -/]*[0-~]")

// clean takes out of a text of others all that a terminal would obey or that
// would show it in another order than it has. Lines stay.
func clean(text string) string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = escapes.ReplaceAllString(text, "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\u2028', r == '\u2029', r == '\r':
			return '\n'
		case r == '\t':
			return ' '
		case r == '\u200c', r == '\u200d': // They join letters and emoji.
			return r
		case unicode.Is(unicode.Cc, r), unicode.Is(unicode.Cf, r), r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, text)
}

// cleanLine also makes one line of it, of at most so many characters.
func cleanLine(text string, most int) string {
	line := strings.Join(strings.Fields(clean(text)), " ")
	if runes := []rune(line); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return line
}

// by puts a name before a text, whose further lines are indented: none of them
// can pass for somebody else's.
func by(name, text string) string {
	return name + ": " + strings.ReplaceAll(strings.TrimSpace(clean(text)), "\n", "\n  ")
}

// people are those at the desk: what entries that name an agent by id refer to.
type people struct {
	// Names are the nicknames of everybody who joined, by id.
	Names map[string]string `json:"names,omitempty"`
	// Present is the id of the one who is there, or empty.
	Present string `json:"present,omitempty"`
}

func (p *people) join(a *client.Agent) {
	if p.Names == nil {
		p.Names = map[string]string{}
	}
	p.Names[a.ID] = nickname(a)
	p.Present = a.ID
}

func (p *people) leave(id string) {
	if id == "" || id == p.Present {
		p.Present = ""
	}
}

// name tells who an entry speaks of; without an id that is who is present.
func (p *people) name(id string) string {
	if id == "" {
		id = p.Present
	}
	if name := p.Names[id]; name != "" {
		return name
	}
	return "The agent"
}

func nickname(a *client.Agent) string {
	if name := cleanLine(a.Nickname, 40); name != "" {
		return name
	}
	return "An agent"
}

// describe is what is shown for an entry; quiet if it is not said by anyone.
// Nothing is shown for an empty text.
func describe(e client.Entry, p *people) (text string, quiet bool) {
	switch e.Type {
	case "chat_requested":
		if e.Text != "" {
			return by("You", e.Text), false
		}
		return "", false
	case "chat_started":
		return "Waiting for an agent …", true
	case "availability":
		return describeWait(e.WaitMinutes, e.Position, e.Message), true
	case "agent_joined":
		if e.Agent != nil {
			return nickname(e.Agent) + " has joined.", true
		}
		return "", false
	case "message":
		if e.From == "user" {
			return by("You", e.Text), false
		}
		return by(p.name(e.AgentID), describeParts(e)), false
	case "agent_left":
		return p.name(e.AgentID) + " has left. The chat stays open.", true
	case "transfer_started":
		if e.Agent != nil {
			return "You are being transferred to " + nickname(e.Agent) + " …", true
		}
		return "You are being transferred to another agent …", true
	case "error":
		return describeTrouble(e), true
	case "desk_away":
		return "The desk cannot be reached. What you write waits for it.", true
	case "desk_back":
		return "The desk is back.", true
	case "gap":
		return "What was said earlier is no longer kept.", true
	case "chat_ended":
		return describeEnd(e, p), true
	}
	return "", false // Newer than this program, or nothing to see.
}

func describeTrouble(e client.Entry) string {
	message := cleanLine(e.Message, 500)
	switch {
	case message != "":
		return message
	case e.Kind == "connecting":
		return "No agent could be reached."
	case e.Disconnected:
		return "The desk's connection is lost."
	}
	return "The desk is connected again."
}

func describeWait(minutes, position *int, message string) string {
	var parts []string
	if position != nil {
		parts = append(parts, fmt.Sprintf("You are number %d in the queue.", *position))
	}
	if minutes != nil {
		parts = append(parts, fmt.Sprintf("The wait is about %d min.", *minutes))
	}
	if message := cleanLine(message, 500); message != "" {
		parts = append(parts, message)
	}
	return strings.Join(parts, " ")
}

// describeParts is a message as text. Markdown is left as it was written.
func describeParts(e client.Entry) string {
	if len(e.Parts) == 0 {
		return e.Text
	}
	var lines []string
	for _, p := range e.Parts {
		lines = append(lines, describePart(p))
	}
	return strings.Join(lines, "\n")
}

func describePart(p client.Part) string {
	link := func(kind string, names ...string) string {
		for _, name := range names {
			if name = cleanLine(name, 200); name != "" {
				return fmt.Sprintf("[%s] %s: %s", kind, name, p.URL)
			}
		}
		return fmt.Sprintf("[%s] %s", kind, p.URL)
	}
	switch p.Type {
	case "text":
		return p.Text
	case "image", "video":
		return link(p.Type, p.Title, p.AltText)
	case "file":
		return link("file", p.Name)
	case "link":
		return link("link", p.Label)
	case "inline_error":
		return "[error] " + p.Text
	case "quick_replies":
		var labels []string
		for _, r := range p.Replies {
			labels = append(labels, cleanLine(r.Label, 100))
		}
		return strings.TrimSpace(p.Text + "\nYou could answer: " + strings.Join(labels, " | "))
	}
	return "[something that only a web page can show]"
}

var messageReasons = map[string]string{
	"refused":         "the desk did not take it",
	"invalid":         "the desk cannot take such a message",
	"chat_over":       "the chat was over",
	"waited_too_long": "the desk could not be reached in time",
	"outcome_unknown": "the desk did not answer",
}

// describeOutcome is shown for a message that was not, or perhaps not, delivered.
// The text may be unknown.
func describeOutcome(text, status, reason string) string {
	outcome := "Not delivered"
	if status == "unknown" {
		outcome = "May not have arrived"
	}
	if why, known := messageReasons[reason]; known {
		reason = why
	}
	if reason = cleanLine(reason, 200); reason != "" {
		outcome += " (" + reason + ")"
	}
	return outcome + ": " + quote(text)
}

// describeRefusal is shown for a message that the host did not take.
func describeRefusal(text string, err error) string {
	var p *client.Problem
	switch {
	case !errors.As(err, &p):
		return describeOutcome(text, "unknown", "the host could not be reached")
	case !p.Final():
		return describeOutcome(text, "unknown", p.Detail)
	case p.Code == "no_chat":
		return describeOutcome(text, "failed", "chat_over")
	}
	return describeOutcome(text, "failed", p.Detail)
}

func quote(text string) string {
	if text = cleanLine(text, 60); text != "" {
		return "“" + text + "”"
	}
	return "an earlier message"
}

var endReasons = map[string]string{
	"start_refused":   "The desk did not take the chat.",
	"start_failed":    "The chat could not be started.",
	"start_timeout":   "The chat could not be started in time.",
	"connect_failed":  "No agent could be reached.",
	"chat_unknown":    "The desk knows the chat no more.",
	"chat_over":       "The chat had ended at the desk.",
	"join_timeout":    "No agent was free in time.",
	"abandoned":       "The chat has ended because you were away.",
	"desk_away":       "The chat has ended because the desk stayed out of reach.",
	"desk_restarted":  "The chat was lost when the desk was restarted.",
	"resume_failed":   "The desk could not take the chat up again.",
	"resume_crashes":  "The desk failed each time that it took the chat up again.",
	"session_deleted": "The chat has ended because its session was deleted.",
}

func describeEnd(e client.Entry, p *people) string {
	text := "The chat has ended."
	switch reason, known := endReasons[e.Reason]; {
	case e.By == "user":
		text = "You ended the chat."
	case known:
		text = reason
	case e.By == "agent":
		text = p.name("") + " ended the chat."
	}
	if message := cleanLine(e.Message, 500); message != "" {
		text += " " + message
	}
	return text
}
