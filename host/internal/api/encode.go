package api

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	"github.com/deskhost/deskhost/host/internal/session"
)

// Entries are encoded by hand: this is the one thing that the host does for
// every event and every socket. The members and their order are those of Event,
// against which the tests hold it.

// appendNews appends news as one line of JSON.
func appendNews(b []byte, n *session.News) []byte {
	switch {
	case n.Entry != nil:
		return appendEntry(b, n.Entry)
	case n.Typing != nil:
		b = appendHead(b, 0, n.Time, "agent_typing", n.ChatID)
		b = appendBool(b, "typing", n.Typing.Typing)
		b = appendOptional(b, "agent_id", n.Typing.AgentID)
	case n.Availability != nil:
		b = appendHead(b, 0, n.Time, "availability", n.ChatID)
		b = appendOptionalUint(b, "wait_minutes", n.Availability.WaitMinutes)
		b = appendOptionalUint(b, "position", n.Availability.Position)
		b = appendOptional(b, "message", n.Availability.Message)
	default:
		b = appendHead(b, n.GapTo, n.Time, "gap", "")
	}
	return append(b, '}')
}

// appendEntry appends one line of the log as one line of JSON.
func appendEntry(b []byte, e *recordv1.Entry) []byte {
	head := func(kind string) {
		b = appendHead(b, e.GetSeq(), e.GetTime().AsTime(), kind, e.GetChatId())
	}
	switch body := e.GetBody().(type) {
	case *recordv1.Entry_ChatRequested:
		head("chat_requested")
		b = appendString(b, "desk", body.ChatRequested.GetDesk())
		b = appendOptional(b, "text", body.ChatRequested.GetText())
	case *recordv1.Entry_ChatStarted:
		head("chat_started")
	case *recordv1.Entry_AgentJoined:
		head("agent_joined")
		b = appendAgent(b, body.AgentJoined.GetAgent())
	case *recordv1.Entry_UserMessage:
		m := body.UserMessage
		head("message")
		b = append(b, `,"from":"user"`...)
		b = appendString(b, "id", m.GetId())
		b = appendString(b, "text", m.GetText())
		b = appendRaw(b, "data", m.GetDataJson())
	case *recordv1.Entry_AgentMessage:
		m := body.AgentMessage
		head("message")
		b = append(b, `,"from":"agent"`...)
		b = appendString(b, "id", m.GetId())
		b = appendText(b, m.GetParts())
		b = appendOptional(b, "agent_id", m.GetAgentId())
		b = appendParts(b, m.GetParts())
	case *recordv1.Entry_MessageStatus:
		head("message_status")
		b = appendString(b, "id", body.MessageStatus.GetId())
		b = appendOptional(b, "status", outcomes[body.MessageStatus.GetState()])
		b = appendOptional(b, "reason", body.MessageStatus.GetReason())
	case *recordv1.Entry_AgentLeft:
		head("agent_left")
		b = appendOptional(b, "agent_id", body.AgentLeft.GetAgentId())
	case *recordv1.Entry_TransferStarted:
		head("transfer_started")
		b = appendAgent(b, body.TransferStarted.GetAgent())
	case *recordv1.Entry_AgentRead:
		head("agent_read")
	case *recordv1.Entry_Trouble:
		head("error")
		if body.Trouble.GetKind() == recordv1.TroubleKind_TROUBLE_KIND_DISCONNECTED {
			b = append(b, `,"kind":"disconnected"`...)
			b = appendBool(b, "disconnected", body.Trouble.GetDisconnected())
		} else {
			b = append(b, `,"kind":"connecting"`...)
		}
		b = appendOptional(b, "message", body.Trouble.GetMessage())
	case *recordv1.Entry_Capabilities:
		head("capabilities")
		b = appendBool(b, "file_uploads", body.Capabilities.GetFileUploads())
		b = appendBool(b, "multiple_file_uploads", body.Capabilities.GetMultipleFileUploads())
		b = append(b, `,"file_upload_types":[`...)
		for i, t := range body.Capabilities.GetFileUploadTypes() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendQuoted(b, t)
		}
		b = append(b, ']')
	case *recordv1.Entry_StateUpdated:
		head("state_updated")
	case *recordv1.Entry_DeskAway:
		head("desk_away")
	case *recordv1.Entry_DeskBack:
		head("desk_back")
	case *recordv1.Entry_ChatEnded:
		head("chat_ended")
		b = appendOptional(b, "by", endedBy[body.ChatEnded.GetBy()])
		b = appendOptional(b, "reason", body.ChatEnded.GetReason())
		b = appendOptional(b, "message", body.ChatEnded.GetMessage())
	default:
		// Written by a newer host: it holds the place of its seq and no more.
		head("gap")
	}
	return append(b, '}')
}

var endedBy = map[recordv1.EndedBy]string{
	recordv1.EndedBy_ENDED_BY_USER:  "user",
	recordv1.EndedBy_ENDED_BY_AGENT: "agent",
	recordv1.EndedBy_ENDED_BY_DESK:  "desk",
	recordv1.EndedBy_ENDED_BY_HOST:  "host",
}

func appendHead(b []byte, seq uint64, at time.Time, kind, chatID string) []byte {
	b = append(b, '{')
	if seq > 0 {
		b = append(b, `"seq":`...)
		b = strconv.AppendUint(b, seq, 10)
		b = append(b, ',')
	}
	b = append(b, `"time":"`...)
	b = appendTime(b, at)
	b = append(b, `","type":"`...)
	b = append(b, kind...)
	b = append(b, '"')
	return appendOptional(b, "chat_id", chatID)
}

// second is a second of time as text, up to its point.
type second struct {
	unix int64
	text string
}

// lastSecond is the one of the last entry: most that follow have the same.
var lastSecond atomic.Pointer[second]

// appendTime writes a time in milliseconds. To format it took as long as all the rest
// of an entry.
func appendTime(b []byte, at time.Time) []byte {
	s := lastSecond.Load()
	if s == nil || s.unix != at.Unix() {
		s = &second{at.Unix(), at.UTC().Format("2006-01-02T15:04:05.")}
		lastSecond.Store(s)
	}
	ms := at.Nanosecond() / int(time.Millisecond)
	return append(append(b, s.text...), byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}

func appendAgent(b []byte, a *recordv1.Agent) []byte {
	if a == nil {
		return b
	}
	b = append(b, `,"agent":{"id":`...)
	b = appendQuoted(b, a.GetId())
	b = appendString(b, "nickname", a.GetNickname())
	b = appendOptional(b, "avatar_url", a.GetAvatarUrl())
	if a.GetBot() {
		b = appendBool(b, "bot", true)
	}
	return append(b, '}')
}

// appendText appends all the text of a message, so that a page that knows no
// parts loses none.
func appendText(b []byte, parts []*recordv1.Part) []byte {
	b = append(b, `,"text":"`...)
	first := true
	for _, p := range parts {
		var text string
		switch kind := p.GetKind().(type) {
		case *recordv1.Part_Text:
			text = kind.Text.GetText()
		case *recordv1.Part_InlineError:
			text = kind.InlineError.GetText()
		case *recordv1.Part_QuickReplies:
			text = kind.QuickReplies.GetText()
		}
		if text == "" {
			continue
		}
		if !first {
			b = append(b, `\n\n`...)
		}
		first = false
		b = appendEscaped(b, text)
	}
	return append(b, '"')
}

func appendParts(b []byte, parts []*recordv1.Part) []byte {
	if len(parts) == 0 {
		return b
	}
	if _, isText := parts[0].GetKind().(*recordv1.Part_Text); isText && len(parts) == 1 {
		return b
	}
	b = append(b, `,"parts":[`...)
	for i, p := range parts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"type":"`...)
		b = appendPart(b, p)
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendPart(b []byte, p *recordv1.Part) []byte {
	media := func(m *recordv1.Media) {
		b = appendString(b, "url", m.GetUrl())
		b = appendOptional(b, "title", m.GetTitle())
		b = appendOptional(b, "alt_text", m.GetAltText())
	}
	switch kind := p.GetKind().(type) {
	case *recordv1.Part_Text:
		b = append(b, `text"`...)
		b = appendString(b, "text", kind.Text.GetText())
	case *recordv1.Part_Image:
		b = append(b, `image"`...)
		media(kind.Image)
	case *recordv1.Part_Video:
		b = append(b, `video"`...)
		media(kind.Video)
	case *recordv1.Part_Link:
		b = append(b, `link"`...)
		b = appendString(b, "url", kind.Link.GetUrl())
		b = appendOptional(b, "label", kind.Link.GetLabel())
	case *recordv1.Part_InlineError:
		b = append(b, `inline_error"`...)
		b = appendString(b, "text", kind.InlineError.GetText())
	case *recordv1.Part_File:
		b = append(b, `file"`...)
		b = appendString(b, "url", kind.File.GetUrl())
		b = appendOptional(b, "name", kind.File.GetName())
		b = appendOptional(b, "media_type", kind.File.GetMediaType())
		if size := kind.File.GetSizeBytes(); size > 0 {
			b = append(b, `,"size":`...)
			b = strconv.AppendUint(b, size, 10)
		}
	case *recordv1.Part_QuickReplies:
		b = append(b, `quick_replies"`...)
		b = appendOptional(b, "text", kind.QuickReplies.GetText())
		b = append(b, `,"replies":[`...)
		for i, r := range kind.QuickReplies.GetReplies() {
			if i > 0 {
				b = append(b, ',')
			}
			value := r.GetValue()
			if value == "" {
				value = r.GetLabel()
			}
			b = append(b, `{"label":`...)
			b = appendQuoted(b, r.GetLabel())
			b = appendString(b, "value", value)
			b = append(b, '}')
		}
		b = append(b, ']')
	case *recordv1.Part_UserDefined:
		b = append(b, `user_defined"`...)
		b = appendRaw(b, "data", kind.UserDefined.GetJson())
	default:
		// Written by a newer host: empty text shows as nothing.
		b = append(b, `text"`...)
		b = appendString(b, "text", "")
	}
	return b
}

func appendName(b []byte, name string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

func appendString(b []byte, name, value string) []byte {
	return appendQuoted(appendName(b, name), value)
}

// appendOptional leaves an empty value out.
func appendOptional(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(b, name, value)
}

func appendOptionalUint(b []byte, name string, value *uint32) []byte {
	if value == nil {
		return b
	}
	return strconv.AppendUint(appendName(b, name), uint64(*value), 10)
}

func appendBool(b []byte, name string, value bool) []byte {
	return strconv.AppendBool(appendName(b, name), value)
}

// appendRaw appends JSON on one line, since a stream's events end at a line's
// end. What is not JSON, or not UTF-8, is left out, for it would spoil the whole
// entry: a browser that gets such a message gives up the socket, again and again.
func appendRaw(b []byte, name string, value []byte) []byte {
	if len(value) == 0 || !utf8.Valid(value) {
		return b
	}
	out := bytes.NewBuffer(appendName(b, name))
	if json.Compact(out, value) != nil {
		return b
	}
	return out.Bytes()
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	b = appendEscaped(b, s)
	return append(b, '"')
}

const hexDigits = "0123456789abcdef"

// plainBytes tells, in steps of eight, how many bytes at the beginning of s stand for
// themselves in JSON: for most texts, about all of them.
func plainBytes(s string) (n int) {
	const each, high = 0x0101010101010101, 0x8080808080808080
	for ; n+8 <= len(s); n += 8 {
		// The highest bit of a byte tells of one outside ASCII as it is. Of one below a
		// space, a quote or a backslash it tells after a subtraction that goes below zero,
		// which may also borrow from the byte before: then n is less than it could be.
		w := binary.LittleEndian.Uint64([]byte(s[n : n+8]))
		if (w|(w-each*' ')|((w^each*'"')-each)|((w^each*'\\')-each))&high != 0 {
			break
		}
	}
	return n
}

// appendEscaped appends a string as encoding/json does without its escapes for
// HTML. Bytes that are not UTF-8 become U+FFFD.
func appendEscaped(b []byte, s string) []byte {
	start := 0
	for i := plainBytes(s); i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\b':
				b = append(b, `\b`...)
			case '\f':
				b = append(b, `\f`...)
			case '\n':
				b = append(b, `\n`...)
			case '\r':
				b = append(b, `\r`...)
			case '\t':
				b = append(b, `\t`...)
			default:
				b = append(b, `\u00`...)
				b = append(b, hexDigits[c>>4], hexDigits[c&0xf])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, s[start:i]...)
			b = append(b, `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029': // Line ends to JavaScript of old.
			b = append(b, s[start:i]...)
			b = append(b, `\u202`...)
			b = append(b, hexDigits[r&0xf])
			start = i + size
		}
		i += size
	}
	return append(b, s[start:]...)
}
