package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/adapter"
	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// tries is how often a call is made that fails.
const tries = 20

// works is the account, its API and its door for webhooks, and the desk of the
// moment: a crash puts another in its place.
type works struct {
	*twiliotest.Simulator
	host    *desktest.Host
	api     string
	hooks   string
	setting string

	mu   sync.RWMutex // held for reading by calls, for writing by a crash
	desk *adapter.Desk
	// stream is the desk's.
	stream *stream
	// begun is the state with which each chat was begun.
	begun map[string]*sdk.ResumeState
}

// open opens an account with a desk. Each call of the API is shown to before.
func open(t *testing.T, setting string, before func(*works, *http.Request)) *works {
	t.Helper()
	w := &works{
		Simulator: twiliotest.New(twiliotest.Options{RetryAfter: 5 * time.Millisecond}),
		host:      desktest.NewHost(t), setting: setting, begun: map[string]*sdk.ResumeState{},
	}
	api := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		before(w, r)
		w.ServeHTTP(rw, r)
	}))
	door := httptest.NewServer(http.StripPrefix("/webhooks/support", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.RLock()
		d := w.desk
		w.mu.RUnlock()
		d.ServeHTTP(rw, r)
	})))
	w.api, w.hooks = api.URL, door.URL+"/webhooks/support/"
	w.connect(t)
	t.Cleanup(func() {
		_ = w.desk.Drain(t.Context()) // which has ended: nobody waits for the host
		w.Close()
		api.Close()
		door.Close()
	})
	return w
}

// stream is a desk's way to the host, until the desk is killed.
type stream struct {
	*desktest.Host

	mu  sync.RWMutex // held for reading while an event is taken
	cut bool
}

func (s *stream) Emit(ctx context.Context, ev *sdk.Event) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.cut {
		return sdk.ErrStreamClosed
	}
	return s.Host.Emit(ctx, ev)
}

// connect puts a new desk in place.
func (w *works) connect(t *testing.T) {
	t.Helper()
	config := fmt.Sprintf(`{"account_sid": %q, "auth_token": %q, "workspace_sid": %q, "bots": ["helper-bot"], "reconcile_ms": 150, "poll_ms": 40, %s,
		"urls": {"conversations": "%[5]s/conversations", "flex": "%[5]s/flex", "taskrouter": "%[5]s/taskrouter"}}`,
		twiliotest.AccountSid, twiliotest.AuthToken, twiliotest.WorkspaceSid, w.setting, w.api)
	for try := 1; ; try++ {
		w.stream = &stream{Host: w.host}
		w.desk = adapter.New(w.stream)
		err := w.desk.Configure(t.Context(), &sdk.ConfigureRequest{DeskName: "support", Config: []byte(config), WebhookBaseURL: w.hooks})
		if err == nil {
			return
		}
		if try == tries {
			t.Errorf("the desk is not ready: %v", err)
			return
		}
	}
}

// crash ends the desk as a kill does, and has another resume the chats.
func (w *works) crash(t *testing.T, chats []string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stream.mu.Lock()
	w.stream.cut = true
	w.stream.mu.Unlock()
	now, cancel := context.WithCancel(t.Context())
	cancel()
	_ = w.desk.Drain(now)
	w.connect(t)
	for _, id := range chats {
		state := w.host.State(id)
		if state == nil {
			state = w.begun[id]
		}
		for attempt := 1; ; attempt++ {
			err := w.desk.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: id, Attempt: attempt, State: state})
			if err == nil {
				break
			}
			if attempt == tries {
				t.Errorf("%s is not resumed: %v", id, err)
				break
			}
		}
	}
}

// send sends a message as the host does: again until it is clear what became of it.
func (w *works) send(t *testing.T, chat, id, text string) {
	t.Helper()
	for attempt := 1; attempt <= tries; attempt++ {
		w.mu.RLock()
		_, err := w.desk.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: chat, MessageID: id, Attempt: attempt, Text: text})
		w.mu.RUnlock()
		if err == nil {
			return
		}
	}
	t.Errorf("%s was not sent in %s", id, chat)
}

// troubles are what a call in twenty meets.
var troubles = []twiliotest.Fault{
	{Status: 429, Code: 20429}, {Status: 503, Code: 20503}, {Status: 500}, {Status: 412}, {Status: 502, Done: true}, {Cut: true},
}

// TestChaos has chats go on while calls fail, webhooks are lost, doubled and
// shuffled, agents come and go, and the plugin crashes: both sides have all that
// the other said, once and in order, and the end last.
func TestChaos(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for name, setting := range map[string]string{
		"web chats":    fmt.Sprintf(`"address_sid": %q`, twiliotest.AddressSid),
		"interactions": fmt.Sprintf(`"interaction": {"workflow_sid": %q}`, twiliotest.WorkflowSid),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calm atomic.Bool
			var mu sync.Mutex
			random := rand.New(rand.NewPCG(seed, 0))
			w := open(t, setting, func(w *works, _ *http.Request) {
				mu.Lock()
				which := random.IntN(20 * len(troubles))
				mu.Unlock()
				if which < len(troubles) && !calm.Load() {
					w.Fail(troubles[which])
				}
			})
			w.SetWebhooks(twiliotest.Webhooks{Lose: 2, Double: true, Shuffle: true})

			var chats []string
			for i := range 12 {
				id := fmt.Sprint("chat", i)
				for attempt := 1; w.begun[id] == nil; attempt++ {
					resp, err := w.desk.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: id, Attempt: attempt, Text: "Help!"})
					if err == nil {
						w.begun[id] = resp.State
					} else if attempt == tries {
						t.Fatal(err)
					}
				}
				chats = append(chats, id)
			}
			var users sync.WaitGroup
			said, sent := make([][]string, len(chats)), make([][]string, len(chats))
			for i, id := range chats {
				users.Go(func() {
					random := rand.New(rand.NewPCG(seed, uint64(i)+1))
					for n := range 30 {
						if i == 0 && n%10 == 9 {
							w.crash(t, chats)
						}
						text := fmt.Sprintf("%d of %s", n, id)
						switch random.IntN(12) {
						case 0:
							_ = w.Transfer(id, random.IntN(2) == 0) // there may be nobody who could
						case 1:
							_ = w.Park(id)
						case 2:
							_ = w.SkipIndexes(id, 1+random.IntN(5))
						case 3:
							_ = w.AgentReads(id)
						case 4:
							if w.BotSays(id, "bot "+text) == nil {
								said[i] = append(said[i], "bot "+text)
							}
						case 5, 6, 7, 8:
							if w.AgentSays(t.Context(), id, text) == nil { // nobody is called to a parked one
								said[i] = append(said[i], text)
							}
						default:
							w.send(t, id, fmt.Sprint("m", n), text)
							sent[i] = append(sent[i], text)
						}
					}
					w.send(t, id, "last", "And now?") // calls whom it may need
					sent[i] = append(sent[i], "And now?")
					if err := w.LastWords(id, "Goodbye."); err != nil {
						t.Errorf("%s: %v", id, err)
					}
					said[i] = append(said[i], "Goodbye.")
				})
			}
			users.Wait()
			calm.Store(true)
			for i, id := range chats {
				events := w.host.AwaitAll(id, func(events []*sdk.Event) bool {
					return len(events) > 0 && events[len(events)-1].Payload == sdk.Payload(sdk.AgentEndedChat{})
				})
				var came []string
				present := map[string]bool{}
				for _, e := range events {
					switch p := e.Payload.(type) {
					case sdk.AgentJoined:
						if present[p.Agent.ID] {
							t.Errorf("%s: %s joined twice", id, p.Agent.Nickname)
						}
						present[p.Agent.ID] = true
					case sdk.AgentLeft:
						if !present[p.AgentID] {
							t.Errorf("%s: somebody left who was not there", id)
						}
						delete(present, p.AgentID)
					case sdk.MessageToUser:
						text := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprint(p.Parts[0]), "{"), "}")
						came = append(came, text)
						if !strings.HasPrefix(text, "bot ") && !present[p.AgentID] {
							t.Errorf("%s: %q is of nobody who is there", id, text)
							for _, e := range events {
								t.Logf("%s %s %+v", id, e.ID, e.Payload)
							}
						}
					}
				}
				if !slices.Equal(came, said[i]) {
					t.Errorf("%s: the user was told\n%q\nof what was said\n%q", id, came, said[i])
				}
				heard, err := w.Heard(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(heard[1:], sent[i]) {
					t.Errorf("%s: the agent was told\n%q\nof what was sent\n%q", id, heard[1:], sent[i])
				}
			}
		})
	}
}

// TestLeavesBehindTheLastWords has an agent come, write and hand over while a
// conversation is read: between its people and its messages, and behind them.
func TestLeavesBehindTheLastWords(t *testing.T) {
	t.Parallel()
	var reads atomic.Int32 // of people since the agent came
	w := open(t, fmt.Sprintf(`"address_sid": %q`, twiliotest.AddressSid), func(w *works, r *http.Request) {
		n := reads.Load()
		switch {
		case n == 0:
		case n == 1 && strings.HasSuffix(r.URL.Path, "/Messages"):
			if err := w.AgentSays(r.Context(), "c1", "One."); err != nil {
				t.Error(err)
			}
			reads.Store(2)
		case n == 2 && strings.HasSuffix(r.URL.Path, "/Participants"):
			if err := errors.Join(w.AgentSays(r.Context(), "c1", "Two."), w.Transfer("c1", false)); err != nil {
				t.Error(err)
			}
			reads.Store(3)
		}
	})
	w.SetWebhooks(twiliotest.Webhooks{Lose: 1})
	if _, err := w.desk.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c1", Attempt: 1, Text: "Help!"}); err != nil {
		t.Fatal(err)
	}
	reads.Store(1)
	events := w.host.AwaitAll("c1", func(events []*sdk.Event) bool { return len(events) == 5 })
	var came []string
	for _, e := range events {
		switch p := e.Payload.(type) {
		case sdk.AgentJoined:
			came = append(came, p.Agent.Nickname+" joined")
		case sdk.AgentLeft:
			came = append(came, "left")
		case sdk.MessageToUser:
			came = append(came, fmt.Sprint(p.Parts[0]))
		}
	}
	if got, want := strings.Join(came, ", "), "Ada joined, One., Two., Grace joined, left"; got != want {
		t.Errorf("the user was told %q, expected %q", got, want)
	}
}
