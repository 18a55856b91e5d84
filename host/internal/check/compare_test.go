//go:build unix

package main

import (
	"fmt"
	"slices"
	"testing"
)

// talked is the account of a session in which all went well: its user wrote m1
// and m2, its agent wrote two messages.
func talked(t *testing.T) *account {
	t.Helper()
	a := &account{
		session: "s", certain: true, journaled: true,
		requests: []*request{{id: "c1", chatID: "chat", status: 200}},
		sent: []*message{
			{id: "m1", chatID: "chat", sum: sum([]byte("m1 x")), status: 200, seq: 4, word: "delivered"},
			{id: "m2", chatID: "chat", sum: sum([]byte("m2 x")), status: 200, seq: 7, word: "accepted"},
		},
	}
	for i, line := range []string{
		`"type":"chat_requested","text":"c1"`,
		`"type":"chat_started"`,
		`"type":"agent_joined","agent":{"id":"ada"}`,
		`"type":"message","from":"user","id":"m1","text":"m1 x"`,
		`"type":"message_status","id":"m1","status":"delivered"`,
		`"type":"message","from":"agent","id":"conv-4","text":"a1 x"`,
		`"type":"message","from":"user","id":"m2","text":"m2 x"`,
		`"type":"message","from":"agent","id":"conv-5","text":"a2 x"`,
		`"type":"message_status","id":"m2","status":"delivered"`,
	} {
		e, err := readEntry(fmt.Appendf(nil, `{"seq":%d,"chat_id":"chat",%s}`, i+1, line))
		if err != nil {
			t.Fatal(err)
		}
		a.journal = append(a.journal, e)
		if e.Type == "message" {
			a.transcript = append(a.transcript, e)
		}
	}
	a.seen = slices.Clone(a.journal)
	var events []deskEvent
	for i, e := range []deskEvent{
		{Type: "started"},
		{Type: "agent_joined"},
		{Type: "user_message", MessageID: "m1", Text: "m1 x"},
		{Type: "agent_message", Text: "a1 x"},
		{Type: "agent_message", Text: "a2 x"},
		{Type: "user_message", MessageID: "m2", Text: "m2 x"},
	} {
		e.Conversation, e.Seq = "conv", uint64(i)+1
		if e.Type == "agent_joined" {
			e.Agent.ID = "ada"
		}
		e.trim()
		events = append(events, e)
	}
	a.desk = map[string][]deskEvent{"chat": events}
	return a
}

// without removes the element at i, twice puts it in once more, swap has it
// change places with the one behind it.
func without[T any](all []T, i int) []T { return slices.Delete(slices.Clone(all), i, i+1) }
func twice[T any](all []T, i int) []T   { return slices.Insert(slices.Clone(all), i, all[i]) }

func swap[T any](all []T, i int) []T {
	all = slices.Clone(all)
	all[i], all[i+1] = all[i+1], all[i]
	return all
}

// both changes the journal and what the page was shown alike, with the seqs put
// right: nobody could tell by them.
func (a *account) both(log []entry) {
	log = slices.Clone(log)
	a.transcript = nil
	for i := range log {
		log[i].Seq = uint64(i) + 1
		for _, m := range a.sent {
			if log[i].From == "user" && log[i].ID == m.id {
				m.seq = log[i].Seq
			}
		}
		if log[i].Type == "message" {
			a.transcript = append(a.transcript, log[i])
		}
	}
	a.journal, a.seen = log, slices.Clone(log)
}

func TestCompare(t *testing.T) {
	userEnds := func(a *account) {
		a.requests[0].ending, a.requests[0].ended = true, true
		a.both(append(a.journal, entry{Type: "chat_ended", ChatID: "chat", By: "user"}))
		a.desk["chat"] = append(a.desk["chat"], deskEvent{Type: "ended", Seq: 9, By: "user"})
	}
	outcome := func(a *account, status string) {
		a.journal[8].Status = status
		a.both(a.journal)
	}
	for _, c := range []struct {
		name   string
		change func(*account)
		want   string
	}{
		{"all is well", func(*account) {}, ""},
		{"the page missed the end", func(a *account) { a.seen = without(a.seen, 8) }, lost},
		{"the page was shown what is not there", func(a *account) { a.seen = twice(a.seen, 8) }, lost},
		{"the page was shown something else", func(a *account) { a.seen[7].whole++ }, changed},
		{"the journal has a hole", func(a *account) { a.journal, a.seen = without(a.journal, 7), without(a.seen, 7) }, lost},
		{"the transcript lacks one", func(a *account) { a.transcript = without(a.transcript, 1) }, changed},
		{"a message that was taken is gone", func(a *account) { a.both(without(a.journal, 6)) }, lost},
		{"a message is there twice", func(a *account) { a.both(twice(a.journal, 6)) }, doubled},
		{"a message that was refused is there", func(a *account) { a.sent[1].status, a.sent[1].word = 409, "no_chat" }, changed},
		{"a message that was never answered", func(a *account) { a.sent[1].status = 0 }, unsettled},
		{"a message is another one", func(a *account) { a.sent[1].sum++ }, changed},
		{"a message of nobody", func(a *account) { a.sent = a.sent[:1] }, changed},
		{"a message has no outcome", func(a *account) { a.both(without(a.journal, 8)) }, unsettled},
		{"a message has two outcomes", func(a *account) { a.both(twice(a.journal, 8)) }, doubled},
		{"messages in another order", func(a *account) { a.both(swap(swap(swap(a.journal, 5), 4), 3)) }, outOfOrder},
		{"the desk lacks a message", func(a *account) { a.desk["chat"] = without(a.desk["chat"], 5) }, lost},
		{"the desk has a message twice", func(a *account) { a.desk["chat"] = twice(a.desk["chat"], 5) }, doubled},
		{"the desk has them in another order", func(a *account) { a.desk["chat"] = swap(swap(swap(a.desk["chat"], 4), 3), 2) }, outOfOrder},
		{"unknown, and it could be told", func(a *account) { outcome(a, "unknown") }, lost},
		{"unknown, and the desk has it", func(a *account) { a.certain = false; outcome(a, "unknown") }, ""},
		{"unknown, and the desk does not have it", func(a *account) {
			a.certain = false
			outcome(a, "unknown")
			a.desk["chat"] = without(a.desk["chat"], 5)
		}, ""},
		{"failed in an open chat", func(a *account) { outcome(a, "failed") }, lost},
		{"failed, and the desk has it", func(a *account) { outcome(a, "failed"); userEnds(a) }, changed},
		{"the page lacks what the agent said", func(a *account) { a.both(without(a.journal, 5)) }, lost},
		{"the page lacks the last that the agent said", func(a *account) { a.both(without(a.journal, 7)) }, lost},
		{"the page has it twice", func(a *account) { a.both(twice(a.journal, 5)) }, doubled},
		{"the page has them in another order", func(a *account) { a.both(swap(swap(a.journal, 5), 6)) }, outOfOrder},
		{"the page has something else", func(a *account) { a.journal[5].sum++; a.both(a.journal) }, changed},
		{"the user ended the chat", userEnds, ""},
		{"the last came too late", func(a *account) { a.both(without(a.journal, 7)); userEnds(a) }, ""},
		{"not the last came too late", func(a *account) { a.both(without(a.journal, 5)); userEnds(a) }, lost},
		{"ended, and open at the desk", func(a *account) { userEnds(a); a.desk["chat"] = a.desk["chat"][:6] }, unsettled},
		{"ended, and open in the journal", func(a *account) { a.requests[0].ending, a.requests[0].ended = true, true }, lost},
		{"ended by nobody", func(a *account) { userEnds(a); a.requests[0].ending = false }, ended},
		{"a chat that is not there", func(a *account) {
			a.requests = append(a.requests, &request{id: "c2", chatID: "other", status: 200})
		}, lost},
		{"a chat that did not start is open", func(a *account) { a.requests[0].status = 504 }, unsettled},
		{"what was wrong at first sight", func(a *account) { a.broken = []violation{{doubled, "s", "entry 4"}} }, doubled},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := talked(t)
			c.change(a)
			found := a.violations()
			if c.want == "" && len(found) > 0 || c.want != "" && !slices.ContainsFunc(found, func(v violation) bool { return v.kind == c.want }) {
				t.Errorf("found %v, want %q; %s", found, c.want, a.story())
			}
		})
	}
}
