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

	"github.com/deskhost/deskhost/plugins/mock/adapter"
	"github.com/deskhost/deskhost/plugins/mock/mockdesk"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// host is a deskhost of a test, and how its events read.
type host struct{ *desktest.Host }

func newHost(t *testing.T) host { return host{desktest.NewHost(t)} }

// awaitLast returns once the chat's last lasting event reads so.
func (h host) awaitLast(t *testing.T, chatID, want string) {
	t.Helper()
	h.AwaitAll(chatID, func(events []*sdk.Event) bool {
		lines := told(events)
		return len(lines) > 0 && lines[len(lines)-1] == want
	})
}

func (h host) told(chatID string) []string { return told(h.Events(chatID)) }

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
