package desk

import (
	"fmt"
	"net/url"

	"google.golang.org/protobuf/proto"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// checkEvent holds an event to the contract, so that nobody above has to. It
// returns why the event is refused, or nil.
func checkEvent(e *deskv1.Event) *Refusal {
	if size := proto.Size(e); size > deskv1.MaxEventBytes {
		return tooLarge("the event has %d bytes, at most %d are allowed", size, deskv1.MaxEventBytes)
	}
	if e.GetChatId() == "" {
		return invalid("the event names no chat")
	}
	if r := checkID("chat_id", e.GetChatId()); r != nil {
		return r
	}
	if r := checkID("event_id", e.GetEventId()); r != nil {
		return r
	}
	if r := checkState(e.GetState()); r != nil {
		return r
	}
	return checkPayload(e)
}

func checkState(state *deskv1.ResumeState) *Refusal {
	if state == nil {
		return nil
	}
	if size := len(state.GetData()); size > deskv1.MaxStateBytes {
		return tooLarge("the resume state has %d bytes, at most %d are allowed", size, deskv1.MaxStateBytes)
	}
	if state.GetFormat() == 0 {
		return invalid("the resume state has format 0; formats begin at 1")
	}
	return nil
}

func checkPayload(e *deskv1.Event) *Refusal {
	switch p := e.GetPayload().(type) {
	case *deskv1.Event_AgentJoined:
		if p.AgentJoined.GetAgent() == nil {
			return invalid("agent_joined names no agent")
		}
		return checkAgent(p.AgentJoined.GetAgent())
	case *deskv1.Event_TransferStarted:
		return checkAgent(p.TransferStarted.GetAgent())
	case *deskv1.Event_AgentLeft:
		return checkID("agent_id", p.AgentLeft.GetAgentId())
	case *deskv1.Event_AgentTyping:
		return checkID("agent_id", p.AgentTyping.GetAgentId())
	case *deskv1.Event_MessageToUser:
		return checkMessage(p.MessageToUser)
	case *deskv1.Event_ErrorStatus:
		if p.ErrorStatus.GetKind() == deskv1.ErrorKind_ERROR_KIND_UNSPECIFIED {
			return invalid("error_status has no kind")
		}
		return checkID("message_id", p.ErrorStatus.GetMessageId())
	case *deskv1.Event_StateSaved:
		if e.GetState() == nil {
			return invalid("state_saved carries no state")
		}
	case *deskv1.Event_AgentEndedChat, *deskv1.Event_AgentReadMessages,
		*deskv1.Event_AvailabilityChanged, *deskv1.Event_CapabilitiesChanged:
	default:
		return invalid("the event has no payload that this host knows")
	}
	return nil
}

func checkAgent(a *deskv1.Agent) *Refusal {
	if r := checkID("agent id", a.GetId()); r != nil {
		return r
	}
	if a.GetAvatarUrl() == "" {
		return nil
	}
	return checkLink("avatar_url", a.GetAvatarUrl())
}

func checkMessage(m *deskv1.MessageToUser) *Refusal {
	if r := checkID("message_id", m.GetMessageId()); r != nil {
		return r
	}
	if r := checkID("agent_id", m.GetAgentId()); r != nil {
		return r
	}
	if len(m.GetParts()) == 0 {
		return invalid("message_to_user has no parts")
	}
	for i, part := range m.GetParts() {
		var r *Refusal
		switch p := part.GetKind().(type) {
		case *deskv1.MessagePart_Image:
			r = checkLink("image", p.Image.GetUrl())
		case *deskv1.MessagePart_Video:
			r = checkLink("video", p.Video.GetUrl())
		case *deskv1.MessagePart_Link:
			r = checkLink("link", p.Link.GetUrl())
		case *deskv1.MessagePart_File:
			r = checkLink("file", p.File.GetUrl())
		case nil:
			r = invalid("part %d of message_to_user is of no kind that this host knows", i)
		}
		if r != nil {
			return r
		}
	}
	return nil
}

// checkLink lets http and https pass: any other scheme could run in the page.
func checkLink(what, link string) *Refusal {
	u, err := url.Parse(link)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return invalid("the link of %s is not an absolute http or https address", what)
	}
	return nil
}

func checkID(what, id string) *Refusal {
	if len(id) > deskv1.MaxIDBytes {
		return tooLarge("%s has %d bytes, at most %d are allowed", what, len(id), deskv1.MaxIDBytes)
	}
	return nil
}

func invalid(format string, args ...any) *Refusal {
	return &Refusal{Code: deskv1.RefusalCode_REFUSAL_CODE_INVALID, Reason: fmt.Sprintf(format, args...)}
}

func tooLarge(format string, args ...any) *Refusal {
	return &Refusal{Code: deskv1.RefusalCode_REFUSAL_CODE_TOO_LARGE, Reason: fmt.Sprintf(format, args...)}
}
