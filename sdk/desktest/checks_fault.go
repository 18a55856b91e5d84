package desktest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// eventually asks until the answer is yes, for things of which nobody tells when
// they happen.
func (t *trial) eventually(limit time.Duration, yes func() bool) bool {
	ctx, cancel := context.WithTimeout(t.ctx, limit)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !yes() {
		select {
		case <-again.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// stall has the desk answer the next call of a kind too late for the check.
func (t *trial) stall(call Call) {
	ctx, cancel := t.soon()
	defer cancel()
	t.must("the script's StallNextCall", t.plugin.Script.StallNextCall(ctx, call, 2*patience))
}

// sees tells whether an agent sees a text of the user.
func (t *trial) sees(chat, text string) bool {
	ctx, cancel := t.soon()
	defer cancel()
	said, err := t.plugin.Script.Heard(ctx, chat)
	return err == nil && slices.Contains(said, text)
}

// crash ends a process without warning. It returns the chat's resume state as a
// host has it then: with all that came before the end.
func (t *trial) crash(s *serving, chat string) *deskv1.ResumeState {
	s.end()
	ctx, cancel := t.soon()
	defer cancel()
	_ = s.await(ctx, func() bool { return false }) // to the end of the stream
	return s.latest(chat)
}

// again makes a call that an earlier process did not survive, and once more if
// its outcome is not clear, as a host does: the earlier one may not have reached
// the desk, so that this one is the one that the desk stalls.
func (t *trial) again(what string, call func(ctx context.Context, attempt uint32) error) {
	ctx, cancel := context.WithTimeout(t.ctx, patience/3)
	err := call(ctx, 2)
	cancel()
	if err != nil && unclear(err) {
		ctx, cancel = t.soon()
		err = call(ctx, 3)
		cancel()
	}
	t.must(what, err)
}

// unclear tells whether a host makes the call again that failed so.
func unclear(err error) bool {
	switch kind(err) {
	case deskv1.FailureKind_FAILURE_KIND_UNSPECIFIED, deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN, deskv1.FailureKind_FAILURE_KIND_RETRY:
		return true
	}
	return false
}

// checkCancelled gives up a call in the middle. It may be that it had not reached
// the desk by then, so that the second try is the one that the desk stalls.
func checkCancelled(t *trial) {
	t.scripted()
	s := t.ready()
	chat := t.chat(s)
	t.stall(CallSend)
	send := func(text string, attempt uint32, limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.ctx, limit)
		defer cancel()
		return s.send(ctx, chat, "m-"+text, text, attempt)
	}
	if err := send("Given up.", 1, quiet); err == nil {
		t.notTested("the stalled call returned before it was given up")
	}
	ctx, cancel := t.soon()
	defer cancel()
	_, err := s.Health(ctx, &deskv1.HealthRequest{})
	t.must("Health", err)
	if send("Next.", 1, patience/3) != nil {
		t.must("the chat's next message, after one was given up,", send("Next.", 2, patience/2))
	}
	t.must("EndChat", t.endChat(s, chat, 1))
}

func checkPaused(t *trial) {
	t.scripted()
	s := t.ready()
	chat := t.chat(s)
	t.provoke(s, chat, "Before.")
	t.must("SIGSTOP", s.pause())
	const sent, said = "Sent while it was stopped.", "Said while it was stopped."
	returned := make(chan error, 1)
	go func() { returned <- t.send(s, chat, "m-1", sent, 1) }()
	t.says(chat, said)
	t.never(s, "an event came from a process that is stopped", func() bool { return s.heard(chat, said) > 0 })
	t.must("SIGCONT", s.unpause())
	t.must("the message sent meanwhile", <-returned)
	t.await(s, "what was said meanwhile", func() bool { return s.heard(chat, said) > 0 })
	t.provoke(s, chat, "After.")
	if n, m := t.heardByAgent(chat, sent), s.heard(chat, said); n != 1 || m != 1 {
		t.failf("the agent sees the message %d times, and the user what the agent said %d times", n, m)
	}
}

// checkKilledStarting kills the process once the desk has the chat, and before
// the plugin is told.
func checkKilledStarting(t *trial) {
	t.scripted()
	s := t.ready()
	t.stall(CallStart)
	chat := t.newChat()
	var call sync.WaitGroup
	call.Go(func() {
		ctx, cancel := t.soon()
		defer cancel()
		_, _ = s.StartChat(ctx, startRequest(chat, 1))
	})
	ctx, cancel := t.soon()
	defer cancel()
	// A desk that does what it stalls late is given up on, and killed all the same.
	t.eventually(patience/2, func() bool {
		_, err := t.plugin.Script.Heard(ctx, chat)
		return err == nil
	})
	state := t.crash(s, chat)
	call.Wait()

	next := t.ready()
	next.chats = append(next.chats, chat)
	t.again("StartChat, again in a new process,", func(ctx context.Context, attempt uint32) error {
		req := startRequest(chat, attempt)
		req.State = state
		resp, err := next.StartChat(ctx, req)
		next.saved[chat] = resp.GetState()
		return err
	})
	t.must("SendMessageToAgent", t.send(next, chat, "m-1", "Hello?", 1))
	if n := t.heardByAgent(chat, "Hello?"); n != 1 {
		t.failf("the agent sees the next message %d times", n)
	}
	t.says(chat, "Once, please.")
	t.await(next, "the message of the agent", func() bool { return next.heard(chat, "Once, please.") > 0 })
	t.never(next, "a message came twice, as if two conversations were open", func() bool { return next.heard(chat, "Once, please.") > 1 })
}

// checkKilledSending kills the process once the desk has the message, and before
// the plugin is told.
func checkKilledSending(t *trial) {
	s := t.ready()
	if d := s.describe.GetSendDedupe(); d < deskv1.SendDedupe_SEND_DEDUPE_KEY {
		t.notTested("the plugin declares no send_dedupe")
	}
	t.capable(s, deskv1.Capability_CAPABILITY_RESUME)
	t.scripted()
	chat := t.chat(s)
	t.stall(CallSend)
	const text = "Only once, please."
	var call sync.WaitGroup
	call.Go(func() { _ = t.send(s, chat, "m-1", text, 1) })
	t.eventually(patience/2, func() bool { return t.sees(chat, text) })
	state := t.crash(s, chat)
	call.Wait()

	next := t.ready()
	t.must("ResumeChat", t.resume(next, chat, state, 1))
	t.again("SendMessageToAgent, again in a new process,", func(ctx context.Context, attempt uint32) error {
		return next.send(ctx, chat, "m-1", text, attempt)
	})
	if n := t.heardByAgent(chat, text); n != 1 {
		t.failf("sent again by a new process, the agent sees it %d times", n)
	}
}

// checkKilledTalking kills the process while the agent talks. Some of it is
// acknowledged by then, some is on its way, some not yet read.
func checkKilledTalking(t *trial) {
	s := t.ready()
	if s.describe.GetReplay() != deskv1.Replay_REPLAY_CURSOR {
		t.notTested("the plugin does not declare replay: cursor")
	}
	t.capable(s, deskv1.Capability_CAPABILITY_RESUME)
	t.scripted()
	chat := t.chat(s)
	const messages = 20
	want := make([]string, messages)
	for i := range want {
		want[i] = fmt.Sprintf("Message %02d.", i)
		t.says(chat, want[i])
		if i == messages/2 {
			t.await(s, "a message", func() bool { return s.heard(chat, want[1]) > 0 })
			s.end()
		}
	}
	state, before := t.crash(s, chat), s.of(chat)

	next := t.ready()
	t.must("ResumeChat", t.resume(next, chat, state, 1))
	t.await(next, "the last message", func() bool { return next.heard(chat, want[messages-1]) > 0 })
	if got := among(want, textsOf(slices.Concat(before, next.of(chat)))); !slices.Equal(got, want) {
		t.failf("%d were acknowledged, and with the rest it is %q", len(before), got)
	}
}

// checkLateAck is a host that is slow to store. A call may wait for that, since a
// plugin may have to save something before it goes on.
func checkLateAck(t *trial) {
	t.scripted()
	s := t.ready()
	chat, other := t.chat(s), t.chat(s)
	t.provoke(s, chat, "Before.")
	t.provoke(s, other, "Before.")
	s.hold()
	t.says(chat, "Not acknowledged yet.")
	t.await(s, "an event", func() bool { return s.heard(chat, "Not acknowledged yet.") > 0 })
	ctx, cancel := t.soon()
	defer cancel()
	_, err := s.Health(ctx, &deskv1.HealthRequest{})
	t.must("Health", err)
	sent := make(chan error, 1)
	go func() { sent <- t.send(s, other, "m-1", "Meanwhile.", 1) }()
	twice := func() bool {
		n := 0
		for _, e := range s.of(chat) {
			if strings.Contains(textOf(e.GetMessageToUser()), "Not acknowledged yet.") {
				n++
			}
		}
		return n > 1
	}
	t.never(s, "the event came again on the same stream", twice)
	s.release()
	t.must("a message that was sent meanwhile", <-sent)
	if n := t.heardByAgent(other, "Meanwhile."); n != 1 {
		t.failf("the agent sees the message that was sent meanwhile %d times", n)
	}
	t.provoke(s, chat, "After it.")
	if twice() {
		t.failf("the event came again when it was acknowledged")
	}
}

// checkLowLimits is a host that takes less than others.
func checkLowLimits(t *trial) {
	t.scripted()
	s := t.readyWith(&deskv1.EventsOpen{
		Window: 16, ChatWindow: 8, MaxBatchEvents: 1, MaxBatchBytes: 4 << 10, MaxEventBytes: 4 << 10,
	})
	chat := t.chat(s)
	t.says(chat, strings.Repeat("Too much. ", 800))
	for i := range 5 {
		t.says(chat, fmt.Sprintf("Little %d.", i))
	}
	t.await(s, "what is within the limits", func() bool { return s.heard(chat, "Little 4.") > 0 })
	if broken := s.violations(); len(broken) > 0 {
		t.failf("%s", strings.Join(broken, "; "))
	}
}

// checkChildren leaves the process nobody who could end what it has started, as
// a host that is killed does.
func checkChildren(t *trial) {
	s := t.ready()
	t.chat(s)
	t.must("closing its standard input", s.lifeline.Close())
	t.wantExit(s, "the end of its standard input")
	ended := t.eventually(endTime, func() bool {
		left, err := groupLives(s.cmd.Process)
		t.must("looking for what it has started", err)
		return !left
	})
	if !ended {
		t.failf("a process that it has started lives on")
	}
}
