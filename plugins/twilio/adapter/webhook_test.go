package adapter_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// post hands a webhook to a desk and returns the status of the answer.
func post(d http.Handler, path, signature, kind, body string) int {
	r := httptest.NewRequest(http.MethodPost, "/conversations", strings.NewReader(body))
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(path, "?")
	r.Host = "somebody.example" // a lie
	r.Header.Set("X-Twilio-Signature", signature)
	r.Header.Set("Content-Type", kind)
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	_, _ = io.Copy(io.Discard, w.Body)
	return w.Code
}

const urlencoded = "application/x-www-form-urlencoded; charset=UTF-8"

func TestWebhookSignatures(t *testing.T) {
	a, h := newAccount(t), desktest.NewHost(t)
	d := a.connect(h, webChats, byWebhooks)
	form := url.Values{"EventType": {"onMessageAdded"}, "ConversationSid": {"CH0"}, "Body": {"ü"}}
	address := a.webhooks + "conversations"
	good := twiliotest.Sign(twiliotest.AuthToken, address, form)
	flipped := []byte(good)
	flipped[0] ^= 1
	body := `{"EventType": "onMessageAdded", "ConversationSid": "CH0", "Index": 3}`
	hash := sha256.Sum256([]byte(body))
	query := "?bodySHA256=" + hex.EncodeToString(hash[:])
	mac := hmac.New(sha1.New, []byte(twiliotest.AuthToken))
	mac.Write([]byte(address + query))
	goodJSON := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for _, c := range []struct {
		what, path, signature, kind, body string
		want                              int
	}{
		{"a right one", "/conversations", good, urlencoded, form.Encode(), 200},
		{"the same without type", "/conversations", good, "", form.Encode(), 200},
		{"a flipped bit", "/conversations", string(flipped), urlencoded, form.Encode(), 403},
		{"no signature", "/conversations", "", urlencoded, form.Encode(), 403},
		{"another body", "/conversations", good, urlencoded, form.Encode() + "&x=y", 403},
		{"another query", "/conversations?x=y", good, urlencoded, form.Encode(), 403},
		{"signed for another address", "/conversations", twiliotest.Sign(twiliotest.AuthToken, "https://somebody.example/conversations", form), urlencoded, form.Encode(), 403},
		{"a broken body", "/conversations", good, urlencoded, "%zz", 403},
		{"JSON", "/conversations" + query, goodJSON, "application/json", body, 200},
		{"JSON of another body", "/conversations" + query, goodJSON, "application/json", body + " ", 403},
		{"JSON without hash", "/conversations", twiliotest.Sign(twiliotest.AuthToken, address, nil), "application/json", body, 403},
		{"another path", "/conversations/", good, urlencoded, form.Encode(), 404},
		{"no path", "/", good, urlencoded, form.Encode(), 404},
	} {
		if got := post(d, c.path, c.signature, c.kind, c.body); got != c.want {
			t.Errorf("%s: answered %d, want %d", c.what, got, c.want)
		}
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/conversations", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", w.Code)
	}
}

// A host without public address takes no webhook.
func TestNoWebhooksWhilePolling(t *testing.T) {
	a, h := newAccount(t), desktest.NewHost(t)
	d := a.connect(h, webChats, byPolling)
	if got := post(d, "/conversations", "", urlencoded, ""); got != http.StatusNotFound {
		t.Errorf("answered %d", got)
	}
}

// Whatever Twilio signs, and whatever it does not, the desk lives, tells the host
// nothing that breaks a rule, and goes on with the chat.
func FuzzWebhooks(f *testing.F) {
	a, h := newAccount(f), desktest.NewHost(f)
	d := a.connect(h, webChats, byWebhooks)
	if _, err := d.StartChat(f.Context(), &sdk.StartChatRequest{ChatID: "c1", Attempt: 1}); err != nil {
		f.Fatal(err)
	}
	conversation := a.Conversations("c1")[0]
	f.Add(true, "EventType=onMessageAdded&MessageSid=IM1&Index=1&Author=a&Body=b&ConversationSid="+conversation)
	f.Add(true, "EventType=onMessageAdded&MessageSid=IM1&Index=2&Author=c1&Body=b&Media=[{}]&DateCreated=x&ConversationSid="+conversation)
	f.Add(true, "EventType=onParticipantAdded&ConversationSid="+conversation)
	f.Add(true, "EventType=onConversationRemoved&ConversationSid="+conversation)
	f.Add(false, "Index=9223372036854775807&%00=%ff")
	f.Add(true, "EventType=onMessageAdded&MessageSid=IM1&Index=-1&Author=a&ConversationSid=CH2")
	f.Fuzz(func(t *testing.T, signed bool, body string) {
		signature := "x"
		form, err := url.ParseQuery(body)
		if signed && err == nil {
			signature = twiliotest.Sign(twiliotest.AuthToken, a.webhooks+"conversations", form)
		}
		status := post(d, "/conversations", signature, urlencoded, body)
		if signed && err == nil && status == http.StatusForbidden && !repeated(form) || !signed && status != http.StatusForbidden {
			t.Errorf("signed %v, answered %d", signed, status)
		}
		for _, e := range h.Events("c1") {
			if _, ended := e.Payload.(sdk.AgentEndedChat); ended {
				t.Fatal("a webhook has ended a chat whose conversation is open")
			}
		}
	})
}

// repeated tells whether a field has two values, in whose order signer and
// checker may differ.
func repeated(form url.Values) bool {
	for _, values := range form {
		if len(values) > 1 {
			return true
		}
	}
	return false
}
