package webmessaging

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
)

// golden reads a frame as the vendor publishes it.
func golden(t testing.TB, kind, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "testdata", "webmessaging", kind, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestRequestsAreTheVendors(t *testing.T) {
	traced := configureRequest("d", "uuid", "")
	traced.TracingID = "t"
	requests := map[string]*request{
		"configure_session":               traced,
		"configure_authenticated_session": configureRequest("d", "uuid", "auth jwt"),
		"text":                            textRequest("uuid", "t", "hi", map[string]string{"k": "v"}),
		"typing":                          typingRequest("uuid"),
		"clear":                           clearRequest("uuid", ""),
		"get_jwt":                         jwtRequest("uuid"),
		"close_session":                   closeRequest("uuid"),
	}
	for name, r := range requests {
		sent, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var got, want any
		if err := json.Unmarshal(sent, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(golden(t, "requests", name), &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: sent %s, want %s", name, sent, golden(t, "requests", name))
		}
	}
	files, err := filepath.Glob("../testdata/webmessaging/requests/*.json")
	if err != nil || len(files) != len(requests) {
		t.Errorf("%d golden requests, %d compared (%v)", len(files), len(requests), err)
	}
}

func TestRepliesAreUnderstood(t *testing.T) {
	at := time.Date(2022, 8, 22, 19, 24, 26, 704_000_000, time.UTC)
	for name, right := range map[string]func(*Reply) bool{
		"session": func(r *Reply) bool {
			return *r.Session == Session{Connected: true, New: true, MaxAttributeBytes: 2048}
		},
		"inbound_text": func(r *Reply) bool {
			return r.TracingID == "ours" && r.Message.Inbound() && r.Message.Text == "Hello" && r.Message.Channel.Time.Equal(at)
		},
		"outbound_attachment": func(r *Reply) bool {
			m := r.Message
			return !m.Inbound() && m.Text == "Hi" && m.Channel.From.Nickname == "Agent" && m.OriginatingEntity == "Human" &&
				m.Channel.Time.IsZero() && // it is elided there
				m.Content[0].Attachment.MediaType == "Image" && m.Content[0].Attachment.FileSize == 1
		},
		"quick_replies": func(r *Reply) bool {
			return r.Message.Text == "Pick" && r.Message.OriginatingEntity == "Bot" && r.Message.Content[0].QuickReply != nil
		},
		"typing": func(r *Reply) bool {
			return r.Message.Events[0].Typing.Type == "On" && r.Message.Events[0].Typing.Duration == 5000
		},
		"disconnect": func(r *Reply) bool {
			return r.Message.Events[0].Presence.Type == "Disconnect" && bool(r.Message.Metadata.ReadOnly)
		},
		"jwt":               func(r *Reply) bool { return *r.JWT == JWT{"…", 333} },
		"presigned_url":     nothing,
		"upload_success":    nothing,
		"upload_failure":    nothing,
		"session_expired":   func(r *Reply) bool { return r.Failed.Status == CodeSessionExpired },
		"connection_closed": func(r *Reply) bool { return r.Closed.Reason == "signedIn" },
		"too_many_requests": func(r *Reply) bool { return r.Failed.Status == 429 && r.Failed.RetryAfter == 3*time.Second },
		"session_not_found": func(r *Reply) bool {
			return r.Failed.Status == CodeSessionNotFound && r.Failed.Message == "session not found error message"
		},
	} {
		r, err := Decode(golden(t, "replies", name))
		if err != nil || !right(r) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// nothing is right for replies that this client has no use for.
func nothing(r *Reply) bool {
	return r.Failed == nil && r.Session == nil && r.Message == nil && r.JWT == nil && r.Closed == nil
}

func TestOddReplies(t *testing.T) {
	for frame, right := range map[string]func(*Reply) bool{
		`{"class":"ConnectionClosedEvent","code":200,"body":{"reasonCode":"signedIn"}}`:                               func(r *Reply) bool { return r.Closed.Reason == "signedIn" },
		`{"class":"ConnectionClosedEvent","code":200}`:                                                                func(r *Reply) bool { return r.Closed.Reason == "" },
		`{"class":"StructuredMessage","code":200,"body":{"channel":{"time":null},"metadata":{"readOnly":true}}}`:      func(r *Reply) bool { return r.Message.Channel.Time.IsZero() && bool(r.Message.Metadata.ReadOnly) },
		`{"class":"StructuredMessage","code":200,"body":{"channel":{"time":"soon"},"metadata":{"readOnly":"false"}}}`: func(r *Reply) bool { return !bool(r.Message.Metadata.ReadOnly) },
		`{"class":"NewOne","code":200,"body":[1]}`:                                                                    nothing,
		`{"class":"string","code":429,"body":"slower","tracingId":"t"}`:                                               func(r *Reply) bool { return r.TracingID == "t" && r.Failed.Message == "slower" },
		`{"code":500}`: func(r *Reply) bool { return r.Failed.Status == 500 },
	} {
		if r, err := Decode([]byte(frame)); err != nil || !right(r) {
			t.Errorf("%s: %+v, %v", frame, r, err)
		}
	}
	for _, frame := range []string{``, `[]`, `{"class":"StructuredMessage","code":200}`, `{"class":"SessionResponse","code":200,"body":"x"}`} {
		if r, err := Decode([]byte(frame)); err == nil {
			t.Errorf("%q is understood as %+v", frame, r)
		}
	}
}

func TestErrorsNameTheCode(t *testing.T) {
	r, err := Decode(golden(t, "replies", "session_not_found"))
	if err != nil {
		t.Fatal(err)
	}
	if got := (error)(r.Failed).Error(); got != "Genesys answered 4007: session not found error message" {
		t.Error(got)
	}
	if got := (&cloud.Error{Status: 429, Code: "too.many.requests"}).Error(); got != "Genesys answered 429 too.many.requests" {
		t.Error(got)
	}
}
