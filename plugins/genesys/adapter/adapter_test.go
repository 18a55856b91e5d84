package adapter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/adapter"
	"github.com/deskhost/deskhost/plugins/genesys/genesystest"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

var modes = []string{"webmessaging", "webchat"}

// inBothModes runs a test for each of the vendor's APIs.
func inBothModes(t *testing.T, test func(t *testing.T, w *world)) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, mode, genesystest.Options{}))
		})
	}
}

// world is a vendor with a plugin and its host.
type world struct {
	t         *testing.T
	simulator *genesystest.Server
	host      *desktest.Host
	config    map[string]any
	desk      *adapter.Desk
}

func newWorld(t *testing.T, mode string, o genesystest.Options) *world {
	t.Helper()
	return newWorldBehind(t, mode, o, func(simulator http.Handler) http.Handler { return simulator })
}

// newWorldBehind puts something between the plugin and the simulator.
func newWorldBehind(t *testing.T, mode string, o genesystest.Options, between func(http.Handler) http.Handler) *world {
	t.Helper()
	w := &world{t: t, simulator: genesystest.New(o), host: desktest.NewHost(t)}
	server := httptest.NewServer(between(w.simulator))
	t.Cleanup(func() {
		w.simulator.Close()
		server.Close()
	})
	o = w.simulator.Options()
	w.config = map[string]any{
		"mode": mode, "api_url": server.URL, "deployment_id": o.Deployment, "queue_id": o.QueueID,
		"oauth": map[string]any{"client_id": o.ClientID, "client_secret": o.ClientSecret},
	}
	if mode == "webchat" {
		w.config["organization_id"], w.config["queue"] = o.OrganizationID, o.Queue
	}
	if o.RequireAuth {
		w.config["sign_in"] = true
	}
	w.desk = w.process()
	return w
}

// process is another process of the plugin.
func (w *world) process() *adapter.Desk {
	w.t.Helper()
	d := adapter.New(w.host)
	w.configure(d)
	return d
}

func (w *world) configure(d *adapter.Desk) {
	w.t.Helper()
	w.t.Cleanup(func() { crash(d) })
	if err := configure(w.t, d, w.config); err != nil {
		w.t.Fatal(err)
	}
}

func configure(t *testing.T, d *adapter.Desk, config map[string]any) error {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return d.Configure(t.Context(), &sdk.ConfigureRequest{DeskName: "support", Config: text})
}

// crash ends a process that nobody waits for.
func crash(d *adapter.Desk) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = d.Drain(ctx)
}

func (w *world) start(chat string) {
	w.t.Helper()
	if err := w.startWith(&sdk.StartChatRequest{ChatID: chat, Attempt: 1, Text: "Hello"}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) startWith(req *sdk.StartChatRequest) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	_, err := w.desk.StartChat(ctx, req)
	return err
}

func (w *world) send(chat, id, text string, attempt int) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	_, err := w.desk.SendMessageToAgent(ctx, &sdk.SendMessageRequest{ChatID: chat, MessageID: id, Attempt: attempt, Text: text})
	return err
}

func (w *world) mustSend(chat, id, text string) {
	w.t.Helper()
	if err := w.send(chat, id, text, 1); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) do(acts ...genesystest.Act) {
	w.t.Helper()
	for _, a := range acts {
		if err := w.simulator.Do(a); err != nil {
			w.t.Fatalf("%s: %v", a.Do, err)
		}
	}
}

func says(chat, text string) genesystest.Act {
	return genesystest.Act{Do: "agent_says", ChatID: chat, Text: text}
}

// heard holds what the agent sees of the user.
func (w *world) heard(chat string, want ...string) {
	w.t.Helper()
	if got, err := w.simulator.Heard(chat); err != nil || !slices.Equal(got, want) {
		w.t.Errorf("the desk has %q, %v; want %q", got, err, want)
	}
}

// tells awaits that the last lasting events of a chat read so.
func (w *world) tells(chat string, want ...string) {
	w.t.Helper()
	var lines []string
	defer func() {
		if w.t.Failed() {
			w.t.Logf("chat %s had %q, want at its end %q", chat, lines, want)
		}
	}()
	w.host.AwaitAll(chat, func(events []*sdk.Event) bool {
		lines = told(events)
		return len(lines) >= len(want) && slices.Equal(lines[len(lines)-len(want):], want)
	})
}

// told writes events down, one line each, without passing news.
func told(events []*sdk.Event) (lines []string) {
	for _, e := range events {
		switch p := e.Payload.(type) {
		case sdk.AgentTyping, sdk.AvailabilityChanged, sdk.StateSaved:
		case sdk.MessageToUser:
			for _, part := range p.Parts {
				lines = append(lines, fmt.Sprintf("%v", part))
			}
		case sdk.AgentJoined:
			lines = append(lines, p.Agent.Nickname+" joined")
		case sdk.AgentLeft:
			lines = append(lines, "left")
		case sdk.TransferStarted:
			lines = append(lines, "transfer to "+p.Agent.Nickname)
		case sdk.AgentEndedChat:
			lines = append(lines, "ended")
		case sdk.ErrorStatus:
			lines = append(lines, fmt.Sprint("link lost: ", p.Disconnected))
		default:
			lines = append(lines, fmt.Sprintf("%T", p))
		}
	}
	return lines
}

// kind is that of an error's Failure.
func kind(err error) sdk.FailureKind {
	if f := (*sdk.Failure)(nil); errors.As(err, &f) {
		return f.Kind
	}
	return sdk.OutcomeUnknown
}

func TestAConversation(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		err := w.startWith(&sdk.StartChatRequest{
			ChatID: "c", Attempt: 1, Text: "It does not work.",
			History: []sdk.HistoryItem{{From: "user", Text: "Help!"}, {From: "assistant", Text: "With what?"}},
			Context: sdk.UserContext{User: sdk.User{ID: "u", Name: "Ann"}, Locale: "en-GB"},
		})
		if err != nil {
			t.Fatal(err)
		}
		w.do(genesystest.Act{Do: "agent_typing", ChatID: "c"}, says("c", "Hello, Ann"))
		w.tells("c", "Ada joined", "Hello, Ann")
		w.mustSend("c", "m1", "Hello, Ada")
		if err := w.desk.UserTyping(t.Context(), &sdk.UserTypingRequest{ChatID: "c", Typing: true}); err != nil {
			t.Error(err)
		}
		w.heard("c", "It does not work.\n\nUser: Help!\nAssistant: With what?", "Hello, Ada")
		w.do(genesystest.Act{Do: "agent_ends", ChatID: "c"})
		w.host.AwaitAll("c", func(events []*sdk.Event) bool {
			_, ended := events[len(events)-1].Payload.(sdk.AgentEndedChat)
			return ended
		})
		if err := w.send("c", "m2", "Wait!", 1); kind(err) != sdk.ChatOver && kind(err) != sdk.ChatUnknown {
			t.Errorf("a message behind the end: %v", err)
		}
		// The user sees the agent type, and no longer once there is a message.
		var typing []bool
		for _, e := range w.host.Events("c") {
			switch p := e.Payload.(type) {
			case sdk.AgentTyping:
				typing = append(typing, p.Typing)
			case sdk.MessageToUser:
				typing = append(typing, false)
			}
		}
		if !slices.Equal(typing, []bool{true, false, false}) {
			t.Errorf("typing %v", typing)
		}
	})
}

func TestOrderAndRepetition(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		crash(w.desk)
		w.desk = adapter.New(w.host)
		adapter.SetHoldBack(w.desk, 2*time.Second) // a busy machine may take longer than usual between two frames
		w.configure(w.desk)
		w.start("c")
		w.do(says("c", "0"), genesystest.Act{Do: "repeat", ChatID: "c", N: 1}, says("c", "1"))
		want := []string{"0", "1"}
		// In web chat the times are those of the vendor, a millisecond apart or not.
		w.do(genesystest.Act{Do: "shuffle", ChatID: "c", N: 3})
		for i := 2; i < 5; i++ {
			tick := time.NewTimer(2 * time.Millisecond)
			<-tick.C // messages of one millisecond have no order that anybody could know
			w.do(says("c", fmt.Sprint(i)))
			want = append(want, fmt.Sprint(i))
		}
		w.tells("c", append([]string{"Ada joined"}, want...)...)
	})
}

func TestTransfers(t *testing.T) {
	want := map[string][]string{
		"webmessaging": {"Ada joined", "1", "transfer to Grace", "Grace joined", "2"},
		"webchat":      {"Ada joined", "1", "left", "transfer to Grace", "Grace joined", "2"},
	}
	inBothModes(t, func(t *testing.T, w *world) {
		w.start("c")
		w.do(says("c", "1"), genesystest.Act{Do: "transfer", ChatID: "c"}, says("c", "2"))
		w.tells("c", want[w.config["mode"].(string)]...)
	})
}

// TestAfterACrash has a process end without a word, at a moment when the host has
// not acknowledged all, and another go on.
func TestAfterACrash(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		w.start("c")
		w.do(says("c", "before"))
		w.tells("c", "Ada joined", "before")
		w.mustSend("c", "m1", "again")
		w.host.Hold()
		w.do(says("c", "not acknowledged"))
		crash(w.desk)
		w.do(says("c", "nobody listens"))

		next := newHostFrom(t, w)
		if err := w.desk.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c", Attempt: 1, State: next}); err != nil {
			t.Fatal(err)
		}
		if err := w.desk.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c", Attempt: 2, State: next}); err != nil {
			t.Fatal(err)
		}
		w.do(says("c", "after"))
		w.tells("c", "not acknowledged", "nobody listens", "after")
		for _, line := range told(w.host.Events("c")) {
			if line == "before" || line == "Ada joined" {
				t.Errorf("%q is told again", line)
			}
		}
		// The same message again is known, another with the same text is not it.
		if err := w.send("c", "m1", "again", 2); err != nil {
			t.Error(err)
		}
		if err := w.send("c", "m2", "again", 2); err != nil {
			t.Error(err)
		}
		w.heard("c", "Hello", "again", "again")
	})
}

// newHostFrom gives the world another process and another host, and returns the
// state that the host before had of the chat.
func newHostFrom(t *testing.T, w *world) *sdk.ResumeState {
	t.Helper()
	state := w.host.State("c")
	w.host = desktest.NewHost(t)
	w.desk = w.process()
	return state
}

// TestALongHistory takes longer to read than a connection may take to make.
func TestALongHistory(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorldBehind(t, mode, genesystest.Options{}, func(simulator http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/messages") {
						select {
						case <-time.After(1200 * time.Millisecond):
						case <-r.Context().Done():
						}
					}
					simulator.ServeHTTP(rw, r)
				})
			})
			w.start("c")
			w.do(says("c", "before"))
			w.tells("c", "before")
			crash(w.desk)
			w.do(says("c", "missed"))
			w.config["timeouts"] = map[string]any{"connect": "1s"}
			state := newHostFrom(t, w)
			if err := w.desk.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c", Attempt: 1, State: state}); err != nil {
				t.Fatal(err)
			}
			w.tells("c", "missed")
		})
	}
}

// TestUnclearSends has messages arrive whose answer gets lost.
func TestUnclearSends(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		w.start("c")
		w.do(genesystest.Act{Do: "lose_answer", Call: "send"})
		w.mustSend("c", "m1", "once") // found in the history after a new connection
		w.heard("c", "Hello", "once")

		// This time the process ends as well.
		w.do(genesystest.Act{Do: "lose_answer", Call: "send"})
		ctx, cancel := context.WithCancel(t.Context())
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = w.desk.SendMessageToAgent(ctx, &sdk.SendMessageRequest{ChatID: "c", MessageID: "m2", Attempt: 1, Text: "twice?"})
		}()
		for heard := 0; heard < 3; {
			lines, err := w.simulator.Heard("c")
			if err != nil {
				t.Fatal(err)
			}
			heard = len(lines)
		}
		cancel()
		<-sent
		crash(w.desk)
		state := newHostFrom(t, w)
		if err := w.desk.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c", Attempt: 1, State: state}); err != nil {
			t.Fatal(err)
		}
		if err := w.send("c", "m2", "twice?", 2); err != nil {
			t.Error(err)
		}
		w.heard("c", "Hello", "once", "twice?")
	})
}

// TestALinkLostBesideASend has the event stream lost, and come back, while a message
// is on its way by another connection.
func TestALinkLostBesideASend(t *testing.T) {
	w := newWorld(t, "webchat", genesystest.Options{})
	w.start("c")
	w.do(genesystest.Act{Do: "stall_next_call", Call: "send", LateMS: 1500})
	sent := make(chan error, 1)
	go func() { sent <- w.send("c", "m1", "once", 1) }()
	w.do(genesystest.Act{Do: "cut", ChatID: "c"}, says("c", "Hi"))
	w.tells("c", "Ada joined", "Hi") // by the new stream
	if err := <-sent; err != nil {
		t.Error(err)
	}
	w.heard("c", "Hello", "once")
}

// TestAMemberWhoCannotBeAskedFor has the vendor fail when the plugin asks who joined.
func TestAMemberWhoCannotBeAskedFor(t *testing.T) {
	w := newWorld(t, "webchat", genesystest.Options{})
	w.start("c")
	w.do(genesystest.Act{Do: "fail_next_call", Call: "members", Status: http.StatusServiceUnavailable}, says("c", "Hi"))
	w.host.AwaitAll("c", func(events []*sdk.Event) bool {
		lines := told(events)
		return slices.Contains(lines, "Ada joined") && slices.Contains(lines, "Hi")
	})
	for _, e := range w.host.Events("c") {
		if m, ok := e.Payload.(sdk.MessageToUser); ok && m.AgentID == "" {
			t.Errorf("nobody said %v", m.Parts)
		}
	}
}

// TestSendsThatArePutOff has the desk ask to wait.
func TestSendsThatArePutOff(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		w.start("c")
		w.do(genesystest.Act{Do: "rate_limit", Call: "send", RetryAfter: 1})
		began := time.Now()
		w.mustSend("c", "m1", "patience")
		if waited := time.Since(began); waited < time.Second {
			t.Errorf("waited %s only", waited)
		}
		w.do(genesystest.Act{Do: "rate_limit", Call: "send", RetryAfter: 60})
		err := w.send("c", "m2", "later", 1)
		if f := (*sdk.Failure)(nil); !errors.As(err, &f) || f.Kind != sdk.Retry || f.RetryAfter != time.Minute {
			t.Errorf("%v", err)
		}
		if err := w.send("c", "m2", "later", 2); err != nil {
			t.Error(err)
		}
		w.heard("c", "Hello", "patience", "later")
	})
}

// TestTwoASecond has more messages sent than the vendor takes, which never puts
// one off.
func TestTwoASecond(t *testing.T) {
	w := newWorld(t, "webmessaging", genesystest.Options{})
	w.start("c")
	want := []string{"Hello"}
	for i := range 5 {
		want = append(want, fmt.Sprint("message ", i))
		w.mustSend("c", fmt.Sprint(i), want[i+1])
	}
	w.heard("c", want...)
}

func TestAStartThatIsTriedAgain(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		// The opening message arrives, and the process ends before it learns of it.
		w.do(genesystest.Act{Do: "lose_answer", Call: "send"})
		ctx, cancel := context.WithCancel(t.Context())
		started := make(chan struct{})
		go func() {
			defer close(started)
			_, _ = w.desk.StartChat(ctx, &sdk.StartChatRequest{ChatID: "c", Attempt: 1, Text: "Hello"})
		}()
		for {
			if lines, err := w.simulator.Heard("c"); err == nil && len(lines) > 0 {
				break
			}
		}
		cancel()
		<-started
		crash(w.desk)
		state := newHostFrom(t, w)
		if state == nil {
			t.Fatal("no state was saved before the first frame")
		}
		if err := w.startWith(&sdk.StartChatRequest{ChatID: "c", Attempt: 2, Text: "Hello", State: state}); err != nil {
			t.Fatal(err)
		}
		w.heard("c", "Hello")
		w.do(says("c", "Hi"))
		w.tells("c", "Ada joined", "Hi")
	})
}

// TestAStartWithoutASocket has a start fail between its first state and its socket.
func TestAStartWithoutASocket(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		w.do(genesystest.Act{Do: "fail_next_call", Call: "connect", Status: http.StatusServiceUnavailable})
		if err := w.startWith(&sdk.StartChatRequest{ChatID: "c", Attempt: 1, Text: "Hello"}); kind(err) != sdk.Retry {
			t.Fatalf("%v", err)
		}
		if err := w.startWith(&sdk.StartChatRequest{ChatID: "c", Attempt: 2, Text: "Hello", State: w.host.State("c")}); err != nil {
			t.Fatal(err)
		}
		w.heard("c", "Hello")
		w.do(says("c", "Hi"))
		w.tells("c", "Ada joined", "Hi")
	})
}

func TestEnds(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		for _, act := range []string{"agent_ends", "expire", "read_only"} {
			if act == "read_only" && w.config["mode"] == "webchat" {
				continue
			}
			w.start(act)
			w.do(says(act, "Goodbye"), genesystest.Act{Do: act, ChatID: act})
			want := []string{"Goodbye", "ended"}
			if w.config["mode"] == "webchat" {
				want = []string{"Goodbye", "left", "ended"}
			}
			w.tells(act, want...)
			err := w.desk.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: act, Attempt: 1, State: w.host.State(act)})
			if k := kind(err); err != nil && k != sdk.ChatOver && k != sdk.ChatUnknown {
				t.Errorf("%s: EndChat afterwards: %v", act, err)
			}
		}
		// The last words of a conversation that ended while nobody listened.
		w.start("c")
		w.do(says("c", "Hi"))
		w.tells("c", "Hi")
		crash(w.desk)
		w.do(says("c", "Last words"), genesystest.Act{Do: "agent_ends", ChatID: "c"})
		state := newHostFrom(t, w)
		err := w.desk.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c", Attempt: 1, State: state})
		if err != nil {
			t.Fatal(err)
		}
		w.host.AwaitAll("c", func(events []*sdk.Event) bool {
			lines := told(events)
			return len(lines) >= 2 && lines[0] == "Last words" && lines[len(lines)-1] == "ended"
		})
	})
}

func TestTheUserEnds(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		w.start("here")
		w.start("elsewhere")
		crash(w.desk)
		state := map[string]*sdk.ResumeState{"here": w.host.State("here"), "elsewhere": w.host.State("elsewhere")}
		w.desk = w.process()
		if err := w.desk.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "here", Attempt: 1, State: state["here"]}); err != nil {
			t.Fatal(err)
		}
		for _, chat := range []string{"here", "elsewhere"} {
			for attempt := range 2 {
				err := w.desk.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: chat, Attempt: attempt + 1, State: state[chat], ByUser: true})
				if k := kind(err); err != nil && (attempt == 0 || k != sdk.ChatOver && k != sdk.ChatUnknown) {
					t.Errorf("%s, attempt %d: %v", chat, attempt+1, err)
				}
			}
			if err := w.simulator.Do(says(chat, "Hello?")); err == nil {
				t.Errorf("%s goes on at the desk", chat)
			}
			if lines := told(w.host.Events(chat)); slices.Contains(lines, "ended") {
				t.Errorf("the host is told of the end that it asked for: %q", lines)
			}
		}
	})
}

// TestTheUserEndsWhileTheAgentWrites has the host refuse what the agent writes before
// it asks for the end, by the process that serves the chat and by the next one.
func TestTheUserEndsWhileTheAgentWrites(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		for _, chat := range []string{"here", "elsewhere"} {
			w.start(chat)
			w.do(says(chat, "Hi"))
			w.tells(chat, "Ada joined", "Hi")
			state := w.host.State(chat)
			w.host.Refuse(chat, sdk.RefusedChatOver)
			if chat == "elsewhere" {
				crash(w.desk)
				w.desk = w.process()
			}
			w.do(says(chat, "Are you there?"))
			if chat == "here" {
				for refused := false; !refused; {
					m, ok := w.host.Await(chat).Payload.(sdk.MessageToUser)
					refused = ok && m.Parts[0] == sdk.Text("Are you there?")
				}
			}
			if err := w.desk.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: chat, Attempt: 1, State: state, ByUser: true}); err != nil {
				t.Errorf("%s: %v", chat, err)
			}
			if err := w.simulator.Do(says(chat, "Hello?")); err == nil {
				t.Errorf("%s goes on at the desk", chat)
			}
		}
	})
}

// TestDeadConnection has a connection that says nothing any more.
func TestDeadConnection(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		crash(w.desk)
		w.desk = adapter.New(w.host)
		adapter.SetPings(w.desk, 50*time.Millisecond, time.Second)
		w.configure(w.desk)
		w.start("c")
		w.do(says("c", "1"))
		w.tells("c", "1")
		w.do(genesystest.Act{Do: "lose_socket", ChatID: "c"}, says("c", "2"))
		w.tells("c", "2")
	})
}

func TestQuickRepliesAndFiles(t *testing.T) {
	w := newWorld(t, "webmessaging", genesystest.Options{})
	w.start("c")
	w.do(
		genesystest.Act{Do: "quick_replies", ChatID: "c", Text: "Which?", Replies: []string{"This", "That"}},
		genesystest.Act{Do: "attachment", ChatID: "c", Text: "x", Name: "notes.txt"},
	)
	w.host.AwaitAll("c", func(events []*sdk.Event) bool {
		var parts []sdk.Part
		for _, e := range events {
			if m, ok := e.Payload.(sdk.MessageToUser); ok {
				parts = append(parts, m.Parts...)
			}
		}
		if len(parts) < 2 {
			return false
		}
		want := sdk.QuickReplies{Text: "Which?", Replies: []sdk.QuickReply{{Label: "This", Value: "This"}, {Label: "That", Value: "That"}}}
		if got, ok := parts[0].(sdk.QuickReplies); !ok || got.Text != want.Text || !slices.Equal(got.Replies, want.Replies) {
			t.Errorf("quick replies %+v", parts[0])
		}
		if f, ok := parts[1].(sdk.File); !ok || f.Name != "notes.txt" || f.Size != 1 || f.URL == "" {
			t.Errorf("a file %+v", parts[1])
		}
		return true
	})
}

func TestQuiesce(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		w.start("c")
		w.do(says("c", "1"))
		resp, err := w.desk.QuiesceChat(t.Context(), &sdk.QuiesceChatRequest{ChatID: "c"})
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.State.Data) > 2048 {
			t.Errorf("a state of %d bytes", len(resp.State.Data))
		}
		if adapter.Links(w.desk) != 0 {
			t.Error("the chat is still connected")
		}
		w.do(says("c", "2"))
		// It may be taken back.
		if err := w.desk.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c", Attempt: 1, State: resp.State}); err != nil {
			t.Fatal(err)
		}
		w.tells("c", "Ada joined", "1", "2")

		release := w.host.Hold()
		w.do(says("c", "3"))
		for {
			if m, ok := w.host.Await("c").Payload.(sdk.MessageToUser); ok && m.Parts[0] == sdk.Text("3") {
				break
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := w.desk.QuiesceChat(ctx, &sdk.QuiesceChatRequest{ChatID: "c"}); kind(err) != sdk.Retry {
			t.Errorf("with events that the host has not taken: %v", err)
		}
		release()
		w.do(says("c", "4"))
		w.tells("c", "2", "3", "4")
	})
}

// TestASlowHost has more said than is kept for a host that is slow.
func TestASlowHost(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		w.start("c")
		release := w.host.Hold()
		var want []string
		for i := range 200 {
			want = append(want, fmt.Sprint("message ", i))
			w.do(says("c", want[i]))
		}
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for adapter.Links(w.desk) > 0 { // what is more than is kept is left at the vendor
			<-tick.C
		}
		release()
		w.tells("c", append([]string{"Ada joined"}, want...)...)
	})
}

func TestAvailability(t *testing.T) {
	ask := func(t *testing.T, w *world) *sdk.AvailabilityResponse {
		t.Helper()
		a, err := w.process().AreAnyAgentsOnline(t.Context(), &sdk.AvailabilityRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	inBothModes(t, func(t *testing.T, w *world) {
		if a := ask(t, w); a.Online != sdk.OnlineYes || a.WaitMinutes == nil || *a.WaitMinutes != 0 {
			t.Errorf("with agents: %+v", a)
		}
		w.start("c") // waits
		if a := ask(t, w); a.WaitMinutes == nil || *a.WaitMinutes != 1 {
			t.Errorf("with one waiting: %+v", a)
		}
		w.do(genesystest.Act{Do: "agents_on_queue", N: 0})
		if a := ask(t, w); a.Online != sdk.OnlineNo {
			t.Errorf("without agents: %+v", a)
		}
		w.do(genesystest.Act{Do: "expire_tokens"})
		if a := ask(t, w); a.Online != sdk.OnlineNo {
			t.Errorf("with a new token: %+v", a)
		}
		delete(w.config, "oauth")
		delete(w.config, "queue_id")
		if a := ask(t, w); a.Online != sdk.OnlineUnknown {
			t.Errorf("without credentials: %+v", a)
		}
	})
	w := newWorld(t, "webmessaging", genesystest.Options{Inactive: true})
	if a := ask(t, w); a.Online != sdk.OnlineNo {
		t.Errorf("at an inactive deployment: %+v", a)
	}
}

func TestAWaitingUserIsTold(t *testing.T) {
	w := newWorld(t, "webmessaging", genesystest.Options{})
	w.start("c")
	w.host.AwaitAll("c", func(events []*sdk.Event) bool {
		return slices.ContainsFunc(events, func(e *sdk.Event) bool {
			a, ok := e.Payload.(sdk.AvailabilityChanged)
			return ok && *a.WaitMinutes == 1
		})
	})
}

// signIn returns the token of a signed-in user, as a page would get it.
func (w *world) signIn() string {
	w.t.Helper()
	o, base := w.simulator.Options(), w.config["api_url"].(string)
	post := func(path string, auth func(*http.Request), body string) map[string]any {
		r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, base+path, strings.NewReader(body))
		if err != nil {
			w.t.Fatal(err)
		}
		auth(r)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			w.t.Fatal(err)
		}
		defer resp.Body.Close()
		var answer map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			w.t.Fatal(err)
		}
		return answer
	}
	granted := post("/oauth/token", func(r *http.Request) { r.SetBasicAuth(o.ClientID, o.ClientSecret) }, "grant_type=client_credentials")
	signed := post("/api/v2/signeddata", func(r *http.Request) {
		r.Header.Set("Authorization", fmt.Sprint("Bearer ", granted["access_token"]))
	}, `{"name":"Ann"}`)
	return fmt.Sprint(signed["jwt"])
}

func TestSignedInUsers(t *testing.T) {
	for _, mode := range modes {
		w := newWorld(t, mode, genesystest.Options{RequireAuth: true})
		if err := w.startWith(&sdk.StartChatRequest{ChatID: "guest", Attempt: 1}); kind(err) != sdk.Invalid || !strings.Contains(err.Error(), "sign_in") {
			t.Errorf("%s: a guest: %v", mode, err)
		}
		token := w.signIn()
		if err := w.startWith(&sdk.StartChatRequest{ChatID: "c", Attempt: 1, Text: "Hello", SignInToken: token}); err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		w.do(genesystest.Act{Do: "cut", ChatID: "c"}, says("c", "Hi"))
		w.tells("c", "Ada joined", "Hi")
		if state := string(w.host.State("c").Data); strings.Contains(state, token) {
			t.Errorf("%s: the sign-in token is in the state", mode)
		}
		_, err := w.desk.QuiesceChat(t.Context(), &sdk.QuiesceChatRequest{ChatID: "c"})
		if refused := kind(err) == sdk.Refused; refused != (mode == "webmessaging") {
			t.Errorf("%s: quiescing: %v", mode, err)
		}
	}
}

func TestUpdateState(t *testing.T) {
	inBothModes(t, func(t *testing.T, w *world) {
		w.start("c")
		now := sdk.UserContext{User: sdk.User{Name: "Ann Other"}, Locale: "de"}
		for range 2 {
			if err := w.desk.UpdateState(t.Context(), &sdk.UpdateStateRequest{ChatID: "c", Context: now}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.desk.UpdateState(t.Context(), &sdk.UpdateStateRequest{ChatID: "none", Context: now}); kind(err) != sdk.ChatUnknown {
			t.Errorf("%v", err)
		}
	})
}

func TestConfigureNamesWhatIsWrong(t *testing.T) {
	for _, mode := range modes {
		w := newWorld(t, mode, genesystest.Options{})
		for name, c := range map[string]struct {
			change map[string]any
			kind   sdk.FailureKind
			want   string
		}{
			"a key":        {map[string]any{"colour": "red"}, sdk.Invalid, `"colour"`},
			"mode":         {map[string]any{"mode": "fax"}, sdk.Invalid, "mode: "},
			"no region":    {map[string]any{"api_url": ""}, sdk.Invalid, "region: "},
			"no queue id":  {map[string]any{"queue_id": ""}, sdk.Invalid, "oauth and queue_id"},
			"address":      {map[string]any{"api_url": "http://"}, sdk.Invalid, "api_url: "},
			"proxy":        {map[string]any{"proxy": "proxy"}, sdk.Invalid, "proxy: "},
			"time":         {map[string]any{"timeouts": map[string]any{"answer": "soon"}}, sdk.Invalid, "soon"},
			"client":       {map[string]any{"oauth": map[string]any{"client_id": "x", "client_secret": "hidden"}}, sdk.Invalid, "oauth.client_id, oauth.client_secret"},
			"queue id":     {map[string]any{"queue_id": "none"}, sdk.Invalid, "queue_id: "},
			"nobody there": {map[string]any{"api_url": "http://127.0.0.1:1"}, sdk.Retry, "127.0.0.1:1"},
		} {
			config := maps.Clone(w.config)
			maps.Copy(config, c.change)
			d := adapter.New(w.host)
			err := configure(t, d, config)
			crash(d)
			if err == nil || kind(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %s: %v", mode, name, err)
			}
			if err != nil && strings.Contains(err.Error(), "hidden") {
				t.Errorf("a secret is told: %v", err)
			}
		}
	}
	for _, c := range []struct{ mode, key string }{
		{"webmessaging", "deployment_id"}, {"webchat", "deployment_id"}, {"webchat", "organization_id"}, {"webchat", "queue"}, {"webchat", "sign_in"},
	} {
		w := newWorld(t, c.mode, genesystest.Options{RequireAuth: c.key == "sign_in"})
		if c.key == "sign_in" {
			w.config["sign_in"] = false
		} else {
			w.config[c.key] = "none"
		}
		d := adapter.New(w.host)
		if err := configure(t, d, w.config); kind(err) != sdk.Invalid || !strings.Contains(err.Error(), c.key) {
			t.Errorf("%s, a wrong %s: %v", c.mode, c.key, err)
		}
		crash(d)
	}
}

// TestARegionThatDoesNotExist is a mistake in the configuration, and not the vendor
// being away.
func TestARegionThatDoesNotExist(t *testing.T) {
	resolver := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = resolver })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: nameServer(t)}
	for _, mode := range modes {
		host := desktest.NewHost(t)
		d := adapter.New(host)
		err := configure(t, d, map[string]any{
			"mode": mode, "region": "mypurecloud.example", "deployment_id": "d", "organization_id": "o", "queue": "q",
		})
		if kind(err) != sdk.Invalid || !strings.Contains(err.Error(), "region") || !strings.Contains(err.Error(), ".mypurecloud.example") {
			t.Errorf("%s: %v", mode, err)
		}
		crash(d)
	}
}

// nameServer is the way to a name server on loopback that knows of no name.
func nameServer(t *testing.T) func(ctx context.Context, network, address string) (net.Conn, error) {
	server, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		message := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(message)
			if err != nil {
				return
			}
			message[2], message[3] = message[2]|0x80, 3 // an answer: there is no such name
			message[10], message[11] = 0, 0             // without the question's extension
			_, _ = server.WriteTo(message[:n], from)
		}
	}()
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}
}

func TestStartThatCannotWork(t *testing.T) {
	w := newWorld(t, "webmessaging", genesystest.Options{Origins: []string{"https://www.example.com"}})
	if err := w.startWith(&sdk.StartChatRequest{ChatID: "c", Attempt: 1}); kind(err) != sdk.Invalid || !strings.Contains(err.Error(), "origin: ") {
		t.Errorf("a wrong origin: %v", err)
	}
	w.config["origin"] = "https://www.example.com"
	w.desk = w.process()
	w.start("c")
}

// TestAMemberWhomTheVendorDoesNotTellOf has one answer about the agent never come.
func TestAMemberWhomTheVendorDoesNotTellOf(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	w := newWorldBehind(t, "webchat", genesystest.Options{}, func(simulator http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/members/") && asked.Add(1) == 1 {
				<-r.Context().Done()
				return
			}
			simulator.ServeHTTP(rw, r)
		})
	})
	w.config["timeouts"] = map[string]any{"answer": "5s"} // which all other calls keep on any machine
	w.desk = w.process()
	w.start("c")
	w.do(says("c", "Hello"))
	w.tells("c", "Ada joined", "Hello")
}

// TestAnAgentWhoLeavesWhileTheLinkIsMade has that happen as soon as the vendor has
// told who is there.
func TestAnAgentWhoLeavesWhileTheLinkIsMade(t *testing.T) {
	t.Parallel()
	var leaves atomic.Bool
	var w *world
	w = newWorldBehind(t, "webchat", genesystest.Options{}, func(simulator http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			simulator.ServeHTTP(rw, r)
			if strings.HasSuffix(r.URL.Path, "/members") && leaves.CompareAndSwap(true, false) {
				w.do(genesystest.Act{Do: "agent_leaves", ChatID: "c"})
			}
		})
	})
	w.start("c")
	w.do(says("c", "Hello"))
	w.tells("c", "Ada joined", "Hello")
	leaves.Store(true)
	w.do(genesystest.Act{Do: "cut", ChatID: "c"})
	w.tells("c", "Ada joined", "Hello", "left")
}

// TestNotFoundIsNotBelieved has what is not the vendor answer for it, and the vendor
// not find the conversation once.
func TestNotFoundIsNotBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		body    string
		passing bool
	}{
		"a proxy, for a while": {body: "<html>default backend</html>", passing: true},
		"the vendor, once":     {body: `{"status": 404, "code": "not.found"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var astray atomic.Int64
			w := newWorldBehind(t, "webchat", genesystest.Options{}, func(simulator http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if astray.Add(-1) >= 0 {
						rw.WriteHeader(http.StatusNotFound)
						_, _ = rw.Write([]byte(c.body))
						return
					}
					simulator.ServeHTTP(rw, r)
				})
			})
			w.start("c")
			w.do(says("c", "Hello"))
			w.tells("c", "Ada joined", "Hello")

			astray.Store(1)
			err := w.send("c", "m1", "Hi", 1)
			if c.passing {
				if kind(err) != sdk.Retry {
					t.Errorf("the message: %v", err)
				}
				err = w.send("c", "m1", "Hi", 2)
			}
			if err != nil {
				t.Errorf("the message: %v", err)
			}
			w.heard("c", "Hello", "Hi")

			astray.Store(2) // the stream, who is there
			w.do(genesystest.Act{Do: "cut", ChatID: "c"}, says("c", "Anything else?"))
			w.host.AwaitAll("c", func(events []*sdk.Event) bool { return slices.Contains(told(events), "Anything else?") })
			if lines := told(w.host.Events("c")); slices.Contains(lines, "ended") {
				t.Errorf("the host was told %q", lines)
			}

			astray.Store(1)
			err = w.desk.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "c", Attempt: 1})
			if c.passing {
				if kind(err) != sdk.Retry {
					t.Errorf("the end: %v", err)
				}
				err = w.desk.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "c", Attempt: 2})
			}
			if err != nil || w.simulator.Do(says("c", "Hello?")) == nil {
				t.Errorf("the end: %v, and the conversation may be open", err)
			}
		})
	}
}
