package sdk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// This file turns the host's requests into the SDK's types and the SDK's
// answers into the wire's. Events are in wire_event.go, errors in
// wire_failure.go.

// valid replaces what is not UTF-8: one such byte in a vendor's text would make
// the whole message impossible to encode, and break the stream.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func fromTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func toTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func fromState(s *deskv1.ResumeState) *ResumeState {
	if s == nil {
		return nil
	}
	return &ResumeState{Data: s.GetData(), Format: s.GetFormat()}
}

// toState checks the limits of a resume state. It copies Data, which may be
// encoded only after an Emit has returned because its ctx ended.
func toState(s *ResumeState) (*deskv1.ResumeState, *RefusedError) {
	switch {
	case s == nil:
		return nil, nil
	case s.Format == 0:
		return nil, invalid("the format of a resume state must be 1 or more")
	case len(s.Data) > deskv1.MaxStateBytes:
		return nil, tooLarge("the resume state", len(s.Data), deskv1.MaxStateBytes)
	}
	return &deskv1.ResumeState{Data: bytes.Clone(s.Data), Format: s.Format}, nil
}

// answerState is toState for the answer of a call.
func answerState(s *ResumeState) (*deskv1.ResumeState, error) {
	state, refused := toState(s)
	if refused != nil {
		return nil, fmt.Errorf("the plugin's answer is not valid: %s", refused.Reason)
	}
	return state, nil
}

func fromContext(c *deskv1.UserContext) UserContext {
	u := c.GetUser()
	return UserContext{
		User: User{
			ID:         u.GetId(),
			Verified:   u.GetVerified(),
			Name:       u.GetName(),
			Attributes: u.GetAttributes(),
		},
		Locale:             c.GetLocale(),
		AssistantSessionID: c.GetAssistantSessionId(),
	}
}

func fromStartChat(r *deskv1.StartChatRequest) *StartChatRequest {
	req := &StartChatRequest{
		ChatID:         r.GetChatId(),
		Attempt:        int(r.GetAttempt()),
		State:          fromState(r.GetState()),
		Context:        fromContext(r.GetContext()),
		ConnectMessage: json.RawMessage(r.GetConnectMessageJson()),
		Text:           r.GetText(),
		SignInToken:    r.GetSignInToken(),
	}
	for _, h := range r.GetHistory() {
		req.History = append(req.History, HistoryItem{From: h.GetFrom(), Text: h.GetText(), Time: fromTime(h.GetTime())})
	}
	return req
}

func toStartChat(r *StartChatResponse) (*deskv1.StartChatResponse, error) {
	if r == nil {
		return &deskv1.StartChatResponse{}, nil
	}
	state, err := answerState(r.State)
	return &deskv1.StartChatResponse{State: state}, err
}

func fromEndChat(r *deskv1.EndChatRequest) *EndChatRequest {
	return &EndChatRequest{
		ChatID:  r.GetChatId(),
		Attempt: int(r.GetAttempt()),
		State:   fromState(r.GetState()),
		ByUser:  r.GetEndedBy() == deskv1.EndedBy_ENDED_BY_USER,
		Reason:  r.GetReason(),
	}
}

func fromSendMessage(r *deskv1.SendMessageToAgentRequest) *SendMessageRequest {
	return &SendMessageRequest{
		ChatID:    r.GetChatId(),
		MessageID: r.GetMessageId(),
		Attempt:   int(r.GetAttempt()),
		Text:      r.GetText(),
		Data:      json.RawMessage(r.GetDataJson()),
		Time:      fromTime(r.GetTime()),
	}
}

func toSendMessage(r *SendMessageResponse) *deskv1.SendMessageToAgentResponse {
	if r == nil {
		return &deskv1.SendMessageToAgentResponse{}
	}
	return &deskv1.SendMessageToAgentResponse{DeskMessageId: valid(r.DeskMessageID)}
}

func toAvailability(r *AvailabilityResponse) (*deskv1.AreAnyAgentsOnlineResponse, error) {
	if r == nil {
		return &deskv1.AreAnyAgentsOnlineResponse{}, nil
	}
	resp := &deskv1.AreAnyAgentsOnlineResponse{Message: valid(r.Message)}
	switch r.Online {
	case OnlineYes:
		resp.Availability = deskv1.Availability_AVAILABILITY_ONLINE
	case OnlineNo:
		resp.Availability = deskv1.Availability_AVAILABILITY_OFFLINE
	default:
		resp.Availability = deskv1.Availability_AVAILABILITY_UNSPECIFIED
	}
	var ok1, ok2 bool
	resp.WaitMinutes, ok1 = toCount(r.WaitMinutes)
	resp.Position, ok2 = toCount(r.Position)
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("the plugin's answer is not valid: WaitMinutes and Position must be 0 to %d", math.MaxUint32)
	}
	return resp, nil
}

func toCount(n *int) (*uint32, bool) {
	if n == nil {
		return nil, true
	}
	if *n < 0 || int64(*n) > math.MaxUint32 {
		return nil, false
	}
	u := uint32(*n)
	return &u, true
}

func fromConfigure(r *deskv1.ConfigureRequest) *ConfigureRequest {
	return &ConfigureRequest{
		DeskName:       r.GetDeskName(),
		Config:         json.RawMessage(r.GetConfigJson()),
		WebhookBaseURL: r.GetWebhookBaseUrl(),
	}
}

func fromResumeChat(r *deskv1.ResumeChatRequest) *ResumeChatRequest {
	return &ResumeChatRequest{
		ChatID:  r.GetChatId(),
		Attempt: int(r.GetAttempt()),
		State:   fromState(r.GetState()),
		Context: fromContext(r.GetContext()),
	}
}

func toQuiesceChat(r *QuiesceChatResponse) (*deskv1.QuiesceChatResponse, error) {
	if r == nil {
		return &deskv1.QuiesceChatResponse{}, nil
	}
	state, err := answerState(r.State)
	return &deskv1.QuiesceChatResponse{State: state}, err
}

// noConfig is the schema of a desk that takes no configuration.
const noConfig = `{"type":"object","additionalProperties":false}`

func toDescribe(p *Plugin, d Desk) *deskv1.DescribeResponse {
	resp := &deskv1.DescribeResponse{
		Name:         p.Name,
		Version:      p.Version,
		Title:        p.Title,
		ConfigSchema: p.ConfigSchema,
		StateFormats: p.StateFormats,
		MaxTextBytes: uint32(p.MaxTextBytes),
		Capabilities: capabilities(d),
	}
	if p.ConfigSchema == "" {
		resp.ConfigSchema = noConfig
	}
	switch p.SendDedupe {
	case DedupeByKey:
		resp.SendDedupe = deskv1.SendDedupe_SEND_DEDUPE_KEY
	case DedupeByLookup:
		resp.SendDedupe = deskv1.SendDedupe_SEND_DEDUPE_LOOKUP
	default:
		resp.SendDedupe = deskv1.SendDedupe_SEND_DEDUPE_NONE
	}
	switch p.Replay {
	case ReplayByCursor:
		resp.Replay = deskv1.Replay_REPLAY_CURSOR
	case ReplayByWebhook:
		resp.Replay = deskv1.Replay_REPLAY_WEBHOOK
	default:
		resp.Replay = deskv1.Replay_REPLAY_NONE
	}
	return resp
}

// capabilities are the optional interfaces that the desk has.
func capabilities(d Desk) []deskv1.Capability {
	var have []deskv1.Capability
	if _, ok := d.(AvailabilityReporter); ok {
		have = append(have, deskv1.Capability_CAPABILITY_AVAILABILITY)
	}
	if _, ok := d.(StateUpdater); ok {
		have = append(have, deskv1.Capability_CAPABILITY_UPDATE_STATE)
	}
	if _, ok := d.(TypingReceiver); ok {
		have = append(have, deskv1.Capability_CAPABILITY_USER_TYPING)
	}
	if _, ok := d.(ReadReceiver); ok {
		have = append(have, deskv1.Capability_CAPABILITY_USER_READ)
	}
	if _, ok := d.(Resumer); ok {
		have = append(have, deskv1.Capability_CAPABILITY_RESUME)
	}
	if _, ok := d.(HTTPHandler); ok {
		have = append(have, deskv1.Capability_CAPABILITY_HTTP)
	}
	return have
}
