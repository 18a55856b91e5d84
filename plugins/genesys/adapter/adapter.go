// Package adapter connects deskhost to Genesys Cloud: [Desk] implements the plugin
// SDK's interfaces on the vendor's guest APIs, Web Messaging or Web Chat.
//
// It owns the plugin's side of each chat: its link to the conversation, what has
// been handed to the host, which of the user's messages the desk has. What the
// host has not acknowledged is read again from the vendor's history, so nothing
// is kept on disk. A chat is one type for both APIs; what differs is behind the
// interfaces guest and link. Packages cloud, webmessaging and webchat speak to the
// vendor and know nothing of chats.
package adapter

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/plugins/genesys/webchat"
	"github.com/deskhost/deskhost/plugins/genesys/webmessaging"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// maxTextBytes is what 4000 characters can take, of which the vendor takes no more.
	maxTextBytes = 4 * webchat.MaxBodyRunes
	// The vendor's own clients ping every 15 s; two lost ones are no lost connection.
	pingEvery = 15 * time.Second
	silence   = 40 * time.Second
	// pingTime is how long one connection may hold up the pings of the others.
	pingTime = 50 * time.Millisecond
)

// configSchema describes config.
//
//go:embed config.schema.json
var configSchema string

// Plugin describes the plugin to the host.
func Plugin(version string) sdk.Plugin {
	return sdk.Plugin{
		Name:         "genesys",
		Version:      version,
		Title:        "Genesys Cloud",
		ConfigSchema: configSchema,
		SendDedupe:   sdk.DedupeByLookup,
		Replay:       sdk.ReplayByCursor,
		StateFormats: []uint32{stateFormat},
		MaxTextBytes: maxTextBytes,
		New:          func(host sdk.Host) sdk.Desk { return New(host) },
	}
}

// Desk serves the chats of one process. It has no Health on purpose: the host
// restarts a plugin that is not healthy, which mends no link to a vendor.
type Desk struct {
	host sdk.Host
	log  hclog.Logger

	// Set by Configure and not changed afterwards.
	config       *config
	messaging    *webmessaging.Client
	chat         *webchat.Client
	availability *availability
	timeouts     struct{ connect, answer, reconnect time.Duration }
	// pingEvery is how often each connection is asked for a sign of life, silence how
	// long none may come.
	pingEvery, silence time.Duration
	// holdBack is how long an occurrence waits for an earlier one.
	holdBack time.Duration

	// reading ends when no more is to be read from the vendor, life when nothing
	// more is to be handed to the host.
	reading, life         context.Context //nolint:containedctx // they are the desk's life
	stopReading, stopLife context.CancelFunc
	readers               sync.WaitGroup
	// dials holds a place for each connection that is being made.
	dials chan struct{}
	// started tells that a chat has been opened.
	started chan struct{}

	// mu guards chats. A chat's own mutex may be held when it is taken, not the other
	// way round.
	mu    sync.Mutex
	chats map[string]*chat
}

// New returns a desk that is not configured yet.
func New(host sdk.Host) *Desk {
	d := &Desk{
		host:    host,
		log:     host.Logger(),
		dials:   make(chan struct{}, maxDials),
		started: make(chan struct{}, 1),
		chats:   map[string]*chat{},

		pingEvery: pingEvery,
		silence:   silence,
		holdBack:  holdBack,
	}
	d.life, d.stopLife = context.WithCancel(context.Background())
	d.reading, d.stopReading = context.WithCancel(d.life)
	return d
}

// Configure checks the configuration against the vendor, as far as the vendor lets
// it without opening a conversation.
func (d *Desk) Configure(ctx context.Context, req *sdk.ConfigureRequest) error {
	c, err := readConfig(req.Config)
	if err != nil {
		return sdk.Fail(sdk.Invalid, "%w", err)
	}
	client, err := c.client()
	if err != nil {
		return sdk.Fail(sdk.Invalid, "%w", err)
	}
	d.config = c
	d.timeouts.connect, d.timeouts.answer, d.timeouts.reconnect = time.Duration(c.Timeouts.Connect), time.Duration(c.Timeouts.Answer), time.Duration(c.Timeouts.Reconnect)
	d.availability = &availability{life: d.life, queueID: c.QueueID}
	if c.Mode == modeMessaging {
		d.messaging = webmessaging.New(client, c.DeploymentID, d.silence)
		d.availability.messaging = d.messaging
	} else {
		d.chat = webchat.New(client, d.silence)
	}
	if c.OAuth != nil {
		d.availability.oauth = cloud.NewOAuth(client, c.OAuth.ClientID, c.OAuth.ClientSecret)
	}
	if err := d.probe(ctx); err != nil {
		return err
	}
	d.readers.Go(d.ping)
	d.readers.Go(d.tellWaiting)
	return nil
}

// probe finds a wrong deployment, credential or queue.
func (d *Desk) probe(ctx context.Context) error {
	invalid := func(err error, remedy string) error {
		f := unserved(err)
		if e := (*cloud.Error)(nil); !errors.As(err, &e) || e.Status < 400 || e.Status >= 500 || f.Kind == sdk.Retry {
			return f
		}
		return sdk.Fail(sdk.Invalid, "%s: %w", remedy, err)
	}
	active, err := d.availability.deployed(ctx)
	if err != nil {
		return invalid(err, "deployment_id, region: no such deployment is published there; see Admin > Message > Messenger Deployments")
	}
	if !active {
		d.log.Warn("the deployment is inactive, so nobody is ever online; switch it on in Admin > Message > Messenger Deployments", "deployment_id", d.config.DeploymentID)
	}
	if d.chat != nil {
		if err := d.probeWebchat(ctx); err != nil {
			return err
		}
	}
	if d.availability.oauth == nil {
		return nil
	}
	if err := d.availability.oauth.Login(ctx); err != nil {
		return invalid(err, "oauth.client_id, oauth.client_secret: the login service does not take them; see Admin > Integrations > OAuth")
	}
	if _, err := d.availability.oauth.EstimatedWait(ctx, d.config.QueueID); err != nil {
		if e := (*cloud.Error)(nil); errors.As(err, &e) && e.Status == http.StatusForbidden {
			return sdk.Fail(sdk.Invalid, "oauth: the client lacks a role with the permissions Routing > Queue > View and Analytics > Queue Observation > View: %w", err)
		}
		return invalid(err, "queue_id: there is no such queue; it stands in the address of the queue's page in Admin > Contact Center > Queues")
	}
	return nil
}

// probeWebchat finds a wrong organisation, deployment or queue. Web Chat checks them
// where a conversation is made, and nowhere else; one that nobody attaches to is not
// routed, so no agent hears of this one.
func (d *Desk) probeWebchat(ctx context.Context) error {
	conv, err := d.chat.Create(ctx, d.config.webchat("deskhost"))
	if err == nil {
		if err := d.chat.Leave(ctx, conv); err != nil {
			d.log.Debug("the conversation of the check was not left; nobody attends it", "conversation", conv.ID, "error", err)
		}
		return nil
	}
	if e := (*cloud.Error)(nil); d.config.SignIn && errors.As(err, &e) && e.Code == codeAuthRequired {
		return nil // all but the user is known
	}
	return unserved(err)
}

// unserved is failure for calls of Configure: nothing was asked for that could have
// an effect, and an address that does not exist has been misspelt.
func unserved(err error) *sdk.Failure {
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
		return sdk.Fail(sdk.Invalid, "region, api_url, proxy: there is no host %s; compare the region with the address of your admin pages (%w)", dns.Name, err)
	}
	f := failure(err)
	if f.Kind == sdk.OutcomeUnknown {
		f.Kind = sdk.Retry
	}
	return f
}

// ping asks every connection for a sign of life, which their readers await.
func (d *Desk) ping() {
	tick := time.NewTicker(d.pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-d.reading.Done():
			return
		}
		for _, c := range d.all(func(c *chat) bool { return c.link != nil }) {
			c.mu.Lock()
			l := c.link
			c.mu.Unlock()
			if l != nil {
				c.broken(l, l.ping(pingTime))
			}
		}
	}
}

// all returns the chats for which ok holds.
func (d *Desk) all(ok func(*chat) bool) []*chat {
	d.mu.Lock()
	chats := make([]*chat, 0, len(d.chats))
	for _, c := range d.chats {
		chats = append(chats, c)
	}
	d.mu.Unlock()
	some := chats[:0]
	for _, c := range chats {
		c.mu.Lock()
		if ok(c) {
			some = append(some, c)
		}
		c.mu.Unlock()
	}
	return some
}

// find returns an open chat of this process, or nil.
func (d *Desk) find(id string) *chat {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.chats[id]
}

// forget takes a chat out of the open ones.
func (d *Desk) forget(c *chat) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.chats[c.id] == c {
		delete(d.chats, c.id)
	}
}

// open returns the open chat with an id, or has a new one served.
func (d *Desk) open(id string, st state, newGuest func() guest) (*chat, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.chats[id]; c != nil {
		return c, nil
	}
	if d.reading.Err() != nil {
		return nil, sdk.Fail(sdk.Retry, "the plugin is about to end")
	}
	c := newChat(d, id, st, newGuest())
	d.chats[id] = c
	c.start()
	return c, nil
}

// guest returns a chat's half of the configured API. The request is nil if another
// process has started the chat.
func (d *Desk) guest(id string, user *sdk.UserContext, req *sdk.StartChatRequest) guest {
	token := ""
	if req != nil && d.config.SignIn {
		token = req.SignInToken
	}
	if d.messaging != nil {
		return &messaging{
			client: d.messaging, log: d.log, chatID: id, connectTime: d.timeouts.connect,
			start: req != nil, signInToken: token, attributes: attributesOf(id, user),
		}
	}
	g := &chatGuest{
		client: d.chat, log: d.log, connectTime: d.timeouts.connect, answer: d.timeouts.answer,
		members: map[string]*webchat.Member{}, told: noticeOf(user),
	}
	if req != nil {
		g.create = d.config.webchat(cmp.Or(user.User.Name, anonymous))
		g.create.MemberInfo.CustomFields = attributesOf(id, user)
		g.create.MemberAuthToken = token
	}
	return g
}

// stateOf reads the state that the host has of a chat.
func (d *Desk) stateOf(s *sdk.ResumeState) (state, error) {
	st, err := readState(s)
	if err != nil {
		return st, sdk.Fail(sdk.ChatUnknown, "%w", err)
	}
	if st.Mode != d.config.Mode {
		return st, sdk.Fail(sdk.ChatUnknown, "the chat began with mode %s, and mode is now %s", st.Mode, d.config.Mode)
	}
	return st, nil
}

// StartChat opens a conversation, or finds the one that an earlier attempt opened.
// Its first message is what the page says.
func (d *Desk) StartChat(ctx context.Context, req *sdk.StartChatRequest) (*sdk.StartChatResponse, error) {
	st := state{Mode: d.config.Mode}
	if req.State != nil {
		var err error
		if st, err = d.stateOf(req.State); err != nil {
			return nil, err
		}
	}
	c, err := d.open(req.ChatID, st, func() guest { return d.guest(req.ChatID, &req.Context, req) })
	if err != nil {
		return nil, err
	}
	if err := c.awaitOpen(ctx); err != nil {
		return nil, err
	}
	text := openingText(req)
	if text == "" && d.messaging != nil {
		text = nothingToSay
	}
	if text != "" {
		if _, err := c.deliver(ctx, message{id: openingID, text: text, opening: true}); err != nil {
			c.abandon(ctx, err)
			return nil, err
		}
	}
	select {
	case d.started <- struct{}{}:
	default:
	}
	return nil, nil
}

// EndChat ends the conversation.
func (d *Desk) EndChat(ctx context.Context, req *sdk.EndChatRequest) error {
	c := d.find(req.ChatID)
	if c == nil {
		if req.State == nil {
			return sdk.Fail(sdk.ChatUnknown, "no conversation was ever opened for the chat")
		}
		st, err := d.stateOf(req.State)
		if err != nil {
			return err
		}
		if c, err = d.open(req.ChatID, st, func() guest { return d.guest(req.ChatID, &sdk.UserContext{}, nil) }); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.awaitEnd()
	c.mu.Unlock()
	l, err := c.awaitLink(ctx)
	if err != nil {
		return err
	}
	err = c.leave(ctx, l)
	if ended := (*endedError)(nil); err == nil || errors.As(err, &ended) {
		c.close(&endedError{sdk.ChatOver, "The conversation has ended."})
	}
	return failed(err)
}

// SendMessageToAgent hands a message over. It is there when the desk shows it.
func (d *Desk) SendMessageToAgent(ctx context.Context, req *sdk.SendMessageRequest) (*sdk.SendMessageResponse, error) {
	c := d.find(req.ChatID)
	if c == nil {
		return nil, errNotServed
	}
	if req.Text == "" {
		return nil, sdk.Fail(sdk.Invalid, "the message has no text, and the vendor takes nothing else")
	}
	deskID, err := c.deliver(ctx, message{id: req.MessageID, text: req.Text, first: req.Attempt <= 1})
	if err != nil {
		return nil, err
	}
	return &sdk.SendMessageResponse{DeskMessageID: deskID}, nil
}

var errNotServed = sdk.Fail(sdk.ChatUnknown, "this process does not serve the chat")

// AreAnyAgentsOnline answers by the agents on the queue. Without OAuth credentials
// that is not known.
func (d *Desk) AreAnyAgentsOnline(ctx context.Context, _ *sdk.AvailabilityRequest) (*sdk.AvailabilityResponse, error) {
	return d.availability.ask(ctx)
}

// UpdateState tells the agent what is now known of the user.
func (d *Desk) UpdateState(ctx context.Context, req *sdk.UpdateStateRequest) error {
	c := d.find(req.ChatID)
	if c == nil {
		return errNotServed
	}
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	return failed(c.guest.update(ctx, l, &req.Context))
}

// UserTyping tells the agent that the user types. That it has stopped the vendor
// finds by itself.
func (d *Desk) UserTyping(ctx context.Context, req *sdk.UserTypingRequest) error {
	c := d.find(req.ChatID)
	if c == nil {
		return errNotServed
	}
	if !req.Typing {
		return nil
	}
	return failed(c.userTypes(ctx))
}

// ResumeChat reads on from the cursor in the chat's state.
func (d *Desk) ResumeChat(ctx context.Context, req *sdk.ResumeChatRequest) error {
	c := d.find(req.ChatID)
	if c == nil {
		if req.State == nil {
			return sdk.Fail(sdk.ChatUnknown, "the chat has no state to resume from")
		}
		st, err := d.stateOf(req.State)
		if err != nil {
			return err
		}
		if c, err = d.open(req.ChatID, st, func() guest { return d.guest(req.ChatID, &req.Context, nil) }); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.readAgain() // a hand-over that failed may have left it
	c.mu.Unlock()
	err := c.awaitOpen(ctx)
	if f := (*sdk.Failure)(nil); errors.As(err, &f) && (f.Kind == sdk.Invalid || f.Kind == sdk.OutcomeUnknown) {
		// The conversation lives on while an operator sets right what is wrong, and
		// to look at it has no effect.
		return &sdk.Failure{Kind: sdk.Retry, RetryAfter: f.RetryAfter, Err: f.Err}
	}
	return err
}

// QuiesceChat lets a chat go once the host has all that was read of it. A chat of a
// signed-in user stays, since another process could not sign in again.
func (d *Desk) QuiesceChat(ctx context.Context, req *sdk.QuiesceChatRequest) (*sdk.QuiesceChatResponse, error) {
	c := d.find(req.ChatID)
	if c == nil {
		return nil, errNotServed
	}
	st, err := c.quiesce(ctx)
	if err != nil {
		return nil, err
	}
	return &sdk.QuiesceChatResponse{State: st}, nil
}

// Drain stops reading from the vendor and returns once the host has all that was
// read.
func (d *Desk) Drain(ctx context.Context) error {
	d.mu.Lock()
	d.stopReading() // under the lock: no chat is opened after it
	d.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.readers.Wait()
	}()
	var errs []error
	select {
	case <-ended: // soon: each of their calls ends with reading
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("stop reading from the vendor: %w", ctx.Err()))
	}
	chats := d.all(func(*chat) bool { return true })
	for _, c := range chats {
		errs = append(errs, c.flush(ctx))
	}
	d.stopLife()
	for _, c := range chats {
		c.hush()
		c.close(sdk.Fail(sdk.Retry, "the plugin is about to end"))
	}
	return errors.Join(errs...)
}
