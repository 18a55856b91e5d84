package desktest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// manyChats is how many are open at once.
const manyChats = 40

const (
	chatOver    = deskv1.FailureKind_FAILURE_KIND_CHAT_OVER
	chatUnknown = deskv1.FailureKind_FAILURE_KIND_CHAT_UNKNOWN
	unsupported = deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED
)

func checkStart(t *trial) {
	s := t.ready()
	chat := t.chat(s)
	if rules := brokenByState(s.saved[chat]); len(rules) > 0 {
		t.failf("the answer breaks a rule: %s", strings.Join(rules, "; "))
	}
}

func checkStartAgain(t *trial) {
	s := t.ready()
	chat := t.newChat()
	s.chats = append(s.chats, chat)
	ctx, cancel := t.soon()
	defer cancel()
	var both sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		both.Go(func() { _, errs[i] = s.StartChat(ctx, startRequest(chat, 1)) })
	}
	both.Wait()
	_, third := s.StartChat(ctx, startRequest(chat, 2))
	if err := errors.Join(errors.Join(errs...), third); err != nil {
		t.failf("of two calls at once and one with attempt 2: %w", err)
	}
	t.provoke(s, chat, "Only once, please.")
	t.never(s, "a message came twice, as if two conversations were open", func() bool { return s.heard(chat, "Only once, please.") > 1 })
}

func (t *trial) endChat(s *serving, chat string, attempt uint32) error {
	ctx, cancel := t.soon()
	defer cancel()
	_, err := s.EndChat(ctx, &deskv1.EndChatRequest{ChatId: chat, Attempt: attempt, State: s.latest(chat), EndedBy: deskv1.EndedBy_ENDED_BY_USER})
	return err
}

// wantEnded ends the check unless an EndChat is settled by its answer.
func (t *trial) wantEnded(what string, err error) {
	if err != nil {
		t.wantKind(what, err, chatOver, chatUnknown)
	}
}

func checkEnd(t *trial) {
	s := t.ready()
	chat := t.chat(s)
	t.must("EndChat", t.endChat(s, chat, 1))
	t.wantEnded("EndChat, called again,", t.endChat(s, chat, 2))
}

func checkEndUnknown(t *trial) {
	s := t.ready()
	t.wantEnded("EndChat", t.endChat(s, t.newChat(), 2))
}

func checkMany(t *trial) {
	s := t.ready()
	chats := make([]string, manyChats)
	errs := make([]error, manyChats)
	ctx, cancel := t.soon()
	defer cancel()
	var all sync.WaitGroup
	for i := range chats {
		chats[i] = t.newChat()
		all.Go(func() { _, errs[i] = s.StartChat(ctx, startRequest(chats[i], 1)) })
	}
	all.Wait()
	s.chats = chats
	t.must(fmt.Sprintf("%d StartChat at once", manyChats), errors.Join(errs...))
	said := make([]string, manyChats)
	for i, chat := range chats {
		said[i] = fmt.Sprintf("This is for chat %d.", i)
		t.provoke(s, chat, said[i])
	}
	for i, chat := range chats {
		if texts := s.told(chat, said); !slices.Equal(texts, said[i:i+1]) {
			t.failf("chat %d was told %q", i, texts)
		}
	}
}

// heardByAgent counts the messages of the user that hold a text, as an agent sees them.
func (t *trial) heardByAgent(chat, text string) (n int) {
	ctx, cancel := t.soon()
	defer cancel()
	said, err := t.plugin.Script.Heard(ctx, chat)
	t.must("the script's Heard", err)
	for _, s := range said {
		if s == text {
			n++
		}
	}
	return n
}

func checkSend(t *trial) {
	t.scripted()
	s := t.ready()
	chat := t.chat(s)
	const text = "Grüße, <b>2 & 3</b>\n“quoted” 😀"
	t.must("SendMessageToAgent", t.send(s, chat, "m-1", text, 1))
	if n := t.heardByAgent(chat, text); n != 1 {
		t.failf("OK, and the agent sees the message %d times", n)
	}
}

func checkDedupe(t *trial) {
	s := t.ready()
	if d := s.describe.GetSendDedupe(); d < deskv1.SendDedupe_SEND_DEDUPE_KEY {
		t.notTested("the plugin declares no send_dedupe")
	}
	t.scripted()
	chat := t.chat(s)
	const text = "Only once, please."
	t.must("SendMessageToAgent", t.send(s, chat, "m-1", text, 1))
	t.must("SendMessageToAgent with attempt 2", t.send(s, chat, "m-1", text, 2))
	if n := t.heardByAgent(chat, text); n != 1 {
		t.failf("sent again by the same process, the agent sees it %d times", n)
	}
	if !slices.Contains(s.describe.GetCapabilities(), deskv1.Capability_CAPABILITY_RESUME) {
		return
	}
	state := t.crash(s, chat)
	next := t.ready()
	t.must("ResumeChat after a crash", t.resume(next, chat, state, 1))
	t.must("SendMessageToAgent with attempt 2 after a crash", t.send(next, chat, "m-1", text, 2))
	if n := t.heardByAgent(chat, text); n != 1 {
		t.failf("sent again after a crash, the agent sees it %d times", n)
	}
	t.must("SendMessageToAgent", t.send(next, chat, "m-2", text, 1))
	if n := t.heardByAgent(chat, text); n != 2 {
		t.failf("the same text under another id makes %d messages, where 2 were due", n)
	}
}

func checkLargeMessage(t *trial) {
	s := t.ready()
	chat := t.chat(s)
	size := int(s.describe.GetMaxTextBytes())
	if size == 0 || size > 64<<10 {
		size = 64 << 10
	}
	text := strings.Repeat("x", size)
	if err := t.send(s, chat, strings.Repeat("i", deskv1.MaxIDBytes), text, 1); err != nil {
		t.wantKind(fmt.Sprintf("a text of %d bytes", size), err, deskv1.FailureKind_FAILURE_KIND_INVALID, deskv1.FailureKind_FAILURE_KIND_REFUSED)
	}
	t.must("the next message", t.send(s, chat, "m-2", "Still there?", 1))
}

// optional is a call that needs a capability.
type optional struct {
	capability deskv1.Capability
	name       string
	call       func(ctx context.Context, s *serving, chat string) error
}

func optionalCalls() []optional {
	return []optional{
		{deskv1.Capability_CAPABILITY_AVAILABILITY, "AreAnyAgentsOnline", func(ctx context.Context, s *serving, _ string) error {
			_, err := s.AreAnyAgentsOnline(ctx, &deskv1.AreAnyAgentsOnlineRequest{})
			return err
		}},
		{deskv1.Capability_CAPABILITY_UPDATE_STATE, "UpdateState", func(ctx context.Context, s *serving, chat string) error {
			_, err := s.UpdateState(ctx, &deskv1.UpdateStateRequest{ChatId: chat, Context: &deskv1.UserContext{Locale: "de"}})
			return err
		}},
		{deskv1.Capability_CAPABILITY_USER_TYPING, "UserTyping", func(ctx context.Context, s *serving, chat string) error {
			_, err := s.UserTyping(ctx, &deskv1.UserTypingRequest{ChatId: chat, Typing: true})
			return err
		}},
		{deskv1.Capability_CAPABILITY_USER_READ, "UserReadMessages", func(ctx context.Context, s *serving, chat string) error {
			_, err := s.UserReadMessages(ctx, &deskv1.UserReadMessagesRequest{ChatId: chat})
			return err
		}},
		{deskv1.Capability_CAPABILITY_HTTP, "HandleHTTP", func(ctx context.Context, s *serving, _ string) error {
			_, err := s.HandleHTTP(ctx, &deskv1.HandleHTTPRequest{Method: "GET", Path: "desktest"})
			return err
		}},
		{deskv1.Capability_CAPABILITY_RESUME, "ResumeChat", func(ctx context.Context, s *serving, chat string) error {
			_, err := s.ResumeChat(ctx, &deskv1.ResumeChatRequest{ChatId: chat, Attempt: 1, State: s.latest(chat)})
			return err
		}},
		{deskv1.Capability_CAPABILITY_RESUME, "QuiesceChat", func(ctx context.Context, s *serving, chat string) error {
			_, err := s.QuiesceChat(ctx, &deskv1.QuiesceChatRequest{ChatId: chat})
			return err
		}},
	}
}

func checkDeclared(t *trial) {
	s := t.ready()
	if len(s.describe.GetCapabilities()) == 0 {
		t.notTested("the plugin declares no capability")
	}
	chat := t.chat(s)
	for _, o := range optionalCalls() {
		if !slices.Contains(s.describe.GetCapabilities(), o.capability) {
			continue
		}
		ctx, cancel := t.soon()
		err := o.call(ctx, s, chat)
		cancel()
		t.must(o.name+", which is declared,", err)
	}
}

func checkUndeclared(t *trial) {
	s := t.ready()
	chat := t.chat(s)
	asked := false
	for _, o := range optionalCalls() {
		if slices.Contains(s.describe.GetCapabilities(), o.capability) {
			continue
		}
		asked = true
		ctx, cancel := t.soon()
		err := o.call(ctx, s, chat)
		cancel()
		if status.Code(err) != codes.Unimplemented {
			t.wantKind(o.name+", which is not declared,", err, unsupported)
		}
	}
	if !asked {
		t.notTested("the plugin declares every capability")
	}
}

func checkHTTP(t *trial) {
	s := t.ready()
	t.capable(s, deskv1.Capability_CAPABILITY_HTTP)
	for _, req := range []*deskv1.HandleHTTPRequest{
		{Method: "GET", Path: "desktest/no%2Fsuch", Query: "a=1&a=2", RemoteAddress: "192.0.2.1"},
		{Method: "POST", Path: "", Headers: []*deskv1.HTTPHeader{{Name: "Content-Type", Value: "application/json"}}, Body: []byte("{")},
		{Method: "POST", Path: "desktest", Body: make([]byte, deskv1.MaxHTTPBytes)},
	} {
		ctx, cancel := context.WithTimeout(t.ctx, patience)
		resp, err := s.HandleHTTP(ctx, req)
		cancel()
		t.must(req.GetMethod(), err)
		if resp.GetStatus() < 200 || resp.GetStatus() > 599 || len(resp.GetBody()) > deskv1.MaxHTTPBytes {
			t.failf("%s was answered with status %d and %d bytes", req.GetMethod(), resp.GetStatus(), len(resp.GetBody()))
		}
	}
}

// checkFailureDetail makes a call that no desk can do: for a chat that is over.
func checkFailureDetail(t *trial) {
	s := t.ready()
	chat := t.chat(s)
	t.must("EndChat", t.endChat(s, chat, 1))
	err := t.send(s, chat, "m-1", "Is anybody there?", 1)
	if err == nil {
		t.notTested("no call failed: the desk takes a message for a chat that is over")
	}
	f := failureOf(err)
	if f == nil {
		t.failf("a message for a chat that is over was answered by %s", describeError(err))
	}
	if _, known := deskv1.FailureKind_name[int32(f.GetKind())]; !known || f.GetKind() == deskv1.FailureKind_FAILURE_KIND_UNSPECIFIED {
		t.failf("a Failure of the kind %d", f.GetKind())
	}
}

func checkRetry(t *trial) {
	t.scripted()
	s := t.ready()
	chat := t.chat(s)
	ctx, cancel := t.soon()
	defer cancel()
	t.must("the script's FailNextCall", t.plugin.Script.FailNextCall(ctx, CallSend))
	err := t.send(s, chat, "m-1", "Now or later.", 1)
	if err == nil {
		if t.heardByAgent(chat, "Now or later.") != 1 {
			t.failf("OK, for a message that the desk has not taken")
		}
		return // the plugin has tried again by itself
	}
	t.wantKind("a message that the desk put off", err, deskv1.FailureKind_FAILURE_KIND_RETRY)
	t.must("SendMessageToAgent, tried again", t.send(s, chat, "m-1", "Now or later.", 2))
	if n := t.heardByAgent(chat, "Now or later."); n != 1 {
		t.failf("the agent sees the message %d times", n)
	}
}

func checkCut(t *trial) {
	s := t.ready()
	chat := t.newChat()
	s.chats = append(s.chats, chat)
	for _, limit := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.ctx, limit)
		_, _ = s.StartChat(ctx, startRequest(chat, 1)) // what becomes of it is not known
		cancel()
	}
	ctx, cancel := t.soon()
	defer cancel()
	_, err := s.StartChat(ctx, startRequest(chat, 2))
	t.must("StartChat, after calls for it were cut off,", err)
	t.must("SendMessageToAgent", t.send(s, chat, rand.Text(), "Hello", 1))
	t.chat(s)
}

func checkStalled(t *trial) {
	t.scripted()
	s := t.ready()
	chat, other := t.chat(s), t.chat(s)
	ctx, cancel := context.WithTimeout(t.ctx, 3*patience)
	defer cancel()
	t.must("the script's StallNextCall", t.plugin.Script.StallNextCall(ctx, CallSend, 2*patience))
	var stalled sync.WaitGroup
	defer stalled.Wait()
	defer cancel()
	returned := make(chan struct{})
	stalled.Go(func() {
		defer close(returned)
		_, _ = s.SendMessageToAgent(ctx, &deskv1.SendMessageToAgentRequest{ChatId: chat, MessageId: "m-1", Attempt: 1, Text: "Slow"})
	})
	soon, done := t.soon()
	defer done()
	_, err := s.Health(soon, &deskv1.HealthRequest{})
	t.must("Health", err)
	t.chat(s)
	t.must("EndChat of another chat", t.endChat(s, other, 1))
	select {
	case <-returned:
		t.notTested("the stalled call returned before the others, so they were not beside it")
	default:
	}
}
