package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) { os.Exit(Main(m, "./host/internal/desk/testdata/fault")) }

// expect makes a call and expects a status.
func expect(t *testing.T, p *Page, status int, method, path string, body any) Answer {
	t.Helper()
	answer := p.Call(method, path, body)
	if answer.Status != status {
		t.Fatalf("%s %s answered %d %v, want %d", method, path, answer.Status, answer.Body, status)
	}
	return answer
}

func joined(name string) func(Entry) bool {
	return func(e Entry) bool { return e.Type == "agent_joined" && e.Agent != nil && e.Agent.Nickname == name }
}

// hostThatAwaits is a host of a desk that tells of each message what became of it,
// and not after a while that it has been accepted.
func hostThatAwaits(t *testing.T, desk *MockDesk) *Host {
	t.Helper()
	settings := desk.Settings()
	settings["limits"] = Unlimited(map[string]any{"send_wait": (Patience / 2).String()})
	h := NewHost(t, settings)
	h.Start()
	return h
}

// TestEveryCallAndEvent drives the seven calls of a widget to a desk, and every
// event of a desk to a page.
func TestEveryCallAndEvent(t *testing.T) {
	desk := StartDesk(t)
	h := hostThatAwaits(t, desk)
	p := h.Open(map[string]any{"user": map[string]any{"id": "u1", "name": "Ann"}, "locale": "en-GB"})

	if answer := expect(t, p, http.StatusOK, http.MethodGet, "/availability", nil); answer.Body["online"] != true {
		t.Errorf("availability is %v", answer.Body)
	}

	chat := p.Start("c1")
	p.Await("chat_requested", Of("chat_requested"))
	p.Await("chat_started", Of("chat_started"))
	p.Await("Ada", joined("Ada"))

	expect(t, p, http.StatusNoContent, http.MethodPost, "/typing", map[string]any{"typing": true})
	desk.Await("that the user types", chat, func(c Console) bool { return c.Typing })

	if status := p.Send("m1", "Hello"); status != "delivered" {
		t.Errorf("the message is %q", status)
	}
	p.Await("the user's message", func(e Entry) bool { return e.Type == "message" && e.From == "user" && e.ID == "m1" })
	p.Await("typing", func(e Entry) bool { return e.Type == "agent_typing" && e.Typing })
	p.Await("no typing", func(e Entry) bool { return e.Type == "agent_typing" && !e.Typing })
	p.Await("the answer", AgentSays("You said: Hello"))

	expect(t, p, http.StatusNoContent, http.MethodPost, "/read", nil)
	desk.Await("that the user has read", chat, func(c Console) bool { return c.UserRead > 0 })

	expect(t, p, http.StatusNoContent, http.MethodPatch, "", map[string]any{"user": map[string]any{"id": "u1", "name": "Ann Other"}})
	p.Await("state_updated", Of("state_updated"))
	desk.Await("the user's new name", chat, func(c Console) bool { return c.Name == "Ann Other" })

	for i, test := range []struct {
		say   string
		shown []func(Entry) bool
	}{
		{"/image", []func(Entry) bool{AgentSays("Here is a picture.")}},
		{"/quick", []func(Entry) bool{func(e Entry) bool { return e.Type == "message" && e.From == "agent" }}},
		{"/read", []func(Entry) bool{Of("agent_read")}},
		{"/capabilities", []func(Entry) bool{Of("capabilities")}},
		{"/transfer", []func(Entry) bool{Of("transfer_started"), joined("Grace")}},
		{"/leave", []func(Entry) bool{Of("agent_left")}},
		{"/join", []func(Entry) bool{Of("agent_joined")}},
		{"/error", []func(Entry) bool{Of("error"), Of("error")}},
		{"/fail", []func(Entry) bool{func(e Entry) bool { return e.Type == "message_status" && e.Status == "failed" }}},
	} {
		p.Send(fmt.Sprintf("command-%d", i), test.say)
		for _, match := range test.shown {
			p.Await("what follows "+test.say, match)
		}
	}

	expect(t, p, http.StatusNoContent, http.MethodDelete, "/chat", nil)
	p.Await("the end", func(e Entry) bool { return e.Type == "chat_ended" && e.By == "user" })
	desk.Await("the end", chat, func(c Console) bool { return c.State == "ended" })

	p.Start("c2")
	p.Await("Ada", joined("Ada"))
	p.Send("m2", "/end")
	p.Await("the agent's end", func(e Entry) bool { return e.Type == "chat_ended" && e.By == "agent" })

	p.Start("c3")
	p.Await("Ada", joined("Ada"))
	p.Send("m3", "/noagent")
	p.Await("the trouble", func(e Entry) bool { return e.Type == "error" && e.Kind == "connecting" })
	p.Await("the desk's end", Of("chat_ended"))

	if chats := h.Desk("support").Chats; chats != 0 {
		t.Errorf("%d chats are open", chats)
	}
	h.Stop()
}

// talk sends messages, and awaits the answer to each before the next.
func talk(p *Page, from, to int) error {
	for i := from; i < to; i++ {
		text := fmt.Sprintf("message %d", i)
		if _, err := p.send(fmt.Sprintf("m%d", i), text); err != nil {
			return err
		}
		if _, err := p.await(AgentSays("You said: " + text)); err != nil {
			return fmt.Errorf("awaiting the answer to %s: %w; the page got\n%s", text, err, p.story())
		}
	}
	return nil
}

// checkTalk holds that page and desk have each message once and in order.
func checkTalk(p *Page, desk *MockDesk, chat string, messages int) error {
	var said, answered []string
	for i := range messages {
		said = append(said, fmt.Sprintf("message %d", i))
		answered = append(answered, fmt.Sprintf("You said: message %d", i))
	}
	var errs []error
	if got := p.AgentTexts(); !slices.Equal(got, answered) {
		errs = append(errs, fmt.Errorf("page %s has %q", p.SessionID, got))
	}
	if got := desk.UserTexts(chat); !slices.Equal(got, said) {
		errs = append(errs, fmt.Errorf("the desk has %q of page %s", got, p.SessionID))
	}
	return errors.Join(errs...)
}

// TestPluginKilled kills the plugin between a message and its answer.
func TestPluginKilled(t *testing.T) {
	desk := StartDesk(t)
	h := hostThatAwaits(t, desk)
	p := h.Open(nil)
	chat := p.Start("c1")
	if err := talk(p, 0, 2); err != nil {
		t.Fatal(err)
	}
	for i := 2; i < 5; i++ {
		// Sent, and the plugin killed before the agent has typed the answer.
		if status := p.Send(fmt.Sprintf("m%d", i), fmt.Sprintf("message %d", i)); status != "delivered" {
			t.Fatalf("message %d is %s", i, status)
		}
		h.KillPlugin("support")
		p.AwaitAll("desk and answer", Of("desk_away"), Of("desk_back"), AgentSays(fmt.Sprintf("You said: message %d", i)))
	}
	if err := talk(p, 5, 7); err != nil {
		t.Fatal(err)
	}
	if err := checkTalk(p, desk, chat, 7); err != nil {
		t.Error(err)
	}
	if d := h.Desk("support"); d.Restarts != 3 || d.State != "ready" {
		t.Errorf("the desk is %+v", d)
	}
}

// TestHostKilled kills the host between a message and its answer, with the page open.
func TestHostKilled(t *testing.T) {
	desk := StartDesk(t)
	h := NewHost(t, desk.Settings())
	h.Start()
	p := h.Open(nil)
	chat := p.Start("c1")
	if err := talk(p, 0, 2); err != nil {
		t.Fatal(err)
	}
	for i := 2; i < 5; i++ {
		p.Send(fmt.Sprintf("m%d", i), fmt.Sprintf("message %d", i))
		h.Kill()
		h.Start()
		p.Await("the answer", AgentSays(fmt.Sprintf("You said: message %d", i)))
	}
	if err := talk(p, 5, 7); err != nil {
		t.Fatal(err)
	}
	if err := checkTalk(p, desk, chat, 7); err != nil {
		t.Error(err)
	}
}

// TestHostStopped stops and starts the host as an operator does.
func TestHostStopped(t *testing.T) {
	desk := StartDesk(t)
	h := NewHost(t, desk.Settings())
	h.Start()
	p := h.Open(nil)
	chat := p.Start("c1")
	for i := range 3 {
		if err := talk(p, 2*i, 2*i+1); err != nil {
			t.Fatal(err)
		}
		p.Send(fmt.Sprintf("m%d", 2*i+1), fmt.Sprintf("message %d", 2*i+1))
		h.Stop()
		h.Start()
		p.Await("the answer", AgentSays(fmt.Sprintf("You said: message %d", 2*i+1)))
	}
	if err := checkTalk(p, desk, chat, 6); err != nil {
		t.Error(err)
	}
}

// TestKilledUnderLoad kills plugin and host in turn while many talk.
func TestKilledUnderLoad(t *testing.T) {
	const pages, messages = 40, 12
	desk := StartDesk(t)
	h := NewHost(t, desk.Settings())
	h.Start()
	run(t, h, desk, pages, messages, func(round func()) {
		for i := range 6 {
			round()
			if i%2 == 0 {
				h.KillPlugin("support")
			} else {
				h.Kill()
				h.Start()
			}
		}
	})
}

// TestThousandChats has a thousand users talk at once over one plugin.
func TestThousandChats(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	desk := StartDesk(t)
	h := NewHost(t, desk.Settings())
	h.Start()
	run(t, h, desk, 1000, 10, func(func()) {})
}

// run has pages talk, all at once. Meanwhile it calls disturb, with a function
// that awaits until about an eighth more of all messages are answered.
func run(t *testing.T, h *Host, desk *MockDesk, pages, messages int, disturb func(round func())) {
	t.Helper()
	progress := make(chan struct{}, pages*messages)
	var all errgroup.Group
	open := make([]*Page, pages)
	for i := range open {
		open[i] = h.Open(nil)
	}
	for _, p := range open {
		all.Go(func() error {
			chat, err := p.start("c1")
			if err != nil {
				return err
			}
			for m := range messages {
				if err := talk(p, m, m+1); err != nil {
					return err
				}
				progress <- struct{}{}
			}
			return checkTalk(p, desk, chat, messages)
		})
	}
	done := make(chan error, 1)
	go func() { done <- all.Wait() }()
	failed := false
	disturb(func() {
		for range pages * messages / 8 {
			select {
			case <-progress:
			case err := <-done:
				done <- err
				failed = true
				return
			}
		}
	})
	if err := <-done; err != nil {
		t.Error(err)
	} else if failed {
		t.Error("the talk was over before the last disturbance")
	}
}
