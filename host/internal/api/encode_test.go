package api

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	"github.com/deskhost/deskhost/host/internal/session"
)

// entry is an entry with every member of its head.
func entry(seq uint64, e *recordv1.Entry) session.News {
	e.Seq, e.Time, e.ChatId = seq, timestamppb.New(testTime), testChat
	return session.News{Entry: e}
}

func agentMessage(id, agentID string, parts ...*recordv1.Part) *recordv1.Entry {
	return &recordv1.Entry{Body: &recordv1.Entry_AgentMessage{AgentMessage: &recordv1.AgentMessage{Id: id, AgentId: agentID, Parts: parts}}}
}

func textPart(s string) *recordv1.Part {
	return &recordv1.Part{Kind: &recordv1.Part_Text{Text: &recordv1.Text{Text: s}}}
}

// Each kind of news, and how it is told. expected is in the words of Event,
// encoded by encoding/json.
func newsTable(s string) []struct {
	name     string
	news     session.News
	expected Event
} {
	ada := &recordv1.Agent{Id: "ada", Nickname: s, AvatarUrl: "https://a.test/a.png", Bot: true}
	adaToo := &agent{ID: "ada", Nickname: s, AvatarURL: "https://a.test/a.png", Bot: true}
	return []struct {
		name     string
		news     session.News
		expected Event
	}{
		{
			"chat requested", entry(1, &recordv1.Entry{Body: &recordv1.Entry_ChatRequested{ChatRequested: &recordv1.ChatRequested{Desk: "support", Text: s}}}),
			Event{Type: "chat_requested", Desk: "support", Text: optional(s)},
		},
		{"chat started", entry(2, &recordv1.Entry{Body: &recordv1.Entry_ChatStarted{}}), Event{Type: "chat_started"}},
		{
			"agent joined", entry(3, &recordv1.Entry{Body: &recordv1.Entry_AgentJoined{AgentJoined: &recordv1.AgentJoined{Agent: ada}}}),
			Event{Type: "agent_joined", Agent: adaToo},
		},
		{
			"user's message", entry(4, &recordv1.Entry{Body: &recordv1.Entry_UserMessage{UserMessage: &recordv1.UserMessage{Id: "1", Text: s, DataJson: []byte("{ \"a\":\n1}")}}}),
			Event{Type: "message", From: "user", ID: "1", Text: &s, Data: json.RawMessage(`{"a":1}`)},
		},
		{
			"user's message with broken data", entry(4, &recordv1.Entry{Body: &recordv1.Entry_UserMessage{UserMessage: &recordv1.UserMessage{Id: "1", Text: s, DataJson: []byte("{")}}}),
			Event{Type: "message", From: "user", ID: "1", Text: &s},
		},
		{
			"agent's text", entry(5, agentMessage("1", "ada", textPart(s))),
			Event{Type: "message", From: "agent", ID: "1", Text: &s, AgentID: "ada"},
		},
		{
			"agent's parts", entry(6, agentMessage("1", "", textPart("a"+s), textPart(""),
				&recordv1.Part{Kind: &recordv1.Part_Image{Image: &recordv1.Media{Url: "https://a.test", Title: s, AltText: s}}},
				&recordv1.Part{Kind: &recordv1.Part_Video{Video: &recordv1.Media{Url: "https://a.test"}}},
				&recordv1.Part{Kind: &recordv1.Part_Link{Link: &recordv1.Link{Url: "https://a.test", Label: s}}},
				&recordv1.Part{Kind: &recordv1.Part_InlineError{InlineError: &recordv1.Text{Text: "b" + s}}},
				&recordv1.Part{Kind: &recordv1.Part_File{File: &recordv1.File{Url: "https://a.test", Name: s, MediaType: "text/plain", SizeBytes: 7}}},
				&recordv1.Part{Kind: &recordv1.Part_QuickReplies{QuickReplies: &recordv1.QuickReplies{
					Text: "c" + s, Replies: []*recordv1.QuickReply{{Label: s, Value: "v"}, {Label: "l"}},
				}}},
				&recordv1.Part{Kind: &recordv1.Part_UserDefined{UserDefined: &recordv1.UserDefined{Json: []byte(`{"x": []}`)}}},
				&recordv1.Part{},
			)),
			Event{
				Type: "message", From: "agent", ID: "1", Text: new("a" + s + "\n\nb" + s + "\n\nc" + s),
				Parts: &[]part{
					{Type: "text", Text: new("a" + s)}, {Type: "text", Text: new("")},
					{Type: "image", URL: "https://a.test", Title: s, AltText: s},
					{Type: "video", URL: "https://a.test"},
					{Type: "link", URL: "https://a.test", Label: s},
					{Type: "inline_error", Text: new("b" + s)},
					{Type: "file", URL: "https://a.test", Name: s, MediaType: "text/plain", Size: 7},
					{Type: "quick_replies", Text: new("c" + s), Replies: &[]reply{{Label: s, Value: "v"}, {Label: "l", Value: "l"}}},
					{Type: "user_defined", Data: json.RawMessage(`{"x":[]}`)},
					{Type: "text", Text: new("")},
				},
			},
		},
		{
			"agent's picture alone", entry(7, agentMessage("1", "", &recordv1.Part{Kind: &recordv1.Part_Image{Image: &recordv1.Media{Url: "https://a.test"}}})),
			Event{Type: "message", From: "agent", ID: "1", Text: new(""), Parts: &[]part{{Type: "image", URL: "https://a.test"}}},
		},
		{
			"message status", entry(8, &recordv1.Entry{Body: &recordv1.Entry_MessageStatus{MessageStatus: &recordv1.MessageStatus{Id: "1", State: recordv1.OutState_OUT_STATE_FAILED, Reason: "refused"}}}),
			Event{Type: "message_status", ID: "1", Status: "failed", Reason: "refused"},
		},
		{
			"agent left", entry(9, &recordv1.Entry{Body: &recordv1.Entry_AgentLeft{AgentLeft: &recordv1.AgentLeft{AgentId: "ada"}}}),
			Event{Type: "agent_left", AgentID: "ada"},
		},
		{
			"transfer started", entry(10, &recordv1.Entry{Body: &recordv1.Entry_TransferStarted{TransferStarted: &recordv1.TransferStarted{Agent: ada}}}),
			Event{Type: "transfer_started", Agent: adaToo},
		},
		{
			"transfer to nobody yet", entry(10, &recordv1.Entry{Body: &recordv1.Entry_TransferStarted{TransferStarted: &recordv1.TransferStarted{}}}),
			Event{Type: "transfer_started"},
		},
		{"agent read", entry(11, &recordv1.Entry{Body: &recordv1.Entry_AgentRead{}}), Event{Type: "agent_read"}},
		{
			"error: connecting", entry(12, &recordv1.Entry{Body: &recordv1.Entry_Trouble{Trouble: &recordv1.Trouble{Kind: recordv1.TroubleKind_TROUBLE_KIND_CONNECTING, Message: s}}}),
			Event{Type: "error", Kind: "connecting", Message: s},
		},
		{
			"error: disconnected", entry(13, &recordv1.Entry{Body: &recordv1.Entry_Trouble{Trouble: &recordv1.Trouble{Kind: recordv1.TroubleKind_TROUBLE_KIND_DISCONNECTED}}}),
			Event{Type: "error", Kind: "disconnected", Disconnected: new(false)},
		},
		{
			"capabilities", entry(14, &recordv1.Entry{Body: &recordv1.Entry_Capabilities{Capabilities: &recordv1.Capabilities{FileUploads: true, FileUploadTypes: []string{"image/*", s}}}}),
			Event{Type: "capabilities", FileUploads: new(true), MultipleFileUploads: new(false), FileUploadTypes: &[]string{"image/*", s}},
		},
		{
			"no capabilities", entry(14, &recordv1.Entry{Body: &recordv1.Entry_Capabilities{}}),
			Event{Type: "capabilities", FileUploads: new(false), MultipleFileUploads: new(false), FileUploadTypes: &[]string{}},
		},
		{"state updated", entry(15, &recordv1.Entry{Body: &recordv1.Entry_StateUpdated{}}), Event{Type: "state_updated"}},
		{"desk away", entry(16, &recordv1.Entry{Body: &recordv1.Entry_DeskAway{}}), Event{Type: "desk_away"}},
		{"desk back", entry(17, &recordv1.Entry{Body: &recordv1.Entry_DeskBack{}}), Event{Type: "desk_back"}},
		{
			"chat ended", entry(18, &recordv1.Entry{Body: &recordv1.Entry_ChatEnded{ChatEnded: &recordv1.ChatEnded{By: recordv1.EndedBy_ENDED_BY_HOST, Reason: "abandoned", Message: s}}}),
			Event{Type: "chat_ended", By: "host", Reason: "abandoned", Message: s},
		},
		{"of a newer host", entry(19, &recordv1.Entry{}), Event{Type: "gap"}},
		{
			"agent typing", session.News{ChatID: testChat, Time: testTime, Typing: &session.Typing{Typing: true, AgentID: "ada"}},
			Event{Type: "agent_typing", Typing: new(true), AgentID: "ada"},
		},
		{
			"availability", session.News{ChatID: testChat, Time: testTime, Availability: &session.Availability{WaitMinutes: new(uint32(3)), Position: new(uint32(0)), Message: s}},
			Event{Type: "availability", WaitMinutes: new(uint32(3)), Position: new(uint32(0)), Message: s},
		},
		{"gap", session.News{GapTo: 41, Time: testTime}, Event{Type: "gap", Seq: 41}},
	}
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// expect fills in the head of an expected event and encodes it.
func expect(t *testing.T, news session.News, e Event) string {
	t.Helper()
	e.Time = testTime
	if news.GapTo == 0 {
		e.Seq, e.ChatID = news.Entry.GetSeq(), testChat
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

var hardStrings = []string{
	"Hello", "", `"\/<&>`, "\x00\x01\x1f\x7f\b\f\n\r\t", "é €  \u2028\u2029 \ufffd 😀", "\xff\xc3(\xe2\x82", "\xed\xa0\x80",
}

func TestNewsIsEncodedAsDescribed(t *testing.T) {
	server := serve(t, newAPI(t, Options{Sessions: newFake(t)}))
	c := fetchContract(t, server.URL)
	for _, s := range hardStrings {
		for _, tt := range newsTable(s) {
			t.Run(tt.name, func(t *testing.T) {
				got := appendNews([]byte("before"), &tt.news)
				got = got[len("before"):]
				if want := expect(t, tt.news, tt.expected); string(got) != want {
					t.Errorf("got\n%s, expected\n%s", got, want)
				}
				c.valid("/components/schemas/Event", got)
			})
		}
	}
}

func FuzzEncodeString(f *testing.F) {
	for _, s := range hardStrings {
		f.Add(s)
	}
	for c := range 256 { // alone among letters, wherever it stands in a word of the processor
		for at := range 8 {
			f.Add(strings.Repeat("a", at) + string([]byte{byte(c)}) + strings.Repeat("b", 23-at))
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		var want bytes.Buffer
		encoder := json.NewEncoder(&want)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(s); err != nil {
			t.Fatal(err)
		}
		if got := string(appendQuoted(nil, s)) + "\n"; got != want.String() {
			t.Errorf("got %s, expected %s", got, want.String())
		}
	})
}

// Whatever JSON the journal holds, an entry stays one line of JSON in UTF-8.
func FuzzEncodeData(f *testing.F) {
	for _, s := range []string{"{}", "{\"a\":\n[1, 2]}", "null", "{", "", "\"\u2028\"", "1 2", "{\"a\":\"\xff\"}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		news := entry(1, &recordv1.Entry{Body: &recordv1.Entry_UserMessage{UserMessage: &recordv1.UserMessage{DataJson: data}}})
		got := appendNews(nil, &news)
		if !json.Valid(got) || !utf8.Valid(got) || bytes.ContainsAny(got, "\r\n") {
			t.Errorf("got %q", got)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	news := entry(1234, agentMessage("0123456789abcdef", "ada", textPart(strings.Repeat("Hello there. ", 15))))
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = appendNews(buf[:0], &news)
	}
	b.SetBytes(int64(len(buf)))
}

func TestTimesHaveMilliseconds(t *testing.T) {
	news := session.News{GapTo: 1, Time: time.Date(2026, 1, 2, 16, 4, 5, 0, time.FixedZone("", 3600))}
	if got, want := string(appendNews(nil, &news)), `{"seq":1,"time":"2026-01-02T15:04:05.000Z","type":"gap"}`; got != want {
		t.Errorf("got %s", got)
	}
}

func TestTimesAreInMilliseconds(t *testing.T) {
	t.Parallel()
	for _, ns := range []int{0, 999_999, 1_000_000, 12_345_678, 120_000_000, 999_999_999} {
		at := time.Date(2026, 12, 31, 23, 59, 59, ns, time.FixedZone("", -3600))
		if got, want := string(appendTime(nil, at)), at.UTC().Format("2006-01-02T15:04:05.000Z"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
