package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deskhost/deskhost/host/internal/identity"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	"github.com/deskhost/deskhost/host/internal/session"
)

// Every call answers what the served description says, and hands to the session
// service what was sent.
func TestCallsKeepTheirDescription(t *testing.T) {
	f := newFake(t)
	f.info = session.Info{
		ID: testID, Desk: "support", ExpiresAt: testTime, LastSeq: 7,
		Chat: &session.ChatInfo{
			ID: testChat, RequestID: "r1", State: "connected", RequestedAt: testTime, DeskAway: true,
			Agent: &recordv1.Agent{Id: "ada", Nickname: "Ada", Bot: true},
		},
	}
	f.sent = session.Sent{Seq: 8, Status: recordv1.OutState_OUT_STATE_DELIVERED}
	f.write(said("Hello"), said("again"))
	server := serve(t, newAPI(t, Options{Sessions: f}))
	c := fetchContract(t, server.URL)

	const own = "/v1/sessions/{id}"
	steps := []struct {
		method, path, body string
		prepare            func()
		status             int
		answer             string // a part of the answer
		call               any    // what the session service was asked, if anything
	}{
		{
			method: "POST", path: "/v1/sessions", status: 201,
			body: `{"desk":"support","user":{"id":"u","name":"U","attributes":{"k":"v"}},"locale":"en-GB",
				"assistant_session_id":"as","something_newer":1}`,
			answer: `"expires_at":"2026-01-02T15:04:05.123Z","capabilities":{"availability":true,"update_state":false`,
			call: session.CreateRequest{Desk: "support", Context: session.Context{
				UserID: "u", UserName: "U", UserAttributes: map[string]string{"k": "v"}, Locale: "en-GB", AssistantSessionID: "as",
			}},
		},
		{method: "POST", path: "/v1/sessions", body: `{}`, status: 201, call: session.CreateRequest{}},
		{
			method: "GET", path: own, status: 200,
			answer: `"chat":{"chat_id":"` + testChat + `","id":"r1","state":"connected","requested_at":"2026-01-02T15:04:05.123Z",` +
				`"agent":{"id":"ada","nickname":"Ada","bot":true},"desk_away":true}`,
		},
		{
			method: "GET", path: own, status: 200, answer: `"last_seq":7`,
			prepare: func() { f.info.Chat = nil },
		},
		{
			method: "PATCH", path: own, status: 204, body: `{"locale":"de","user":{"name":"V"}}`,
			call: session.Update{User: &session.User{Name: "V"}, Locale: new("de")},
		},
		{
			method: "PATCH", path: own, status: 204, body: `{"assistant_session_id":"","locale":null}`,
			call: session.Update{AssistantSessionID: new("")},
		},
		{method: "GET", path: own + "/availability", status: 200, answer: `{"online":null}`},
		{
			method: "GET", path: own + "/availability", status: 200,
			prepare: func() {
				f.online = session.Availability{Online: new(true), WaitMinutes: new(uint32(3)), Position: new(uint32(0)), Message: "soon"}
			},
			answer: `{"online":true,"wait_minutes":3,"position":0,"message":"soon"}`,
		},
		{
			method: "POST", path: own + "/chat", status: 201, answer: `{"chat_id":"` + testChat + `"}`,
			body: `{"id":"r1","connect_message":{ "a":
				[1, 2] },"text":"help","history":[{"from":"user","text":"hi","time":"2026-01-02T15:04:05.123Z"},
				{"from":"assistant","text":"yes?"}],"sign_in_token":"s"}`,
			call: session.StartRequest{
				ID: "r1", ConnectMessage: []byte(`{"a":[1,2]}`), Text: "help", SignInToken: "s",
				History: []session.HistoryItem{{From: "user", Text: "hi", Time: testTime}, {From: "assistant", Text: "yes?"}},
			},
		},
		{method: "POST", path: own + "/messages", body: `{"id":"m1","text":"hi"}`, status: 200, answer: `{"seq":8,"status":"delivered"}`,
			call: session.Message{ID: "m1", Text: "hi"}},
		{method: "POST", path: own + "/messages", body: `{"id":"m1","text":"hi","data":{"x": 1}}`, status: 202, answer: `{"seq":9,"status":"accepted"}`,
			prepare: func() { f.sent = session.Sent{Seq: 9, Status: recordv1.OutState_OUT_STATE_SENDING} },
			call:    session.Message{ID: "m1", Text: "hi", Data: []byte(`{"x":1}`)}},
		{method: "POST", path: own + "/messages", body: "{\"id\":\"m1\",\"text\":\"h\xff\",\"data\":{\"x\":\"\xff\"}}", status: 202,
			call: session.Message{ID: "m1", Text: "h\ufffd", Data: []byte("{\"x\":\"\ufffd\"}")}},
		{method: "POST", path: own + "/messages", body: `{"id":"m1","text":"hi","data":null}`, status: 202, answer: `"accepted"`,
			prepare: func() { f.sent.Status = recordv1.OutState_OUT_STATE_WAITING },
			call:    session.Message{ID: "m1", Text: "hi"}},
		{method: "POST", path: own + "/messages", body: `{"id":"m1","text":"hi"}`, status: 200, answer: `{"seq":9,"status":"failed","reason":"refused"}`,
			prepare: func() {
				f.sent = session.Sent{Seq: 9, Status: recordv1.OutState_OUT_STATE_FAILED, Reason: "refused"}
			}},
		{method: "POST", path: own + "/messages", body: `{"id":"m1","text":"hi"}`, status: 200, answer: `"unknown"`,
			prepare: func() { f.sent.Status = recordv1.OutState_OUT_STATE_UNKNOWN }},
		{method: "POST", path: own + "/typing", body: `{"typing":true}`, status: 204, call: true},
		{method: "POST", path: own + "/read", status: 204, call: "read"},
		{method: "GET", path: own + "/transcript", status: 200, answer: `"text":"again"`},
		{method: "GET", path: own + "/transcript", status: 200, answer: `{"entries":[]}`, prepare: func() { f.log = nil }},
		{method: "DELETE", path: own + "/chat", status: 204, call: "end"},
		{method: "DELETE", path: own + "/chat?chat_id=" + testChat, status: 204, call: "end " + testChat},
		{method: "DELETE", path: own, status: 204, call: "delete"},
	}
	for _, s := range steps {
		t.Run(fmt.Sprint(s.method, " ", s.path, " ", s.status), func(t *testing.T) {
			if s.prepare != nil {
				s.prepare()
			}
			got := send(t, s.method, server.URL+strings.Replace(s.path, "{id}", testID, 1), s.body)
			if got.StatusCode != s.status || !strings.Contains(string(got.body), s.answer) {
				t.Fatalf("got %d %s", got.StatusCode, got.body)
			}
			path, _, _ := strings.Cut(s.path, "?")
			c.holds(s.method, path, got.Response, got.body)
			if s.call != nil && !reflect.DeepEqual(f.lastCall(), s.call) {
				t.Errorf("the session service was asked\n%+v, expected\n%+v", f.lastCall(), s.call)
			}
		})
	}

	// Nothing is described that no step above has seen, but problems and events.
	for path, operations := range at(c.doc, "paths").(map[string]any) {
		for method, operation := range operations.(map[string]any) {
			for status := range at(operation, "responses").(map[string]any) {
				seen := strings.ToUpper(method) + " " + path + " " + status
				if !c.used[seen] && status != "default" && path != eventsPath {
					t.Errorf("%s is described and has not been seen", seen)
				}
			}
		}
	}
}

// The marker stands in for everything a client may send. No answer repeats it.
const marker = "MaRkEr77"

func TestBadInput(t *testing.T) {
	refusal := func(code session.Code) func(*fake) {
		return func(f *fake) {
			f.fail = &session.Error{Code: code, Detail: "Refused.", ChatID: testChat, UserMessage: "Closed."}
		}
	}
	long := strings.Repeat("x", 300<<10)
	tests := []struct {
		name    string
		method  string
		path    string // below the session's path, unless it begins with /
		body    string
		headers []string
		prepare func(*fake)
		status  int
		code    string
		want    string // a part of the answer, if more than the code matters
	}{
		{name: "unknown session", method: "GET", path: "/v1/sessions/" + marker, status: 404, code: "session_unknown"},
		{name: "no token", method: "GET", headers: []string{"Authorization", ""}, status: 401, code: "token_missing"},
		{name: "another scheme", method: "GET", headers: []string{"Authorization", "Basic " + marker}, status: 401, code: "token_missing"},
		{name: "wrong token", method: "GET", headers: []string{"Authorization", "Bearer " + marker}, status: 401, code: "token_wrong"},
		{name: "no token to send", method: "POST", path: "messages", body: `{"id":"` + marker + `","text":"x"}`, headers: []string{"Authorization", ""}, status: 401, code: "token_missing"},
		{name: "token in query", method: "GET", path: "?token=" + marker, status: 400, code: "token_in_query"},
		{name: "token in query, other name", method: "GET", path: "?x=1&Access_Token=" + marker, status: 400, code: "token_in_query"},
		{name: "foreign origin", method: "GET", headers: []string{"Origin", "https://" + marker + ".test"}, status: 403, code: "origin_not_allowed"},
		{name: "origin null", method: "POST", path: "/v1/sessions", body: `{}`, headers: []string{"Origin", "null"}, status: 403, code: "origin_not_allowed"},
		{name: "foreign preflight", method: "OPTIONS", path: "/v1/sessions", headers: []string{"Origin", "https://evil.test", "Access-Control-Request-Method", "POST"}, status: 403, code: "origin_not_allowed"},
		{name: "body not JSON", method: "POST", path: "messages", body: `{"id":` + marker, status: 400, code: "body_not_json"},
		{name: "JSON and more", method: "POST", path: "messages", body: `{"id":"1","text":"x"} ` + marker, status: 400, code: "body_not_json"},
		{name: "no body", method: "POST", path: "messages", status: 400, code: "body_not_json"},
		{name: "not an object", method: "POST", path: "messages", body: `"` + marker + `"`, status: 422, code: "invalid"},
		{name: "null", method: "POST", path: "messages", body: `null`, status: 422, code: "invalid"},
		{name: "another media type", method: "POST", path: "messages", body: `{}`, headers: []string{"Content-Type", "text/" + marker}, status: 415, code: "unsupported_media_type"},
		{name: "no media type", method: "POST", path: "messages", body: `{}`, headers: []string{"Content-Type", ""}, status: 415, code: "unsupported_media_type"},
		{name: "wrong type", method: "POST", path: "messages", body: `{"id":"1","text":["` + marker + `"]}`, status: 422, code: "invalid", want: `{"location":"body.text","message":"expected string"}`},
		{name: "two wrong types", method: "POST", path: "messages", body: `{"id":{"` + marker + `":1},"text":7701}`, status: 422, code: "invalid", want: `{"location":"body.id"`},
		{name: "data not an object", method: "POST", path: "messages", body: `{"id":"1","text":"x","data":"` + marker + `"}`, status: 422, code: "invalid", want: `"body.data","message":"expected object"`},
		{name: "attribute of a wrong type", method: "POST", path: "/v1/sessions", body: `{"user":{"attributes":{"` + marker + `":7}}}`, status: 422, code: "invalid", want: `"location":"body.user.attributes"`},
		{name: "attribute too long", method: "POST", path: "/v1/sessions", body: `{"user":{"attributes":{"` + marker + long[:100] + `":"x"}}}`, status: 422, code: "invalid"},
		{name: "name too long", method: "PATCH", body: `{"user":{"name":"` + marker + long[:300] + `"}}`, status: 422, code: "invalid"},
		{name: "time not a time", method: "POST", path: "chat", body: `{"id":"1","history":[{"from":"user","text":"x","time":"` + marker + `"}]}`, status: 422, code: "invalid", want: `"body.history[0].time"`},
		{name: "history from nobody", method: "POST", path: "chat", body: `{"id":"1","history":[{"from":"` + marker + `","text":"x"}]}`, status: 422, code: "invalid"},
		{name: "typing not told", method: "POST", path: "typing", body: `{"` + marker + `":true}`, status: 422, code: "invalid", want: "typing"},
		{name: "no message id", method: "POST", path: "messages", body: `{"text":"` + marker + `"}`, status: 422, code: "invalid"},
		{name: "empty message id", method: "POST", path: "messages", body: `{"id":"","text":"` + marker + `"}`, status: 422, code: "invalid"},
		{name: "message id too long", method: "POST", path: "messages", body: `{"id":"` + marker + long[:128] + `","text":"x"}`, status: 422, code: "invalid"},
		{name: "message id too long in bytes", method: "POST", path: "messages", body: `{"id":"` + marker + strings.Repeat("é", 100) + `","text":"x"}`, status: 422, code: "invalid", want: "128 bytes"},
		{name: "chat id too long in bytes", method: "POST", path: "chat", body: `{"id":"` + marker + strings.Repeat("é", 100) + `"}`, status: 422, code: "invalid", want: "128 bytes"},
		{name: "empty message", method: "POST", path: "messages", body: `{"id":"` + marker + `","text":""}`, status: 422, code: "text_empty"},
		{name: "message of spaces", method: "POST", path: "messages", body: `{"id":"` + marker + `","text":" \n"}`, status: 422, code: "text_empty"},
		{name: "body over the limit", method: "POST", path: "messages", body: `{"id":"1","text":"` + marker + long + `"}`, status: 413, code: "body_too_large"},
		{name: "identity token where none is checked", method: "POST", path: "/v1/sessions", body: `{"identity_token":"` + marker + `"}`, status: 401, code: "identity_invalid"},
		{name: "unknown path", method: "GET", path: "/v1/" + marker, status: 404, code: "not_found"},
		{name: "unclean path", method: "GET", path: "/v1/sessions/../sessions/" + marker, status: 404, code: "not_found"},
		{name: "wrong method", method: "PUT", path: "messages", body: `{"x":"` + marker + `"}`, status: 405, code: "method_not_allowed"},
		{name: "events by plain GET", method: "GET", path: "events?after=" + marker, status: 406, code: "not_acceptable"},
		{name: "after not a number", method: "GET", path: "events?after=" + marker, headers: []string{"Accept", "text/event-stream"}, status: 400, code: "bad_request"},
		{name: "after negative", method: "GET", path: "events?after=-7701", headers: []string{"Accept", "text/event-stream"}, status: 400, code: "bad_request"},
		{name: "Last-Event-ID not a number", method: "GET", path: "events", headers: []string{"Accept", "text/event-stream", "Last-Event-ID", marker}, status: 400, code: "bad_request"},
		{name: "stream with a wrong token", method: "GET", path: "events", headers: []string{"Accept", "text/event-stream", "Authorization", "Bearer " + marker}, status: 401, code: "token_wrong"},
		{name: "stream of an unknown session", method: "GET", path: "/v1/sessions/" + marker + "/events", headers: []string{"Accept", "text/event-stream"}, status: 404, code: "session_unknown"},
		{name: "transcript with a wrong token", method: "GET", path: "transcript", headers: []string{"Authorization", "Bearer " + marker}, status: 401, code: "token_wrong"},

		{name: "unknown desk", method: "POST", path: "/v1/sessions", body: `{"desk":"` + marker + `"}`, prepare: refusal(session.CodeDeskUnknown), status: 422, code: "desk_unknown"},
		{name: "second chat", method: "POST", path: "chat", body: `{"id":"` + marker + `"}`, prepare: refusal(session.CodeChatOpen), status: 409, code: "chat_open", want: `"chat_id":"` + testChat + `"`},
		{name: "no chat", method: "POST", path: "messages", body: `{"id":"` + marker + `","text":"x"}`, prepare: refusal(session.CodeNoChat), status: 409, code: "no_chat"},
		{name: "same id, another text", method: "POST", path: "messages", body: `{"id":"` + marker + `","text":"x"}`, prepare: refusal(session.CodeIDReused), status: 409, code: "id_reused"},
		{name: "text over the limit", method: "POST", path: "messages", body: `{"id":"1","text":"` + marker + long[:40<<10] + `"}`, prepare: refusal(session.CodeTextTooLong), status: 422, code: "text_too_long"},
		{name: "too many messages", method: "POST", path: "messages", body: `{"id":"1","text":"x"}`, prepare: refusal(session.CodeTooManyMessages), status: 429, code: "too_many_messages"},
		{name: "start refused", method: "POST", path: "chat", body: `{"id":"1"}`, prepare: refusal(session.CodeStartRefused), status: 502, code: "start_refused", want: `"user_message":"Closed."`},
		{name: "start failed", method: "POST", path: "chat", body: `{"id":"1"}`, prepare: refusal(session.CodeStartFailed), status: 502, code: "start_failed"},
		{name: "start too late", method: "POST", path: "chat", body: `{"id":"1"}`, prepare: refusal(session.CodeStartTimeout), status: 504, code: "start_timeout"},
		{name: "desk unavailable", method: "GET", path: "availability", prepare: refusal(session.CodeDeskUnavailable), status: 503, code: "desk_unavailable"},
		{name: "disk full", method: "POST", path: "messages", body: `{"id":"m1","text":"x"}`, prepare: refusal(session.CodeStorageFull), status: 507, code: "storage_full"},
		{name: "host stopping", method: "GET", path: "transcript", prepare: refusal(session.CodeStopping), status: 503, code: "stopping"},
		{name: "deadline passed", method: "POST", path: "chat", body: `{"id":"` + marker + `"}`, prepare: func(f *fake) { f.fail = context.DeadlineExceeded }, status: 504, code: "timeout"},
		{name: "journal failed", method: "GET", path: "availability", prepare: func(f *fake) { f.fail = errors.New("disk " + marker) }, status: 500, code: "internal"},
		{name: "code without a status", method: "GET", path: "availability", prepare: refusal(marker), status: 500, code: "internal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			if tt.prepare != nil {
				tt.prepare(f)
			}
			server := serve(t, newAPI(t, Options{Sessions: f, Origins: []string{"https://www.example.com"}}))
			path := tt.path
			if !strings.HasPrefix(path, "/") {
				if path != "" && path[0] != '?' {
					path = "/" + path
				}
				path = "/v1/sessions/" + testID + path
			}
			got := send(t, tt.method, server.URL+path, tt.body, tt.headers...)
			if got.StatusCode != tt.status || got.code(t) != tt.code || !strings.Contains(string(got.body), tt.want) {
				t.Fatalf("got %d %s", got.StatusCode, got.body)
			}
			if ct := got.Header.Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("got Content-Type %q", ct)
			}
			all := fmt.Sprint(got.Header, string(got.body))
			if strings.Contains(all, marker) || strings.Contains(all, "7701") || strings.Contains(all, long[:20]) {
				t.Errorf("the answer repeats what was sent: %s", all)
			}
			if f.lastCall() != nil {
				t.Errorf("the session service was asked for a change: %+v", f.lastCall())
			}
			fetchContract(t, server.URL).valid("/components/schemas/Problem", got.body)
			retry := got.StatusCode == 429 || got.StatusCode == 503 || got.StatusCode == 507
			if has := got.Header.Get("Retry-After") != ""; has != retry {
				t.Errorf("Retry-After: %v, expected %v", has, retry)
			}
			if has := got.Header.Get("WWW-Authenticate") == "Bearer"; has != (got.StatusCode == 401) {
				t.Errorf("WWW-Authenticate: %v", has)
			}
		})
	}
}

type panicky struct{ Sessions }

func (panicky) Info(context.Context, session.Ref) (*session.Info, error) { panic(marker) }

func TestPanicIsAProblem(t *testing.T) {
	server := serve(t, newAPI(t, Options{Sessions: panicky{}}))
	got := send(t, "GET", server.URL+"/v1/sessions/"+testID, "")
	if got.StatusCode != 500 || got.code(t) != "internal" || strings.Contains(string(got.body), marker) {
		t.Fatalf("got %d %s", got.StatusCode, got.body)
	}
}

// signer takes tokens that begin with "good:" and have the user behind it.
type signer struct{}

func (signer) Verify(token string, _ time.Time) (identity.User, error) {
	id, ok := strings.CutPrefix(token, "good:")
	if !ok {
		return identity.User{}, errors.New("the token has expired")
	}
	return identity.User{ID: id}, nil
}

func TestIdentity(t *testing.T) {
	f := newFake(t)
	server := serve(t, newAPI(t, Options{Sessions: f, Identity: signer{}, IdentityRequired: true}))
	sessions, own := server.URL+"/v1/sessions", server.URL+"/v1/sessions/"+testID

	for _, bad := range []struct{ method, url, body, code string }{
		{"POST", sessions, `{"user":{"id":"eve"}}`, "identity_required"},
		{"POST", sessions, `{"identity_token":"` + marker + `"}`, "identity_invalid"},
		{"PATCH", own, `{"user":{"id":"eve"}}`, "identity_required"},
		{"PATCH", own, `{"identity_token":"` + marker + `"}`, "identity_invalid"},
	} {
		got := send(t, bad.method, bad.url, bad.body)
		if got.code(t) != bad.code || strings.Contains(string(got.body), marker) || f.lastCall() != nil {
			t.Errorf("%s %s: got %s", bad.method, bad.body, got.body)
		}
	}

	// The token says who the user is, whatever else the page says.
	send(t, "POST", sessions, `{"identity_token":"good:ada","user":{"id":"eve","name":"Ada","attributes":{"a":"b"}}}`)
	want := session.CreateRequest{Context: session.Context{
		UserID: "ada", UserVerified: true, UserName: "Ada", UserAttributes: map[string]string{"a": "b"},
	}}
	if !reflect.DeepEqual(f.lastCall(), want) {
		t.Errorf("got %+v", f.lastCall())
	}
	send(t, "PATCH", own, `{"identity_token":"good:ada"}`)
	if want := (session.Update{User: &session.User{ID: "ada", Verified: true}}); !reflect.DeepEqual(f.lastCall(), want) {
		t.Errorf("got %+v", f.lastCall())
	}
	if got := send(t, "PATCH", own, `{"locale":"de"}`); got.StatusCode != http.StatusNoContent {
		t.Errorf("got %d", got.StatusCode)
	}
}

// A transcript longer than one piece comes whole.
func TestLongTranscript(t *testing.T) {
	f := newFake(t)
	for range 200 {
		f.write(said(strings.Repeat("x", 1000)))
	}
	server := serve(t, newAPI(t, Options{Sessions: f}))
	got := send(t, "GET", server.URL+"/v1/sessions/"+testID+"/transcript", "")
	entries, _ := got.json(t)["entries"].([]any)
	if len(entries) != 200 || entries[199].(map[string]any)["seq"] != 200.0 {
		t.Fatalf("got %d entries", len(entries))
	}
}

// waiting lets StartChat take as long as the longest wait for a desk.
type waiting struct {
	Sessions
	wait time.Duration
}

func (w waiting) StartChat(ctx context.Context, _ session.Ref, _ session.StartRequest) (string, error) {
	select {
	case <-time.After(w.wait):
		return testChat, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// A body has to arrive in time; a call that then waits for its desk longer than
// that is not cut short, but not endless either.
func TestDeadlinesOfACall(t *testing.T) {
	const body = `{"id":"1"}`
	for _, tt := range []struct {
		name   string
		wait   time.Duration
		body   string // what is sent of the body
		status int
		after  time.Duration
	}{
		{"desk answers late", bodyTimeout + 2*time.Second, body, http.StatusCreated, bodyTimeout + 2*time.Second},
		{"desk never answers", time.Hour, body, http.StatusGatewayTimeout, DefaultLimits().Call},
		{"body never comes whole", 0, body[:3], http.StatusRequestTimeout, bodyTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, stop := servePipes(t, newAPI(t, Options{Sessions: waiting{wait: tt.wait}}))
				defer stop()
				conn, err := p.Dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				start := time.Now()
				if _, err := fmt.Fprintf(conn, "POST /v1/sessions/%s/chat HTTP/1.1\r\nHost: host\r\nAuthorization: Bearer x\r\n"+
					"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", testID, len(body), tt.body); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != tt.status || time.Since(start) != tt.after {
					t.Errorf("got %d after %v", resp.StatusCode, time.Since(start))
				}
			})
		})
	}
}
