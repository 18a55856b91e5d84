package webchat_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/plugins/genesys/webchat"
)

// client calls a server of the test's.
func client(t *testing.T, h http.HandlerFunc) *webchat.Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return webchat.New(cloud.New(cloud.Endpoints{API: u, Sockets: u, Login: u, CDN: u}, "https://www.example.com", nil), time.Minute)
}

// TestCallsAreTheVendors compares each call with what the vendor publishes.
func TestCallsAreTheVendors(t *testing.T) {
	var got struct {
		method, path, auth, origin string
		body                       any
	}
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		got.method, got.path, got.auth, got.origin, got.body = r.Method, r.URL.String(), r.Header.Get("Authorization"), r.Header.Get("Origin"), nil
		if text, err := io.ReadAll(r.Body); err == nil && len(text) > 0 {
			if err := json.Unmarshal(text, &got.body); err != nil {
				t.Error(err)
			}
		}
		_, _ = io.WriteString(w, `{"id":"i","jwt":"j","eventStreamUri":"wss://e","member":{"id":"m"},"entities":[{"id":"e"}]}`)
	})
	conv := &webchat.Conversation{ID: "c/1", JWT: "jwt"}
	conv.Member.ID = "m"
	ctx := t.Context()
	const base = "/api/v2/webchat/guest/conversations"
	for name, test := range map[string]struct {
		call                     func() error
		method, path, auth, body string
	}{
		"create": {func() error {
			made, err := c.Create(ctx, &webchat.CreateRequest{
				OrganizationID: "o", DeploymentID: "d",
				RoutingTarget:   webchat.RoutingTarget{TargetType: "QUEUE", TargetAddress: "q", Skills: []string{"s"}, Language: "en", Priority: 1},
				MemberInfo:      webchat.MemberInfo{DisplayName: "Ann", CustomFields: map[string]string{"k": "v"}},
				MemberAuthToken: "signed",
			})
			if made.ID != "i" || made.JWT != "j" || made.Stream != "wss://e" || made.Member.ID != "m" {
				t.Errorf("made %+v", made)
			}
			return err
		}, "POST", base, "", `{"organizationId":"o","deploymentId":"d","routingTarget":{"targetType":"QUEUE","targetAddress":"q","skills":["s"],"language":"en","priority":1},
			"memberInfo":{"displayName":"Ann","customFields":{"k":"v"}},"memberAuthToken":"signed"}`},
		"send": {func() error {
			_, err := c.Send(ctx, conv, "hi", webchat.BodyStandard)
			return err
		}, "POST", base + "/c%2F1/members/m/messages", "Bearer jwt", `{"body":"hi","bodyType":"standard"}`},
		"typing": {func() error { return c.Typing(ctx, conv) }, "POST", base + "/c%2F1/members/m/typing", "Bearer jwt", ""},
		"leave":  {func() error { return c.Leave(ctx, conv) }, "DELETE", base + "/c%2F1/members/m", "Bearer jwt", ""},
		"member": {func() error { _, err := c.Member(ctx, conv, "x"); return err }, "GET", base + "/c%2F1/members/x", "Bearer jwt", ""},
		"members": {func() error {
			members, err := c.Members(ctx, conv)
			if len(members) != 1 {
				t.Errorf("members %+v", members)
			}
			return err
		}, "GET", base + "/c%2F1/members?pageNumber=1&pageSize=100", "Bearer jwt", ""},
		"messages": {func() error {
			messages, more, err := c.Messages(ctx, conv, "a")
			if len(messages) != 1 || more {
				t.Errorf("messages %+v, more %t", messages, more)
			}
			return err
		}, "GET", base + "/c%2F1/messages?after=a&maxResults=100&sortOrder=ascending", "Bearer jwt", ""},
	} {
		if err := test.call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var want any
		if test.body != "" {
			if err := json.Unmarshal([]byte(test.body), &want); err != nil {
				t.Fatal(err)
			}
		}
		if got.method != test.method || got.path != test.path || got.auth != test.auth || got.origin != "https://www.example.com" || !reflect.DeepEqual(got.body, want) {
			t.Errorf("%s: %+v, want %+v", name, got, test)
		}
	}
}

func TestErrorsTellWhatHappened(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"status":429,"code":"too.many.requests","message":"slow down","contextId":"x","details":[],"errors":[]}`)
	})
	_, err := c.Create(t.Context(), &webchat.CreateRequest{})
	e := (*cloud.Error)(nil)
	if !errors.As(err, &e) || e.Status != 429 || e.Code != "too.many.requests" || e.RetryAfter != 7*time.Second || !e.Sent {
		t.Errorf("%+v", err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the credentials went elsewhere") }))
	defer elsewhere.Close()
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	err := c.Typing(t.Context(), &webchat.Conversation{ID: "c", JWT: "secret"})
	if e := (*cloud.Error)(nil); !errors.As(err, &e) || e.Status != http.StatusTemporaryRedirect {
		t.Errorf("%v", err)
	}
}

func TestStreamsAreOpenedAtTheVendorOnly(t *testing.T) {
	c := client(t, func(http.ResponseWriter, *http.Request) { t.Error("dialled") })
	for _, uri := range []string{"ws://127.0.0.2:1/channels/x", "wss://streaming.mypurecloud.com.evil.example/x", "https://\x00", "ftp://127.0.0.1/"} {
		_, err := c.Attach(context.Background(), &webchat.Conversation{Stream: uri})
		if !errors.Is(err, cloud.ErrUntrusted) {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

func TestEventsAreUnderstood(t *testing.T) {
	for name, right := range map[string]func(*webchat.Event) bool{
		"heartbeat": func(e *webchat.Event) bool { return *e == webchat.Event{} },
		"member_change": func(e *webchat.Event) bool {
			return e.Change.Member.ID == "…" && e.Change.Member.State == "CONNECTED"
		},
		"message": func(e *webchat.Event) bool {
			return e.Message.Body == "Hi" && e.Message.BodyType == webchat.BodyStandard && e.Message.Sender.ID == "…" && e.Message.Time.IsZero()
		},
	} {
		text, err := os.ReadFile(filepath.Join("..", "testdata", "webchat", "events", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if e, err := webchat.DecodeEvent(text); err != nil || !right(e) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	e, err := webchat.DecodeEvent([]byte(`{"topicName":"v2.conversations.chats.c.messages","eventBody":{"sender":{"id":"a"},"timestamp":"2022-08-22T19:24:26.704Z"},"metadata":{"type":"typing-indicator"}}`))
	if err != nil || e.Typing == nil || e.Typing.Sender.ID != "a" || e.Typing.Time.IsZero() {
		t.Errorf("typing: %+v, %v", e, err)
	}
	for _, frame := range []string{``, `[]`, `{"topicName":"v2.conversations.chats.c.messages","eventBody":[],"metadata":{"type":"message"}}`} {
		if e, err := webchat.DecodeEvent([]byte(frame)); err == nil {
			t.Errorf("%q is understood as %+v", frame, e)
		}
	}
}
