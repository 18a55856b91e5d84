package genesystest_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/deskhost/deskhost/plugins/genesys/genesystest"
)

const chatPath = "/api/v2/webchat/guest/conversations"

func (w *world) createBody(chat, queue string) string {
	o := w.Options()
	return `{"organizationId":"` + o.OrganizationID + `","deploymentId":"` + o.Deployment + `",
		"routingTarget":{"targetType":"QUEUE","targetAddress":"` + queue + `"},
		"memberInfo":{"displayName":"Mia","customFields":{"` + genesystest.ChatIDAttribute + `":"` + chat + `"}}}`
}

// guest is one of Web Chat with an event stream attached.
type guest struct {
	*line

	w            *world
	made         object
	id, me, auth string
}

func (w *world) guest(chat string) *guest {
	w.t.Helper()
	status, made, _ := w.call("POST", chatPath, w.createBody(chat, w.Options().Queue))
	if status != http.StatusOK {
		w.t.Fatal(status, made)
	}
	g := &guest{w: w, made: made, id: made.text("id"), me: made.text("member.id"), auth: bearer(made.text("jwt"))}
	g.attach()
	return g
}

func (g *guest) attach() {
	g.w.t.Helper()
	l, resp := dial(g.w.t, strings.Replace(g.made.text("eventStreamUri"), "ws", "http", 1), "")
	if l == nil {
		g.w.t.Fatal(resp.Status)
	}
	g.line = l
}

func (g *guest) call(method, path, body string) (int, object) {
	g.w.t.Helper()
	status, answer, _ := g.w.call(method, chatPath+"/"+g.id+path, body, "Authorization", g.auth)
	return status, answer
}

// next returns the next event that is no heartbeat.
func (g *guest) next() object {
	g.t.Helper()
	for {
		if e := g.line.next(); e.text("topicName") != "channel.metadata" {
			return e
		}
	}
}

// nextOf returns the next event of a type.
func (g *guest) nextOf(kind string) object {
	g.t.Helper()
	for {
		if e := g.next(); e.text("metadata.type") == kind {
			return e
		}
	}
}

// state waits for a member-change to a state, of any member if id is empty.
func (g *guest) state(id, state string) object {
	g.t.Helper()
	for {
		e := g.nextOf("member-change")
		if e.text("eventBody.member.state") == state && (id == "" || e.text("eventBody.member.id") == id) {
			return e
		}
	}
}

func (w *world) login() string {
	w.t.Helper()
	status, granted, _ := w.call("POST", "/oauth/token", "grant_type=client_credentials",
		"Authorization", basic(w.Options().ClientID, w.Options().ClientSecret), "Content-Type", "application/x-www-form-urlencoded")
	if status != http.StatusOK {
		w.t.Fatal(status, granted)
	}
	want(w.t, granted, "token_type", "bearer")
	return bearer(granted.text("access_token"))
}

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

func TestChatRefusals(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{Origins: []string{"https://example.com"}})
	create := w.createBody("chat-1", w.Options().Queue)
	for name, c := range map[string]struct {
		body, origin, code string
		status             int
	}{
		"origin":       {create, "https://example.net", "origin.not.allowed", http.StatusForbidden},
		"no origin":    {create, "", "origin.not.allowed", http.StatusForbidden},
		"no JSON":      {"?", "https://example.com", "bad.request", http.StatusBadRequest},
		"incomplete":   {"{}", "https://example.com", "bad.request", http.StatusBadRequest},
		"deployment":   {strings.Replace(create, w.Options().Deployment, "x", 1), "https://example.com", "chat.deployment.not.found", http.StatusBadRequest},
		"organization": {strings.Replace(create, w.Options().OrganizationID, "x", 1), "https://example.com", "chat.deployment.organization.mismatch", http.StatusBadRequest},
		"queue":        {w.createBody("chat-1", "Nowhere"), "https://example.com", "chat.error.invalid.queue", http.StatusBadRequest},
		"attributes":   {strings.Replace(create, `"chat-1"`, "1", 1), "https://example.com", "bad.request", http.StatusBadRequest},
		"bad token":    {strings.Replace(create, "{", `{"memberAuthToken":"x",`, 1), "https://example.com", "chat.deployment.invalid.auth", http.StatusBadRequest},
	} {
		status, answer, _ := w.call("POST", chatPath, c.body, "Origin", c.origin)
		if status != c.status || answer.text("code") != c.code {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
}

// TestChatRequiresAuth: users of such a deployment come with signed data.
func TestChatRequiresAuth(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{RequireAuth: true})
	create := w.createBody("chat-1", w.Options().Queue)
	status, answer, _ := w.call("POST", chatPath, create)
	if status != http.StatusBadRequest || answer.text("code") != "chat.deployment.require.auth" {
		t.Fatal(status, answer)
	}
	_, signed, _ := w.call("POST", "/api/v2/signeddata", `{"email":"mia@example.com"}`, "Authorization", w.login())
	status, made, _ := w.call("POST", chatPath, strings.Replace(create, "{", `{"memberAuthToken":"`+signed.text("jwt")+`",`, 1))
	if status != http.StatusOK {
		t.Fatal(status, made)
	}
	_, me, _ := w.call("GET", chatPath+"/"+made.text("id")+"/members/"+made.text("member.id"), "", "Authorization", bearer(made.text("jwt")))
	want(t, me, "role", "CUSTOMER", "authenticatedGuest", true)
}

func TestChatCalls(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{})
	g, other := w.guest("chat-1"), w.guest("chat-2")
	for name, c := range map[string]struct {
		method, path, body, auth, code string
		status                         int
	}{
		"no token":      {"GET", g.id + "/members", "", "", "authentication.required", 401},
		"bad token":     {"GET", g.id + "/members", "", "Bearer x", "bad.credentials", 401},
		"not theirs":    {"GET", g.id + "/members", "", other.auth, "not.authorized", 403},
		"not them":      {"POST", g.id + "/members/" + other.me + "/messages", `{"body":"Hi"}`, g.auth, "not.authorized", 403},
		"nobody":        {"GET", g.id + "/members/x", "", g.auth, "not.found", 404},
		"empty":         {"POST", g.id + "/members/" + g.me + "/messages", `{"body":""}`, g.auth, "bad.request", 400},
		"too long":      {"POST", g.id + "/members/" + g.me + "/messages", `{"body":"` + strings.Repeat("ä", 4001) + `"}`, g.auth, "bad.request", 400},
		"body type":     {"POST", g.id + "/members/" + g.me + "/messages", `{"body":"Hi","bodyType":"member-join"}`, g.auth, "bad.request", 400},
		"no message":    {"GET", g.id + "/messages?after=x", "", g.auth, "bad.request", 400},
		"no order":      {"GET", g.id + "/messages?sortOrder=random", "", g.auth, "bad.request", 400},
		"too many":      {"GET", g.id + "/messages?maxResults=101", "", g.auth, "bad.request", 400},
		"no such call":  {"GET", g.id + "/nonsense", "", g.auth, "not.found", 404},
		"not a number":  {"GET", g.id + "/members?pageSize=x", "", g.auth, "bad.request", 400},
		"longest is ok": {"POST", g.id + "/members/" + g.me + "/messages", `{"body":"` + strings.Repeat("ä", 4000) + `"}`, g.auth, "", 200},
	} {
		status, answer, _ := w.call(c.method, chatPath+"/"+c.path, c.body, "Authorization", c.auth)
		if status != c.status || answer.text("code") != c.code {
			t.Errorf("%s: %d %.200v", name, status, answer)
		}
	}
}

// TestChatPaging: messages are read by their ids, in both directions.
func TestChatPaging(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{})
	g := w.guest("chat-1")
	var ids []string
	for _, body := range []string{"1", "2", "3", "4", "5"} {
		_, sent := g.call("POST", "/members/"+g.me+"/messages", `{"body":"`+body+`"}`)
		ids = append(ids, sent.text("id"))
	}
	read := func(query string) (bodies, next string) {
		status, page := g.call("GET", "/messages?"+query, "")
		if status != http.StatusOK {
			t.Fatal(status, page)
		}
		for _, m := range page["entities"].([]any) {
			bodies += object(m.(map[string]any)).text("body")
		}
		return bodies, page.text("next")
	}
	for query, bodies := range map[string]string{
		"":                                      "12345",
		"after=" + ids[1]:                       "345",
		"before=" + ids[3]:                      "123",
		"after=" + ids[1] + "&before=" + ids[4]: "34",
		"sortOrder=descending&maxResults=2":     "54",
		"after=" + ids[4]:                       "",
	} {
		if got, _ := read(query); got != bodies {
			t.Errorf("%s: got %q, expected %q", query, got, bodies)
		}
	}
	for _, order := range []string{"ascending", "descending"} {
		all, next := read("maxResults=2&sortOrder=" + order)
		for next != "" {
			var more string
			_, query, _ := strings.Cut(next, "?")
			more, next = read(query)
			all += more
		}
		if all != map[string]string{"ascending": "12345", "descending": "54321"}[order] {
			t.Errorf("%s pages are %q", order, all)
		}
	}
}

// TestChatTransfer: one agent leaves and another is called; the conversation goes on.
func TestChatTransfer(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{})
	g := w.guest("chat-1")
	w.do(genesystest.Act{Do: "agent_joins", ChatID: "chat-1"})
	ada := g.state("", "ALERTING").text("eventBody.member.id")
	g.state(ada, "CONNECTED")
	g.state(ada, "CONNECTED") // as the vendor does, twice
	w.do(genesystest.Act{Do: "transfer", ChatID: "chat-1"})
	g.state(ada, "DISCONNECTED")
	grace := g.state("", "ALERTING").text("eventBody.member.id")
	w.do(genesystest.Act{Do: "agent_says", ChatID: "chat-1", Text: "Hi"})
	g.state(grace, "CONNECTED")
	for {
		if m := g.nextOf("message"); m.text("eventBody.bodyType") == "standard" {
			want(t, m, "eventBody.body", "Hi", "eventBody.sender.id", grace)
			break
		}
	}
	_, there := g.call("GET", "/members?excludeDisconnectedMembers=true", "")
	want(t, there, "total", 2)
	_, everybody := g.call("GET", "/members?pageSize=1&pageNumber=2", "")
	want(t, everybody, "total", 4, "pageCount", 4)

	w.do(genesystest.Act{Do: "agent_leaves", ChatID: "chat-1"})
	g.state(grace, "DISCONNECTED")
	if status, answer := g.call("POST", "/members/"+g.me+"/messages", `{"body":"Hello?"}`); status != http.StatusOK {
		t.Error("the conversation has ended with its agent", answer)
	}
}

// TestChatStream: it may be lost and attached again, and says that it lives.
func TestChatStream(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{Heartbeat: 5 * time.Millisecond})
	g := w.guest("chat-1")
	for range 100 {
		w.do(genesystest.Act{Do: "cut", ChatID: "chat-1"})
		if err := g.ends(); websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			t.Fatal("a cut line said goodbye")
		}
		g.attach()
		want(t, g.line.next(), "topicName", "channel.metadata")
	}
	if _, members := g.call("GET", "/members", ""); members.at("total") != 2.0 {
		t.Errorf("routing began more than once: %v", members)
	}
	w.do(genesystest.Act{Do: "agent_says", ChatID: "chat-1", Text: "Hi"})
	g.state("", "CONNECTED")
	if status, _ := g.call("DELETE", "/members/"+g.me, ""); status != http.StatusNoContent {
		t.Error(status)
	}
	g.state(g.me, "DISCONNECTED")
	if err := g.ends(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Error(err)
	}
	if status, answer := g.call("DELETE", "/members/"+g.me, ""); status != http.StatusBadRequest || answer.text("code") != "chat.error.conversation.state" {
		t.Error(status, answer)
	}
	if l, resp := dial(t, strings.Replace(g.made.text("eventStreamUri"), "ws", "http", 1), ""); l != nil || resp.StatusCode != http.StatusNotFound {
		t.Error("the event stream of a conversation that is over was attached")
	}
}

// TestChatDisorder: events may come in another order, and twice.
func TestChatDisorder(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{})
	g := w.guest("chat-1")
	w.do(genesystest.Act{Do: "agent_joins", ChatID: "chat-1"})
	g.nextOf("message")
	w.do(genesystest.Act{Do: "shuffle", ChatID: "chat-1", N: 2})
	w.do(genesystest.Act{Do: "agent_says", ChatID: "chat-1", Text: "1"})
	w.do(genesystest.Act{Do: "agent_says", ChatID: "chat-1", Text: "2"})
	w.do(genesystest.Act{Do: "repeat", ChatID: "chat-1"})
	w.do(genesystest.Act{Do: "agent_says", ChatID: "chat-1", Text: "3"})
	for _, body := range []string{"2", "1", "3", "3"} {
		want(t, g.nextOf("message"), "eventBody.body", body)
	}
}

func TestPlatform(t *testing.T) {
	t.Parallel()
	var at clock
	w := start(t, genesystest.Options{Now: at.now})
	status, answer, _ := w.call("POST", "/oauth/token", "grant_type=client_credentials", "Authorization", basic("client", "wrong"))
	if status != http.StatusUnauthorized || answer.text("error") != "invalid_client" {
		t.Error(status, answer)
	}
	if status, answer, _ = w.call("POST", "/oauth/token", "grant_type=password", "Authorization", basic("client", "secret")); status != http.StatusBadRequest {
		t.Error(status, answer)
	}
	auth := w.login()
	queue := "/api/v2/routing/queues/" + w.Options().QueueID + "/estimatedwaittime"
	observe := func() object {
		_, seen, _ := w.call("POST", "/api/v2/analytics/queues/observations/query",
			`{"filter":{"type":"or","predicates":[{"dimension":"queueId","value":"`+w.Options().QueueID+`"}]},"metrics":["oOnQueueUsers","oWaiting"]}`, "Authorization", auth)
		return seen
	}
	want(t, observe(), "results.0.data.0.metric", "oOnQueueUsers", "results.0.data.0.stats.count", 2)
	w.do(genesystest.Act{Do: "agents_on_queue", N: 0})
	if data := observe().at("results.0.data"); len(data.([]any)) != 0 {
		t.Errorf("nobody is there, and nobody waits: %v", data)
	}
	w.guest("chat-1")
	want(t, observe(), "results.0.data.0.metric", "oWaiting", "results.0.data.0.stats.count", 1)
	_, wait, _ := w.call("GET", queue, "", "Authorization", auth)
	want(t, wait, "results.0.estimatedWaitTimeSeconds", 120)

	if status, _, _ := w.call("GET", "/api/v2/routing/queues/x/estimatedwaittime", "", "Authorization", auth); status != http.StatusNotFound {
		t.Error(status)
	}
	status, answer, _ = w.call("GET", queue, "")
	if status != http.StatusUnauthorized || answer.text("code") != "authentication.required" {
		t.Error(status, answer)
	}
	w.do(genesystest.Act{Do: "expire_tokens"})
	status, answer, _ = w.call("GET", queue, "", "Authorization", auth)
	if status != http.StatusUnauthorized || answer.text("code") != "credentials.expired" {
		t.Error(status, answer)
	}
	auth = w.login()
	for range 300 {
		if status, _, _ = w.call("GET", queue, "", "Authorization", auth); status != http.StatusOK {
			break
		}
	}
	status, answer, header := w.call("GET", queue, "", "Authorization", auth)
	if status != http.StatusTooManyRequests || answer.text("code") != "too.many.requests" || header.Get("Retry-After") != "60" {
		t.Error(status, answer, header)
	}
	at.move(2 * time.Hour)
	if status, answer, _ = w.call("GET", queue, "", "Authorization", auth); answer.text("code") != "credentials.expired" {
		t.Error(status, answer)
	}
}
