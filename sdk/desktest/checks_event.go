package desktest

import (
	"fmt"
	"slices"
	"strings"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

func checkEventRules(t *trial) {
	s := t.ready()
	chat := t.chat(s)
	t.provoke(s, chat, "One.")
	t.provoke(s, chat, "Two.")
	if t.hasScript() {
		ctx, cancel := t.soon()
		defer cancel()
		err := t.plugin.Script.AgentEnds(ctx, chat)
		t.must("the script's AgentEnds", err)
		t.await(s, "AgentEndedChat", func() bool { return s.has(chat, isEnd) })
	}
	if broken := s.violations(); len(broken) > 0 {
		t.failf("%s", strings.Join(broken, "; "))
	}
}

func isEnd(e *deskv1.Event) bool { return e.GetAgentEndedChat() != nil }

func checkOrder(t *trial) {
	s := t.ready()
	chat := t.chat(s)
	const n = 20
	var want []string
	for i := range n {
		text := fmt.Sprintf("Message %02d.", i)
		want = append(want, text)
		if t.hasScript() {
			t.says(chat, text)
		} else {
			t.provoke(s, chat, text)
		}
	}
	t.await(s, "the last message", func() bool { return s.heard(chat, want[n-1]) > 0 })
	if got := s.told(chat, want); !slices.Equal(got, want) {
		t.failf("%q", got)
	}
}

func checkEnded(t *trial) {
	t.scripted()
	s := t.ready()
	chat := t.chat(s)
	t.says(chat, "Goodbye.")
	ctx, cancel := t.soon()
	defer cancel()
	t.must("the script's AgentEnds", t.plugin.Script.AgentEnds(ctx, chat))
	t.await(s, "AgentEndedChat", func() bool { return s.has(chat, isEnd) })
	t.never(s, "something came behind AgentEndedChat, or the goodbye did not come", func() bool {
		events := s.of(chat)
		return !isEnd(events[len(events)-1]) || s.heard(chat, "Goodbye.") != 1
	})
	if err := t.send(s, chat, "m-1", "Wait!", 1); err != nil {
		t.wantKind("a message for the chat", err, chatOver, chatUnknown)
	}
}

func checkResent(t *trial) {
	s := t.ready()
	chat := t.chat(s)
	t.provoke(s, chat, "One.")
	t.provoke(s, chat, "Two.")
	counted := func() bool {
		ids := map[string]int{}
		for _, e := range s.of(chat) {
			if m := e.GetMessageToUser(); m != nil {
				ids[e.GetEventId()+" "+textOf(m)]++
			}
		}
		for _, n := range ids {
			if n > 1 {
				return true
			}
		}
		return false
	}
	t.never(s, "an event came a second time", counted)
}

func checkWindow(t *trial) {
	const window, chats = 4, 6
	t.scripted()
	s := t.readyWith(usualLimits(window, 1))
	open := make([]string, chats)
	for i := range open {
		open[i] = t.chat(s)
	}
	s.hold()
	for _, chat := range open {
		t.says(chat, "Hello.")
	}
	t.await(s, "as many events as the window has", func() bool { return s.unsettled("") >= window })
	t.never(s, fmt.Sprintf("more than %d events wait for their acknowledgement", window), func() bool { return s.unsettled("") > window })
	s.release()
	t.await(s, "what waited for its place", func() bool {
		return !slices.ContainsFunc(open, func(chat string) bool { return s.heard(chat, "Hello.") == 0 })
	})
}

func checkChatWindow(t *trial) {
	const window, chatWindow, messages = 16, 4, 8
	t.scripted()
	s := t.readyWith(usualLimits(window, chatWindow))
	chat, other := t.chat(s), t.chat(s)
	s.hold()
	for i := range messages {
		t.says(chat, fmt.Sprintf("Message %d.", i))
	}
	t.await(s, "an event", func() bool { return s.unsettled(chat) > 0 })
	t.says(other, "Beside it.")
	t.await(s, "an event of another chat", func() bool { return s.unsettled(other) > 0 })
	t.never(s, fmt.Sprintf("more than %d events of one chat wait for their acknowledgement", chatWindow),
		func() bool { return s.unsettled(chat) > chatWindow })
	s.release()
	t.await(s, "the last message", func() bool { return s.heard(chat, fmt.Sprintf("Message %d.", messages-1)) > 0 })
	for i := range messages {
		if n := s.heard(chat, fmt.Sprintf("Message %d.", i)); n != 1 {
			t.failf("message %d came %d times", i, n)
		}
	}
}

func checkRefused(t *trial) {
	t.scripted()
	s := t.ready()
	chat, other := t.chat(s), t.chat(s)
	for _, code := range []deskv1.RefusalCode{deskv1.RefusalCode_REFUSAL_CODE_INVALID, deskv1.RefusalCode_REFUSAL_CODE_CHAT_OVER} {
		s.refuseNext(chat, code)
		text := "Refused with " + code.String()
		t.provoke(s, chat, text)
		seen := func() (n int) {
			for _, e := range s.of(chat) {
				if m := e.GetMessageToUser(); m != nil && strings.Contains(textOf(m), text) {
					n++
				}
			}
			return n
		}
		t.never(s, "a refused event came again", func() bool { return seen() > 1 })
		t.provoke(s, other, "Beside "+code.String())
	}
}
