// Package adapter connects deskhost to the mock desk: [Desk] implements the
// plugin SDK's interfaces on the mock desk's HTTP API.
//
// It owns the plugin's side of each chat: which events of the desk have been
// handed to the host. What the host has not acknowledged is asked for again
// from the desk by its cursor, so nothing is kept on disk. One feed serves all
// chats; a chat has a goroutine only while it has events to hand over. The
// desk itself is package mockdesk, elsewhere or, with no url, in this process.
package adapter

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/plugins/mock/client"
	"github.com/deskhost/deskhost/plugins/mock/deskapi"
	"github.com/deskhost/deskhost/plugins/mock/mockdesk"
	"github.com/deskhost/deskhost/sdk"
)

// configSchema describes config and mockdesk.Script.
//
//go:embed config.schema.json
var configSchema string

// Plugin describes the plugin to the host.
func Plugin(version string) sdk.Plugin {
	return sdk.Plugin{
		Name:         "mock",
		Version:      version,
		Title:        "Mock desk",
		ConfigSchema: configSchema,
		SendDedupe:   sdk.DedupeByKey,
		Replay:       sdk.ReplayByCursor,
		StateFormats: []uint32{stateFormat},
		New:          func(host sdk.Host) sdk.Desk { return New(host) },
	}
}

// Desk serves the chats of one process. It has no Health on purpose: the host
// restarts a plugin that is not healthy, which mends no link to a desk.
type Desk struct {
	host sdk.Host
	log  hclog.Logger
	// transport reaches the desk at a url; nil: TCP.
	transport http.RoundTripper

	// Set by Configure and not changed afterwards.
	client   *client.Client
	embedded *mockdesk.Desk // nil with a url
	console  *httputil.ReverseProxy

	// reading ends when no more is to be read from the desk, life when nothing
	// more is to be handed to the host.
	reading, life         context.Context //nolint:containedctx // they are the desk's life
	stopReading, stopLife context.CancelFunc
	readers, emitters     sync.WaitGroup
	// wake tells the catch-up loop that behind is not empty.
	wake chan struct{}

	// mu guards what follows, and the chats.
	mu     sync.Mutex
	chats  map[string]*chat
	behind map[*chat]struct{}
	link   link
}

// New returns a desk that is not configured yet.
func New(host sdk.Host) *Desk {
	d := &Desk{
		host:   host,
		log:    host.Logger(),
		wake:   make(chan struct{}, 1),
		chats:  map[string]*chat{},
		behind: map[*chat]struct{}{},
	}
	d.life, d.stopLife = context.WithCancel(context.Background())
	d.reading, d.stopReading = context.WithCancel(d.life)
	return d
}

// Configure connects to the desk at the url, or starts one inside the process.
func (d *Desk) Configure(ctx context.Context, req *sdk.ConfigureRequest) error {
	var at struct {
		URL string `json:"url"`
	}
	if len(req.Config) > 0 {
		if err := json.Unmarshal(req.Config, &at); err != nil {
			return sdk.Fail(sdk.Invalid, "the configuration is not a JSON object: %w", err)
		}
	}
	base, transport := at.URL, d.transport
	if base == "" {
		script, err := mockdesk.ParseScript(req.Config)
		if err != nil {
			return sdk.Fail(sdk.Invalid, "the configuration: %w", err)
		}
		samples := ""
		if req.WebhookBaseURL != "" {
			samples = req.WebhookBaseURL + "console/"
		}
		d.embedded = mockdesk.New(script, samples)
		base, transport = "http://embedded.invalid", mockdesk.Transport(d.embedded)
	}
	c, err := client.New(base, transport)
	if err != nil {
		return sdk.Fail(sdk.Invalid, "url: %w", err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		f := failure(err)
		if status := new(client.Error); errors.As(err, &status) && status.Status == 0 {
			f = sdk.Fail(sdk.Retry, "no mock desk answers at url (%w): start one with `deskhost-plugin-mock desk --listen ADDRESS`, or leave url out", err)
		}
		return f
	}
	if info.Product != deskapi.Product {
		return sdk.Fail(sdk.Invalid, "url: something answers there, but no mock desk")
	}
	d.client = c
	d.console = &httputil.ReverseProxy{
		Transport: c.Transport(),
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(c.Base()) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			d.log.Warn("console: the desk did not answer", "error", err)
			http.Error(w, "The desk does not answer.", http.StatusBadGateway)
		},
	}
	if d.embedded != nil {
		d.log.Info("no url configured: running a desk inside the plugin; its chats end when the plugin does")
	}
	d.readers.Go(d.follow)
	d.readers.Go(d.catchUp)
	return nil
}

// StartChat opens a conversation with the chat's id as its key.
func (d *Desk) StartChat(ctx context.Context, req *sdk.StartChatRequest) (*sdk.StartChatResponse, error) {
	st, err := readState(req.State)
	if err != nil {
		return nil, sdk.Fail(sdk.Invalid, "%w", err)
	}
	// Events can come before the desk's answer.
	c := d.take(req.ChatID, st)
	start := &deskapi.StartRequest{
		Context:        contextOf(req.Context),
		Text:           req.Text,
		ConnectMessage: req.ConnectMessage,
	}
	for _, h := range req.History {
		start.History = append(start.History, deskapi.HistoryItem(h))
	}
	conv, err := d.client.Start(ctx, req.ChatID, start)
	if err != nil {
		f := failure(err)
		d.notStarted(c, f.Kind != sdk.OutcomeUnknown)
		return nil, f
	}
	return &sdk.StartChatResponse{State: d.started(c, conv)}, nil
}

// EndChat ends the conversation.
func (d *Desk) EndChat(ctx context.Context, req *sdk.EndChatRequest) error {
	by := "host"
	if req.ByUser {
		by = "user"
	}
	d.mu.Lock()
	if c := d.chats[req.ChatID]; c != nil {
		c.ending = true
	}
	d.mu.Unlock()
	err := failed(d.client.End(ctx, req.ChatID, by, req.Reason))
	f := (*sdk.Failure)(nil)
	if err == nil || errors.As(err, &f) && (f.Kind == sdk.ChatUnknown || f.Kind == sdk.ChatOver) {
		d.mu.Lock()
		d.drop(d.chats[req.ChatID])
		d.mu.Unlock()
	}
	return err
}

// SendMessageToAgent hands a message over; the desk takes its id as a key.
func (d *Desk) SendMessageToAgent(ctx context.Context, req *sdk.SendMessageRequest) (*sdk.SendMessageResponse, error) {
	taken, err := d.client.Send(ctx, req.ChatID, &deskapi.Message{
		ID: req.MessageID, Text: req.Text, Data: req.Data, Time: req.Time,
	})
	if err != nil {
		return nil, failure(err)
	}
	return &sdk.SendMessageResponse{DeskMessageID: taken.ID}, nil
}

// AreAnyAgentsOnline asks the desk.
func (d *Desk) AreAnyAgentsOnline(ctx context.Context, _ *sdk.AvailabilityRequest) (*sdk.AvailabilityResponse, error) {
	a, err := d.client.Availability(ctx)
	if err != nil {
		return nil, failure(err)
	}
	resp := &sdk.AvailabilityResponse{WaitMinutes: a.WaitMinutes, Position: a.Position, Message: a.Message}
	if a.Online != nil {
		resp.Online = sdk.OnlineNo
		if *a.Online {
			resp.Online = sdk.OnlineYes
		}
	}
	return resp, nil
}

// UpdateState tells the desk what is now known of the user.
func (d *Desk) UpdateState(ctx context.Context, req *sdk.UpdateStateRequest) error {
	now := contextOf(req.Context)
	return failed(d.client.Update(ctx, req.ChatID, &now))
}

// UserTyping tells the desk whether the user types.
func (d *Desk) UserTyping(ctx context.Context, req *sdk.UserTypingRequest) error {
	return failed(d.client.Typing(ctx, req.ChatID, req.Typing))
}

// UserReadMessages tells the desk that the user has seen everything.
func (d *Desk) UserReadMessages(ctx context.Context, req *sdk.UserReadRequest) error {
	return failed(d.client.Read(ctx, req.ChatID))
}

// ResumeChat reads on from the cursor in the chat's state.
func (d *Desk) ResumeChat(ctx context.Context, req *sdk.ResumeChatRequest) error {
	if req.State == nil {
		return sdk.Fail(sdk.ChatUnknown, "the chat has no state to resume from")
	}
	st, err := readState(req.State)
	if err != nil {
		return sdk.Fail(sdk.ChatUnknown, "%w", err)
	}
	return d.resume(ctx, req.ChatID, st)
}

// QuiesceChat lets a chat go once the host has all that was read of it.
func (d *Desk) QuiesceChat(ctx context.Context, req *sdk.QuiesceChatRequest) (*sdk.QuiesceChatResponse, error) {
	st, err := d.quiesce(ctx, req.ChatID)
	if err != nil {
		return nil, err
	}
	return &sdk.QuiesceChatResponse{State: st}, nil
}

// ServeHTTP forwards the console's page and its calls to the desk.
func (d *Desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/console" && !strings.HasPrefix(r.URL.Path, "/console/") {
		http.NotFound(w, r)
		return
	}
	d.console.ServeHTTP(w, r)
}

// Drain stops reading from the desk and returns once the host has all that was
// read.
func (d *Desk) Drain(ctx context.Context) error {
	d.mu.Lock()
	d.stopReading() // under the lock: nothing is queued after it but by a reader
	d.mu.Unlock()
	d.readers.Wait()
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		d.emitters.Wait()
	}()
	var err error
	select {
	case <-flushed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	d.stopLife()
	<-flushed
	if d.embedded != nil {
		d.embedded.Close()
	}
	return err
}

func contextOf(c sdk.UserContext) deskapi.Context {
	return deskapi.Context{
		User: deskapi.User{
			ID: c.User.ID, Verified: c.User.Verified, Name: c.User.Name, Attributes: c.User.Attributes,
		},
		Locale:             c.Locale,
		AssistantSessionID: c.AssistantSessionID,
	}
}

// failed is failure, for calls that may have gone well.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return failure(err)
}

// failure says what a failed call of the desk did.
func failure(err error) *sdk.Failure {
	f := &sdk.Failure{Kind: sdk.OutcomeUnknown, Err: err}
	e := (*client.Error)(nil)
	if !errors.As(err, &e) {
		return f
	}
	f.UserMessage, f.RetryAfter = e.Body.UserMessage, e.RetryAfter
	switch {
	case e.Status == 0 && !e.Sent:
		f.Kind = sdk.Retry
	case e.Body.Code == deskapi.CodeUnknown:
		f.Kind = sdk.ChatUnknown
	case e.Body.Code == deskapi.CodeOver:
		f.Kind = sdk.ChatOver
	case e.Body.Code == deskapi.CodeRefused:
		f.Kind = sdk.Refused
	case e.Body.Code == deskapi.CodeBusy, e.Status == http.StatusTooManyRequests, e.Status == http.StatusServiceUnavailable:
		f.Kind = sdk.Retry
	case e.Status >= 400 && e.Status < 500:
		f.Kind = sdk.Invalid
	}
	return f
}
