package sdk

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
	"github.com/deskhost/deskhost/sdk/internal/eventstream"
)

// invalid and tooLarge are the refusals that need no host.
func invalid(format string, args ...any) *RefusedError {
	return &RefusedError{Code: RefusedInvalid, Reason: fmt.Sprintf(format, args...)}
}

func tooLarge(what string, size, limit int) *RefusedError {
	return &RefusedError{Code: RefusedTooLarge, Reason: fmt.Sprintf("%s has %d bytes, the limit is %d", what, size, limit)}
}

func fromRefusal(r *deskv1.Refusal) *RefusedError {
	var code RefusalCode
	switch r.GetCode() {
	case deskv1.RefusalCode_REFUSAL_CODE_CHAT_OVER:
		code = RefusedChatOver
	case deskv1.RefusalCode_REFUSAL_CODE_CHAT_UNKNOWN:
		code = RefusedChatUnknown
	case deskv1.RefusalCode_REFUSAL_CODE_MOVED:
		code = RefusedMoved
	case deskv1.RefusalCode_REFUSAL_CODE_TOO_LARGE:
		code = RefusedTooLarge
	default:
		code = RefusedInvalid
	}
	return &RefusedError{Code: code, Reason: r.GetReason()}
}

// Check returns the [*RefusedError] with which [Host.Emit] answers an event that
// breaks a rule of the contract, or nil if it breaks none.
func (e *Event) Check() error {
	event, refused := toEvent(e)
	if refused == nil {
		if tooLarge := eventstream.CheckSize(event); tooLarge != nil {
			refused = fromRefusal(tooLarge)
		}
	}
	if refused != nil {
		return refused
	}
	return nil
}

// toEvent checks an event by the rules of the contract and turns it into the
// wire's form. The size of the whole is checked by the stream.
func toEvent(ev *Event) (*deskv1.Event, *RefusedError) {
	if ev == nil {
		return nil, invalid("the event is nil")
	}
	if ev.ChatID == "" {
		return nil, invalid("the event has no ChatID")
	}
	if err := checkID("ChatID", ev.ChatID); err != nil {
		return nil, err
	}
	if err := checkID("ID", ev.ID); err != nil {
		return nil, err
	}
	state, err := toState(ev.State)
	if err != nil {
		return nil, err
	}
	e := &deskv1.Event{ChatId: ev.ChatID, EventId: ev.ID, Time: toTime(ev.Time), State: state}
	if err := setPayload(e, ev.Payload); err != nil {
		return nil, err
	}
	return e, nil
}

func setPayload(e *deskv1.Event, payload Payload) *RefusedError {
	switch p := payload.(type) {
	case AgentJoined:
		agent, err := toAgent(&p.Agent)
		e.Payload = &deskv1.Event_AgentJoined{AgentJoined: &deskv1.AgentJoined{Agent: agent}}
		return err
	case AgentLeft:
		e.Payload = &deskv1.Event_AgentLeft{AgentLeft: &deskv1.AgentLeft{AgentId: p.AgentID}}
		return checkID("AgentID", p.AgentID)
	case AgentEndedChat:
		e.Payload = &deskv1.Event_AgentEndedChat{AgentEndedChat: &deskv1.AgentEndedChat{Reason: valid(p.Reason)}}
	case AgentTyping:
		e.Payload = &deskv1.Event_AgentTyping{AgentTyping: &deskv1.AgentTyping{Typing: p.Typing, AgentId: p.AgentID}}
		return checkID("AgentID", p.AgentID)
	case AgentReadMessages:
		e.Payload = &deskv1.Event_AgentReadMessages{AgentReadMessages: &deskv1.AgentReadMessages{}}
	case MessageToUser:
		m, err := toMessage(&p)
		e.Payload = &deskv1.Event_MessageToUser{MessageToUser: m}
		return err
	case TransferStarted:
		agent, err := toAgent(p.Agent)
		e.Payload = &deskv1.Event_TransferStarted{TransferStarted: &deskv1.TransferStarted{Agent: agent}}
		return err
	case AvailabilityChanged:
		wait, ok1 := toCount(p.WaitMinutes)
		position, ok2 := toCount(p.Position)
		if !ok1 || !ok2 {
			return invalid("WaitMinutes and Position must be 0 to %d", math.MaxUint32)
		}
		e.Payload = &deskv1.Event_AvailabilityChanged{AvailabilityChanged: &deskv1.AvailabilityChanged{
			WaitMinutes: wait, Position: position, Message: valid(p.Message),
		}}
	case CapabilitiesChanged:
		types := make([]string, len(p.FileUploadTypes))
		for i, t := range p.FileUploadTypes {
			types[i] = valid(t)
		}
		e.Payload = &deskv1.Event_CapabilitiesChanged{CapabilitiesChanged: &deskv1.CapabilitiesChanged{
			FileUploads: p.FileUploads, MultipleFileUploads: p.MultipleFileUploads, FileUploadTypes: types,
		}}
	case ErrorStatus:
		status, err := toErrorStatus(&p)
		e.Payload = &deskv1.Event_ErrorStatus{ErrorStatus: status}
		return err
	case StateSaved:
		if e.GetState() == nil {
			return invalid("StateSaved needs the event's State")
		}
		e.Payload = &deskv1.Event_StateSaved{StateSaved: &deskv1.StateSaved{}}
	default:
		return invalid("the payload is a %T; it must be one of the payload structs, by value", payload)
	}
	return nil
}

func toErrorStatus(s *ErrorStatus) (*deskv1.ErrorStatus, *RefusedError) {
	status := &deskv1.ErrorStatus{
		Disconnected: s.Disconnected,
		MessageId:    s.MessageID,
		UserMessage:  valid(s.UserMessage),
		LogMessage:   valid(s.LogMessage),
	}
	switch s.Kind {
	case ConnectTrouble:
		status.Kind = deskv1.ErrorKind_ERROR_KIND_CONNECTING
	case LinkTrouble:
		status.Kind = deskv1.ErrorKind_ERROR_KIND_DISCONNECTED
	case MessageTrouble:
		status.Kind = deskv1.ErrorKind_ERROR_KIND_USER_MESSAGE
		if s.MessageID == "" {
			return nil, invalid("MessageTrouble needs the MessageID")
		}
	default:
		return nil, invalid("ErrorStatus has no known Kind: %d", s.Kind)
	}
	return status, checkID("MessageID", s.MessageID)
}

func toAgent(a *Agent) (*deskv1.Agent, *RefusedError) {
	if a == nil {
		return nil, nil
	}
	if err := checkID("Agent.ID", a.ID); err != nil {
		return nil, err
	}
	if a.AvatarURL != "" {
		if err := checkLink("Agent.AvatarURL", a.AvatarURL); err != nil {
			return nil, err
		}
	}
	kind := deskv1.AgentKind_AGENT_KIND_HUMAN
	if a.Bot {
		kind = deskv1.AgentKind_AGENT_KIND_BOT
	}
	return &deskv1.Agent{Id: a.ID, Nickname: valid(a.Nickname), AvatarUrl: a.AvatarURL, Kind: kind}, nil
}

func toMessage(m *MessageToUser) (*deskv1.MessageToUser, *RefusedError) {
	if len(m.Parts) == 0 {
		return nil, invalid("MessageToUser has no Parts")
	}
	if err := checkID("MessageID", m.MessageID); err != nil {
		return nil, err
	}
	if err := checkID("AgentID", m.AgentID); err != nil {
		return nil, err
	}
	parts := make([]*deskv1.MessagePart, len(m.Parts))
	for i, part := range m.Parts {
		p, err := toPart(part)
		if err != nil {
			return nil, err
		}
		parts[i] = p
	}
	return &deskv1.MessageToUser{MessageId: m.MessageID, AgentId: m.AgentID, Parts: parts}, nil
}

func toPart(part Part) (*deskv1.MessagePart, *RefusedError) {
	switch p := part.(type) {
	case Text:
		return &deskv1.MessagePart{Kind: &deskv1.MessagePart_Text{Text: &deskv1.TextPart{Text: valid(string(p))}}}, nil
	case Image:
		return &deskv1.MessagePart{Kind: &deskv1.MessagePart_Image{Image: &deskv1.ImagePart{
			Url: p.URL, Title: valid(p.Title), AltText: valid(p.AltText),
		}}}, checkLink("Image.URL", p.URL)
	case Video:
		return &deskv1.MessagePart{Kind: &deskv1.MessagePart_Video{Video: &deskv1.VideoPart{
			Url: p.URL, Title: valid(p.Title), AltText: valid(p.AltText),
		}}}, checkLink("Video.URL", p.URL)
	case Link:
		return &deskv1.MessagePart{Kind: &deskv1.MessagePart_Link{Link: &deskv1.LinkPart{
			Url: p.URL, Label: valid(p.Label),
		}}}, checkLink("Link.URL", p.URL)
	case InlineError:
		return &deskv1.MessagePart{Kind: &deskv1.MessagePart_InlineError{InlineError: &deskv1.InlineErrorPart{
			Text: valid(string(p)),
		}}}, nil
	case File:
		if p.Size < 0 {
			return nil, invalid("File.Size is negative")
		}
		return &deskv1.MessagePart{Kind: &deskv1.MessagePart_File{File: &deskv1.FilePart{
			Url: p.URL, Name: valid(p.Name), MediaType: valid(p.MediaType), SizeBytes: uint64(p.Size),
		}}}, checkLink("File.URL", p.URL)
	case QuickReplies:
		replies := make([]*deskv1.QuickReply, len(p.Replies))
		for i, r := range p.Replies {
			replies[i] = &deskv1.QuickReply{Label: valid(r.Label), Value: valid(r.Value)}
		}
		return &deskv1.MessagePart{Kind: &deskv1.MessagePart_QuickReplies{QuickReplies: &deskv1.QuickRepliesPart{
			Text: valid(p.Text), Replies: replies,
		}}}, nil
	case UserDefined:
		data, err := structpb.NewStruct(p)
		if err != nil {
			// The error may quote the text.
			return nil, invalid("UserDefined holds a value that encoding/json does not make, or text that is not UTF-8")
		}
		if deeper(structpb.NewStructValue(data), maxNesting) {
			return nil, invalid("UserDefined is nested more than %d levels deep", maxNesting)
		}
		return &deskv1.MessagePart{Kind: &deskv1.MessagePart_UserDefined{UserDefined: &deskv1.UserDefinedPart{Data: data}}}, nil
	default:
		return nil, invalid("a part is a %T; it must be one of the part types, by value", part)
	}
}

// maxNesting bounds the levels of a UserDefined. A host decodes no message that
// holds more than 10,000 within each other, a few of them a level, and its
// stream would end with one that does.
const maxNesting = 1000

// deeper tells whether a value has more levels than so many.
func deeper(v *structpb.Value, levels int) bool {
	if levels < 0 {
		return true
	}
	for _, field := range v.GetStructValue().GetFields() {
		if deeper(field, levels-1) {
			return true
		}
	}
	return slices.ContainsFunc(v.GetListValue().GetValues(), func(item *structpb.Value) bool { return deeper(item, levels-1) })
}

// checkID checks an id, which is never changed to fit.
func checkID(field, id string) *RefusedError {
	if len(id) > deskv1.MaxIDBytes {
		return tooLarge(field, len(id), deskv1.MaxIDBytes)
	}
	if !utf8.ValidString(id) {
		return invalid("%s is not UTF-8", field)
	}
	return nil
}

// checkLink lets http and https pass: a page opens what it is given.
func checkLink(field, link string) *RefusedError {
	u, err := url.Parse(link)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || !utf8.ValidString(link) {
		return invalid("%s must be an http or https link", field)
	}
	return nil
}
