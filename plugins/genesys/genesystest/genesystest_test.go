package genesystest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/deskhost/deskhost/plugins/genesys/genesystest"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

const token = "5f0d2c1e-8a1b-4c3d-9e2f-1a2b3c4d5e6f"

// clock stands still unless it is moved.
type clock struct{ ahead atomic.Int64 }

var began = time.Now()

func (c *clock) now() time.Time { return began.Add(time.Duration(c.ahead.Load())) }

func (c *clock) move(by time.Duration) { c.ahead.Add(int64(by)) }

// world is a simulator that listens.
type world struct {
	*genesystest.Server
	t   *testing.T
	url string
}

func start(t *testing.T, options genesystest.Options) *world {
	t.Helper()
	s := genesystest.New(options)
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		s.Close() // ends the sockets, which the server knows nothing of
		server.Close()
	})
	return &world{s, t, server.URL}
}

// do has the desk do something that it can.
func (w *world) do(a genesystest.Act) {
	w.t.Helper()
	if err := w.Do(a); err != nil {
		w.t.Fatalf("%s: %v", a.Do, err)
	}
}

// object is a JSON object, with members found by path.
type object map[string]any

func (o object) at(path string) any {
	var v any = map[string]any(o)
	for name := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[name]
		case []any:
			if name != "0" || len(x) == 0 {
				return nil
			}
			v = x[0]
		default:
			return nil
		}
	}
	return v
}

func (o object) text(path string) string {
	s, _ := o.at(path).(string)
	return s
}

func decode(t *testing.T, raw []byte) (o object) {
	t.Helper()
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatalf("no JSON object: %v: %.300q", err, raw)
	}
	return o
}

// line is a socket to the simulator.
type line struct {
	t    *testing.T
	conn *websocket.Conn
}

func dial(t *testing.T, address, origin string) (*line, *http.Response) {
	t.Helper()
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, resp, err := websocket.DefaultDialer.DialContext(ctx, strings.Replace(address, "http", "ws", 1), header)
	if resp != nil && resp.Body != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		if resp == nil {
			t.Fatal(err)
		}
		return nil, resp
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &line{t, conn}, resp
}

func (l *line) send(frame string) {
	l.t.Helper()
	if err := l.conn.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
		l.t.Fatal(err)
	}
}

// next returns the next frame.
func (l *line) next() object {
	l.t.Helper()
	_ = l.conn.SetReadDeadline(time.Now().Add(patience))
	_, raw, err := l.conn.ReadMessage()
	if err != nil {
		l.t.Fatal(err)
	}
	return decode(l.t, raw)
}

// ends waits for the end of the connection, past what still comes.
func (l *line) ends() error {
	l.t.Helper()
	_ = l.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		if _, _, err := l.conn.ReadMessage(); err != nil {
			return err
		}
	}
}

// want fails the test unless members of a frame are as given: path, value, ….
func want(t *testing.T, o object, pairs ...any) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		path, value := pairs[i].(string), pairs[i+1]
		if n, ok := value.(int); ok {
			value = float64(n)
		}
		if got := o.at(path); got != value {
			t.Fatalf("%s is %v, expected %v, in %v", path, got, value, o)
		}
	}
}

func (w *world) socketURL() string {
	return w.url + "/v1?application=test&deploymentId=" + url.QueryEscape(w.Options().Deployment)
}

// session opens a socket of Web Messaging and configures it.
func (w *world) session(token string) (*line, object) {
	w.t.Helper()
	l, resp := dial(w.t, w.socketURL(), "")
	if l == nil {
		w.t.Fatal(resp.Status)
	}
	l.send(`{"action":"configureSession","deploymentId":"` + w.Options().Deployment + `","token":"` + token + `","startNew":false,"tracingId":"c"}`)
	answer := l.next()
	want(w.t, answer, "class", "SessionResponse", "tracingId", "c")
	return l, answer
}

// say sends a text that belongs to the chat.
func (l *line) say(token, text, tracingID, chat string) {
	l.t.Helper()
	raw, err := json.Marshal(object{"action": "onMessage", "token": token, "tracingId": tracingID, "message": object{
		"type": "Text", "text": text, "channel": object{"metadata": object{"customAttributes": object{genesystest.ChatIDAttribute: chat}}},
	}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.send(string(raw))
}

// call does a call over HTTP. Header lines are name, value, ….
func (w *world) call(method, path, body string, header ...string) (status int, answer object, h http.Header) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, w.url+path, bytes.NewBufferString(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.Header.Get("Content-Type") == "application/json" {
		answer = decode(w.t, raw)
	}
	return resp.StatusCode, answer, resp.Header
}

func bearer(jwt string) string { return "Bearer " + jwt }

func TestMessagingConversation(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{})

	status, config, _ := w.call("GET", "/webdeployments/v1/deployments/"+w.Options().Deployment+"/config.json", "")
	if status != http.StatusOK {
		t.Fatal(status)
	}
	want(t, config, "status", "Active", "messenger.apps.conversations.conversationDisconnect.type", "ReadOnly")

	l, answer := w.session(token)
	want(t, answer, "body.connected", true, "body.newSession", true, "body.readOnly", false)
	l.say(token, "Hello", "m1", "chat-1")
	want(t, l.next(), "class", "StructuredMessage", "tracingId", "m1", "body.direction", "Inbound", "body.text", "Hello")

	w.do(genesystest.Act{Do: "agent_joins", ChatID: "chat-1"}) // nobody hears of it
	w.do(genesystest.Act{Do: "agent_typing", ChatID: "chat-1"})
	want(t, l.next(), "body.events.0.typing.type", "On", "body.direction", "Outbound")
	w.do(genesystest.Act{Do: "agent_says", ChatID: "chat-1", Text: "Hi"})
	want(t, l.next(), "body.text", "Hi", "body.direction", "Outbound", "body.channel.from.nickname", "Ada", "body.originatingEntity", "Human")
	if heard, err := w.Heard("chat-1"); err != nil || len(heard) != 1 || heard[0] != "Hello" {
		t.Errorf("heard %q, %v", heard, err)
	}

	l.send(`{"action":"getJwt","token":"` + token + `"}`)
	jwt := l.next().text("body.jwt")
	status, history, _ := w.call("GET", "/api/v2/webmessaging/messages?pageSize=25&pageNumber=1", "", "Authorization", bearer(jwt))
	if status != http.StatusOK {
		t.Fatal(status, history)
	}
	want(t, history, "total", 2, "entities.0.text", "Hi", "pageCount", 1)

	w.do(genesystest.Act{Do: "agent_ends", ChatID: "chat-1"})
	want(t, l.next(), "body.metadata.readOnly", "true", "body.events.0.presence.type", "Disconnect")
	l.send(`{"action":"closeSession","token":"` + token + `","closeAllConnections":true,"tracingId":"x"}`)
	want(t, l.next(), "class", "SessionResponse", "body.connected", false, "tracingId", "x")
}

func TestChatConversation(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{})
	o := w.Options()
	const base = "/api/v2/webchat/guest/conversations"
	status, made, _ := w.call("POST", base, `{"organizationId":"`+o.OrganizationID+`","deploymentId":"`+o.Deployment+`",
		"routingTarget":{"targetType":"QUEUE","targetAddress":"`+o.Queue+`"},
		"memberInfo":{"displayName":"Mia","customFields":{"`+genesystest.ChatIDAttribute+`":"chat-1"}}}`)
	if status != http.StatusOK {
		t.Fatal(status, made)
	}
	id, me, auth := made.text("id"), made.text("member.id"), bearer(made.text("jwt"))
	if err := w.Do(genesystest.Act{Do: "agent_joins", ChatID: "chat-1"}); err == nil {
		t.Error("an agent joined before an event stream was attached")
	}
	l, _ := dial(t, strings.Replace(made.text("eventStreamUri"), "ws", "http", 1), "")
	want(t, l.next(), "metadata.type", "member-change", "eventBody.member.id", me, "eventBody.member.state", "CONNECTED")
	want(t, l.next(), "metadata.type", "member-change") // the queue

	w.do(genesystest.Act{Do: "agent_joins", ChatID: "chat-1"})
	want(t, l.next(), "eventBody.member.state", "ALERTING")
	want(t, l.next(), "eventBody.member.state", "DISCONNECTED") // the queue
	joined := l.next()
	want(t, joined, "eventBody.member.state", "CONNECTED")
	want(t, l.next(), "eventBody.member.state", "CONNECTED", "eventBody.member.id", joined.text("eventBody.member.id")) // once more
	want(t, l.next(), "metadata.type", "message", "eventBody.bodyType", "member-join")
	status, agent, _ := w.call("GET", base+"/"+id+"/members/"+joined.text("eventBody.member.id"), "", "Authorization", auth)
	if status != http.StatusOK {
		t.Fatal(status)
	}
	want(t, agent, "role", "AGENT", "displayName", "Ada", "state", "CONNECTED")

	status, sent, _ := w.call("POST", base+"/"+id+"/members/"+me+"/messages", `{"body":"Hello","bodyType":"standard"}`, "Authorization", auth)
	if status != http.StatusOK {
		t.Fatal(status)
	}
	want(t, l.next(), "eventBody.id", sent.text("id"), "eventBody.body", "Hello", "eventBody.sender.id", me)
	w.do(genesystest.Act{Do: "agent_says", ChatID: "chat-1", Text: "Hi"})
	want(t, l.next(), "eventBody.body", "Hi", "eventBody.sender.id", agent.text("id"))
	status, page, _ := w.call("GET", base+"/"+id+"/messages?after="+sent.text("id"), "", "Authorization", auth)
	if status != http.StatusOK {
		t.Fatal(status)
	}
	want(t, page, "entities.0.body", "Hi")

	w.do(genesystest.Act{Do: "agent_ends", ChatID: "chat-1"})
	want(t, l.next(), "eventBody.member.id", agent.text("id"), "eventBody.member.state", "DISCONNECTED")
	want(t, l.next(), "eventBody.bodyType", "member-leave")
	want(t, l.next(), "eventBody.member.id", me, "eventBody.member.state", "DISCONNECTED")
	if err := l.ends(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Error(err)
	}
	status, refused, _ := w.call("POST", base+"/"+id+"/members/"+me+"/messages", `{"body":"Hello?"}`, "Authorization", auth)
	if status != http.StatusBadRequest {
		t.Error(status)
	}
	want(t, refused, "code", "chat.error.conversation.state", "status", 400)
}
