package genesystest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/genesystest"
)

// told are members whose values are words of the vendor's, and not only texts of
// some kind.
var told = []string{
	"type", "class", "code", "direction", "eventType", "contentType", "originatingEntity", "action", "mediaType", "readOnly",
	"maxCustomDataBytes", "bodyType", "state", "version", "metric",
}

// beside are members that frames have and recordings leave out.
var beside = map[string][]string{
	"quick replies": {"body.channel"},
	"typing":        {"body.channel"},
	"disconnect":    {"body.channel"},
	"history":       {"entities[].metadata", "entities[].channel.messageId", "entities[].channel.from", "entities[].channel.type"},
	"attachment":    {},
	"observations":  {"results[].group.mediaType"},
}

// missing are members that recordings have and frames of the simulator need not.
var missing = []string{"body.channel.from.image"}

// differences compares the shape of a frame with a recorded one: members, the kinds
// of their values, and the values of words of the vendor's.
func differences(name, path string, got, want any) (lines []string) {
	if fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want) {
		return []string{fmt.Sprintf("%s is %v, recorded was %v", path, got, want)}
	}
	switch want := want.(type) {
	case map[string]any:
		got := got.(map[string]any)
		for key, value := range want {
			at := strings.TrimPrefix(path+"."+key, ".")
			if _, there := got[key]; !there {
				if !slices.Contains(missing, at) {
					lines = append(lines, at+" is missing")
				}
				continue
			}
			if slices.Contains(told, key) && fmt.Sprint(got[key]) != fmt.Sprint(value) {
				lines = append(lines, fmt.Sprintf("%s is %v, recorded was %v", at, got[key], value))
			}
			lines = append(lines, differences(name, at, got[key], value)...)
		}
		for key := range got {
			at := strings.TrimPrefix(path+"."+key, ".")
			if _, there := want[key]; !there && !slices.Contains(beside[name], at) {
				lines = append(lines, at+" is not in the recording")
			}
		}
	case []any:
		if got := got.([]any); len(got) > 0 && len(want) > 0 {
			return differences(name, path+"[]", got[0], want[0])
		}
	}
	return lines
}

// TestRecorded holds what the simulator says against frames that the vendor
// published: see testdata/recorded.json.
func TestRecorded(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/recorded.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded map[string]map[string]any
	if err := json.Unmarshal(text, &recorded); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	hold := func(name string, got object) {
		t.Helper()
		if recorded[name] == nil {
			t.Fatalf("nothing was recorded as %q", name)
		}
		seen[name] = true
		for _, line := range differences(name, "", map[string]any(got), recorded[name]) {
			t.Errorf("%s: %s", name, line)
		}
	}

	w := start(t, genesystest.Options{Now: new(clock).now, Heartbeat: 10 * time.Millisecond})
	t.Run("messaging", func(t *testing.T) { recordMessaging(t, w, hold) })
	t.Run("chat", func(t *testing.T) { recordChat(t, w, hold) })
	for name := range recorded {
		if !seen[name] {
			t.Errorf("nothing was held against the recording of %q", name)
		}
	}
}

func recordMessaging(t *testing.T, w *world, hold func(string, object)) {
	const chat = "chat-1"
	l, session := w.session(token)
	delete(session, "tracingId")
	hold("session", session)
	l.say(token, "Hello", "m1", chat)
	hold("echo", l.next())
	w.do(genesystest.Act{Do: "attachment", ChatID: chat, Name: "a.png", Text: "…"})
	attached := l.next()
	attached["body"].(map[string]any)["text"] = "" // an agent's file may come with no text
	hold("attachment", attached)
	w.do(genesystest.Act{Do: "quick_replies", ChatID: chat, Text: "Pick", Replies: []string{"One"}})
	quick := l.next()
	hold("quick replies", quick)
	w.do(genesystest.Act{Do: "agent_typing", ChatID: chat})
	hold("typing", l.next())
	l.send(`{"action":"getJwt","token":"` + token + `"}`)
	jwt := l.next()
	hold("jwt", jwt)

	for _, size := range []string{"3", "4"} {
		id := "file-" + size
		l.send(`{"action":"onAttachment","token":"` + token + `","attachmentId":"` + id + `","fileName":"a.png","fileType":"image/png","fileSize":` + size + `}`)
		presigned := l.next()
		hold("presigned", presigned)
		w.call("PUT", strings.TrimPrefix(presigned.text("body.url"), w.url), "png", "x-amz-tagging", presigned.text("body.headers.x-amz-tagging"))
		if size == "3" {
			hold("uploaded", l.next())
			continue
		}
		hold("not uploaded", l.next())
	}
	_, history, _ := w.call("GET", "/api/v2/webmessaging/messages", "", "Authorization", bearer(jwt.text("body.jwt")))
	entities := history["entities"].([]any)
	history["entities"] = slices.DeleteFunc(entities, func(e any) bool { return object(e.(map[string]any)).text("originatingEntity") != "Human" })
	delete(history["entities"].([]any)[0].(map[string]any), "content")
	history["entities"].([]any)[0].(map[string]any)["text"] = ""
	hold("history", history)

	l.say(token, "Too", "m2", chat)
	want(t, l.next(), "class", "StructuredMessage")
	l.say(token, "fast", "m3", chat)
	many := l.next()
	want(t, many, "tracingId", "m3")
	delete(many, "tracingId")
	hold("too many", many)

	l.send(`{"action":"getJwt","token":"` + strings.Replace(token, "5", "6", 1) + `"}`)
	hold("no session", l.next())
	w.do(genesystest.Act{Do: "agent_ends", ChatID: chat})
	hold("disconnect", l.next())

	// Somebody signs in.
	_, exchanged, _ := w.call("POST", "/api/v2/webdeployments/token/oauthcodegrantjwtexchange", `{"deploymentId":"`+w.Options().Deployment+`","oauth":{"code":"c"}}`)
	other, _ := dial(t, w.socketURL(), "")
	other.send(`{"action":"configureAuthenticatedSession","deploymentId":"` + w.Options().Deployment + `","token":"` + token + `","startNew":false,"data":{"code":"` + exchanged.text("jwt") + `"}}`)
	want(t, other.next(), "class", "SessionResponse", "body.newSession", false)
	hold("closed", l.next())

	second := strings.Replace(token, "5", "7", 1)
	l, _ = w.session(second)
	l.say(second, "Hello", "m1", "chat-2")
	want(t, l.next(), "class", "StructuredMessage")
	w.do(genesystest.Act{Do: "expire", ChatID: "chat-2"})
	hold("expired", l.next())
}

func recordChat(t *testing.T, w *world, hold func(string, object)) {
	g := w.guest("chat-3")
	hold("created", g.made)
	change := g.next()
	change["topicName"] = strings.Replace(change.text("topicName"), g.id, "{id}", 1)
	hold("member", change)
	_, sent := g.call("POST", "/members/"+g.me+"/messages", `{"body":"Hi"}`)
	hold("sent", sent)
	message := g.nextOf("message")
	message["topicName"] = strings.Replace(message.text("topicName"), g.id, "{id}", 1)
	hold("message", message)
	hold("heartbeat", g.line.next())

	_, refused, _ := w.call("POST", chatPath, w.createBody("x", "Nowhere"))
	hold("error", refused)
	auth := w.login()
	_, wait, _ := w.call("GET", "/api/v2/routing/queues/"+w.Options().QueueID+"/estimatedwaittime", "", "Authorization", auth)
	hold("wait", wait)
	status, seen, _ := w.call("POST", "/api/v2/analytics/queues/observations/query",
		`{"filter":{"type":"or","predicates":[{"dimension":"queueId","value":"`+w.Options().QueueID+`"}]},"metrics":["oOnQueueUsers"]}`, "Authorization", auth)
	if status != http.StatusOK {
		t.Fatal(status)
	}
	hold("observations", seen)
}
