package adapter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/plugins/mock/adapter"
	"github.com/deskhost/deskhost/plugins/mock/mockdesk"
	"github.com/deskhost/deskhost/sdk"
)

// host is a deskhost of a test: it keeps what it acknowledged, and the latest
// state of each chat with it, as the real one does.
type host struct {
	mu      sync.Mutex
	events  map[string][]*sdk.Event
	states  map[string]*sdk.ResumeState
	refuse  map[string]sdk.RefusalCode // by chat
	paused  chan struct{}              // while set, Emit waits for its closing
	changed chan struct{}              // closed at the next event
}

func newHost() *host {
	return &host{
		events:  map[string][]*sdk.Event{},
		states:  map[string]*sdk.ResumeState{},
		refuse:  map[string]sdk.RefusalCode{},
		changed: make(chan struct{}),
	}
}

func (h *host) Logger() hclog.Logger { return hclog.NewNullLogger() }

func (h *host) Emit(ctx context.Context, ev *sdk.Event) error {
	h.mu.Lock()
	paused := h.paused
	h.mu.Unlock()
	if paused != nil {
		select {
		case <-paused:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if code, ok := h.refuse[ev.ChatID]; ok {
		return &sdk.RefusedError{Code: code, Reason: "the test says so"}
	}
	if ev.ID != "" && slices.ContainsFunc(h.events[ev.ChatID], func(e *sdk.Event) bool { return e.ID == ev.ID }) {
		return nil
	}
	h.events[ev.ChatID] = append(h.events[ev.ChatID], ev)
	if ev.State != nil {
		h.states[ev.ChatID] = ev.State
	}
	close(h.changed)
	h.changed = make(chan struct{})
	return nil
}

// await returns once the chat's events fulfil the condition.
func (h *host) await(t *testing.T, chatID string, what string, ok func([]*sdk.Event) bool) []*sdk.Event {
	t.Helper()
	for {
		h.mu.Lock()
		events, changed := slices.Clone(h.events[chatID]), h.changed
		h.mu.Unlock()
		if ok(events) {
			return events
		}
		select {
		case <-changed:
		case <-time.After(30 * time.Second):
			t.Fatalf("no %s; have %s", what, told(events))
		}
	}
}

// awaitLast returns once the chat's last lasting event reads so.
func (h *host) awaitLast(t *testing.T, chatID, want string) {
	t.Helper()
	h.await(t, chatID, want, func(events []*sdk.Event) bool {
		lines := told(events)
		return len(lines) > 0 && lines[len(lines)-1] == want
	})
}

func (h *host) told(chatID string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return told(h.events[chatID])
}

func (h *host) state(chatID string) *sdk.ResumeState {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.states[chatID]
}

// told writes events down, one line each, without passing news.
func told(events []*sdk.Event) []string {
	var lines []string
	for _, e := range events {
		switch p := e.Payload.(type) {
		case sdk.AgentTyping, sdk.AvailabilityChanged:
		case sdk.MessageToUser:
			for _, part := range p.Parts {
				lines = append(lines, fmt.Sprintf("%v", part))
			}
		case sdk.AgentJoined:
			lines = append(lines, p.Agent.Nickname+" joined")
		case sdk.AgentLeft:
			lines = append(lines, p.AgentID+" left")
		case sdk.TransferStarted:
			lines = append(lines, "transfer to "+p.Agent.Nickname)
		case sdk.AgentEndedChat:
			lines = append(lines, "ended: "+p.Reason)
		case sdk.AgentReadMessages:
			lines = append(lines, "read")
		case sdk.CapabilitiesChanged:
			lines = append(lines, fmt.Sprint("files ", p.FileUploadTypes))
		case sdk.ErrorStatus:
			lines = append(lines, fmt.Sprint("trouble ", p.Kind, " ", p.Disconnected, " ", p.MessageID, p.UserMessage))
		default:
			lines = append(lines, fmt.Sprintf("%T", p))
		}
	}
	return lines
}

// wire is a line to a desk that a test can cut.
type wire struct {
	mu     sync.Mutex
	desk   http.Handler
	cut    context.Context //nolint:containedctx // it is the line's life
	sever  context.CancelFunc
	broken bool
}

func newWire(desk http.Handler) *wire {
	w := &wire{desk: desk}
	w.mend(desk)
	return w
}

// mend connects the line to a desk.
func (w *wire) mend(desk http.Handler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.desk, w.broken = desk, false
	w.cut, w.sever = context.WithCancel(context.Background())
}

// breaks cuts what is under way and fails what comes.
func (w *wire) breaks() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = true
	w.sever()
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	desk, cut, broken := w.desk, w.cut, w.broken
	w.mu.Unlock()
	if broken {
		return nil, &net.OpError{Op: "dial", Err: errors.New("the line is cut")}
	}
	ctx, cancel := context.WithCancel(req.Context())
	context.AfterFunc(cut, cancel)
	return mockdesk.Transport(desk).RoundTrip(req.WithContext(ctx))
}

// newDesk returns a desk server that follows a script.
func newDesk(t *testing.T, script string) *mockdesk.Desk {
	t.Helper()
	s, err := mockdesk.ParseScript([]byte(script))
	if err != nil {
		t.Fatal(err)
	}
	d := mockdesk.New(s, "http://desk.test/console/")
	t.Cleanup(d.Close)
	return d
}

// connect returns a configured plugin over a transport; nil: the config's.
func connect(t *testing.T, h sdk.Host, config string, over http.RoundTripper) *adapter.Desk {
	t.Helper()
	d := adapter.New(h)
	adapter.SetTransport(d, over)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // at the end of a test nobody waits for the host
		_ = d.Drain(ctx)
	})
	if err := d.Configure(t.Context(), &sdk.ConfigureRequest{DeskName: "support", Config: json.RawMessage(config)}); err != nil {
		t.Fatal(err)
	}
	return d
}

func start(t *testing.T, d *adapter.Desk, chatID string) *sdk.StartChatResponse {
	t.Helper()
	resp, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: chatID, Attempt: 1})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func send(t *testing.T, d *adapter.Desk, chatID, id, text string) {
	t.Helper()
	if _, err := d.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: chatID, MessageID: id, Attempt: 1, Text: text}); err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got\n%q\nwant\n%q", got, want)
	}
}
