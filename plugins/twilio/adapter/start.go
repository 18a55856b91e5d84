package adapter

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/deskhost/deskhost/plugins/twilio/client"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// startTimeout bounds a start, closeTimeout the closing of one that failed.
	startTimeout = 25 * time.Second
	closeTimeout = 10 * time.Second
	// maxEngagement is the most that Twilio takes as pre-engagement data.
	maxEngagement = 16 << 10
	// maxAttributes is the most that it takes as a message's attributes.
	maxAttributes = 4 << 10
	// maxFirst bounds the first message, which carries the history.
	maxFirst = maxText - 1<<10
	// firstMessage is the id of the first message, which the adapter writes.
	firstMessage = "deskhost-start"
)

// start is how a chat's start goes.
type start struct {
	// done is closed at its end, when err tells how it went.
	done chan struct{}
	err  error
}

// StartChat opens a conversation whose customer has the chat's id as identity,
// by which a later attempt finds it.
func (d *Desk) StartChat(ctx context.Context, req *sdk.StartChatRequest) (*sdk.StartChatResponse, error) {
	d.mu.Lock()
	c := d.chats[req.ChatID]
	switch {
	case d.draining:
		d.mu.Unlock()
		return nil, sdk.Fail(sdk.Retry, "the plugin is about to end")
	case c == nil:
		c = newChat(req.ChatID, state{}, nil)
		c.start = &start{done: make(chan struct{})}
		d.chats[c.id] = c
		// Not with this call's context: another may join the start, and what is
		// half made must not be left behind.
		d.work.Go(func() { d.begin(c, req) })
	}
	begun := c.start
	d.mu.Unlock()
	if begun != nil {
		select {
		case <-begun.done:
		case <-ctx.Done():
			return nil, sdk.Fail(sdk.OutcomeUnknown, "Twilio has not answered yet: %w", ctx.Err())
		}
		if begun.err != nil {
			return nil, begun.err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return &sdk.StartChatResponse{State: c.state.resume()}, nil
}

// begin opens the conversation and serves the chat.
func (d *Desk) begin(c *chat, req *sdk.StartChatRequest) {
	ctx, cancel := context.WithTimeout(d.life, startTimeout)
	defer cancel()
	st, conv, err := d.converse(ctx, req)
	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(c.start.done)
	if err != nil {
		c.start.err = failure(err)
		d.drop(c)
		return
	}
	c.state, c.conv = st, conv
	d.take(c)
}

// converse finds or opens the chat's conversation, and makes it complete.
func (d *Desk) converse(ctx context.Context, req *sdk.StartChatRequest) (st state, conv *client.Conversation, err error) {
	if req.State != nil {
		// An earlier process has told of the chat, so it was complete.
		if st, err = readState(req.State); err != nil {
			return st, nil, sdk.Fail(sdk.Invalid, "%w", err)
		}
		return st, d.client.Conversation(st.Conversation), nil
	}
	if req.Attempt > 1 {
		if conv, err = d.findEarlier(ctx, req.ChatID); err != nil {
			return st, nil, err
		}
	}
	found, identity := conv != nil, req.ChatID
	if !found {
		if conv, identity, err = d.create(ctx, req); err != nil {
			return st, nil, err
		}
	}
	st = newState(conv.SID, identity)
	if err = d.complete(ctx, &st, conv, req, found); err != nil {
		return st, nil, d.undo(conv, &st, req, err)
	}
	return st, conv, nil
}

// undo closes a conversation that could not be made complete, and returns what
// became of the start.
func (d *Desk) undo(conv *client.Conversation, st *state, req *sdk.StartChatRequest, cause error) error {
	f := failure(cause)
	ctx, cancel := context.WithTimeout(d.life, closeTimeout)
	defer cancel()
	err := client.Insist(ctx, func() error {
		return surely(ctx, func() error { return d.closeInteraction(ctx, conv, st) })
	})
	if err != nil && !over(failure(err)) {
		d.log.Warn("a conversation that was opened for a chat that did not start was not closed; another attempt takes it up",
			"chat_id", req.ChatID, "conversation", conv.SID, "error", err)
		f.Kind = sdk.OutcomeUnknown
		return f
	}
	switch f.Kind {
	case sdk.OutcomeUnknown, sdk.ChatUnknown, sdk.ChatOver:
		f.Kind = sdk.Retry // whatever had taken effect is undone
	}
	return f
}

// findEarlier looks for a conversation that an earlier call of the host has opened,
// a second time if it does not show yet.
func (d *Desk) findEarlier(ctx context.Context, identity string) (*client.Conversation, error) {
	conv, err := d.find(ctx, identity)
	if conv != nil || err != nil {
		return conv, err
	}
	if !client.Wait(ctx, arrives) {
		return nil, sdk.Fail(sdk.Retry, "a conversation may not show yet, and there is no time to wait for it")
	}
	return d.find(ctx, identity)
}

// find looks for the conversation of a customer.
func (d *Desk) find(ctx context.Context, identity string) (conv *client.Conversation, err error) {
	err = client.Retry(ctx, func() error {
		conv, err = d.client.FindConversation(ctx, identity)
		return err
	})
	return conv, err
}

// create opens a conversation. Where it is not clear whether that worked, it is
// looked for before it is tried again.
func (d *Desk) create(ctx context.Context, req *sdk.StartChatRequest) (conv *client.Conversation, identity string, err error) {
	about, err := engagement(req)
	if err != nil {
		return nil, "", sdk.Fail(sdk.Invalid, "what is known of the user: %w", err)
	}
	err = once(ctx, func(again bool) error {
		if again {
			if conv, err = d.find(ctx, req.ChatID); conv != nil || err != nil {
				identity = req.ChatID
				return err
			}
		}
		if d.config.Interaction != nil {
			identity = req.ChatID
			conv, err = d.client.CreateConversation(ctx, "Web chat", about)
		} else {
			conv, identity, err = d.client.CreateWebChat(ctx, client.WebChat{
				AddressSID: d.config.AddressSID, Identity: req.ChatID, CustomerName: customerName(req), PreEngagementData: about,
			})
		}
		return err
	})
	return conv, identity, err
}

// complete does what a conversation lacks until an agent is called: the
// customer, the webhook, the first message, the interaction. found says that an
// earlier attempt may have done some of it.
func (d *Desk) complete(ctx context.Context, st *state, conv *client.Conversation, req *sdk.StartChatRequest, found bool) error {
	if d.config.Interaction != nil {
		if err := client.Insist(ctx, func() error { return conv.AddParticipant(ctx, st.Identity) }); err != nil {
			return err
		}
	}
	if d.webhookURL != "" {
		err := once(ctx, func(again bool) (err error) {
			st.Webhook, err = d.webhook(ctx, conv, "", found || again)
			return err
		})
		if err != nil {
			return err
		}
		st.WebhookURL = d.webhookURL
	}
	first := &sdk.SendMessageRequest{MessageID: firstMessage, Text: introduction(req)}
	if _, err := d.post(ctx, conv, st.Identity, first, found); err != nil {
		return err
	}
	if d.config.Interaction == nil {
		return nil
	}
	return once(ctx, func(again bool) error { return d.route(ctx, st, req, found || again) })
}

// route has Flex call an agent.
func (d *Desk) route(ctx context.Context, st *state, req *sdk.StartChatRequest, found bool) error {
	if found {
		tasks, err := d.client.Tasks(ctx, d.config.WorkspaceSID, st.Conversation)
		if err != nil || len(tasks) > 0 {
			return err
		}
	}
	attributes := map[string]any{}
	maps.Copy(attributes, d.config.Interaction.Attributes)
	attributes["deskhost_chat_id"], attributes["customerName"] = req.ChatID, customerName(req)
	i, err := d.client.CreateInteraction(ctx, st.Conversation, client.Routing{
		WorkspaceSID: d.config.WorkspaceSID, WorkflowSID: d.config.Interaction.WorkflowSID,
		TaskChannel: d.config.TaskChannel, Attributes: attributes,
	})
	if err != nil {
		return err
	}
	st.Interaction, st.Channel = i.SID, i.Channel
	return nil
}

func customerName(req *sdk.StartChatRequest) string {
	if name := req.Context.User.Name; name != "" {
		return name
	}
	return "Web visitor"
}

// engagement is what the agent and the flow can know of the user, as JSON. What
// does not fit is left out, the least needed first.
func engagement(req *sdk.StartChatRequest) (string, error) {
	user := req.Context.User
	about := map[string]any{
		"deskhost_chat_id": req.ChatID,
		"friendlyName":     customerName(req),
		"user_verified":    user.Verified,
	}
	for key, text := range map[string]string{
		"user_id": user.ID, "locale": req.Context.Locale, "assistant_session_id": req.Context.AssistantSessionID,
	} {
		if text != "" {
			about[key] = text
		}
	}
	if len(user.Attributes) > 0 {
		about["user_attributes"] = user.Attributes
	}
	if len(req.ConnectMessage) > 0 {
		about["connect_message"] = req.ConnectMessage
	}
	for _, key := range []string{"", "connect_message", "user_attributes"} {
		delete(about, key)
		data, err := json.Marshal(about)
		if err != nil || len(data) <= maxEngagement {
			return string(data), err
		}
	}
	return "", fmt.Errorf("it is over %d bytes", maxEngagement)
}

// introduction is the first message: what the agent should read, and the
// conversation so far, of which the newest is kept where it is too long. Twilio
// takes no empty message.
func introduction(req *sdk.StartChatRequest) string {
	text := strings.TrimSpace(req.Text)
	if text == "" {
		text = "The user asks for an agent."
	}
	text = cut(text, maxFirst)
	room := maxFirst - len(text)
	var lines []string
	for _, item := range slices.Backward(req.History) {
		from := "User"
		if item.From == "assistant" {
			from = "Assistant"
		}
		line := "\n" + from + ": " + strings.TrimSpace(item.Text)
		if room -= len(line); room < 0 {
			lines = append(lines, "\n…")
			break
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return text
	}
	var b strings.Builder
	b.WriteString(text + "\n\nThe conversation so far:")
	for _, line := range slices.Backward(lines) {
		b.WriteString(line)
	}
	return b.String()
}

// cut returns a text of at most n bytes.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}
