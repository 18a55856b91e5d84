package adapter_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/adapter"
	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

const (
	// byWebhooks has looks so seldom that a test would not see their result.
	byWebhooks = `"reconcile_ms": 60000`
	byPolling  = `"poll_ms": 20`
	webChats   = `"address_sid": "` + twiliotest.AddressSid + `"`
	routed     = `"interaction": {"workflow_sid": "` + twiliotest.WorkflowSid + `"}`
)

// account is a simulated account, and the host's door for its webhooks.
type account struct {
	*twiliotest.Simulator
	t        testing.TB
	url      string
	webhooks string
	// transport is what desks reach the account by; nil: the network.
	transport http.RoundTripper

	mu    sync.Mutex
	isOff bool
	desk  http.Handler // takes the webhooks
	// calls counts the calls of the API by method and last part of the path.
	calls map[string]int
	// refuse is the next call to be refused; empty: none.
	refuse string
	// first may answer calls in the account's place; nil: nobody does.
	first answerer
}

func newAccount(t testing.TB) *account {
	t.Helper()
	return newAccountWith(t, twiliotest.Options{})
}

func newAccountWith(t testing.TB, o twiliotest.Options) *account {
	t.Helper()
	o.RetryAfter = 10 * time.Millisecond
	a := &account{Simulator: twiliotest.New(o), t: t, calls: map[string]int{}}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := r.Method + " " + r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		a.mu.Lock()
		a.calls[call]++
		refused := call == a.refuse
		if refused {
			a.refuse = ""
		}
		a.mu.Unlock()
		if refused {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		a.ServeHTTP(w, r)
	}))
	door := httptest.NewServer(http.StripPrefix("/webhooks/support", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		desk := a.desk
		a.mu.Unlock()
		desk.ServeHTTP(w, r)
	})))
	a.url, a.webhooks = api.URL, door.URL+"/webhooks/support/"
	t.Cleanup(func() {
		a.Close()
		api.Close()
		door.Close()
	})
	return a
}

// cut has the account not answer at all.
func (a *account) cut(off bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.isOff = off
}

func (a *account) isCut() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.isOff
}

// failAt has the next call of that method and last part of the path refused.
func (a *account) failAt(call string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse = call
}

// newServer starts a server of the test and returns its address.
func newServer(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// called returns how often a call was made so far.
func (a *account) called(call string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[call]
}

func (a *account) config(settings ...string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"account_sid": %q, "auth_token": %q, "workspace_sid": %q, "queue_sid": %q, %s,
		"urls": {"conversations": "%[6]s/conversations", "flex": "%[6]s/flex", "taskrouter": "%[6]s/taskrouter"}}`,
		twiliotest.AccountSid, twiliotest.AuthToken, twiliotest.WorkspaceSid, twiliotest.TaskQueueSid, strings.Join(settings, ", "), a.url))
}

// connect returns a configured desk. It takes the webhooks from now on, unless
// the settings are to poll.
func (a *account) connect(h sdk.Host, settings ...string) *adapter.Desk {
	a.t.Helper()
	d := adapter.New(h)
	adapter.SetTransport(d, a.transport)
	a.t.Cleanup(func() { stop(d) })
	req := &sdk.ConfigureRequest{DeskName: "support", Config: a.config(settings...)}
	polls := slices.Contains(settings, byPolling)
	if !polls {
		req.WebhookBaseURL = a.webhooks
	}
	if err := d.Configure(a.t.Context(), req); err != nil {
		a.t.Fatal(err)
	}
	if !polls {
		a.mu.Lock()
		a.desk = d
		a.mu.Unlock()
	}
	return d
}

// stop ends a desk as a crash does: nobody waits for the host.
func stop(d *adapter.Desk) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = d.Drain(ctx)
}

// play has the simulator do something.
func (a *account) play(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *account) says(chat, text string) {
	a.t.Helper()
	a.play(a.AgentSays(a.t.Context(), chat, text))
}

func (a *account) heard(chat string) []string {
	a.t.Helper()
	texts, err := a.Heard(a.t.Context(), chat)
	a.play(err)
	return texts
}

func begin(t *testing.T, d *adapter.Desk, chat string) *sdk.ResumeState {
	t.Helper()
	resp, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: chat, Attempt: 1, Text: "Help!"})
	if err != nil {
		t.Fatal(err)
	}
	return resp.State
}

func send(t *testing.T, d *adapter.Desk, chat, id, text string) {
	t.Helper()
	if _, err := d.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: chat, MessageID: id, Attempt: 1, Text: text}); err != nil {
		t.Fatal(err)
	}
}

// told writes events down, a line each. Agents are called by their names.
func told(events []*sdk.Event) []string {
	var lines []string
	names := map[string]string{}
	for _, e := range events {
		switch p := e.Payload.(type) {
		case sdk.AgentJoined:
			names[p.Agent.ID] = p.Agent.Nickname
			lines = append(lines, p.Agent.Nickname+" joined")
		case sdk.AgentLeft:
			lines = append(lines, names[p.AgentID]+" left")
		case sdk.MessageToUser:
			name, known := names[p.AgentID]
			if !known {
				name = "desk"
			}
			for _, part := range p.Parts {
				lines = append(lines, fmt.Sprintf("%s: %v", name, part))
			}
		case sdk.ErrorStatus:
			lines = append(lines, map[bool]string{true: "away", false: "back"}[p.Disconnected])
		case sdk.AgentReadMessages:
			lines = append(lines, "read")
		case sdk.AgentEndedChat:
			lines = append(lines, "ended")
		default:
			lines = append(lines, fmt.Sprintf("%T", p))
		}
	}
	return lines
}

// await returns once the host was told so, and nothing else.
func await(t *testing.T, h *desktest.Host, chat string, want ...string) {
	t.Helper()
	var got []string
	defer func() {
		if t.Failed() {
			t.Logf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}()
	h.AwaitAll(chat, func(events []*sdk.Event) bool {
		got = told(events)
		return len(got) >= len(want)
	})
	if !slices.Equal(got, want) {
		t.Fatal("told otherwise")
	}
}

// eachWay runs a test by webhooks and by polling.
func eachWay(t *testing.T, test func(t *testing.T, way string)) {
	for name, way := range map[string]string{"webhooks": byWebhooks, "polling": byPolling} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, way)
		})
	}
}
