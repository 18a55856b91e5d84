//go:build unix

package main

import (
	"fmt"
	"slices"
	"strings"
)

// The kinds of violations.
const (
	lost       = "lost"
	doubled    = "doubled"
	outOfOrder = "out of order"
	changed    = "changed"   // or made up
	unsettled  = "unsettled" // no outcome, no answer, no end at the desk
	ended      = "ended"     // a chat that nobody has asked to end
	died       = "died"      // a process that ended by itself, or did not end well
)

// violation is a promise that was not kept.
type violation struct {
	kind    string
	session string
	text    string
}

func (v violation) String() string {
	return fmt.Sprintf("%s: session %s: %s", v.kind, v.session, v.text)
}

// account is all that is known of a session: by its user and page, by the host,
// and by the desk.
type account struct {
	session  string
	connects int
	requests []*request
	sent     []*message
	// seen is what the page was shown, broken what was wrong with that at once.
	seen   []entry
	broken []violation
	// journal is the session's log, read anew. If it was not read, what the page
	// was shown stands for it.
	journal    []entry
	transcript []entry
	journaled  bool
	// desk has the desk's account of each chat.
	desk map[string][]deskEvent
	// certain says that no outcome may be unknown in an open chat: the desk knows
	// a message that comes again, or nothing went wrong.
	certain bool

	found []violation
}

func (a *account) foundf(kind, format string, args ...any) {
	a.found = append(a.found, violation{kind, a.session, fmt.Sprintf(format, args...)})
}

// talk is one chat by the host's account.
type talk struct {
	id        string
	requested []entry
	ended     []entry
	fromUser  []entry
	fromDesk  []entry // agents' messages, and the agents who joined
	outcomes  map[string][]entry
}

// talks divides a log by chats, in their order.
func talks(log []entry) []*talk {
	var all []*talk
	byID := map[string]*talk{}
	for _, e := range log {
		if e.ChatID == "" {
			continue
		}
		t := byID[e.ChatID]
		if t == nil {
			t = &talk{id: e.ChatID, outcomes: map[string][]entry{}}
			byID[e.ChatID] = t
			all = append(all, t)
		}
		switch {
		case e.Type == "chat_requested":
			t.requested = append(t.requested, e)
		case e.Type == "chat_ended":
			t.ended = append(t.ended, e)
		case e.Type == "message" && e.From == "user":
			t.fromUser = append(t.fromUser, e)
		case e.Type == "message", e.Type == "agent_joined":
			t.fromDesk = append(t.fromDesk, e)
		case e.Type == "message_status":
			t.outcomes[e.ID] = append(t.outcomes[e.ID], e)
		}
	}
	return all
}

// violations compares the accounts.
func (a *account) violations() []violation {
	a.found = slices.Clone(a.broken)
	log := a.seen
	if a.journaled {
		log = a.journal
		a.comparePage()
		a.compareTranscript()
	}
	all := talks(log)
	a.compareRequests(all)
	a.compareTaken(all)
	for _, t := range all {
		a.compareChat(t)
	}
	return a.found
}

// comparePage holds what the page was shown to the journal.
func (a *account) comparePage() {
	for i := range max(len(a.seen), len(a.journal)) {
		switch {
		case i >= len(a.seen):
			a.foundf(lost, "the page was not shown entry %s", &a.journal[i])
		case i >= len(a.journal):
			a.foundf(lost, "the journal does not have what the page was shown: %s", &a.seen[i])
		case a.seen[i].whole != a.journal[i].whole:
			a.foundf(changed, "the page was shown %s, the journal has %s", &a.seen[i], &a.journal[i])
		}
	}
	for i, e := range a.journal {
		if e.Seq != uint64(i)+1 {
			a.foundf(lost, "entry %d of the journal has the seq %d", i+1, e.Seq)
			return // so will all that follow
		}
	}
}

// compareTranscript holds the transcript to the journal.
func (a *account) compareTranscript() {
	said := func(log []entry) (sums []uint64) {
		for _, e := range log {
			if e.Type == "message" {
				sums = append(sums, e.whole)
			}
		}
		return sums
	}
	if got, want := said(a.transcript), said(a.journal); !slices.Equal(got, want) {
		a.foundf(changed, "the transcript has %d messages that are not the %d of the journal", len(got), len(want))
	}
}

// compareRequests looks for each chat that was asked for, and for others.
func (a *account) compareRequests(all []*talk) {
	byRequest := map[string]*talk{}
	for _, t := range all {
		if len(t.requested) != 1 {
			a.foundf(doubled, "chat %s was requested %d times", t.id, len(t.requested))
			continue
		}
		name := t.requested[0].Text // it begins with the request's id
		if byRequest[name] != nil {
			a.foundf(doubled, "request %s opened the chats %s and %s", name, byRequest[name].id, t.id)
		}
		byRequest[name] = t
		if !slices.ContainsFunc(a.requests, func(r *request) bool { return r.id == name }) {
			a.foundf(changed, "nobody has requested chat %s", t.id)
		}
		if len(t.ended) > 1 {
			a.foundf(doubled, "chat %s ended %d times", t.id, len(t.ended))
		}
	}
	for _, r := range a.requests {
		t := byRequest[r.id]
		switch {
		case r.status == 0:
			a.foundf(unsettled, "the request %s of a chat was never answered", r.id)
		case r.opened() && (t == nil || t.id != r.chatID):
			a.foundf(lost, "chat %s, which the host has opened for request %s, is not in the journal", r.chatID, r.id)
		case r.opened() && r.ended && len(t.ended) == 0:
			a.foundf(lost, "chat %s, which the host has ended, is open in the journal", r.chatID)
		case r.opened() && len(t.ended) > 0 && (!r.ending || t.ended[0].By != "user"):
			a.foundf(ended, "chat %s was ended by the %s (%s), the user had asked: %v", r.chatID, t.ended[0].By, t.ended[0].Reason, r.ending)
		case !r.opened() && t != nil && len(t.ended) == 0:
			a.foundf(unsettled, "chat %s is open, its request was answered with %d %s", t.id, r.status, r.code)
		}
	}
}

// compareTaken looks for each message that the host has taken, and for others.
func (a *account) compareTaken(all []*talk) {
	in := map[string]entry{}
	for _, t := range all {
		for _, e := range t.fromUser {
			if before, twice := in[e.ID]; twice {
				a.foundf(doubled, "message %s is entry %d and entry %d", e.ID, before.Seq, e.Seq)
			}
			in[e.ID] = e
		}
	}
	last := uint64(0)
	for _, m := range a.sent {
		e, there := in[m.id]
		delete(in, m.id)
		switch {
		case m.status == 0:
			a.foundf(unsettled, "message %s was never answered", m.id)
		case m.taken() && !there:
			a.foundf(lost, "message %s, which the host has taken (%d %s, entry %d), is not in the journal", m.id, m.status, m.word, m.seq)
		case m.taken() && (e.Seq != m.seq || e.ChatID != m.chatID || e.sum != m.sum):
			a.foundf(changed, "message %s of chat %s was entry %d by the answer, the journal has %s", m.id, m.chatID, m.seq, &e)
		case !m.taken() && there:
			a.foundf(changed, "message %s was refused (%d %s) and is entry %d", m.id, m.status, m.word, e.Seq)
		}
		if there && e.Seq < last {
			a.foundf(outOfOrder, "message %s is entry %d, before one that was sent earlier", m.id, e.Seq)
		}
		last = max(last, e.Seq)
	}
	for id, e := range in {
		a.foundf(changed, "nobody has sent message %s, entry %d", id, e.Seq)
	}
}

// compareChat holds a chat to the desk's account of it.
func (a *account) compareChat(t *talk) {
	over := len(t.ended) > 0
	var fromUser, fromDesk []item
	deskOver, known := false, false
	for i := range a.desk[t.id] {
		e := &a.desk[t.id][i]
		known = true
		switch e.Type {
		case "user_message":
			fromUser = append(fromUser, item{e.MessageID, e.sum, e.String()})
		case "agent_message":
			fromDesk = append(fromDesk, item{e.id(), e.sum, e.String()})
		case "agent_joined":
			fromDesk = append(fromDesk, item{"agent " + e.Agent.ID, e.sum, e.String()})
		case "ended":
			deskOver = true
		}
	}
	switch {
	case over && known && !deskOver:
		a.foundf(unsettled, "chat %s has ended, and is open at the desk", t.id)
	case !over && deskOver:
		a.foundf(ended, "chat %s is open, and has ended at the desk", t.id)
	case !over && !known:
		a.foundf(lost, "the desk does not know chat %s", t.id)
	}

	outcome := a.compareOutcomes(t)
	a.compareWays("message to the desk", said(t.fromUser), fromUser, func(id string) way {
		switch outcome[id] {
		case "delivered":
			return must
		case "failed":
			return mustNot
		case "unknown":
			return may
		}
		return mayLater
	})
	a.compareWays("message to the page", fromDesk, said(t.fromDesk), func(string) way {
		if over {
			return mayLater // what came too late, and all behind it
		}
		return must
	})
}

// compareOutcomes returns what became of each message of a chat.
func (a *account) compareOutcomes(t *talk) (outcome map[string]string) {
	over := len(t.ended) > 0
	outcome = map[string]string{}
	for _, e := range t.fromUser {
		switch all := t.outcomes[e.ID]; len(all) {
		case 0:
			a.foundf(unsettled, "message %s has no outcome", &e)
		case 1:
			outcome[e.ID] = all[0].Status
			if a.certain && all[0].Status == "unknown" && !over {
				a.foundf(lost, "nobody knows of message %s, though it could be told", &e)
			}
			if all[0].Status == "failed" && !over {
				a.foundf(lost, "message %s has failed (%s) in an open chat", &e, all[0].Reason)
			}
		default:
			a.foundf(doubled, "message %s has %d outcomes", &e, len(all))
		}
	}
	for _, m := range a.sent {
		if m.taken() && m.chatID == t.id && (m.word == "delivered" || m.word == "failed" || m.word == "unknown") && outcome[m.id] != m.word {
			a.foundf(changed, "message %s was answered with %s, its outcome is %q", m.id, m.word, outcome[m.id])
		}
	}
	return outcome
}

// item is something on its way between the desk and a page.
type item struct {
	id   string
	sum  uint64
	text string
}

func said(entries []entry) (items []item) {
	for _, e := range entries {
		id := e.ID
		if e.Type == "agent_joined" {
			id = "agent " + e.Agent.ID
		}
		items = append(items, item{id, e.sum, e.String()})
	}
	return items
}

// way is what has to become of an item.
type way int

const (
	must     way = iota
	may          // it may be missing, and may come late
	mayLater     // it may be missing if all that follows is missing too
	mustNot
)

// compareWays holds what arrived to what was sent.
func (a *account) compareWays(what string, sent, arrived []item, wayOf func(id string) way) {
	place := map[string]int{}
	for i, s := range sent {
		place[s.id] = i
	}
	came := map[string]bool{}
	last, furthest := -1, -1
	for _, got := range arrived {
		i, known := place[got.id]
		switch {
		case !known:
			a.foundf(changed, "%s that nobody has sent: %s", what, got.text)
			continue
		case came[got.id]:
			a.foundf(doubled, "%s came again: %s", what, got.text)
			continue
		case sent[i].sum != got.sum:
			a.foundf(changed, "%s was %s and is %s", what, sent[i].text, got.text)
		case wayOf(got.id) == mustNot:
			a.foundf(changed, "%s has failed, and came: %s", what, got.text)
		case wayOf(got.id) != may && i < last:
			a.foundf(outOfOrder, "%s came behind a later one: %s", what, got.text)
		}
		came[got.id] = true
		if wayOf(got.id) != may {
			last = max(last, i)
		}
		furthest = max(furthest, i)
	}
	for i, s := range sent {
		w := wayOf(s.id)
		if !came[s.id] && (w == must || w == mayLater && i < furthest) {
			a.foundf(lost, "%s did not come: %s", what, s.text)
		}
	}
}

// story tells all that is known of a session, for people.
func (a *account) story() string {
	var b strings.Builder
	tell := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	tell("session %s, connected %d times", a.session, a.connects)
	tell("\nchats asked for:")
	for _, r := range a.requests {
		tell("%s: %d %s %s ending %v ended %v", r.id, r.status, r.code, r.chatID, r.ending, r.ended)
	}
	tell("\nmessages sent:")
	for _, m := range a.sent {
		tell("%s in %s: %d %s entry %d", m.id, m.chatID, m.status, m.word, m.seq)
	}
	tell("\nshown to the page:")
	for i := range a.seen {
		tell("%s %s", a.seen[i].at.Format("15:04:05.000"), &a.seen[i])
	}
	tell("\nin the journal (read: %v):", a.journaled)
	for i := range a.journal {
		tell("%s", &a.journal[i])
	}
	for chat, events := range a.desk {
		tell("\nat the desk, chat %s:", chat)
		for i := range events {
			tell("%s %s", events[i].Time.Format("15:04:05.000"), &events[i])
		}
	}
	return b.String()
}
