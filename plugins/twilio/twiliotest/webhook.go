package twiliotest

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the vendor's signature is made of it
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// hookTimeout is how long a webhook may take to answer.
	hookTimeout = 5 * time.Second
	// hookTries is how often one is sent that fails.
	hookTries = 4
	// maxDeliveries bounds the webhooks under way.
	maxDeliveries = 64
	// shuffleTime is how long a webhook may be held back to be overtaken.
	shuffleTime = 200 * time.Millisecond
)

// events are what a webhook of a conversation may listen to.
var events = []string{
	"onMessageAdded", "onMessageUpdated", "onMessageRemoved", "onConversationUpdated", "onConversationRemoved", "onConversationStateUpdated",
	"onParticipantAdded", "onParticipantUpdated", "onParticipantRemoved", "onDeliveryUpdated",
}

// Webhooks is how webhooks are delivered. The zero value delivers each at once,
// those of a conversation one after the other.
type Webhooks struct {
	// Lose has every n-th webhook vanish; 1 is all of them.
	Lose int
	// Double has each sent twice.
	Double bool
	// Shuffle has those of a conversation overtake each other.
	Shuffle bool
	// Late holds each back.
	Late time.Duration
	// WrongSignature signs them with a token that is not the account's.
	WrongSignature bool
	// SilentEnds has the end of a conversation fire none.
	SilentEnds bool
}

// SetWebhooks changes how webhooks are delivered from now on.
func (s *Simulator) SetWebhooks(w Webhooks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.webhooks, s.fired = w, 0
}

// hook is a scoped Webhook resource.
type hook struct {
	AccountSid      string            `json:"account_sid"`
	ConversationSid string            `json:"conversation_sid"`
	Sid             string            `json:"sid"`
	Target          string            `json:"target"`
	Configuration   hookConfiguration `json:"configuration"`
	DateCreated     timestamp         `json:"date_created"`
	DateUpdated     timestamp         `json:"date_updated"`
	URL             string            `json:"url"`
}

type hookConfiguration struct {
	URL         string   `json:"url,omitempty"`
	Method      string   `json:"method,omitempty"`
	Filters     []string `json:"filters,omitempty"`
	FlowSid     string   `json:"flow_sid,omitempty"`
	ReplayAfter *int     `json:"replay_after,omitempty"`
}

// Sign returns the X-Twilio-Signature of a POST with that form.
func Sign(authToken, address string, form url.Values) string {
	mac := hmac.New(sha1.New, []byte(authToken))
	_, _ = io.WriteString(mac, address) // to memory
	for _, name := range slices.Sorted(maps.Keys(form)) {
		for _, value := range form[name] {
			_, _ = io.WriteString(mac, name+value)
		}
	}
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// configure takes over what a call says of a webhook.
func (h *hook) configure(r *request) (refusal string) {
	set := h.Configuration
	if address := r.form.Get("Configuration.Url"); address != "" {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return "Configuration.Url is no absolute address"
		}
		set.URL = address
	}
	if method := strings.ToUpper(r.form.Get("Configuration.Method")); method != "" {
		set.Method = method
	}
	if filters := r.form["Configuration.Filters"]; len(filters) > 0 {
		set.Filters = filters
	}
	for _, f := range set.Filters {
		if !slices.Contains(events, f) {
			return "There is no event " + f
		}
	}
	switch {
	case set.URL == "" || len(set.Filters) == 0:
		return "A webhook has a Configuration.Url and Configuration.Filters"
	case set.Method != http.MethodPost:
		return "Webhooks are sent by POST here"
	}
	h.Configuration, h.DateUpdated = set, now()
	return ""
}

func (s *Simulator) createWebhook(r *request) (int, any) {
	c, status, refusal := s.open(r)
	if c == nil {
		return status, refusal
	}
	if r.form.Get("Target") != "webhook" {
		return invalid("Target is webhook here")
	}
	if len(c.hooks) >= maxHooks {
		return invalid("A conversation has at most %d webhooks", maxHooks)
	}
	h := &hook{AccountSid: AccountSid, ConversationSid: c.Sid, Sid: newSid("WH"), Target: "webhook", DateCreated: now()}
	if refusal := h.configure(r); refusal != "" {
		return invalid("%s", refusal)
	}
	replay := len(c.messages)
	if text := r.form.Get("Configuration.ReplayAfter"); text != "" {
		after, err := strconv.Atoi(text)
		if err != nil || after < 0 {
			return invalid("Configuration.ReplayAfter is no index")
		}
		h.Configuration.ReplayAfter = &after
		replay = slices.IndexFunc(c.messages, func(m *message) bool { return m.Index >= after })
	}
	c.hooks = append(c.hooks, h)
	if replay >= 0 && slices.Contains(h.Configuration.Filters, "onMessageAdded") {
		for _, m := range c.messages[replay:] {
			s.enqueue(c, h, actor{source: "API"}, "onMessageAdded", m.fields())
		}
	}
	return http.StatusCreated, h.shown(r)
}

func (h *hook) shown(r *request) *hook {
	shown := *h
	shown.URL = r.link("/conversations/v1/Conversations/" + h.ConversationSid + "/Webhooks/" + h.Sid)
	return &shown
}

func (s *Simulator) listWebhooks(r *request) (int, any) {
	c := s.conversations[r.PathValue("conversation")]
	if c == nil {
		return r.notFound()
	}
	shown := make([]*hook, len(c.hooks))
	for i, h := range c.hooks {
		shown[i] = h.shown(r)
	}
	return list(s, r, "webhooks", shown, maxPage, func(h *hook) string { return h.Sid })
}

// hook finds the webhook of a call.
func (c *conversation) hook(r *request) *hook {
	for _, h := range c.hooks {
		if h.Sid == r.PathValue("webhook") {
			return h
		}
	}
	return nil
}

func (s *Simulator) fetchWebhook(r *request) (int, any) {
	if c := s.conversations[r.PathValue("conversation")]; c != nil {
		if h := c.hook(r); h != nil {
			return http.StatusOK, h.shown(r)
		}
	}
	return r.notFound()
}

func (s *Simulator) updateWebhook(r *request) (int, any) {
	c, status, refusal := s.open(r)
	if c == nil {
		return status, refusal
	}
	h := c.hook(r)
	if h == nil || h.Target != "webhook" {
		return r.notFound()
	}
	if refusal := h.configure(r); refusal != "" {
		return invalid("%s", refusal)
	}
	return http.StatusOK, h.shown(r)
}

func (s *Simulator) deleteWebhook(r *request) (int, any) {
	c, status, refusal := s.open(r)
	if c == nil {
		return status, refusal
	}
	h := c.hook(r)
	if h == nil {
		return r.notFound()
	}
	c.hooks = slices.DeleteFunc(c.hooks, func(other *hook) bool { return other == h })
	return http.StatusNoContent, nil
}

// actor is who did what webhooks tell of.
type actor struct {
	source   string // "API" or "SDK"
	identity string // of who did it by the SDK
	reason   string // of a change of state, if not API
	silent   bool   // a call that did not ask for webhooks
}

// delivery is a webhook on its way.
type delivery struct {
	url     string
	event   string
	form    url.Values
	token   string // signs it
	due     time.Time
	retries int
	// id is the idempotency token of its retries.
	id string
}

// outbox holds a conversation's webhooks. While there are any, one goroutine
// sends them; wake tells it that there are more.
type outbox struct {
	queue   []*delivery
	sending bool
	wake    chan struct{}
}

// fire tells a conversation's webhooks of an event.
func (s *Simulator) fire(c *conversation, by actor, event string, fields map[string]string) {
	if by.silent {
		return
	}
	for _, h := range c.hooks {
		if h.Target == "webhook" && slices.Contains(h.Configuration.Filters, event) {
			s.enqueue(c, h, by, event, fields)
		}
	}
}

// enqueue has an event sent to one webhook, in whatever way that is asked for.
func (s *Simulator) enqueue(c *conversation, h *hook, by actor, event string, fields map[string]string) {
	w := s.webhooks
	s.fired++
	ends := event == "onConversationStateUpdated" && fields["StateTo"] == stateClosed || event == "onConversationRemoved"
	if s.closed || w.Lose > 0 && s.fired%w.Lose == 0 || w.SilentEnds && ends {
		return
	}
	form := url.Values{"AccountSid": {AccountSid}, "ChatServiceSid": {ChatServiceSid}, "EventType": {event}, "Source": {by.source}}
	if by.identity != "" {
		form.Set("ClientIdentity", by.identity)
	}
	for name, value := range fields {
		form.Set(name, value)
	}
	token := s.opts.AuthToken
	if w.WrongSignature {
		token += "not"
	}
	id := newSid("")
	for range 1 + map[bool]int{w.Double: 1}[true] {
		due := time.Now().Add(w.Late)
		if w.Shuffle {
			due = due.Add(rand.N(shuffleTime))
		}
		c.outbox.queue = append(c.outbox.queue, &delivery{url: h.Configuration.URL, event: event, form: form, token: token, due: due, id: id})
		s.begin()
	}
	if c.outbox.sending {
		select {
		case c.outbox.wake <- struct{}{}:
		default:
		}
		return
	}
	c.outbox.sending, c.outbox.wake = true, make(chan struct{}, 1)
	s.senders.Go(func() { s.send(c) })
}

// begin and settle count what is on its way.
func (s *Simulator) begin() {
	if s.pending == 0 {
		s.idle = make(chan struct{})
	}
	s.pending++
}

func (s *Simulator) settle() {
	if s.pending--; s.pending == 0 {
		close(s.idle)
	}
}

// Settled waits until every webhook was delivered or given up.
func (s *Simulator) Settled(ctx context.Context) error {
	s.mu.Lock()
	pending, idle := s.pending, s.idle
	s.mu.Unlock()
	if pending == 0 {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// send sends a conversation's webhooks as they become due, until there are none.
func (s *Simulator) send(c *conversation) {
	for {
		d, wait := s.next(c)
		if d == nil && wait == 0 {
			return
		}
		if d == nil {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-c.outbox.wake:
			case <-s.ctx.Done():
			}
			timer.Stop()
			continue
		}
		err := s.deliver(d)
		s.mu.Lock()
		switch {
		case s.closed: // it stays unsettled, as all that is left
		case err != nil && d.retries+1 < hookTries:
			d.due = time.Now().Add(s.opts.RetryAfter << d.retries)
			d.retries++
			c.outbox.queue = append(c.outbox.queue, d)
		default:
			s.settle()
		}
		s.mu.Unlock()
		if err != nil && s.ctx.Err() == nil {
			s.opts.Log.Warn("a webhook was not taken", "conversation", c.Sid, "event", d.event, "retries", d.retries, "error", err)
		}
	}
}

// next takes the webhook that is due first from the outbox, or tells how long to
// wait for it. With neither the outbox is empty and nobody sends any more.
func (s *Simulator) next(c *conversation) (*delivery, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &c.outbox
	if len(o.queue) == 0 || s.closed {
		o.sending = false
		return nil, 0
	}
	first := 0
	for i, d := range o.queue {
		if d.due.Before(o.queue[first].due) {
			first = i
		}
	}
	d := o.queue[first]
	if wait := time.Until(d.due); wait > 0 {
		return nil, wait
	}
	o.queue = slices.Delete(o.queue, first, first+1)
	return d, 0
}

// deliver sends a webhook once. An error says that it is worth another try.
func (s *Simulator) deliver(d *delivery) error {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	form := maps.Clone(d.form)
	form.Set("RetryCount", strconv.Itoa(d.retries))
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, d.url, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
	req.Header.Set("User-Agent", "TwilioProxy/1.1")
	req.Header.Set("X-Twilio-Signature", Sign(d.token, d.url, form))
	if d.retries > 0 {
		req.Header.Set("I-Twilio-Idempotency-Token", d.id)
	}
	resp, err := s.hooks.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection is used again
	switch {
	case resp.StatusCode >= http.StatusInternalServerError:
		return fmt.Errorf("it answered %s", resp.Status)
	case resp.StatusCode >= http.StatusMultipleChoices:
		s.opts.Log.Warn("a webhook was refused", "event", d.event, "status", resp.Status)
	}
	return nil
}

func hookClient() *http.Client {
	return &http.Client{
		Timeout:       hookTimeout,
		Transport:     &http.Transport{MaxIdleConnsPerHost: maxDeliveries, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
