package adapter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/plugins/genesys/webchat"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// chatTypingLasts is how long an agent is taken to type after each sign of it.
	chatTypingLasts = 4 * time.Second
	// goneAfter is how long the vendor must not find a conversation to be believed.
	goneAfter = 2 * time.Second
)

// States and roles of members.
const (
	connected    = "CONNECTED"
	disconnected = "DISCONNECTED"
	alerting     = "ALERTING"
	roleAgent    = "AGENT"
)

// chatGuest is a chat's half of web chat.
type chatGuest struct {
	client *webchat.Client
	log    hclog.Logger
	// connectTime is how long a connection may take, answer how long the vendor may to
	// tell of a member.
	connectTime, answer time.Duration
	// create asks for the conversation; nil for a chat that another process has started.
	create *webchat.CreateRequest
	// fresh is set until the first connect to a conversation that this process made.
	fresh bool
	// members are those that were asked for, by id. Only serve's goroutine uses them.
	members map[string]*webchat.Member

	mu sync.Mutex
	// told is what the agent was told of the user.
	told string
}

func (g *chatGuest) prepare(ctx context.Context, st *state) (bool, error) {
	if st.Chat != nil {
		return false, nil
	}
	if g.create == nil {
		return false, &endedError{sdk.ChatUnknown, "The conversation is not known any more."}
	}
	conv, err := g.client.Create(ctx, g.create)
	if err != nil {
		if f := failure(err); f.Kind == sdk.OutcomeUnknown {
			// A conversation that nobody attaches to is not routed.
			return false, &sdk.Failure{Kind: sdk.Retry, RetryAfter: f.RetryAfter, Err: err}
		}
		return false, err
	}
	st.Chat = &chatKeys{ID: conv.ID, JWT: conv.JWT, Member: conv.Member.ID, Stream: conv.Stream}
	g.fresh = true
	return true, nil
}

func (k *chatKeys) conversation() *webchat.Conversation {
	c := &webchat.Conversation{ID: k.ID, JWT: k.JWT, Stream: k.Stream}
	c.Member.ID = k.Member
	return c
}

func (g *chatGuest) connect(ctx context.Context, st *state) (link, *past, error) {
	conv := st.Chat.conversation()
	dialing, cancel := context.WithTimeout(ctx, g.connectTime)
	defer cancel()
	stream, err := g.client.Attach(dialing, conv)
	l, p := &chatLink{guest: g, conv: conv, stream: stream}, new(past)
	if g.fresh {
		g.fresh = err != nil
		return l, p, err
	}
	// Asked for with the stream attached, so that nothing is missed in between; and
	// if it cannot be, since that may be because the conversation is over.
	ctx, cancel = context.WithTimeout(ctx, missedTime)
	defer cancel()
	if missed := g.past(ctx, conv, st, p); missed != nil {
		l.close()
		return nil, nil, missed
	}
	if p.ended != nil {
		l.close()
		return nil, p, nil
	}
	return l, p, err
}

// past reads what has happened since the state.
func (g *chatGuest) past(ctx context.Context, conv *webchat.Conversation, st *state, p *past) error {
	var members []webchat.Member
	err := surely(ctx, func() (err error) {
		members, err = g.client.Members(ctx, conv)
		return err
	})
	if err != nil {
		return err
	}
	there := g.present(members, conv.Member.ID, p)
	if err := g.history(ctx, conv, st, p); err != nil {
		return err
	}
	p.happened = append(p.happened, occurrence{id: "present-" + stamp(time.Now()), what: there})
	return nil
}

// present sorts out who is in the conversation.
func (g *chatGuest) present(members []webchat.Member, self string, p *past) (there present) {
	for i := range members {
		m := &members[i]
		g.members[m.ID] = m
		switch {
		case m.ID == self && m.State == disconnected:
			p.ended = &over{}
		case m.Role == roleAgent && m.State == connected:
			there.agents = append(there.agents, *memberAgent(m))
		}
	}
	return there
}

// history reads what the state does not have for certain, oldest first. It begins
// some messages back, for one that a later one has overtaken.
func (g *chatGuest) history(ctx context.Context, conv *webchat.Conversation, st *state, p *past) error {
	after := ""
	if len(st.Recent) == maxRecent {
		after = st.Recent[0]
	}
	for page := 1; ; page++ {
		var messages []webchat.Message
		more := false
		err := surely(ctx, func() (err error) {
			messages, more, err = g.client.Messages(ctx, conv, after)
			return err
		})
		if err != nil {
			return err
		}
		for i := range messages {
			happened, err := g.said(ctx, conv, &messages[i])
			if err != nil {
				return err
			}
			p.happened = append(p.happened, happened...)
			after = messages[i].ID
		}
		if !more {
			return nil
		}
		if page == maxPages {
			g.log.Warn("a history is read no further; what is later is left out", "conversation", conv.ID)
			return nil
		}
	}
}

// surely makes a call of a conversation that was once there, and once more if the
// vendor does not find it: one such answer alone may come from where it is not known
// yet.
func surely(ctx context.Context, call func() error) error {
	err := gone(call())
	if ended := (*endedError)(nil); !errors.As(err, &ended) || ended.kind != sdk.ChatUnknown {
		return err
	}
	pause(ctx, goneAfter)
	if ctx.Err() != nil {
		return sdk.Fail(sdk.Retry, "one answer is not believed: %w", ctx.Err())
	}
	return gone(call())
}

// gone reads errors of a conversation that was once there. Of those without the
// vendor's code, which are somebody else's, the vendor has not had the call.
func gone(err error) error {
	e := (*cloud.Error)(nil)
	if !errors.As(err, &e) {
		return err
	}
	switch e.Status {
	case http.StatusNotFound, http.StatusGone, http.StatusUnauthorized:
	default:
		return asEnded(err)
	}
	switch {
	case e.Code == "":
		return sdk.Fail(sdk.Retry, "what answered is not the vendor: %w", err)
	case e.Status == http.StatusUnauthorized:
		return &endedError{sdk.ChatOver, "The conversation has expired."}
	}
	return &endedError{sdk.ChatUnknown, "The conversation is not known any more."}
}

// said is what a message tells.
func (g *chatGuest) said(ctx context.Context, conv *webchat.Conversation, m *webchat.Message) ([]occurrence, error) {
	o := occurrence{id: clipID(m.ID), at: m.Time.Time, listed: m.ID != ""}
	switch {
	case m.BodyType != "" && m.BodyType != webchat.BodyStandard && m.BodyType != webchat.BodyNotice:
		return nil, nil // the members' changes tell
	case m.Sender.ID == conv.Member.ID && m.BodyType == webchat.BodyNotice:
		return nil, nil
	case m.Sender.ID == conv.Member.ID:
		o.what = wrote{"", m.Body}
	default:
		w := said{}
		member, err := g.member(ctx, conv, m.Sender.ID)
		if err != nil {
			return nil, err
		}
		if member.Role == roleAgent {
			w.agent = memberAgent(member)
		}
		if m.Body != "" {
			w.parts = []sdk.Part{sdk.Text(m.Body)}
		}
		o.what = w
	}
	if o.id == "" {
		o.id = random("message")
	}
	return []occurrence{o}, nil
}

// member returns who somebody is, asked for once. Whom the vendor does not tell of
// is nobody in particular. After an error the link is to be given up, since what
// somebody did cannot be told without.
func (g *chatGuest) member(ctx context.Context, conv *webchat.Conversation, id string) (*webchat.Member, error) {
	if m := g.members[id]; m != nil {
		return m, nil
	}
	if id == "" {
		return &webchat.Member{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.answer)
	defer cancel()
	m, err := g.client.Member(ctx, conv, id)
	err = gone(err)
	switch {
	case err == nil:
	case failure(err).Kind == sdk.Retry, failure(err).Kind == sdk.OutcomeUnknown:
		return nil, err
	default:
		g.log.Debug("the vendor does not tell of a member of a conversation", "error", err)
		m = &webchat.Member{ID: id}
	}
	g.members[id] = m
	return m, nil
}

func memberAgent(m *webchat.Member) *agent {
	return &agent{ID: clipID(m.ID), Nickname: clipName(m.DisplayName), Avatar: m.AvatarURL}
}

// update tells the agent what is now known of the user, as a notice: the vendor
// has no other way to change what was said when the conversation began.
func (g *chatGuest) update(ctx context.Context, l link, user *sdk.UserContext) error {
	notice := noticeOf(user)
	g.mu.Lock()
	same := notice == "" || notice == g.told
	g.mu.Unlock()
	if same {
		return nil
	}
	cl, ok := l.(*chatLink)
	if !ok {
		return sdk.Fail(sdk.Retry, "there is no connection to the conversation")
	}
	err := surely(ctx, func() error {
		_, err := g.client.Send(ctx, cl.conv, notice, webchat.BodyNotice)
		return err
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = notice
	return nil
}

// noticeOf says who the user is.
func noticeOf(user *sdk.UserContext) string {
	var lines []string
	if user.User.Name != "" {
		lines = append(lines, "Name: "+user.User.Name)
	}
	if user.Locale != "" {
		lines = append(lines, "Language: "+user.Locale)
	}
	return strings.Join(lines, "\n")
}

// chatLink is a conversation with its event stream attached.
type chatLink struct {
	guest  *chatGuest
	conv   *webchat.Conversation
	stream *webchat.Stream
}

func (l *chatLink) read(ctx context.Context) ([]occurrence, error) {
	for {
		e, err := l.stream.Read()
		if lost := (*cloud.Error)(nil); errors.As(err, &lost) {
			return nil, err
		}
		if err != nil {
			l.guest.log.Debug("a frame of the vendor is left out", "error", err)
			continue
		}
		happened, err := l.understand(ctx, e)
		if err != nil || len(happened) > 0 {
			return happened, err
		}
	}
}

// understand returns what an event tells.
func (l *chatLink) understand(ctx context.Context, e *webchat.Event) ([]occurrence, error) {
	switch {
	case e.Message != nil:
		return l.guest.said(ctx, l.conv, e.Message)
	case e.Typing != nil && e.Typing.Sender.ID != l.conv.Member.ID:
		return []occurrence{{at: e.Typing.Time.Time, what: typing{true, chatTypingLasts}}}, nil
	case e.Change != nil:
		return l.changed(ctx, e.Change)
	}
	return nil, nil
}

// changed is what a member's change tells.
func (l *chatLink) changed(ctx context.Context, c *webchat.MemberChange) ([]occurrence, error) {
	o := occurrence{at: c.Time.Time}
	if c.Member.ID == l.conv.Member.ID {
		if c.Member.State != disconnected {
			return nil, nil
		}
		o.id, o.what = "ended", over{}
		return []occurrence{o}, nil
	}
	m, err := l.guest.member(ctx, l.conv, c.Member.ID)
	if err != nil || m.Role != roleAgent {
		return nil, err
	}
	o.id = fmt.Sprintf("%s-%s", clipID(m.ID), stamp(c.Time.Time))
	switch c.Member.State {
	case connected:
		o.what = came{*memberAgent(m)}
	case disconnected:
		o.what = went{clipID(m.ID)}
	case alerting:
		o.what = called{*memberAgent(m)}
	default:
		return nil, nil
	}
	return []occurrence{o}, nil
}

func (l *chatLink) send(ctx context.Context, _, text string) (string, time.Time, error) {
	if n := utf8.RuneCountInString(text); n > webchat.MaxBodyRunes {
		return "", time.Time{}, sdk.Fail(sdk.Invalid, "a message of %d characters, the vendor takes %d", n, webchat.MaxBodyRunes)
	}
	var m *webchat.Message
	err := surely(ctx, func() (err error) {
		m, err = l.guest.client.Send(ctx, l.conv, text, webchat.BodyStandard)
		return err
	})
	if err != nil {
		return "", time.Time{}, err
	}
	if m.ID == "" {
		return "", time.Time{}, &cloud.Error{Sent: true, Err: errors.New("the vendor gave the message no id")}
	}
	return clipID(m.ID), m.Time.Time, nil
}

func (l *chatLink) typing(ctx context.Context) error {
	return surely(ctx, func() error { return l.guest.client.Typing(ctx, l.conv) })
}

func (l *chatLink) end(ctx context.Context) error {
	return surely(ctx, func() error { return l.guest.client.Leave(ctx, l.conv) })
}

func (l *chatLink) ping(within time.Duration) error { return l.stream.Ping(within) }

func (l *chatLink) close() {
	if l.stream != nil {
		l.stream.Close()
	}
}
