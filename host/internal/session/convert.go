package session

import (
	"encoding/json"
	"net/url"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// The wire, the journal and the API have schemas of their own. This file is
// where the first meets the second.

func wireContext(c *recordv1.UserContext) *deskv1.UserContext {
	return &deskv1.UserContext{
		User: &deskv1.User{
			Id:         c.GetUserId(),
			Verified:   c.GetUserVerified(),
			Name:       c.GetUserName(),
			Attributes: c.GetUserAttributes(),
		},
		Locale:             c.GetLocale(),
		AssistantSessionId: c.GetAssistantSessionId(),
	}
}

// recordContext returns nil if nothing is known of the user, as is common.
func recordContext(c Context) *recordv1.UserContext {
	out := &recordv1.UserContext{
		UserId:             c.UserID,
		UserVerified:       c.UserVerified,
		UserName:           c.UserName,
		UserAttributes:     c.UserAttributes,
		Locale:             c.Locale,
		AssistantSessionId: c.AssistantSessionID,
	}
	if proto.Size(out) == 0 {
		return nil
	}
	return out
}

func wireState(s *recordv1.ResumeState) *deskv1.ResumeState {
	if s == nil {
		return nil
	}
	return &deskv1.ResumeState{Data: s.GetData(), Format: s.GetFormat()}
}

func recordState(s *deskv1.ResumeState) *recordv1.ResumeState {
	return &recordv1.ResumeState{Data: s.GetData(), Format: s.GetFormat()}
}

func recordStart(r StartRequest) *recordv1.StartRequest {
	out := &recordv1.StartRequest{ConnectMessageJson: r.ConnectMessage, Text: r.Text}
	for _, h := range r.History {
		item := &recordv1.HistoryItem{From: h.From, Text: h.Text}
		if !h.Time.IsZero() {
			item.Time = timestamppb.New(h.Time)
		}
		out.History = append(out.History, item)
	}
	return out
}

func wireHistory(items []*recordv1.HistoryItem) []*deskv1.HistoryItem {
	var out []*deskv1.HistoryItem
	for _, h := range items {
		out = append(out, &deskv1.HistoryItem{From: h.GetFrom(), Text: h.GetText(), Time: h.GetTime()})
	}
	return out
}

func recordAgent(a *deskv1.Agent) *recordv1.Agent {
	if a == nil {
		return nil
	}
	return &recordv1.Agent{
		Id:        a.GetId(),
		Nickname:  a.GetNickname(),
		AvatarUrl: safeLink(a.GetAvatarUrl()),
		Bot:       a.GetKind() == deskv1.AgentKind_AGENT_KIND_BOT,
	}
}

// safeLink returns the link if it is http or https, and nothing otherwise: a
// page must not be led to javascript: by a desk.
func safeLink(link string) string {
	u, err := url.Parse(link)
	if err != nil || u.Host == "" {
		return ""
	}
	switch strings.ToLower(u.Scheme) {
	case "http", "https":
		return link
	}
	return ""
}

// recordParts converts the parts of a message, and tells the first rule that
// one breaks.
func recordParts(parts []*deskv1.MessagePart) (out []*recordv1.Part, fault string) {
	if len(parts) == 0 {
		return nil, "a message needs at least one part"
	}
	for _, p := range parts {
		r := new(recordv1.Part)
		link := "-"
		switch k := p.GetKind().(type) {
		case *deskv1.MessagePart_Text:
			r.Kind = &recordv1.Part_Text{Text: &recordv1.Text{Text: k.Text.GetText()}}
		case *deskv1.MessagePart_Image:
			link = safeLink(k.Image.GetUrl())
			r.Kind = &recordv1.Part_Image{Image: &recordv1.Media{Url: link, Title: k.Image.GetTitle(), AltText: k.Image.GetAltText()}}
		case *deskv1.MessagePart_Video:
			link = safeLink(k.Video.GetUrl())
			r.Kind = &recordv1.Part_Video{Video: &recordv1.Media{Url: link, Title: k.Video.GetTitle(), AltText: k.Video.GetAltText()}}
		case *deskv1.MessagePart_Link:
			link = safeLink(k.Link.GetUrl())
			r.Kind = &recordv1.Part_Link{Link: &recordv1.Link{Url: link, Label: k.Link.GetLabel()}}
		case *deskv1.MessagePart_InlineError:
			r.Kind = &recordv1.Part_InlineError{InlineError: &recordv1.Text{Text: k.InlineError.GetText()}}
		case *deskv1.MessagePart_File:
			link = safeLink(k.File.GetUrl())
			r.Kind = &recordv1.Part_File{File: &recordv1.File{Url: link, Name: k.File.GetName(), MediaType: k.File.GetMediaType(), SizeBytes: k.File.GetSizeBytes()}}
		case *deskv1.MessagePart_QuickReplies:
			q := &recordv1.QuickReplies{Text: k.QuickReplies.GetText()}
			for _, a := range k.QuickReplies.GetReplies() {
				value := a.GetValue()
				if value == "" {
					value = a.GetLabel()
				}
				q.Replies = append(q.Replies, &recordv1.QuickReply{Label: a.GetLabel(), Value: value})
			}
			r.Kind = &recordv1.Part_QuickReplies{QuickReplies: q}
		case *deskv1.MessagePart_UserDefined:
			data, err := json.Marshal(k.UserDefined.GetData().AsMap())
			if err != nil {
				return nil, "user-defined data is not JSON"
			}
			r.Kind = &recordv1.Part_UserDefined{UserDefined: &recordv1.UserDefined{Json: data}}
		default:
			return nil, "a message part of a kind that this host does not know"
		}
		if link == "" {
			return nil, "a link must be http or https"
		}
		out = append(out, r)
	}
	return out, ""
}
