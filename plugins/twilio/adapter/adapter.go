// Package adapter connects deskhost to Twilio Flex: [Desk] implements the plugin
// SDK's interfaces on Twilio's API.
//
// It owns the plugin's side of each chat: how much of its conversation the host
// has been told. One place decides what is told next and in which order, the
// reconciler: it compares the conversation as Twilio lists it with what the host
// knows. It runs when a webhook hints at something new, on a timer, and after a
// resume, so a webhook that is lost, doubled or late costs time and nothing
// else. What the host has not acknowledged is read again, so nothing is kept on
// disk. An idle chat has a timer and no goroutine.
//
// The vendor's calls are in package client, which knows nothing of deskhost.
package adapter

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/plugins/twilio/client"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// maxReads is how many conversations are read at once.
	maxReads = 32
	// maxText is the longest body that Twilio takes.
	maxText = 32 << 10
)

// Plugin describes the plugin to the host. There is no typing: Twilio has no
// call for it and does not tell of it.
func Plugin(version string) sdk.Plugin {
	return sdk.Plugin{
		Name:         "twilio",
		Version:      version,
		Title:        "Twilio Flex",
		ConfigSchema: configSchema,
		SendDedupe:   sdk.DedupeByLookup,
		Replay:       sdk.ReplayByCursor,
		StateFormats: []uint32{stateFormat},
		MaxTextBytes: maxText,
		New:          func(host sdk.Host) sdk.Desk { return New(host) },
	}
}

// Desk serves the chats of one process. It has no Health on purpose: the host
// restarts a plugin that is not healthy, which mends nothing at a vendor.
type Desk struct {
	host sdk.Host
	log  hclog.Logger
	// transport reaches Twilio; nil: the network.
	transport http.RoundTripper

	// Set by Configure and not changed afterwards. webhookBase is the address of
	// the desk's webhooks without the slash at its end; both are empty if Twilio
	// cannot call.
	config                  config
	client                  *client.Client
	webhookBase, webhookURL string

	availability availability
	names        names
	// reads bounds how many conversations are read at once.
	reads chan struct{}

	// reading ends when no more is to be read from Twilio, life when nothing
	// more is to be handed to the host.
	reading, life         context.Context //nolint:containedctx // they are the desk's life
	stopReading, stopLife context.CancelFunc
	// work counts the goroutines of chats.
	work sync.WaitGroup

	// mu guards what follows, and the chats.
	mu    sync.Mutex
	chats map[string]*chat // by deskhost's id
	// conversations are the chats by Twilio's id.
	conversations map[string]*chat
	draining      bool
	// refusedAt is when a wrong signature was logged last.
	refusedAt time.Time
}

// New returns a desk that is not configured yet.
func New(host sdk.Host) *Desk {
	d := &Desk{
		host:          host,
		log:           host.Logger(),
		reads:         make(chan struct{}, maxReads),
		chats:         map[string]*chat{},
		conversations: map[string]*chat{},
	}
	d.life, d.stopLife = context.WithCancel(context.Background())
	d.reading, d.stopReading = context.WithCancel(d.life)
	return d
}

// AreAnyAgentsOnline asks TaskRouter, if the queue is configured.
func (d *Desk) AreAnyAgentsOnline(ctx context.Context, _ *sdk.AvailabilityRequest) (*sdk.AvailabilityResponse, error) {
	if d.config.QueueSID == "" {
		return &sdk.AvailabilityResponse{Online: sdk.OnlineUnknown}, nil
	}
	online, err := d.availability.get(ctx, d.askOnline)
	if err != nil {
		return nil, failure(err)
	}
	return &sdk.AvailabilityResponse{Online: online}, nil
}

func (d *Desk) askOnline(ctx context.Context) (sdk.Online, error) {
	q, err := d.client.QueueStatistics(ctx, d.config.WorkspaceSID, d.config.QueueSID, d.config.TaskChannel)
	switch {
	case err != nil:
		return sdk.OnlineUnknown, err
	case q.AvailableWorkers > 0:
		return sdk.OnlineYes, nil
	}
	return sdk.OnlineNo, nil
}

// ResumeChat reads on from the last message that the host has. Whether the
// conversation is still there is for the first look to find out.
func (d *Desk) ResumeChat(_ context.Context, req *sdk.ResumeChatRequest) error {
	if req.State == nil {
		return sdk.Fail(sdk.ChatUnknown, "the chat has no state to resume from")
	}
	st, err := readState(req.State)
	if err != nil {
		return sdk.Fail(sdk.ChatUnknown, "%w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// A chat that this process serves goes on as it is.
	c := d.chats[req.ChatID]
	if c != nil && c.started() {
		c.quiesced = false
		d.wakeNow(c)
		return nil
	}
	if c == nil {
		d.take(newChat(req.ChatID, st, d.client.Conversation(st.Conversation)))
	}
	return nil
}

// QuiesceChat lets a chat go once the host has all that was read of it.
func (d *Desk) QuiesceChat(ctx context.Context, req *sdk.QuiesceChatRequest) (*sdk.QuiesceChatResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.chats[req.ChatID]
	if c == nil || !c.started() {
		return nil, sdk.Fail(sdk.ChatUnknown, "this process does not serve the chat")
	}
	c.quiesced = true
	c.stopLook() // who has the chat next reads it again
	if !d.awaitIdle(ctx, c) {
		c.quiesced = false
		d.wake(c, true)
		return nil, sdk.Fail(sdk.Retry, "the host has not taken all events yet: %w", ctx.Err())
	}
	if c.dropped {
		return nil, sdk.Fail(sdk.ChatUnknown, "this process does not serve the chat any more")
	}
	d.drop(c)
	return &sdk.QuiesceChatResponse{State: c.state.resume()}, nil
}

// Drain stops reading from Twilio and returns once the host has all that was
// read.
func (d *Desk) Drain(ctx context.Context) error {
	d.mu.Lock()
	d.draining = true // under the lock: no work begins after it
	d.stopReading()
	for _, c := range d.chats {
		c.stopTimer()
	}
	d.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.work.Wait()
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	d.stopLife()
	<-done
	return err
}

// failed is failure, for calls that may have gone well.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return failure(err)
}

// failure says what a failed call of Twilio did.
func failure(err error) *sdk.Failure {
	if f := (*sdk.Failure)(nil); errors.As(err, &f) {
		return f
	}
	f := &sdk.Failure{Kind: sdk.OutcomeUnknown, Err: err}
	switch e := client.As(err); {
	case e.Throttled():
		f.Kind, f.RetryAfter = sdk.Retry, max(e.RetryAfter, time.Second)
	case e.Unauthorized():
		f.Kind = sdk.Refused
		f.Err = errors.Join(err, errors.New("the credentials worked when the desk was started; set account_sid and auth_token, or the API key, anew"))
	case e.Closed():
		f.Kind = sdk.ChatOver
	case e.NotFound():
		f.Kind = sdk.ChatUnknown
	case e.Passing():
		f.Kind, f.RetryAfter = sdk.Retry, e.RetryAfter
	case e.Unclear():
	case e.Status >= 400 && e.Status < 500:
		f.Kind = sdk.Invalid
	default: // it only asked
		f.Kind, f.RetryAfter = sdk.Retry, e.RetryAfter
	}
	return f
}
