package desktest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// endTime is how long a process may take to end by itself: a host waits no longer.
const endTime = 10 * time.Second

func checkResumeAgain(t *trial) {
	s := t.ready()
	t.capable(s, deskv1.Capability_CAPABILITY_RESUME)
	chat := t.chat(s)
	state := t.crash(s, chat)
	next := t.ready()
	err := t.resume(next, chat, state, 1)
	if kind(err) == chatUnknown && !t.hasScript() {
		t.notTested("the desk does not know the conversation any more, as one does that lives in the plugin; with a script this fails")
	}
	t.must("ResumeChat", err)
	t.must("ResumeChat, called again,", t.resume(next, chat, state, 2))
	t.provoke(next, chat, "Once, please.")
	t.never(next, "a message came twice", func() bool { return next.heard(chat, "Once, please.") > 1 })
}

func checkResumeUnknown(t *trial) {
	s := t.ready()
	t.capable(s, deskv1.Capability_CAPABILITY_RESUME)
	err := t.resume(s, t.newChat(), nil, 1)
	t.wantKind("ResumeChat", err, chatOver, chatUnknown)
}

func checkReplay(t *trial) {
	s := t.ready()
	switch s.describe.GetReplay() {
	case deskv1.Replay_REPLAY_CURSOR:
	case deskv1.Replay_REPLAY_WEBHOOK:
		t.webhookReplay(s)
		return
	default:
		t.notTested("the plugin declares no replay")
	}
	t.capable(s, deskv1.Capability_CAPABILITY_RESUME)
	t.scripted()
	chat := t.chat(s)
	t.says(chat, "Before.")
	t.await(s, "the first message", func() bool { return s.heard(chat, "Before.") == 1 })
	// What comes now is not acknowledged, as when the host dies with the plugin. What
	// was, the next process knows of.
	s.hold()
	state, before := s.latest(chat), s.of(chat)
	t.says(chat, "Not acknowledged.")
	t.await(s, "the second message", func() bool { return s.heard(chat, "Not acknowledged.") == 1 })
	lost := s.of(chat)[len(before):]
	s.end()
	t.says(chat, "While nobody listened.")

	next := t.ready()
	t.must("ResumeChat", t.resume(next, chat, state, 1))
	t.await(next, "what was said while nobody listened", func() bool { return next.heard(chat, "While nobody listened.") > 0 })
	t.says(chat, "After.")
	t.await(next, "what was said afterwards", func() bool { return next.heard(chat, "After.") > 0 })

	// A host drops events with an id that the chat has had.
	seen := map[string]bool{"": false}
	for _, e := range before {
		seen[e.GetEventId()] = e.GetEventId() != ""
	}
	count := map[string]int{}
	for _, e := range next.of(chat) {
		if m := e.GetMessageToUser(); m != nil && !seen[e.GetEventId()] {
			count[textOf(m)]++
			seen[e.GetEventId()] = e.GetEventId() != ""
		}
	}
	for text, want := range map[string]int{"Before.": 0, "Not acknowledged.": 1, "While nobody listened.": 1, "After.": 1} {
		if count[text] != want {
			t.failf("%q came %d times after ResumeChat, where %d were due (less those with an event_id that the chat has had)", text, count[text], want)
		}
	}
	t.sameIDs(next, chat, lost)
}

// webhookReplay has a message of the agent go unacknowledged until the process
// dies. Its webhook must not be answered with a 2xx, so that the vendor delivers
// it again.
func (t *trial) webhookReplay(s *serving) {
	t.capable(s, deskv1.Capability_CAPABILITY_HTTP)
	t.scripted()
	if t.webhooks == nil {
		t.notTested("the plugin is tested without webhooks")
	}
	chat := t.chat(s)
	const text = "NotAcknowledged4711" // in any encoding the same
	s.hold()
	state := s.latest(chat)
	t.says(chat, text)
	t.await(s, "the agent's message, brought by a webhook", func() bool { return s.heard(chat, text) > 0 })
	if !t.webhooks.brought(text) {
		t.notTested("no webhook holds the agent's text, so that its answer cannot be told from others")
	}
	lost := s.of(chat)
	ctx, cancel := context.WithTimeout(t.ctx, t.quiet)
	defer cancel()
	if t.webhooks.await(ctx, func() bool { return t.webhooks.accepted(text) }) == nil {
		t.failf("the webhook was answered with a 2xx while its event waited for its acknowledgement, so the vendor forgets it")
	}
	t.webhooks.to(nil)
	s.end()
	if !slices.Contains(s.describe.GetCapabilities(), deskv1.Capability_CAPABILITY_RESUME) {
		return // the chat has ended with the process
	}
	next := t.ready()
	t.must("ResumeChat", t.resume(next, chat, state, 1))
	t.await(next, "the message, delivered again by the vendor", func() bool { return next.heard(chat, text) > 0 })
	again, done := t.soon()
	defer done()
	if t.webhooks.await(again, func() bool { return t.webhooks.accepted(text) }) != nil {
		t.failf("the webhook was not answered with a 2xx within %s, though its event is acknowledged", patience)
	}
	t.sameIDs(next, chat, lost)
}

// sameIDs ends the check unless the messages among events that were lost came
// again under the same ids.
func (t *trial) sameIDs(next *serving, chat string, lost []*deskv1.Event) {
	for _, was := range lost {
		if was.GetMessageToUser() != nil && !next.has(chat, func(e *deskv1.Event) bool { return e.GetEventId() == was.GetEventId() }) {
			t.failf("the event that was not acknowledged came again under another event_id than %q", was.GetEventId())
		}
	}
}

// flush has an event wait for its acknowledgement, and ends the check if the
// call returns before that came.
func (t *trial) flush(s *serving, name string, call func() error) {
	chat := t.chat(s)
	s.hold()
	t.says(chat, "Not acknowledged yet.")
	t.await(s, "an event", func() bool { return s.unsettled(chat) > 0 })
	returned := make(chan error, 1)
	go func() { returned <- call() }()
	select {
	case err := <-returned:
		t.failf("%s returned while an event waited for its acknowledgement, with %s", name, describeError(err))
	case <-time.After(t.quiet):
	}
	s.release()
	t.must(name, <-returned)
}

func checkQuiesceFlush(t *trial) {
	s := t.ready()
	t.capable(s, deskv1.Capability_CAPABILITY_RESUME)
	t.scripted()
	t.flush(s, "QuiesceChat", func() error {
		ctx, cancel := t.soon()
		defer cancel()
		_, err := s.QuiesceChat(ctx, &deskv1.QuiesceChatRequest{ChatId: s.chats[0]})
		return err
	})
}

func checkQuiesceSilence(t *trial) {
	s := t.ready()
	t.capable(s, deskv1.Capability_CAPABILITY_RESUME)
	t.scripted()
	chat := t.chat(s)
	t.says(chat, "Before.")
	t.await(s, "the first message", func() bool { return s.heard(chat, "Before.") == 1 })
	next := t.ready()
	ctx, cancel := t.soon()
	defer cancel()
	resp, err := s.QuiesceChat(ctx, &deskv1.QuiesceChatRequest{ChatId: chat})
	t.must("QuiesceChat", err)
	if rules := brokenByState(resp.GetState()); len(rules) > 0 {
		t.failf("the answer breaks a rule: %s", strings.Join(rules, "; "))
	}
	state := resp.GetState()
	if state == nil {
		state = s.latest(chat)
	}
	t.says(chat, "On the way.")
	t.must("ResumeChat by another process", t.resume(next, chat, state, 1))
	t.says(chat, "After.")
	t.await(next, "what was said afterwards", func() bool { return next.heard(chat, "After.") > 0 })
	t.never(s, "the process that had quiesced the chat sent an event of it", func() bool { return s.heard(chat, "On the way.")+s.heard(chat, "After.") > 0 })
	want := map[string]int{"After.": 1}
	if s.describe.GetReplay() == deskv1.Replay_REPLAY_CURSOR {
		want = map[string]int{"Before.": 0, "On the way.": 1, "After.": 1}
	}
	for text, n := range want {
		if next.heard(chat, text) != n {
			t.failf("%q came %d times from the process that resumed, where %d were due", text, next.heard(chat, text), n)
		}
	}
}

func checkQuiesceUnknown(t *trial) {
	s := t.ready()
	t.capable(s, deskv1.Capability_CAPABILITY_RESUME)
	ctx, cancel := t.soon()
	defer cancel()
	_, err := s.QuiesceChat(ctx, &deskv1.QuiesceChatRequest{ChatId: t.newChat()})
	t.wantKind("QuiesceChat", err, chatOver, chatUnknown)
}

func checkDrain(t *trial) {
	s := t.ready()
	drain := func() error {
		ctx, cancel := t.soon()
		defer cancel()
		_, err := s.Drain(ctx, &deskv1.DrainRequest{})
		return err
	}
	if t.hasScript() {
		t.flush(s, "Drain", drain)
		return
	}
	t.chat(s)
	t.must("Drain", drain())
	t.notTested("Drain answered; whether it waits for events takes a script that plays the desk")
}

func (t *trial) wantExit(s *serving, what string) {
	if !s.endsWithin(endTime) {
		t.failf("the process lives %s after %s", endTime, what)
	}
}

func checkStdin(t *trial) {
	s := t.ready()
	t.chat(s)
	t.must("closing its standard input", s.lifeline.Close())
	t.wantExit(s, "the end of its standard input")
}

func checkSigterm(t *trial) {
	s := t.ready()
	t.chat(s)
	t.must("SIGTERM", s.signal(syscall.SIGTERM))
	t.wantExit(s, "SIGTERM")
}

func checkSigint(t *trial) {
	s := t.ready()
	t.must("SIGINT", s.signal(os.Interrupt))
	if s.endsWithin(t.quiet) {
		t.failf("it ended")
	}
	t.chat(s)
}

// checkPrivacy looks for what was said in the plugin's log. A line that is no
// hclog JSON counts as above debug: a host quotes it when the process ends.
func checkPrivacy(t *trial) {
	s := t.ready()
	chat := t.chat(s)
	const user, agent = "my-secret-4711", "your-secret-0815"
	t.must("SendMessageToAgent", t.send(s, chat, "m-1", user, 1))
	if t.hasScript() {
		t.says(chat, agent)
		t.await(s, "the message of the agent", func() bool { return s.heard(chat, agent) > 0 })
	}
	t.must("EndChat", t.endChat(s, chat, 1))
	s.end()
	for line := range strings.Lines(s.logged.String()) {
		if !strings.Contains(line, user) && !strings.Contains(line, agent) {
			continue
		}
		var entry struct {
			Level string `json:"@level"`
		}
		_ = json.Unmarshal([]byte(line), &entry) // then it has no level
		if entry.Level != "debug" && entry.Level != "trace" {
			t.failf("a line of the level %q: %s", entry.Level, fmt.Sprintf("%.200s", strings.TrimSpace(line)))
		}
	}
}
