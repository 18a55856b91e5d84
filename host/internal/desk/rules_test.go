package desk

import (
	"strings"
	"testing"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

func TestEventRules(t *testing.T) {
	long := strings.Repeat("x", deskv1.MaxIDBytes+1)
	joined := func(a *deskv1.Agent) *deskv1.Event {
		return &deskv1.Event{ChatId: "c", Payload: &deskv1.Event_AgentJoined{AgentJoined: &deskv1.AgentJoined{Agent: a}}}
	}
	parts := func(p ...*deskv1.MessagePart) *deskv1.Event {
		return &deskv1.Event{ChatId: "c", Payload: &deskv1.Event_MessageToUser{MessageToUser: &deskv1.MessageToUser{Parts: p}}}
	}
	link := func(url string) *deskv1.Event {
		return parts(&deskv1.MessagePart{Kind: &deskv1.MessagePart_Link{Link: &deskv1.LinkPart{Url: url}}})
	}
	saved := func(s *deskv1.ResumeState) *deskv1.Event {
		return &deskv1.Event{ChatId: "c", State: s, Payload: &deskv1.Event_StateSaved{StateSaved: &deskv1.StateSaved{}}}
	}
	tests := []struct {
		name  string
		event *deskv1.Event
		want  deskv1.RefusalCode // 0: taken
		says  string
	}{
		{"message", message("c", "hi"), 0, ""},
		{"agent", joined(&deskv1.Agent{Id: "a", AvatarUrl: "https://example.com/a.png"}), 0, ""},
		{"link", link("HTTPS://example.com/x?y=1"), 0, ""},
		{"state", saved(&deskv1.ResumeState{Data: make([]byte, deskv1.MaxStateBytes), Format: 1}), 0, ""},
		{"no chat", message("", "hi"), deskv1.RefusalCode_REFUSAL_CODE_INVALID, "names no chat"},
		{"long chat id", message(long, "hi"), deskv1.RefusalCode_REFUSAL_CODE_TOO_LARGE, "chat_id has 129 bytes"},
		{"long event id", &deskv1.Event{ChatId: "c", EventId: long, Payload: message("", "").GetPayload()}, deskv1.RefusalCode_REFUSAL_CODE_TOO_LARGE, "event_id"},
		{"long agent id", joined(&deskv1.Agent{Id: long}), deskv1.RefusalCode_REFUSAL_CODE_TOO_LARGE, "agent id"},
		{"no agent", joined(nil), deskv1.RefusalCode_REFUSAL_CODE_INVALID, "names no agent"},
		{"script avatar", joined(&deskv1.Agent{Id: "a", AvatarUrl: "javascript:x"}), deskv1.RefusalCode_REFUSAL_CODE_INVALID, "avatar_url"},
		{"script link", link("javascript:alert(1)"), deskv1.RefusalCode_REFUSAL_CODE_INVALID, "http or https"},
		{"data link", link("data:text/html,x"), deskv1.RefusalCode_REFUSAL_CODE_INVALID, "http or https"},
		{"relative link", link("/x"), deskv1.RefusalCode_REFUSAL_CODE_INVALID, "absolute"},
		{"no link", link(""), deskv1.RefusalCode_REFUSAL_CODE_INVALID, "absolute"},
		{"no parts", parts(), deskv1.RefusalCode_REFUSAL_CODE_INVALID, "no parts"},
		{"part of a later version", parts(&deskv1.MessagePart{}), deskv1.RefusalCode_REFUSAL_CODE_INVALID, "part 0"},
		{"payload of a later version", &deskv1.Event{ChatId: "c"}, deskv1.RefusalCode_REFUSAL_CODE_INVALID, "payload"},
		{"no state", saved(nil), deskv1.RefusalCode_REFUSAL_CODE_INVALID, "no state"},
		{"state without format", saved(&deskv1.ResumeState{}), deskv1.RefusalCode_REFUSAL_CODE_INVALID, "format 0"},
		{"large state", saved(&deskv1.ResumeState{Data: make([]byte, deskv1.MaxStateBytes+1), Format: 1}), deskv1.RefusalCode_REFUSAL_CODE_TOO_LARGE, "resume state"},
		{"large event", message("c", strings.Repeat("x", deskv1.MaxEventBytes)), deskv1.RefusalCode_REFUSAL_CODE_TOO_LARGE, "at most 262144"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := checkEvent(test.event)
			switch {
			case r == nil && test.want != 0:
				t.Errorf("taken, want %v", test.want)
			case r != nil && (r.Code != test.want || !strings.Contains(r.Reason, test.says)):
				t.Errorf("refused with %v %q, want %v %q", r.Code, r.Reason, test.want, test.says)
			}
		})
	}
}

func message(chat, text string) *deskv1.Event {
	return &deskv1.Event{ChatId: chat, Payload: &deskv1.Event_MessageToUser{MessageToUser: &deskv1.MessageToUser{
		Parts: []*deskv1.MessagePart{{Kind: &deskv1.MessagePart_Text{Text: &deskv1.TextPart{Text: text}}}},
	}}}
}
