package genesystest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/deskhost/deskhost/plugins/genesys/genesystest"
	"github.com/deskhost/deskhost/sdk/desktest"
)

func TestMessagingHandshake(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{Origins: []string{"https://example.com"}})
	for name, c := range map[string]struct {
		address, origin string
		status          int
	}{
		"good":       {w.socketURL(), "https://example.com", http.StatusSwitchingProtocols},
		"origin":     {w.socketURL(), "https://example.net", http.StatusForbidden},
		"no origin":  {w.socketURL(), "", http.StatusForbidden},
		"deployment": {strings.Replace(w.socketURL(), w.Options().Deployment, "x", 1), "https://example.com", http.StatusForbidden},
	} {
		if _, resp := dial(t, c.address, c.origin); resp.StatusCode != c.status {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	if status, _, _ := w.call("GET", "/webdeployments/v1/deployments/x/config.json", ""); status != http.StatusNotFound {
		t.Error(status)
	}
}

// TestMessagingRefusals: what a session is refused, by the code of the envelope.
func TestMessagingRefusals(t *testing.T) {
	t.Parallel()
	var at clock
	w := start(t, genesystest.Options{Now: at.now, NoClear: true})
	l, _ := w.session(token)
	frame := func(message string) string {
		return `{"action":"onMessage","token":"` + token + `","tracingId":"t","message":` + message + `}`
	}
	attributes := func(json string) string {
		return frame(`{"type":"Text","text":"Hi","channel":{"metadata":{"customAttributes":` + json + `}}}`)
	}
	configure := func(deployment, token string) string {
		return `{"action":"configureSession","deploymentId":"` + deployment + `","token":"` + token + `","tracingId":"t"}`
	}
	for name, c := range map[string]struct {
		frame string
		code  int
	}{
		"no JSON":          {"?", 400},
		"no action":        {`{"token":"` + token + `"}`, 400},
		"unknown action":   {`{"action":"dance","token":"` + token + `"}`, 400},
		"no token":         {`{"action":"getJwt"}`, 400},
		"token":            {`{"action":"getJwt","token":"not-a-uuid"}`, 400},
		"another token":    {`{"action":"getJwt","token":"` + strings.Replace(token, "5", "6", 1) + `"}`, 4007},
		"deployment":       {configure("x", token), 403},
		"no deployment":    {configure("", token), 4020},
		"no message":       {`{"action":"onMessage","token":"` + token + `"}`, 4020},
		"no text":          {frame(`{"type":"Text"}`), 4020},
		"longest text":     {frame(`{"type":"Text","text":"` + strings.Repeat("ä", 4096) + `"}`), 200},
		"too long":         {frame(`{"type":"Text","text":"` + strings.Repeat("ä", 4097) + `"}`), 4011},
		"structured":       {frame(`{"type":"Structured","text":"Hi"}`), 400},
		"no event":         {frame(`{"type":"Event"}`), 400},
		"unknown event":    {frame(`{"type":"Event","events":[{"eventType":"Dance"}]}`), 400},
		"disconnect":       {frame(`{"type":"Event","events":[{"eventType":"Presence","presence":{"type":"Disconnect"}}]}`), 400},
		"clear":            {frame(`{"type":"Event","events":[{"eventType":"Presence","presence":{"type":"Clear"}}]}`), 403},
		"number":           {attributes(`{"a":1}`), 400},
		"nested":           {attributes(`{"a":{"b":"c"}}`), 400},
		"large attributes": {attributes(`{"a":"` + strings.Repeat("x", 2041) + `"}`), 4013},
		"largest":          {attributes(`{"a":"` + strings.Repeat("x", 2040) + `"}`), 200},
		"other metadata":   {frame(`{"type":"Text","text":"Hi","channel":{"metadata":{"a":1}}}`), 400},
		"unknown members":  {frame(`{"type":"Text","text":"Hi","colour":"red"}`), 200},
		"file":             {frame(`{"type":"Text","content":[{"contentType":"Attachment","attachment":{"id":"x"}}]}`), 4009},
		"file type":        {`{"action":"onAttachment","token":"` + token + `","attachmentId":"a","fileName":"a.exe","fileType":"x","fileSize":1}`, 4001},
		"file size":        {`{"action":"onAttachment","token":"` + token + `","attachmentId":"a","fileName":"a.png","fileType":"x","fileSize":99999999}`, 4002},
		"file name":        {`{"action":"onAttachment","token":"` + token + `","attachmentId":"a","fileName":"a/b","fileType":"x","fileSize":1}`, 4004},
		"no file":          {`{"action":"deleteAttachment","token":"` + token + `","attachmentId":"a"}`, 4009},
		"signed in":        {`{"action":"configureAuthenticatedSession","deploymentId":"` + w.Options().Deployment + `","token":"` + token + `","data":{"code":"x"}}`, 401},
	} {
		at.move(time.Second)
		l.send(c.frame)
		if answer := l.next(); answer.at("code") != float64(c.code) {
			t.Errorf("%s: %.300v", name, answer)
		} else if _, text := answer["body"].(string); text != (c.code != 200) {
			t.Errorf("%s: the body is %v", name, answer["body"])
		}
	}
}

// TestMessagingRate: two messages a second, of whatever kind.
func TestMessagingRate(t *testing.T) {
	t.Parallel()
	var at clock
	w := start(t, genesystest.Options{Now: at.now})
	l, _ := w.session(token)
	l.send(`{"action":"onMessage","token":"` + token + `","message":{"type":"Event","events":[{"eventType":"Typing","typing":{"type":"On"}}]}}`)
	l.say(token, "1", "m1", "chat-1")
	want(t, l.next(), "tracingId", "m1", "code", 200)
	l.say(token, "2", "m2", "chat-1")
	want(t, l.next(), "tracingId", "m2", "code", 429, "body.retryAfter", 1)
	at.move(999 * time.Millisecond)
	l.say(token, "3", "m3", "chat-1")
	want(t, l.next(), "tracingId", "m3", "code", 429)
	at.move(time.Millisecond)
	l.say(token, "4", "m4", "chat-1")
	want(t, l.next(), "tracingId", "m4", "code", 200)
	if heard, err := w.Heard("chat-1"); err != nil || len(heard) != 2 {
		t.Errorf("heard %q, %v", heard, err)
	}
}

// TestMessagingResume: the token is the session, whatever becomes of sockets.
func TestMessagingResume(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{NullTimes: true})
	l, _ := w.session(token)
	l.say(token, "Hello", "m1", "chat-1")
	want(t, l.next(), "code", 200)
	for i := range 100 {
		w.do(genesystest.Act{Do: "cut", ChatID: "chat-1"})
		if err := l.ends(); websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			t.Fatal("a cut line said goodbye")
		}
		w.do(genesystest.Act{Do: "agent_says", ChatID: "chat-1", Text: fmt.Sprint(i)})
		var answer object
		l, answer = w.session(token)
		want(t, answer, "body.newSession", false, "body.readOnly", false)
	}
	l.send(`{"action":"getJwt","token":"` + token + `"}`)
	auth := bearer(l.next().text("body.jwt"))
	read := func(page int) object {
		status, h, _ := w.call("GET", fmt.Sprintf("/api/v2/webmessaging/messages?pageSize=40&pageNumber=%d", page), "", "Authorization", auth)
		if status != http.StatusOK {
			t.Fatal(status, h)
		}
		return h
	}
	want(t, read(1), "total", 101, "pageCount", 3, "entities.0.text", "99", "entities.0.channel.time", nil)
	want(t, read(3), "entities.0.text", "19")
	if last := read(3)["entities"].([]any); len(last) != 21 || object(last[20].(map[string]any)).text("text") != "Hello" {
		t.Errorf("the last page is %v", last)
	}
	w.do(genesystest.Act{Do: "expire_tokens"})
	if status, answer, _ := w.call("GET", "/api/v2/webmessaging/messages", "", "Authorization", auth); status != http.StatusUnauthorized || answer.text("code") != "credentials.expired" {
		t.Error(status, answer)
	}
}

// TestMessagingLife: sessions end by themselves, by either side, and begin anew.
func TestMessagingLife(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{})
	type step struct {
		name string
		// do ends the session, and waits for the news of it.
		do func(l *line)
		// code is what is said to the next message.
		code int
	}
	for i, s := range []step{
		{"expired", func(l *line) {
			w.do(genesystest.Act{Do: "expire", ChatID: "chat-expired"})
			want(t, l.next(), "class", "SessionExpiredEvent")
		}, 4006},
		{"ended by the agent", func(l *line) {
			w.do(genesystest.Act{Do: "agent_ends", ChatID: "chat-ended by the agent"})
			want(t, l.next(), "body.metadata.readOnly", "true")
		}, 400},
		{"cleared", func(l *line) {
			l.send(`{"action":"onMessage","token":"` + token[:35] + "2" + `","message":{"type":"Event","events":[{"eventType":"Presence","presence":{"type":"Clear"}}]}}`)
			want(t, l.next(), "body.events.0.presence.type", "Clear", "body.direction", "Inbound")
		}, 4007},
	} {
		session := token[:35] + fmt.Sprint(i)
		l, _ := w.session(session)
		l.say(session, "Hello", "m1", "chat-"+s.name)
		want(t, l.next(), "code", 200)
		s.do(l)
		l.say(session, "Hello?", "m2", "chat-"+s.name)
		if answer := l.next(); answer.at("code") != float64(s.code) {
			t.Errorf("%s: %v", s.name, answer)
		}
		_, answer := w.session(session)
		if s.code == 400 { // the conversation can still be read
			want(t, answer, "body.newSession", false, "body.readOnly", true)
		} else {
			want(t, answer, "body.newSession", true, "body.readOnly", false)
		}
	}
}

// TestMessagingExpires: a session in which nothing is said ends by itself.
func TestMessagingExpires(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{SessionLife: 20 * time.Millisecond})
	l, _ := w.session(token)
	want(t, l.next(), "class", "SessionExpiredEvent", "code", 200)
	l.send(`{"action":"getJwt","token":"` + token + `"}`)
	want(t, l.next(), "code", 4006)
}

// TestMessagingClose: one connection, or all of them and the session.
func TestMessagingClose(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{MaxSockets: 2})
	one, _ := w.session(token)
	two, answer := w.session(token)
	want(t, answer, "body.newSession", false)
	one.say(token, "Hello", "m1", "chat-1")
	want(t, one.next(), "tracingId", "m1")
	want(t, two.next(), "tracingId", "m1") // all of them hear it
	three, _ := w.session(token)
	closed := one.next()
	want(t, closed, "class", "ConnectionClosedEvent", "body.reason", nil)
	if err := one.ends(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Error(err)
	}
	two.send(`{"action":"closeSession","token":"` + token + `","tracingId":"x"}`)
	want(t, two.next(), "class", "SessionResponse", "body.connected", false)
	four, answer := w.session(token)
	want(t, answer, "body.newSession", false) // it lives on
	three.send(`{"action":"closeSession","token":"` + token + `","closeAllConnections":true,"tracingId":"x"}`)
	want(t, three.next(), "class", "SessionResponse", "body.connected", false, "tracingId", "x")
	want(t, four.next(), "class", "SessionResponse", "body.connected", false, "tracingId", nil)
	three.send(`{"action":"configureSession","deploymentId":"` + w.Options().Deployment + `","token":"` + token + `","startNew":true}`)
	want(t, three.next(), "body.newSession", true)
}

// TestMessagingDisconnectTypes: what the deployment says decides what is told of the end.
func TestMessagingDisconnectTypes(t *testing.T) {
	t.Parallel()
	for kind, readOnly := range map[string]string{"Send": "false", "None": ""} {
		w := start(t, genesystest.Options{DisconnectType: kind, NoNicknames: true})
		l, _ := w.session(token)
		l.say(token, "1", "m1", "chat-1")
		want(t, l.next(), "tracingId", "m1")
		w.do(genesystest.Act{Do: "agent_says", ChatID: "chat-1", Text: "Hi"})
		want(t, l.next(), "body.originatingEntity", "Human", "body.channel.from", nil)
		w.do(genesystest.Act{Do: "agent_ends", ChatID: "chat-1"})
		if readOnly != "" {
			want(t, l.next(), "body.metadata.readOnly", readOnly, "body.events.0.presence.type", "Disconnect")
		}
		l.say(token, "2", "m2", "chat-1") // a conversation of its own
		want(t, l.next(), "tracingId", "m2", "code", 200)
		if heard, err := w.Heard("chat-1"); err != nil || len(heard) != 1 || heard[0] != "2" {
			t.Errorf("%s: heard %q, %v", kind, heard, err)
		}
	}
}

// TestMessagingSignedIn: a signed-in session is not left again.
func TestMessagingSignedIn(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{RequireAuth: true})
	l, _ := dial(t, w.socketURL(), "")
	frame := `{"action":"configureSession","deploymentId":"` + w.Options().Deployment + `","token":"` + token + `"}`
	l.send(frame)
	want(t, l.next(), "code", 401)
	const path = "/api/v2/webdeployments/token/"
	status, got, _ := w.call("POST", path+"oauthcodegrantjwtexchange", `{"deploymentId":"`+w.Options().Deployment+`","oauth":{"code":"c"}}`)
	if status != http.StatusOK {
		t.Fatal(status, got)
	}
	if status, _, _ = w.call("POST", path+"oauthcodegrantjwtexchange", `{"deploymentId":"`+w.Options().Deployment+`","oauth":{"code":"c"}}`); status != http.StatusUnauthorized {
		t.Error("an authorization code was taken twice")
	}
	refresh := `{"refreshToken":"` + got.text("refreshToken") + `"}`
	_, got, _ = w.call("POST", path+"refresh", refresh)
	l.send(`{"action":"configureAuthenticatedSession","deploymentId":"` + w.Options().Deployment + `","token":"` + token + `","data":{"code":"` + got.text("jwt") + `"}}`)
	want(t, l.next(), "class", "SessionResponse", "body.newSession", true)
	if status, _, _ = w.call("DELETE", path+"revoke", refresh); status != http.StatusNoContent {
		t.Error(status)
	}
	if status, _, _ = w.call("POST", path+"refresh", refresh); status != http.StatusUnauthorized {
		t.Error("a token was renewed that is revoked")
	}
}

// TestMessagingFiles goes both ways.
func TestMessagingFiles(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{})
	l, _ := w.session(token)
	l.send(`{"action":"onAttachment","token":"` + token + `","attachmentId":"f-1","fileName":"a.txt","fileType":"text/plain","fileSize":5}`)
	presigned := l.next()
	message := `{"action":"onMessage","token":"` + token + `","message":{"type":"Text","text":"Look","content":[{"contentType":"Attachment","attachment":{"id":"f-1"}}],"channel":{"metadata":{"customAttributes":{"deskhost_chat_id":"chat-1"}}}}}`
	l.send(message)
	want(t, l.next(), "code", 4010)
	path := strings.TrimPrefix(presigned.text("body.url"), w.url)
	if status, _, _ := w.call("PUT", path, "Hello"); status != http.StatusForbidden {
		t.Error("a file came without the header that was asked for", status)
	}
	if status, _, _ := w.call("PUT", path, "Hello", "x-amz-tagging", presigned.text("body.headers.x-amz-tagging")); status != http.StatusOK {
		t.Error(status)
	}
	want(t, l.next(), "class", "UploadSuccessEvent")
	l.send(message)
	want(t, l.next(), "code", 200)
	if heard, err := w.Heard("chat-1"); err != nil || len(heard) != 1 || heard[0] != "Look [a.txt]" {
		t.Errorf("heard %q, %v", heard, err)
	}

	w.do(genesystest.Act{Do: "attachment", ChatID: "chat-1", Name: "b.png", Text: "png"})
	sent := l.next()
	want(t, sent, "body.content.0.attachment.mediaType", "Image", "body.content.0.attachment.fileSize", 3)
	resp, err := http.Get(sent.text("body.content.0.attachment.url"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != 3 || resp.Header.Get("Content-Type") != "image/png" {
		t.Error(resp.Status, resp.ContentLength, resp.Header)
	}
}

// TestMessagingDisorder: frames may come in another order, and twice.
func TestMessagingDisorder(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{})
	l, _ := w.session(token)
	l.say(token, "Hello", "m1", "chat-1")
	want(t, l.next(), "tracingId", "m1")
	w.do(genesystest.Act{Do: "shuffle", ChatID: "chat-1", N: 3})
	w.do(genesystest.Act{Do: "repeat", ChatID: "chat-1", N: 1})
	for _, text := range []string{"1", "2", "3", "4"} {
		w.do(genesystest.Act{Do: "agent_says", ChatID: "chat-1", Text: text})
	}
	var got string
	for range 5 {
		got += l.next().text("body.text")
	}
	if got != "33214" {
		t.Errorf("got %s", got)
	}
}

// TestScript has the words of the conformance suite played over HTTP, and the
// faults that it asks for.
func TestScript(t *testing.T) {
	t.Parallel()
	var at clock
	w := start(t, genesystest.Options{Now: at.now})
	script := desktest.ScriptAt(w.url + "/script")
	ctx := t.Context()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := script.AgentJoins(ctx, "chat-1"); err == nil || !strings.Contains(err.Error(), `"chat-1"`) {
		t.Errorf("an agent joined a chat that is not there: %v", err)
	}
	l, _ := w.session(token)
	ok(script.FailNextCall(ctx, desktest.CallSend))
	l.say(token, "1", "m1", "chat-1")
	want(t, l.next(), "class", "TooManyRequestsErrorMessage", "tracingId", "m1")
	ok(script.StallNextCall(ctx, desktest.CallSend, time.Millisecond))
	l.say(token, "2", "m2", "chat-1")
	want(t, l.next(), "tracingId", "m2", "code", 200)
	ok(script.AgentJoins(ctx, "chat-1"))
	ok(script.AgentSays(ctx, "chat-1", "Hi"))
	want(t, l.next(), "body.text", "Hi")
	if heard, err := script.Heard(ctx, "chat-1"); err != nil || len(heard) != 1 || heard[0] != "2" {
		t.Errorf("heard %q, %v", heard, err)
	}
	at.move(time.Second)
	w.do(genesystest.Act{Do: "lose_answer", Call: "send"})
	l.say(token, "3", "m3", "chat-1")
	_ = l.ends()
	if heard, err := script.Heard(ctx, "chat-1"); err != nil || len(heard) != 2 || heard[1] != "3" {
		t.Errorf("heard %q, %v", heard, err)
	}
	w.do(genesystest.Act{Do: "fail_next_call", Call: "connect", Status: 503})
	if _, resp := dial(t, w.socketURL(), ""); resp.StatusCode != http.StatusServiceUnavailable {
		t.Error(resp.Status)
	}
	w.do(genesystest.Act{Do: "fail_next_call", Call: "start", Status: 4006, N: 1})
	l, _ = dial(t, w.socketURL(), "")
	l.send(`{"action":"configureSession","deploymentId":"` + w.Options().Deployment + `","token":"` + token + `"}`)
	want(t, l.next(), "code", 4006)
	ok(script.AgentEnds(ctx, "chat-1"))

	status, _, _ := w.call("POST", "/script", `{"do":"dance"}`)
	if status != http.StatusNotImplemented {
		t.Error(status)
	}
	if err := w.Do(genesystest.Act{Do: "fail_next_call", Call: "dance"}); err == nil {
		t.Error("a call that is none was planned to fail")
	}
}

// TestDeadLine: a line that is lost without being closed answers no ping.
func TestDeadLine(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{})
	l, _ := w.session(token)
	l.say(token, "Hello", "m1", "chat-1")
	want(t, l.next(), "tracingId", "m1")
	pong := make(chan struct{}, 1)
	l.conn.SetPongHandler(func(string) error { pong <- struct{}{}; return nil })
	ping := func() {
		if err := l.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	ping()
	l.send(`{"action":"echo","token":"` + token + `","tracingId":"e","message":{"type":"Text","text":"ping"}}`)
	want(t, l.next(), "tracingId", "e", "body.text", "ping")
	<-pong
	w.do(genesystest.Act{Do: "lose_socket", ChatID: "chat-1"})
	ping()
	l.send(`{"action":"getJwt","token":"` + token + `"}`)
	w.do(genesystest.Act{Do: "agent_says", ChatID: "chat-1", Text: "Hi"})
	// Another connection works, and what was said while the first was dead is there.
	other, answer := w.session(token)
	want(t, answer, "body.newSession", false)
	other.send(`{"action":"getJwt","token":"` + token + `"}`)
	_, h, _ := w.call("GET", "/api/v2/webmessaging/messages", "", "Authorization", bearer(other.next().text("body.jwt")))
	want(t, h, "entities.0.text", "Hi")
	w.do(genesystest.Act{Do: "cut", ChatID: "chat-1"})
	if err := l.ends(); err == nil || len(pong) > 0 {
		t.Errorf("the dead line came to life: %v", err)
	}
}

// TestManySessions: the simulator is cheap enough for a load.
func TestManySessions(t *testing.T) {
	t.Parallel()
	w := start(t, genesystest.Options{})
	const n = 1000
	lines := make([]*line, n)
	tokens := make([]string, n)
	for i := range lines {
		tokens[i] = fmt.Sprintf("%s%04d", token[:32], i)
		lines[i], _ = w.session(tokens[i])
		lines[i].say(tokens[i], "Hello", "m1", fmt.Sprint("chat-", i))
	}
	for i, l := range lines {
		want(t, l.next(), "tracingId", "m1")
		w.do(genesystest.Act{Do: "agent_says", ChatID: fmt.Sprint("chat-", i), Text: fmt.Sprint(i)})
		want(t, l.next(), "body.text", fmt.Sprint(i))
	}
}
