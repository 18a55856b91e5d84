//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"strings"
	"time"
)

// entry is a line of a session's log as a page gets it. Of its text only the
// beginning is kept, which names it, and sums.
type entry struct {
	Seq    uint64 `json:"seq"`
	Type   string `json:"type"`
	ChatID string `json:"chat_id"`
	From   string `json:"from"`
	ID     string `json:"id"`
	Text   string `json:"text"`
	Status string `json:"status"`
	Reason string `json:"reason"`
	By     string `json:"by"`
	Agent  struct {
		ID string `json:"id"`
	} `json:"agent"`

	at    time.Time // when the page got it
	sum   uint64    // of the text
	whole uint64    // of all of it
}

func readEntry(line []byte) (entry, error) {
	var e entry
	if err := json.Unmarshal(line, &e); err != nil {
		return entry{}, fmt.Errorf("an entry that is not JSON: %w", err)
	}
	e.at, e.whole = time.Now(), sum(line)
	e.Text, e.sum = short(e.Text), sum([]byte(e.Text))
	return e, nil
}

func (e *entry) String() string {
	return fmt.Sprintf("%d %s %s %s%s%s%s %q %s", e.Seq, e.Type, e.ChatID, e.From, e.Status, e.By, e.Reason, e.Text, e.ID)
}

// deskEvent is something that happened in a conversation, by the desk's account.
type deskEvent struct {
	Conversation string    `json:"conversation"`
	Seq          uint64    `json:"seq"`
	Time         time.Time `json:"time"`
	Type         string    `json:"type"`
	MessageID    string    `json:"message_id"`
	Text         string    `json:"text"`
	Parts        []struct {
		Text string `json:"text"`
	} `json:"parts"`
	Agent struct {
		ID string `json:"id"`
	} `json:"agent"`
	By string `json:"by"`

	sum uint64 // of the text
}

// trim keeps of the event's text what has to be kept.
func (e *deskEvent) trim() {
	if e.Type == "agent_message" && len(e.Parts) == 1 {
		e.Text, e.Parts = e.Parts[0].Text, nil
	}
	e.Text, e.sum = short(e.Text), sum([]byte(e.Text))
}

// id is the event's name for the host.
func (e *deskEvent) id() string { return fmt.Sprintf("%s-%d", e.Conversation, e.Seq) }

func (e *deskEvent) String() string {
	return fmt.Sprintf("%s %s %s%s %q", e.id(), e.Type, e.MessageID, e.By, e.Text)
}

// request is a chat that a user has asked for.
type request struct {
	id     string // the page's own
	chatID string // as answered
	status int    // of the answer; 200: a chat, 0: there was none
	code   string // of a problem
	// ending says that the user has asked for the end, ended that the host has
	// taken it.
	ending, ended bool
}

func (r *request) opened() bool { return r.status == http.StatusOK }

// message is something that a user has sent.
type message struct {
	id     string
	chatID string
	sum    uint64 // of the text
	status int    // of the answer; 200: taken, 0: there was none
	seq    uint64 // as answered
	word   string // as answered: "delivered", "accepted", …; of a problem its code
}

func (m *message) taken() bool { return m.status == http.StatusOK }

func sum(text []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(text) // never fails
	return h.Sum64()
}

// short is the first word of a text.
func short(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return strings.Clone(word[:min(len(word), 40)])
}
