package twiliotest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// happened returns the latest webhooks, each by its event and whom it is about.
func (a *account) happened(before int) string {
	a.t.Helper()
	var all []string
	for _, p := range a.webhooks()[before:] {
		who, _, _ := strings.Cut(p.form.Get("Identity")+p.form.Get("Author"), "_")
		all = append(all, strings.TrimPrefix(p.event(), "on")+" "+who+p.form.Get("StateTo"))
	}
	return strings.Join(all, ", ")
}

// TestAgents plays what agents do besides talking.
func TestAgents(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, c := range map[string]struct {
		play func(a *account, path, customer string) error
		want string
	}{
		"transfer": {func(a *account, _, _ string) error { return a.Transfer("c1", false) },
			"ParticipantRemoved ada, ParticipantAdded grace"},
		"transfer that joins first": {func(a *account, _, _ string) error { return a.Transfer("c1", true) },
			"ParticipantAdded grace, ParticipantRemoved ada"},
		"leave": {func(a *account, path, customer string) error {
			if err := a.AgentLeaves("c1"); err != nil {
				return err
			}
			return a.AgentLeaves("c2")
		}, "ParticipantRemoved ada"},
		"park and return": {func(a *account, path, customer string) error {
			if err := a.Park("c1"); err != nil {
				return err
			}
			if err := a.AgentJoins(ctx, "c1"); err == nil {
				return errors.New("an agent joins a parked conversation")
			}
			a.say(path, customer, "Still there?")
			return a.AgentJoins(ctx, "c1")
		}, "ParticipantRemoved ada, ConversationStateUpdated inactive, MessageAdded CUSTOMER, ConversationStateUpdated active, ParticipantAdded grace"},
		"supervisor": {func(a *account, _, _ string) error { return a.SupervisorJoins("c1") }, "ParticipantAdded edith"},
		"bot":        {func(a *account, _, _ string) error { return a.BotSays("c1", "beep") }, "ParticipantAdded helper-bot, MessageAdded helper-bot"},
		"system":     {func(a *account, _, _ string) error { return a.SystemSays("c1", "recorded") }, "MessageAdded system"},
		"reading":    {func(a *account, _, _ string) error { return a.AgentReads("c1") }, "ParticipantUpdated ada"},
		"last words": {func(a *account, _, _ string) error { return a.LastWords("c1", "Goodbye") },
			"ConversationStateUpdated closed, MessageAdded ada"},
		"a silent end": {func(a *account, _, _ string) error {
			a.SetWebhooks(twiliotest.Webhooks{SilentEnds: true})
			return a.AgentEnds(ctx, "c1")
		}, ""},
		"removal": {func(a *account, path, _ string) error {
			err := a.Remove("c1")
			if status, answer := a.call(http.MethodGet, path); status != http.StatusNotFound {
				return fmt.Errorf("it is answered %d %v", status, answer)
			}
			return err
		}, "ConversationRemoved "},
		"a start again": {func(a *account, _, _ string) error {
			a.chat("c1")
			if n := len(a.Conversations("c1")); n != 2 {
				return fmt.Errorf("%d conversations", n)
			}
			return nil
		}, "MessageAdded CUSTOMER"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t, twiliotest.Options{})
			path, customer := a.chat("c1")
			a.must(a.AgentJoins(ctx, "c1"))
			before := len(a.webhooks())
			err := c.play(a, path, customer)
			if name == "leave" {
				if err == nil {
					t.Error("somebody leaves a chat that is not there")
				}
			} else if err != nil {
				t.Fatal(err)
			}
			got := a.happened(before)
			for _, p := range a.posted {
				if id := p.form.Get("Author"); len(id) == 32 {
					got = strings.ReplaceAll(got, id, "CUSTOMER")
				}
			}
			if got != c.want {
				t.Errorf("got %q, expected %q", got, c.want)
			}
		})
	}
}

// TestGreeting has the address's flow speak before an agent is called.
func TestGreeting(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{Greeting: "Somebody will be with you."})
	a.chat("c1")
	all := a.webhooks()
	if got := all[len(all)-1].form; got.Get("Body") != "Somebody will be with you." || got.Has("ParticipantSid") || !strings.HasPrefix(got.Get("Author"), "FW") {
		t.Errorf("the flow says %v", got)
	}
}

// TestScript plays the desk over HTTP.
func TestScript(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	a.chat("c1")
	ctx := t.Context()
	script := desktest.ScriptAt(a.url + "/script")
	a.must(script.AgentJoins(ctx, "c1"))
	a.must(script.AgentSays(ctx, "c1", "Hello"))
	heard, err := script.Heard(ctx, "c1")
	a.must(err)
	if fmt.Sprint(heard) != "[Hello]" {
		t.Errorf("heard %q", heard)
	}
	if err := script.AgentJoins(ctx, "c2"); err == nil {
		t.Error("an agent joins a chat that is not there")
	}
	post := func(what string) int {
		resp, err := http.Post(a.url+"/script", "application/json", bytes.NewReader([]byte(what)))
		a.must(err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		a.must(err)
		if ok := json.Valid(body); ok != (resp.StatusCode == http.StatusOK) {
			t.Errorf("%s is answered %s %q", what, resp.Status, body)
		}
		return resp.StatusCode
	}
	for what, want := range map[string]int{
		`{"do": "transfer", "chat_id": "c1", "text": "join_first"}`: 200,
		`{"do": "agent_reads", "chat_id": "c1"}`:                    200,
		`{"do": "supervisor_joins", "chat_id": "c1"}`:               200,
		`{"do": "bot_says", "chat_id": "c1", "text": "x"}`:          200,
		`{"do": "system_says", "chat_id": "c1", "text": "x"}`:       200,
		`{"do": "hole", "chat_id": "c1", "times": 5}`:               200,
		`{"do": "workers", "times": 0}`:                             200,
		`{"do": "foreign_pages", "text": ""}`:                       200,
		`{"do": "fault", "call": "end", "status": 503}`:             200,
		`{"do": "lose_webhooks", "every": 2}`:                       200,
		`{"do": "double_webhooks"}`:                                 200,
		`{"do": "shuffle_webhooks"}`:                                200,
		`{"do": "late_webhooks", "late_ms": 10}`:                    200,
		`{"do": "forge_webhooks"}`:                                  200,
		`{"do": "silent_ends"}`:                                     200,
		`{"do": "good_webhooks"}`:                                   200,
		`{"do": "park", "chat_id": "c2"}`:                           500,
		`{"do": "agent_leaves", "chat_id": "c2"}`:                   500,
		`{"do": "last_words", "chat_id": "c2"}`:                     500,
		`{"do": "remove", "chat_id": "c2"}`:                         500,
		`{"do": "dance"}`:                                           501,
		`no JSON`:                                                   400,
	} {
		if got := post(what); got != want {
			t.Errorf("%s is answered %d, expected %d", what, got, want)
		}
	}
	resp, err := http.Post(a.url+"/script", "text/plain", strings.NewReader(`{"do": "good_webhooks"}`))
	a.must(err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("what a page of another origin may send is answered %s", resp.Status)
	}
	a.must(script.AgentEnds(ctx, "c1"))
}

// TestPage plays an agent at the console's page.
func TestPage(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	path, customer := a.chat("c1")
	id := path[strings.LastIndex(path, "/")+1:]
	do := func(what string, want int) {
		t.Helper()
		resp, err := http.Post(a.url+"/console/do", "application/json", strings.NewReader(fmt.Sprintf(what, id)))
		a.must(err)
		defer resp.Body.Close()
		if body, _ := io.ReadAll(resp.Body); resp.StatusCode != want {
			t.Errorf("%s is answered %s %s", what, resp.Status, body)
		}
	}
	do(`{"conversation": %q, "do": "join", "agent": "Grace"}`, 204)
	do(`{"conversation": %q, "do": "typing", "agent": "Grace"}`, 204)
	do(`{"conversation": %q, "do": "say", "agent": "Grace", "text": "Hello."}`, 204)
	do(`{"conversation": %q, "do": "transfer", "agent": "Grace", "text": "Barbara"}`, 204)
	do(`{"conversation": %q, "do": "say", "agent": "Nobody", "text": "Hello."}`, 409)
	do(`{"conversation": %q, "do": "leave", "agent": "Grace"}`, 409)
	do(`{"conversation": %q, "do": "system_says", "agent": "Ada"}`, 204)
	a.say(path, customer, "Bye")
	do(`{"conversation": %q, "do": "end", "agent": "Barbara"}`, 204)
	do(`{"conversation": %q, "do": "say", "agent": "Barbara", "text": "Still here."}`, 409)

	resp, err := http.Get(a.url + "/console/state?open=" + id)
	a.must(err)
	defer resp.Body.Close()
	var state struct {
		Open  struct{ Name, State, Preview string }
		Lines []struct{ From, Who, Text string }
	}
	a.must(json.NewDecoder(resp.Body).Decode(&state))
	if state.Open.Name != "Chris" || state.Open.State != "ended" || state.Open.Preview != "Bye" {
		t.Errorf("the page shows %+v", state.Open)
	}
	var lines []string
	for _, l := range state.Lines {
		text, _, _ := strings.Cut(l.Text, ": task")
		lines = append(lines, strings.TrimSpace(l.From+" "+l.Who+" "+text))
	}
	want := "A conversation was opened, Chris joined, customer  Hello, An agent is called, Grace joined, agent Grace Hello., " +
		"An agent is called, Grace left, Barbara joined, system: Hello., customer  Bye, The conversation is closed"
	if got := strings.Join(lines, ", "); got != want {
		t.Errorf("the page has %q, expected %q", got, want)
	}
}
