package adapter

import (
	"github.com/deskhost/deskhost/plugins/mock/deskapi"
	"github.com/deskhost/deskhost/sdk"
)

// payloadOf returns what an event of the desk says to the host; nil if that is
// not for the host: the echo of what the user did.
func payloadOf(e *deskapi.Event) sdk.Payload {
	switch e.Type {
	case deskapi.AgentJoined:
		return sdk.AgentJoined{Agent: sdk.Agent(*e.Agent)}
	case deskapi.AgentLeft:
		return sdk.AgentLeft{AgentID: e.AgentID}
	case deskapi.AgentMessage:
		m := sdk.MessageToUser{AgentID: e.AgentID}
		for i := range e.Parts {
			if p := partOf(&e.Parts[i]); p != nil {
				m.Parts = append(m.Parts, p)
			}
		}
		if len(m.Parts) > 0 {
			return m
		}
	case deskapi.AgentRead:
		return sdk.AgentReadMessages{}
	case deskapi.AgentTyping:
		return sdk.AgentTyping{Typing: e.Typing, AgentID: e.AgentID}
	case deskapi.Transfer:
		if e.Agent == nil {
			return sdk.TransferStarted{}
		}
		a := sdk.Agent(*e.Agent)
		return sdk.TransferStarted{Agent: &a}
	case deskapi.InQueue:
		return sdk.AvailabilityChanged{
			WaitMinutes: e.Availability.WaitMinutes,
			Position:    e.Availability.Position,
			Message:     e.Availability.Message,
		}
	case deskapi.Capable:
		return sdk.CapabilitiesChanged(*e.Capabilities)
	case deskapi.InTrouble:
		return troubleOf(e.Trouble)
	case deskapi.Ended:
		return sdk.AgentEndedChat{Reason: e.Reason}
	}
	return nil
}

func troubleOf(t *deskapi.Trouble) sdk.Payload {
	s := sdk.ErrorStatus{UserMessage: t.Message, LogMessage: "the desk reports " + t.Kind}
	switch t.Kind {
	case deskapi.NoAgent:
		s.Kind = sdk.ConnectTrouble
	case deskapi.LinkLost, deskapi.LinkBack:
		s.Kind, s.Disconnected = sdk.LinkTrouble, t.Kind == deskapi.LinkLost
	case deskapi.MessageFailed:
		s.Kind, s.MessageID = sdk.MessageTrouble, t.MessageID
	default:
		return nil
	}
	return s
}

// partOf returns nil for what this version does not know.
func partOf(p *deskapi.Part) sdk.Part {
	switch p.Type {
	case "text":
		return sdk.Text(p.Text)
	case "image":
		return sdk.Image{URL: p.URL, Title: p.Title, AltText: p.AltText}
	case "video":
		return sdk.Video{URL: p.URL, Title: p.Title, AltText: p.AltText}
	case "link":
		return sdk.Link{URL: p.URL, Label: p.Label}
	case "inline_error":
		return sdk.InlineError(p.Text)
	case "file":
		return sdk.File{URL: p.URL, Name: p.Name, MediaType: p.MediaType, Size: p.Size}
	case "quick_replies":
		q := sdk.QuickReplies{Text: p.Text}
		for _, r := range p.Replies {
			q.Replies = append(q.Replies, sdk.QuickReply(r))
		}
		return q
	case "user_defined":
		return sdk.UserDefined(p.Data)
	}
	return nil
}
