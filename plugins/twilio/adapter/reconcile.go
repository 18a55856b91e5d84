package adapter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/client"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// lookTimeout bounds one look at a conversation.
	lookTimeout = 20 * time.Second
	// linkGrace is how long a conversation may not be readable before the user is
	// told. Twilio's short troubles are nobody's business.
	linkGrace = 20 * time.Second
	// whoTimeout bounds the questions who somebody is. What is not answered by
	// then keeps nobody from joining.
	whoTimeout = 3 * time.Second
	// hookTimeout bounds the moving of a webhook, hookPause is how long to wait
	// after the first time that it failed; then twice as long, and so on.
	hookTimeout = 5 * time.Second
	hookPause   = 5 * time.Second
	// Types of an interaction's people.
	agentType      = "agent"
	supervisorType = "supervisor"
)

// news is what is told to the host next.
type news struct {
	// payload is nil where only the state has changed.
	payload sdk.Payload
	// id is stable: the same whenever the same is found.
	id string
	at time.Time
	// state is what the host knows of the conversation with it.
	state state
	// last says that nothing comes behind it.
	last bool
}

// view is a conversation as it was read.
type view struct {
	// ended says that the conversation is closed, or gone.
	ended  bool
	people []client.Participant
	// messages are those that the host does not have, oldest first.
	messages []client.Message
	// agents are those who are new, in the order in which they came; others
	// is for the state.
	agents []newcomer
	others []string
	// interaction is the one of the conversation, if it was looked for.
	interaction *client.Interaction
	// deserted says that no agent is there and no task is open.
	deserted bool
}

// newcomer is an agent whom the host does not know.
type newcomer struct {
	person

	name string
}

// errNotListed has a webhook delivered again, and the conversation read again.
var errNotListed = errors.New("a message of which Twilio has told is not listed yet")

// pass brings the host up to date: from the hints, if they tell all, and else
// from a look at the conversation. looked tells whether there was one.
func (d *Desk) pass(c *chat, hints []client.Message, look bool) (looked bool, err error) {
	if !look {
		if told, ok := follow(c.state, hints); ok {
			return false, d.tell(c, told)
		}
	}
	ctx, cancel := context.WithCancel(d.reading)
	defer cancel()
	d.mu.Lock()
	c.stopLook = cancel
	open := d.open(c)
	d.mu.Unlock()
	if !open {
		return true, errNotServed
	}
	v, err := d.look(ctx, c)
	if err != nil {
		return true, errors.Join(err, d.tell(c, d.away(c)))
	}
	if err := d.tell(c, compare(c.state, v, &d.config)); err != nil {
		return true, err
	}
	d.keepWebhook(ctx, c)
	if !v.ended && slices.ContainsFunc(hints, func(m client.Message) bool { return m.Index > c.state.Last }) {
		return true, errNotListed
	}
	return true, nil
}

// away returns what is told once the conversation could not be read for linkGrace.
func (d *Desk) away(c *chat) []news {
	d.mu.Lock()
	lasts := c.failures > 0 && time.Since(c.failing) >= linkGrace
	d.mu.Unlock()
	if !lasts || c.state.Away {
		return nil
	}
	t := teller{st: c.state.clone()}
	t.link(true)
	return t.told
}

// tell hands news to the host, in order, until the chat is dropped: a look may be
// so far when the host ends the chat that it still finds the conversation closed.
func (d *Desk) tell(c *chat, told []news) error {
	for _, n := range told {
		d.mu.Lock()
		dropped := c.dropped
		d.mu.Unlock()
		if dropped {
			return nil
		}
		if n.payload != nil {
			ev := &sdk.Event{ChatID: c.id, ID: n.id, Time: n.at, State: n.state.resume(), Payload: n.payload}
			err := d.host.Emit(d.life, ev)
			refused := (*sdk.RefusedError)(nil)
			switch {
			case err == nil:
			case !errors.As(err, &refused):
				return err // the process is about to end
			case refused.Code == sdk.RefusedInvalid, refused.Code == sdk.RefusedTooLarge:
				d.log.Warn("the host refused an event; it is left out", "chat_id", c.id, "event_id", ev.ID, "error", err)
			default:
				d.log.Debug("the host has no use for the chat any more", "chat_id", c.id, "error", err)
				d.mu.Lock()
				d.drop(c)
				d.mu.Unlock()
				return nil
			}
		}
		d.mu.Lock()
		c.state = n.state
		if n.payload != nil {
			c.active, c.alone = time.Now(), time.Now()
		}
		if n.last {
			d.drop(c)
		}
		d.mu.Unlock()
	}
	return nil
}

// follow returns what messages tell, which webhooks have brought, and whether
// that is all: each is the next one, and of somebody known.
func follow(st state, messages []client.Message) ([]news, bool) {
	slices.SortStableFunc(messages, func(a, b client.Message) int { return a.Index - b.Index })
	t := teller{st: st.clone()}
	for i := range messages {
		m := &messages[i]
		known := m.Author == st.Identity || t.st.agent(m.ParticipantSID, m.Author) >= 0
		switch {
		case m.Index <= t.st.Last:
		case m.Index != t.st.Last+1 || !known:
			return nil, false
		default:
			t.message(m)
		}
	}
	t.settle()
	return t.told, true
}

// look reads a conversation. What it reads first is what decides last: once the
// state says closed, no message comes behind those that are read then.
func (d *Desk) look(ctx context.Context, c *chat) (*view, error) {
	select {
	case d.reads <- struct{}{}:
		defer func() { <-d.reads }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	v := new(view)
	state, err := c.conv.State(ctx)
	v.ended = state == client.Closed
	// People are read before messages, so that whoever is gone has said all that
	// is read then. Who has written and is not among them came in between: the next
	// round tells. Or has gone again, or Twilio lists people late: the next look
	// tells.
	for again, looked := err == nil, map[string]bool{}; again; {
		if v.people, err = c.conv.Participants(ctx); err != nil {
			break
		}
		if v.messages, err = c.conv.MessagesSince(ctx, c.state.Last); err != nil {
			break
		}
		again = false
		for i := range v.messages {
			if m := &v.messages[i]; d.stranger(c, v, m) && !looked[m.ParticipantSID] {
				looked[m.ParticipantSID], again = true, true
			}
		}
	}
	switch {
	case err != nil && client.As(err).NotFound() && d.gone(c):
		return &view{ended: true}, nil
	case err != nil:
		return nil, err
	}
	d.whoIsNew(ctx, c, v)
	v.deserted = d.deserted(ctx, c, v)
	return v, nil
}

// gone tells of a conversation that was not found whether to believe that. One
// answer alone may come from where it is not known yet.
func (d *Desk) gone(c *chat) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.missing.IsZero() {
		c.missing = time.Now()
	}
	return time.Since(c.missing) >= goneAfter
}

// stranger tells whether a participant has written a message who is not known,
// and was not there when the participants were read.
func (d *Desk) stranger(c *chat, v *view, m *client.Message) bool {
	return m.ParticipantSID != "" && m.Author != c.state.Identity && !slices.Contains(d.config.Bots, m.Author) &&
		c.state.agent(m.ParticipantSID, "") < 0 && !slices.Contains(c.state.Others, m.ParticipantSID) &&
		!slices.ContainsFunc(v.people, func(p client.Participant) bool { return p.SID == m.ParticipantSID })
}

// whoIsNew tells agents from others among those whom the host does not know.
func (d *Desk) whoIsNew(ctx context.Context, c *chat, v *view) {
	known := 0
	var fresh, doubtful []newcomer
	for _, p := range v.people {
		n := newcomer{person: person{p.SID, p.Identity}}
		switch {
		case p.Identity == c.state.Identity, p.Identity == "", slices.Contains(d.config.Bots, p.Identity):
		case c.state.agent(p.SID, "") >= 0:
			known++
		case slices.Contains(c.state.Others, p.SID):
			doubtful = append(doubtful, n)
		default:
			fresh = append(fresh, n)
		}
	}
	v.agents, v.others = fresh, slices.Clone(c.state.Others)
	if !v.ended && len(fresh)+len(doubtful) > 0 {
		if err := d.setApart(ctx, c, v, doubtful, known); err != nil {
			d.log.Warn("Flex does not tell supervisors from agents now; whoever is new is taken for an agent",
				"chat_id", c.id, "conversation", c.state.Conversation, "error", err)
		}
	}
	for i := range v.messages {
		m := &v.messages[i]
		if d.stranger(c, v, m) && !slices.ContainsFunc(v.agents, func(n newcomer) bool { return n.SID == m.ParticipantSID }) {
			v.agents = append(v.agents, newcomer{person: person{m.ParticipantSID, m.Author}})
		}
	}
	for i := range v.agents {
		v.agents[i].name = d.name(ctx, v.agents[i].Identity)
	}
}

// setApart keeps the agents among those who are new; known are there already.
// The interaction has a type for each of its people, but need not tell who is
// who: then the first are taken for as many agents as there are. Where it knows
// of no supervisor all who are new are agents. Of the doubtful, who were none so
// far, an agent is whom the interaction names as one.
func (d *Desk) setApart(ctx context.Context, c *chat, v *view, doubtful []newcomer, known int) error {
	ctx, cancel := context.WithTimeout(ctx, whoTimeout)
	defer cancel()
	var people []client.ChannelParticipant
	err := client.Retry(ctx, func() (err error) {
		if v.interaction, err = d.interaction(ctx, &c.state); v.interaction != nil {
			people, err = d.client.ChannelParticipants(ctx, *v.interaction)
		}
		return err
	})
	switch {
	case err != nil && client.As(err).NotFound():
		return nil
	case err != nil:
		return err
	}
	named := map[string]string{}
	agents, supervisors := -known, false
	for _, p := range people {
		if p.Media.SID != "" {
			named[p.Media.SID] = p.Type
		}
		if p.Type == agentType {
			agents++
		}
		supervisors = supervisors || p.Type == supervisorType
	}
	fresh := v.agents
	v.agents = nil
	for _, n := range doubtful {
		if named[n.SID] == agentType {
			agents--
			v.agents = append(v.agents, n)
			v.others = slices.DeleteFunc(v.others, func(sid string) bool { return sid == n.SID })
		}
	}
	for _, n := range fresh {
		if !supervisors || named[n.SID] == agentType || named[n.SID] == "" && agents > 0 {
			agents--
			v.agents = append(v.agents, n)
		} else {
			v.others = append(v.others, n.SID)
		}
	}
	return nil
}

// interaction finds the interaction of a conversation; nil if there is none, or
// no workspace to look in.
func (d *Desk) interaction(ctx context.Context, st *state) (*client.Interaction, error) {
	if st.Interaction != "" {
		return &client.Interaction{SID: st.Interaction, Channel: st.Channel}, nil
	}
	if d.config.WorkspaceSID == "" {
		return nil, nil
	}
	tasks, err := d.client.Tasks(ctx, d.config.WorkspaceSID, st.Conversation)
	if err != nil {
		return nil, err
	}
	for i := range tasks {
		if found := tasks[i].Interaction(); found != nil {
			return found, nil
		}
	}
	return nil, nil
}

// deserted tells whether the user waits for nobody: no agent is there, nobody
// has written for some time, and no task is open.
func (d *Desk) deserted(ctx context.Context, c *chat, v *view) bool {
	attended := len(v.agents) > 0 || slices.ContainsFunc(v.people, func(p client.Participant) bool { return c.state.agent(p.SID, "") >= 0 })
	d.mu.Lock()
	if attended || len(v.messages) > 0 {
		c.alone = time.Now()
	}
	alone := time.Since(c.alone)
	d.mu.Unlock()
	if v.ended || attended || c.state.Unattended || d.config.WorkspaceSID == "" || alone < d.config.unattendedAfter() {
		return false
	}
	tasks, err := d.client.Tasks(ctx, d.config.WorkspaceSID, c.state.Conversation)
	if err != nil {
		d.log.Warn("TaskRouter does not tell whether an agent is on the way; it is asked again", "chat_id", c.id, "error", err)
		return false
	}
	return !slices.ContainsFunc(tasks, func(t client.Task) bool { return t.Live() })
}

// keepWebhook sees to it that the conversation's webhook calls this host. Until
// it does the conversation is polled.
func (d *Desk) keepWebhook(ctx context.Context, c *chat) {
	d.mu.Lock()
	due := d.open(c) && d.webhookURL != "" && c.state.WebhookURL != d.webhookURL && time.Now().After(c.hookAfter)
	d.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	sid, err := d.webhook(ctx, c.conv, c.state.Webhook, true)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		c.hookAfter = time.Now().Add(hookPause << min(c.hookTries, 6))
		if c.hookTries++; c.hookTries == 1 && d.open(c) {
			d.log.Warn("the conversation's webhook was not moved to this host's address; it is polled and tried again",
				"chat_id", c.id, "conversation", c.state.Conversation, "error", err)
		}
		return
	}
	c.state.Webhook, c.state.WebhookURL = sid, d.webhookURL
	d.wake(c, true) // for what has come since the look
}

// webhook makes the conversation's webhook, or moves the one of that SID. look
// says that there may be one which nobody knows of.
func (d *Desk) webhook(ctx context.Context, conv *client.Conversation, sid string, look bool) (string, error) {
	if sid != "" {
		err := conv.MoveWebhook(ctx, sid, d.webhookURL)
		if err == nil || !client.As(err).NotFound() {
			return sid, err
		}
	}
	if look {
		hooks, err := conv.Webhooks(ctx)
		if err != nil {
			return "", err
		}
		for _, h := range hooks {
			if h.Configuration.URL == d.webhookURL {
				return h.SID, nil
			}
		}
	}
	return conv.AddWebhook(ctx, d.webhookURL)
}

// compare returns what the host does not know of a conversation. Who joins does
// so before the first message, who leaves does so behind the last one, and
// before others join. Somebody who writes and is not listed joins, and leaves if
// the next look does not list them either.
func compare(st state, v *view, cfg *config) []news {
	t := teller{st: st.clone()}
	if st.Away {
		t.link(false)
	}
	t.st.Others = v.others
	if v.interaction != nil {
		t.st.Interaction, t.st.Channel = v.interaction.SID, v.interaction.Channel
	}
	lastOf := map[string]int{}
	for i := range v.messages {
		m := &v.messages[i]
		lastOf[m.ParticipantSID] = i
	}
	gone := map[string]bool{}
	for _, a := range st.Agents {
		gone[a.SID] = !slices.ContainsFunc(v.people, func(p client.Participant) bool { return p.SID == a.SID })
	}
	// leave tells who has gone and has nothing more to say from message i on.
	leave := func(i int) {
		for _, a := range slices.Clone(t.st.Agents) {
			if last, writes := lastOf[a.SID]; gone[a.SID] && (!writes || last < i) {
				t.left(a)
			}
		}
	}
	waiting := v.agents
	join := func(is func(newcomer) bool) {
		for _, n := range waiting {
			if is(n) {
				t.joined(n)
			}
		}
		waiting = slices.DeleteFunc(slices.Clone(waiting), is)
	}
	for i := range v.messages {
		m := &v.messages[i]
		if m.Index <= t.st.Last {
			continue
		}
		of := func(n newcomer) bool {
			return n.SID == m.ParticipantSID || m.ParticipantSID == "" && n.Identity == m.Author
		}
		if slices.ContainsFunc(waiting, of) {
			leave(i)
			join(of)
		}
		t.message(m)
	}
	if !v.ended {
		leave(len(v.messages))
		join(func(newcomer) bool { return true })
		t.read(v.people)
		if v.deserted {
			t.deserted(cfg.UnattendedText)
		}
	}
	t.settle()
	if v.ended {
		t.ended()
	}
	return t.told
}

// teller writes news down, each with the state behind it.
type teller struct {
	st   state
	told []news
}

func (t *teller) tell(id string, at time.Time, p sdk.Payload) {
	t.told = append(t.told, news{payload: p, id: id, at: at, state: t.st.clone()})
}

// settle has the state taken where no news carries it.
func (t *teller) settle() {
	t.told = append(t.told, news{state: t.st.clone()})
}

// of names an occurrence in the conversation that has no id of Twilio's.
func (t *teller) of(what, which string) string { return t.st.Conversation + "-" + what + "-" + which }

// link tells that the conversation cannot be read, or can be read again.
func (t *teller) link(away bool) {
	what := "back"
	if t.st.Away = away; away {
		t.st.Outages++
		what = "away"
	}
	t.tell(t.of(what, strconv.Itoa(t.st.Outages)), time.Time{}, sdk.ErrorStatus{
		Kind: sdk.LinkTrouble, Disconnected: away, LogMessage: "Twilio is " + what + " for conversation " + t.st.Conversation,
	})
}

// moved names a join or a leave, of which somebody may have many.
func (t *teller) moved(sid, what string) string {
	t.st.Moves++
	return sid + "-" + what + "-" + strconv.Itoa(t.st.Moves)
}

func (t *teller) joined(n newcomer) {
	t.st.Agents = append(t.st.Agents, n.person)
	t.st.Unattended = false
	t.tell(t.moved(n.SID, "joined"), time.Time{}, sdk.AgentJoined{Agent: sdk.Agent{ID: n.SID, Nickname: n.name}})
}

func (t *teller) left(a person) {
	t.st.Agents = slices.DeleteFunc(t.st.Agents, func(other person) bool { return other == a })
	if len(t.st.Agents) == 0 {
		t.st.Left = a.SID
	}
	t.tell(t.moved(a.SID, "left"), time.Time{}, sdk.AgentLeft{AgentID: a.SID})
}

// message tells a message, unless it is the customer's own, or empty.
func (t *teller) message(m *client.Message) {
	t.st.Last = m.Index
	if m.Author == t.st.Identity {
		t.st.Own = m.Index
		return
	}
	parts := parts(m)
	if len(parts) == 0 {
		return
	}
	// Not the identity, which may be somebody's address.
	author := "desk"
	if i := t.st.agent(m.ParticipantSID, m.Author); i >= 0 {
		author = t.st.Agents[i].SID
	} else if m.ParticipantSID != "" {
		author = m.ParticipantSID
	}
	id := m.SID
	if id == "" {
		id = t.of("message", strconv.Itoa(m.Index))
	}
	t.tell(id, m.DateCreated.Time, sdk.MessageToUser{MessageID: id, AgentID: author, Parts: parts})
}

func parts(m *client.Message) []sdk.Part {
	var parts []sdk.Part
	if body := strings.ToValidUTF8(m.Body, "\uFFFD"); body != "" {
		parts = append(parts, sdk.Text(body))
	}
	for _, file := range m.Media {
		parts = append(parts, sdk.InlineError(strings.ToValidUTF8(fmt.Sprintf("The file %q cannot be shown here.", file.Filename), "\uFFFD")))
	}
	return parts
}

// read tells that an agent has read all that the customer wrote.
func (t *teller) read(people []client.Participant) {
	for _, p := range people {
		if p.LastReadMessageIndex != nil && *p.LastReadMessageIndex >= t.st.Own && t.st.Own > t.st.Read && t.st.agent(p.SID, "") >= 0 {
			t.st.Read = t.st.Own
			t.tell(t.of("read", strconv.Itoa(t.st.Own)), time.Time{}, sdk.AgentReadMessages{})
		}
	}
}

// deserted tells that no agent is there and none on the way. That is no end:
// the conversation may be parked, and taken up again.
func (t *teller) deserted(text string) {
	t.st.Unattended = true
	which := t.st.Left
	if which == "" {
		which = "start"
	}
	t.tell(t.of("unattended", which), time.Time{}, sdk.MessageToUser{AgentID: "desk", Parts: []sdk.Part{sdk.InlineError(text)}})
}

func (t *teller) ended() {
	t.tell(t.of("conversation", "closed"), time.Time{}, sdk.AgentEndedChat{})
	t.told[len(t.told)-1].last = true
}
