package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/client"
)

const secret = "the-secret"

// answering returns a client of an account that answers so.
func answering(t testing.TB, answer http.HandlerFunc) *client.Client {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return at(t, server.URL)
}

func at(t testing.TB, address string) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{User: "AC1", Password: secret, ConversationsURL: address, FlexURL: address, TaskRouterURL: address})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestErrors(t *testing.T) {
	type kinds struct{ throttled, unauthorized, notFound, closed, exists, unclear bool }
	for _, c := range []struct {
		status int
		header string
		body   string
		want   kinds
		after  time.Duration
	}{
		{429, "7", `{"code": 20429, "message": "Too many", "status": 429}`, kinds{throttled: true}, 7 * time.Second},
		{429, "", "", kinds{throttled: true}, 0},
		{429, "999999", "", kinds{throttled: true}, time.Minute},
		{429, "soon", `[]`, kinds{throttled: true}, 0},
		{400, "", `{"code": 45719}`, kinds{throttled: true}, 0},
		{400, "", `{"code": 45780}`, kinds{throttled: true}, 0},
		{401, "", `{"code": 20003}`, kinds{unauthorized: true}, 0},
		{404, "", `{"code": 20404}`, kinds{notFound: true}, 0},
		{404, "", "<html>", kinds{}, 0},
		{400, "", `{"code": 50377}`, kinds{closed: true}, 0},
		{409, "", `{"code": 50433}`, kinds{exists: true}, 0},
		{409, "", `{"code": 50437}`, kinds{exists: true}, 0},
		{400, "", `{"code": 20001}`, kinds{}, 0},
		{500, "", "", kinds{unclear: true}, 0},
		{503, "2", "", kinds{unclear: true}, 2 * time.Second},
		{200, "", "no JSON", kinds{unclear: true}, 0},
		{302, "", "", kinds{unclear: true}, 0},
	} {
		v := answering(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", c.header)
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		}).Conversation("CH1")
		_, err := v.Send(t.Context(), "me", "text", "{}")
		e := client.As(err)
		got := kinds{e.Throttled(), e.Unauthorized(), e.NotFound(), e.Closed(), e.Exists(), e.Unclear()}
		if err == nil || got != c.want || e.RetryAfter != c.after || strings.Contains(err.Error(), secret) {
			t.Errorf("%d %s: %v is %+v after %v, want %+v after %v", c.status, c.body, err, got, e.RetryAfter, c.want, c.after)
		}
	}
}

// Credentials go to no address but the configured one, whoever names it.
func TestCredentialsStay(t *testing.T) {
	var strays atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strays.Add(1) }))
	defer elsewhere.Close()

	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
	})
	if _, err := c.Conversation("CH1").State(t.Context()); client.As(err).Status != http.StatusTemporaryRedirect {
		t.Errorf("redirected: %v", err)
	}
	pages := 0
	c = answering(t, func(w http.ResponseWriter, r *http.Request) {
		pages++
		next := `"` + elsewhere.URL + `/v1/x?PageToken=2"`
		if r.URL.Query().Get("PageToken") == "2" {
			next = "null"
		}
		_, _ = w.Write([]byte(`{"participants": [{"sid": "MB1"}], "meta": {"next_page_url": ` + next + `}}`))
	})
	if all, err := c.Conversation("CH1").Participants(t.Context()); err != nil || len(all) != 2 || pages != 2 {
		t.Errorf("%d participants on %d pages: %v", len(all), pages, err)
	}
	if strays.Load() > 0 {
		t.Errorf("another origin was called %d times", strays.Load())
	}
}

// Pages that name themselves, or go on for ever, come to an end; messages that were
// read so are not taken for all.
func TestEndlessPages(t *testing.T) {
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"messages": [{"sid": "IM1", "index": 1}], "participants": [{"sid": "MB1"}], "conversations": [],
			"meta": {"next_page_url": "/x?PageToken=1"}}`))
	})
	v := c.Conversation("CH1")
	if messages, err := v.MessagesSince(t.Context(), -1); err == nil {
		t.Errorf("%d messages are all", len(messages))
	}
	if _, err := v.Participants(t.Context()); err != nil {
		t.Error(err)
	}
	if found, err := c.FindConversation(t.Context(), "x"); found != nil || err != nil {
		t.Errorf("%v, %v", found, err)
	}
}

func TestPreconditionFailedMayWorkLater(t *testing.T) {
	calls := 0
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if calls++; calls <= 2 {
			w.WriteHeader(http.StatusPreconditionFailed)
		}
	})
	if err := client.Retry(t.Context(), func() error { return c.Conversation("CH1").Close(t.Context()) }); err != nil || calls != 3 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestRetry(t *testing.T) {
	busy := &client.Error{Status: http.StatusTooManyRequests, Sent: true, RetryAfter: 3 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		tries, began := 0, time.Now()
		err := client.Retry(t.Context(), func() error {
			if tries++; tries < 3 {
				return busy
			}
			return nil
		})
		if err != nil || tries != 3 || time.Since(began) < 6*time.Second {
			t.Errorf("%d tries in %v: %v", tries, time.Since(began), err)
		}
		// There is no time for the pause that Twilio asks for.
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		tries, began = 0, time.Now()
		err = client.Retry(ctx, func() error { tries++; return busy })
		if !errors.Is(err, busy) || tries != 1 || time.Since(began) > 0 {
			t.Errorf("%d tries in %v: %v", tries, time.Since(began), err)
		}
		tries = 0
		err = client.Insist(t.Context(), func() error { tries++; return &client.Error{Status: 404, Code: 20404, Sent: true} })
		if err == nil || tries != 1 {
			t.Errorf("what has no use was tried %d times: %v", tries, err)
		}
	})
}

// What cannot be read whole is not taken for the whole.
func TestTooManyPages(t *testing.T) {
	index := 1_000_000
	c, err := client.New(client.Options{Transport: transport(func(*http.Request) (*http.Response, error) {
		index--
		body := fmt.Sprintf(`{"messages": [{"sid": "IM1", "index": %d}], "meta": {"next_page_url": "/x?PageToken=1"}}`, index)
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(body))}, nil
	})})
	if err != nil {
		t.Fatal(err)
	}
	if messages, err := c.Conversation("CH1").MessagesSince(t.Context(), -1); err == nil {
		t.Errorf("%d messages are all", len(messages))
	}
}

// Who is asked for stays out of errors, and so out of logs.
func TestErrorsNameNobody(t *testing.T) {
	c, err := client.New(client.Options{Transport: transport(func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Err: errors.New("no route")}
	})})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.DisplayName(t.Context(), "ada@example.com")
	if err == nil || strings.Contains(err.Error(), "ada") || !strings.Contains(err.Error(), "no route") || client.As(err).Sent {
		t.Errorf("it is %v", err)
	}
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// What Twilio answers may be anything.
func FuzzReplies(f *testing.F) {
	for _, seed := range []string{
		"", "null", "{}", "[]", `"x"`, `{"messages": null}`,
		`{"state": "active", "sid": "CH1", "conversation_sid": "CH1", "identity": "a"}`,
		`{"messages": [{"sid": "IM1", "index": 3, "date_created": 4, "media": {"a": 1}, "attributes": null}, {"index": 2}], "meta": {"next_page_url": "/?PageToken=%zz"}}`,
		`{"participants": [{"sid": "MB1", "last_read_message_index": -1}], "meta": {"next_page_url": "::"}}`,
		`{"tasks": [{"assignment_status": "pending", "attributes": "{\"flexInteractionSid\": \"KD1\", \"flexInteractionChannelSid\": \"UO1\"}"}]}`,
		`{"total_available_workers": 1e99}`,
	} {
		f.Add(200, []byte(seed))
		f.Add(429, []byte(seed))
	}
	var status int
	var body []byte
	c, err := client.New(client.Options{Transport: transport(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(body))}, nil
	})})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answer int, text []byte) {
		status, body = 200+max(answer, -answer)%400, text
		ctx := t.Context()
		v := c.Conversation("CH1")
		_, _ = v.State(ctx)
		if messages, err := v.MessagesSince(ctx, 0); err == nil {
			for i := 1; i < len(messages); i++ {
				if messages[i].Index <= messages[i-1].Index || messages[i].Index <= 0 {
					t.Errorf("messages out of order: %d behind %d", messages[i].Index, messages[i-1].Index)
				}
			}
		}
		_, _ = v.Participants(ctx)
		_, _ = v.Webhooks(ctx)
		_, _ = v.Send(ctx, "a", "b", "{}")
		if found, err := c.FindConversation(ctx, "a"); err == nil && found != nil && found.SID == "" {
			t.Error("a conversation without SID was found")
		}
		if made, _, err := c.CreateWebChat(ctx, client.WebChat{}); err == nil && made.SID == "" {
			t.Error("a conversation without SID was made")
		}
		if tasks, err := c.Tasks(ctx, "WS1", "CH1"); err == nil {
			for i := range tasks {
				tasks[i].Live()
				tasks[i].Interaction()
			}
		}
		_, _ = c.QueueStatistics(ctx, "WS1", "WQ1", "chat")
	})
}
