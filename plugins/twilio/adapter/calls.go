package adapter

import (
	"context"
	"encoding/json"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/client"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// onceTries is how often once makes a call.
	onceTries = 4
	// clockSkew is how far the clocks of host and Twilio may be apart.
	clockSkew = 10 * time.Minute
	// arrives is how long what was made may take to show if the answer was lost. A
	// look made sooner does not say that Twilio lacks it.
	arrives = 2 * time.Second
	// goneAfter is how long Twilio must not find a conversation to be believed.
	goneAfter = 2 * time.Second
	// deskhostKey is where a participant's attributes hold what is ours.
	deskhostKey = "deskhost"
)

// attributes are those of a message of ours.
type attributes struct {
	MessageID string          `json:"deskhost_message_id"`
	Data      json.RawMessage `json:"data,omitempty"`
}

// served returns the chat and its conversation.
func (d *Desk) served(id string) (c *chat, conv *client.Conversation, st state, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c = d.chats[id]
	if c == nil || !c.started() {
		return nil, nil, st, sdk.Fail(sdk.ChatUnknown, "this process does not serve the chat")
	}
	return c, c.conv, c.state.clone(), nil
}

// SendMessageToAgent writes the message into the conversation, with its id in
// the attributes, by which a later try finds it.
func (d *Desk) SendMessageToAgent(ctx context.Context, req *sdk.SendMessageRequest) (*sdk.SendMessageResponse, error) {
	c, conv, st, err := d.served(req.ChatID)
	if err != nil {
		return nil, err
	}
	if req.Text == "" {
		return nil, sdk.Fail(sdk.Invalid, "Twilio takes no message without text")
	}
	if req.Attempt > 1 {
		d.mu.Lock()
		wait := time.Until(c.doubtful)
		d.mu.Unlock()
		if !client.Wait(ctx, wait) {
			return nil, sdk.Fail(sdk.Retry, "an earlier try may still arrive, and there is no time to wait for it")
		}
	}
	m, err := d.post(ctx, conv, st.Identity, req, req.Attempt > 1)
	if err != nil {
		f := failure(err)
		if f.Kind == sdk.OutcomeUnknown {
			d.mu.Lock()
			c.doubtful = time.Now().Add(arrives)
			d.mu.Unlock()
		}
		if over(f) {
			// The last words and the end come on the stream.
			d.mu.Lock()
			d.wakeNow(c)
			d.mu.Unlock()
		}
		return nil, f
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c.active = time.Now()
	if m.Author == st.Identity && len(c.hints) < maxHints {
		c.hints = append(c.hints, *m)
		d.wake(c, false)
	}
	return &sdk.SendMessageResponse{DeskMessageID: m.SID}, nil
}

// post writes a message, or finds it if an earlier try has: before this call,
// if look is set, or in it.
func (d *Desk) post(ctx context.Context, conv *client.Conversation, identity string, req *sdk.SendMessageRequest, look bool) (*client.Message, error) {
	text, err := json.Marshal(attributes{req.MessageID, req.Data})
	if err != nil || len(text) > maxAttributes {
		// The text counts; what comes along may be too much, or no JSON.
		if text, err = json.Marshal(attributes{MessageID: req.MessageID}); err != nil {
			return nil, err
		}
	}
	var m *client.Message
	unclear := false
	err = once(ctx, func(again bool) error {
		unclear = again
		return surely(ctx, func() (err error) {
			if look || again {
				if m, err = d.lookup(ctx, conv, identity, req); m != nil || err != nil {
					return err
				}
			}
			m, err = conv.Send(ctx, identity, req.Text, string(text))
			return err
		})
	})
	if err != nil {
		return nil, outcome(err, unclear)
	}
	return m, nil
}

// once repeats a call that makes something, where that may work later. again says
// that an earlier try may have made it, so that it has to be looked for first: by
// then it shows.
func once(ctx context.Context, call func(again bool) error) error {
	again := false
	for try := 0; ; try++ {
		err := call(again)
		e := client.As(err)
		if err == nil || !e.Passing() && !e.Unclear() {
			return err
		}
		pause := client.Pause(try, err)
		if e.Unclear() {
			again, pause = true, max(pause, arrives)
		}
		if try == onceTries-1 || !client.Wait(ctx, pause) {
			return err
		}
	}
}

// outcome is the error of a message that may have arrived in an earlier try of
// the same call, whatever is said of the last.
func outcome(err error, unclear bool) error {
	f := failure(err)
	if unclear && !over(f) {
		f.Kind = sdk.OutcomeUnknown
	}
	return f
}

// over tells whether a conversation has ended.
func over(f *sdk.Failure) bool { return f.Kind == sdk.ChatOver || f.Kind == sdk.ChatUnknown }

// surely makes a call once more that did not find what it is for. One such
// answer alone may come from where the conversation is not known yet.
func surely(ctx context.Context, call func() error) error {
	err := call()
	if err == nil || !client.As(err).NotFound() {
		return err
	}
	if !client.Wait(ctx, goneAfter) {
		return sdk.Fail(sdk.Retry, "one answer is not believed: %w", err)
	}
	return call()
}

// lookup finds a message of ours by its id; nil if it is not there.
func (d *Desk) lookup(ctx context.Context, conv *client.Conversation, identity string, req *sdk.SendMessageRequest) (*client.Message, error) {
	var since time.Time
	if !req.Time.IsZero() {
		since = req.Time.Add(-clockSkew)
	}
	return conv.Find(ctx, since, func(m *client.Message) bool {
		var a attributes
		return m.Author == identity && json.Unmarshal([]byte(m.Attributes), &a) == nil && a.MessageID == req.MessageID
	})
}

// EndChat ends the conversation in the configured way. The host has ended the
// chat already, so what fails in any way is tried again: what is left open stays
// with an agent.
func (d *Desk) EndChat(ctx context.Context, req *sdk.EndChatRequest) error {
	conv, st, err := d.toEnd(ctx, req)
	if err == nil {
		err = client.Insist(ctx, func() error {
			return surely(ctx, func() error { return d.end(ctx, conv, &st) })
		})
	}
	if err == nil {
		return nil
	}
	f := failure(err)
	if f.Kind == sdk.Invalid || f.Kind == sdk.Refused {
		f.Kind = sdk.Retry
	}
	return f
}

// toEnd finds the conversation of a chat: here, in its state, or at Twilio. A
// chat of this process is dropped: the host takes nothing more of it.
func (d *Desk) toEnd(ctx context.Context, req *sdk.EndChatRequest) (*client.Conversation, state, error) {
	d.mu.Lock()
	c := d.chats[req.ChatID]
	var begun *start
	if c != nil {
		begun = c.start
	}
	d.mu.Unlock()
	if begun != nil {
		select {
		case <-begun.done: // what is being opened is ended behind it
		case <-ctx.Done():
			return nil, state{}, sdk.Fail(sdk.Retry, "the chat is still being started: %w", ctx.Err())
		}
	}
	if c, conv, st, err := d.served(req.ChatID); err == nil {
		d.mu.Lock()
		d.drop(c)
		c.stopLook()
		d.mu.Unlock()
		return conv, st, nil
	}
	if req.State != nil {
		if st, err := readState(req.State); err == nil {
			return d.client.Conversation(st.Conversation), st, nil
		}
	}
	conv, err := d.findEarlier(ctx, req.ChatID)
	switch {
	case err != nil:
		return nil, state{}, err
	case conv == nil:
		return nil, state{}, sdk.Fail(sdk.ChatUnknown, "Twilio has no open conversation of the chat")
	}
	return conv, newState(conv.SID, req.ChatID), nil
}

// end ends a conversation for the user.
func (d *Desk) end(ctx context.Context, conv *client.Conversation, st *state) error {
	switch d.config.End {
	case endParticipant:
		return conv.RemoveParticipant(ctx, st.Identity)
	case endInteraction:
		return d.closeInteraction(ctx, conv, st)
	default:
		return conv.Close(ctx)
	}
}

// closeInteraction closes a conversation's interaction and with it the agent's
// task. Where Twilio says that this cannot be, only the conversation is closed.
func (d *Desk) closeInteraction(ctx context.Context, conv *client.Conversation, st *state) error {
	i, err := d.interaction(ctx, st)
	if i != nil {
		st.Interaction, st.Channel = i.SID, i.Channel
		if err = d.client.CloseInteraction(ctx, *i); err == nil {
			return nil
		}
	}
	if err != nil {
		if e := client.As(err); e.Passing() || e.Unclear() {
			return err
		}
		d.log.Warn("the interaction of a conversation cannot be closed, so the conversation is; the agent's task may stay open",
			"conversation", conv.SID, "error", err)
	}
	return conv.Close(ctx)
}

// UserReadMessages moves the customer's read horizon to the last message.
func (d *Desk) UserReadMessages(ctx context.Context, req *sdk.UserReadRequest) error {
	c, conv, st, err := d.served(req.ChatID)
	if err != nil {
		return err
	}
	d.mu.Lock()
	known := st.Last <= c.read
	d.mu.Unlock()
	if known {
		return nil
	}
	if err := client.Insist(ctx, func() error { return conv.SetRead(ctx, st.Identity, st.Last) }); err != nil {
		return failure(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c.read = max(c.read, st.Last)
	return nil
}

// UpdateState writes what is now known of the user into the attributes of the
// customer, beside those that Flex keeps there.
func (d *Desk) UpdateState(ctx context.Context, req *sdk.UpdateStateRequest) error {
	_, conv, st, err := d.served(req.ChatID)
	if err != nil {
		return err
	}
	var p *client.Participant
	err = client.Retry(ctx, func() error {
		p, err = conv.Participant(ctx, st.Identity)
		return err
	})
	if err != nil {
		return failure(err)
	}
	all := map[string]any{}
	if json.Unmarshal([]byte(p.Attributes), &all) != nil {
		all = map[string]any{} // what is no object cannot be kept
	}
	user := req.Context.User
	all[deskhostKey] = map[string]any{
		"user_id": user.ID, "user_verified": user.Verified, "user_name": user.Name, "user_attributes": user.Attributes,
		"locale": req.Context.Locale, "assistant_session_id": req.Context.AssistantSessionID,
	}
	text, err := json.Marshal(all)
	if err != nil {
		return sdk.Fail(sdk.Invalid, "what is known of the user: %w", err)
	}
	if len(text) > maxEngagement {
		return sdk.Fail(sdk.Invalid, "what is known of the user is over %d bytes", maxEngagement)
	}
	return failed(client.Insist(ctx, func() error { return conv.SetAttributes(ctx, st.Identity, string(text)) }))
}
