package adapter

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/plugins/genesys/webmessaging"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// maxPages bounds how much of a history is read at once.
	maxPages = 40
	// typingLasts is how long an agent types who does not say.
	typingLasts = 5 * time.Second
	// clearID traces a clear, clearTime is how long its answer may take, if there is one.
	clearID   = "clear"
	clearTime = time.Second
	// The agent's id where the vendor tells no name.
	nameless, namelessBot = "agent", "bot"
)

// messaging is a chat's half of web messaging.
type messaging struct {
	client *webmessaging.Client
	log    hclog.Logger
	chatID string
	// connectTime is how long a connection may take.
	connectTime time.Duration
	// start says that the session may be made; it is not for a chat that another
	// process has started.
	start bool
	// signInToken is the page's; empty for a guest, and for a chat that another
	// process has started.
	signInToken string

	mu sync.Mutex
	// attributes go to the desk with each message; that of the last one holds.
	attributes map[string]string
}

func (g *messaging) prepare(_ context.Context, st *state) (bool, error) {
	if st.Token != "" {
		return false, nil
	}
	if !g.start {
		return false, &endedError{sdk.ChatUnknown, "The conversation is not known any more."}
	}
	st.Token, st.SignedIn = newToken(), g.signInToken != ""
	return true, nil
}

// newToken is a UUID, which the vendor wants a session's token to be.
func newToken() string {
	var b [16]byte
	_, _ = crand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (g *messaging) connect(ctx context.Context, st *state) (link, *past, error) {
	if st.SignedIn && g.signInToken == "" {
		return nil, nil, &endedError{sdk.ChatOver, "You were signed in; please start a new chat."}
	}
	dialing, cancel := context.WithTimeout(ctx, g.connectTime)
	defer cancel()
	conn, session, err := g.client.Open(dialing, st.Token, g.signInToken)
	if err != nil {
		return nil, nil, putOut(err, false)
	}
	ctx, cancel = context.WithTimeout(ctx, missedTime)
	defer cancel()
	l := &messagingLink{guest: g, conn: conn, cleared: make(chan *webmessaging.Reply, 1), done: make(chan struct{})}
	p, err := g.past(ctx, conn, session, st)
	if err != nil {
		conn.Close()
		return nil, nil, putOut(err, false)
	}
	return l, p, nil
}

func (g *messaging) past(ctx context.Context, conn *webmessaging.Conn, session *webmessaging.Session, st *state) (*past, error) {
	p := new(past)
	switch {
	case !session.Connected:
		return nil, &endedError{sdk.ChatOver, "The conversation has ended."}
	case session.New && st.Sent.DeskID != "":
		return nil, &endedError{sdk.ChatUnknown, "The conversation is not known any more."}
	case session.New:
		return p, nil
	}
	messages, err := g.history(ctx, conn, st)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		p.happened = append(p.happened, g.occurrences(&messages[i], "", false)...)
	}
	if session.ReadOnly {
		p.ended = &over{}
	}
	return p, nil
}

// history returns what the state does not have for certain, oldest first.
func (g *messaging) history(ctx context.Context, conn *webmessaging.Conn, st *state) ([]webmessaging.Message, error) {
	jwt, err := conn.JWT(ctx)
	if err != nil {
		return nil, err
	}
	var all []webmessaging.Message
	for page := 1; ; page++ {
		h, err := g.client.History(ctx, jwt, page)
		if err != nil {
			return nil, err
		}
		all = append(all, h.Entities...)
		last := len(h.Entities) < webmessaging.PageSize
		if h.Pages > 0 {
			last = page >= h.Pages
		}
		if last || len(h.Entities) == 0 || newestFirst(all) && st.reached(all[len(all)-1].Channel.Time.Time) {
			break
		}
		if page == maxPages {
			g.log.Warn("a history is read no further back; what is older is left out", "chat_id", g.chatID, "messages", len(all))
			break
		}
	}
	inOrder(all)
	return all, nil
}

// reached tells whether a history that was read back to a time has all that the
// state may lack.
func (st *state) reached(at time.Time) bool {
	return st.past(at) && !st.Sent.At.IsZero() && at.Before(st.Sent.At)
}

// newestFirst tells how a history is ordered: the vendor does so unless its times
// say otherwise.
func newestFirst(all []webmessaging.Message) bool {
	var first, last time.Time
	for i := range all {
		if at := all[i].Channel.Time.Time; !at.IsZero() {
			if first.IsZero() {
				first = at
			}
			last = at
		}
	}
	return !last.After(first)
}

// inOrder sorts a history by time, oldest first. What has no time stays behind
// what it came after.
func inOrder(all []webmessaging.Message) {
	if newestFirst(all) {
		slices.Reverse(all)
	}
	var at time.Time
	for i := range all {
		if t := &all[i].Channel.Time; t.IsZero() {
			t.Time = at
		} else {
			at = t.Time
		}
	}
	slices.SortStableFunc(all, func(a, b webmessaging.Message) int {
		return a.Channel.Time.Compare(b.Channel.Time.Time)
	})
}

// occurrences is what a message tells. Typing is told of only while it is live.
func (g *messaging) occurrences(m *webmessaging.Message, tracingID string, live bool) (all []occurrence) {
	at := m.Channel.Time.Time
	add := func(what any) {
		o := occurrence{id: clipID(m.ID), at: at, listed: m.ID != "", what: what}
		if o.id == "" {
			o.id = random("message")
		}
		all = append(all, o)
	}
	switch {
	case m.Inbound() && m.Type == "Event":
	case m.Inbound():
		add(wrote{tracingID, m.Text})
	case m.Type != "Event":
		add(said{agentOf(m), partsOf(m)})
	default:
		for i := range m.Events {
			switch e := &m.Events[i]; {
			case e.EventType == "Typing" && live:
				lasts := time.Duration(e.Typing.Duration) * time.Millisecond
				if lasts <= 0 || lasts > time.Minute {
					lasts = typingLasts
				}
				all = append(all, occurrence{at: at, what: typing{e.Typing.Type == "On", lasts}})
			case e.EventType == "Presence" && (e.Presence.Type == "Clear" || e.Presence.Type == "Disconnect" && bool(m.Metadata.ReadOnly)):
				all = append(all, occurrence{id: "ended", at: at, what: over{}})
			case e.EventType == "Presence" && e.Presence.Type == "Disconnect":
				// The user may go on, and is routed anew.
				add(went{})
			}
		}
	}
	return all
}

// agentOf is who wrote a message; nil if the vendor does not tell.
func agentOf(m *webmessaging.Message) *agent {
	a := &agent{
		ID: clipID(m.Channel.From.Nickname), Nickname: clipName(m.Channel.From.Nickname), Avatar: m.Channel.From.Image,
		Bot: m.OriginatingEntity == "Bot",
	}
	switch {
	case a.ID != "":
	case a.Bot:
		a.ID = namelessBot
	case m.OriginatingEntity == "Human":
		a.ID = nameless
	default:
		return nil
	}
	return a
}

// partsOf is what a message shows.
func partsOf(m *webmessaging.Message) []sdk.Part {
	var parts []sdk.Part
	quick := sdk.QuickReplies{}
	for i := range m.Content {
		switch content := &m.Content[i]; {
		case content.QuickReply != nil:
			quick.Replies = append(quick.Replies, sdk.QuickReply{Label: content.QuickReply.Text, Value: content.QuickReply.Payload})
		case content.Attachment != nil:
			a := content.Attachment
			switch {
			case !isLink(a.URL):
				parts = append(parts, sdk.InlineError("A file that the agent sent cannot be shown."))
			case a.MediaType == "Image":
				parts = append(parts, sdk.Image{URL: a.URL, Title: a.Filename, AltText: a.Filename})
			case a.MediaType == "Video":
				parts = append(parts, sdk.Video{URL: a.URL, Title: a.Filename, AltText: a.Filename})
			default:
				parts = append(parts, sdk.File{URL: a.URL, Name: a.Filename, MediaType: a.MIME, Size: max(a.FileSize, 0)})
			}
		}
	}
	switch {
	case len(quick.Replies) > 0:
		quick.Text = m.Text
		return append([]sdk.Part{quick}, parts...)
	case m.Text != "":
		return append([]sdk.Part{sdk.Text(m.Text)}, parts...)
	case len(parts) == 0 && len(m.Content) > 0:
		return []sdk.Part{sdk.InlineError("What the agent sent cannot be shown.")}
	}
	return parts
}

// update keeps the attributes for the next message: the vendor takes them in no
// other way.
func (g *messaging) update(_ context.Context, _ link, user *sdk.UserContext) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.attributes = attributesOf(g.chatID, user)
	return nil
}

// messagingLink is a connection of a session.
type messagingLink struct {
	guest *messaging
	conn  *webmessaging.Conn
	// ending is set once the session is being closed. Replies to a clear go to cleared.
	ending  atomic.Bool
	cleared chan *webmessaging.Reply
	// done is closed when read has returned an error, which is why.
	done chan struct{}
	why  error
}

func (l *messagingLink) read(context.Context) ([]occurrence, error) {
	for {
		r, err := l.conn.Read()
		if lost := (*cloud.Error)(nil); err != nil && !errors.As(err, &lost) {
			l.guest.log.Debug("a frame of the vendor is left out", "chat_id", l.guest.chatID, "error", err)
			continue
		}
		var happened []occurrence
		if err == nil {
			happened, err = l.understand(r)
		}
		if err != nil {
			l.why = err
			close(l.done)
		}
		if err != nil || len(happened) > 0 {
			return happened, err
		}
	}
}

// understand returns what a reply tells; an error if it means the end of the link.
func (l *messagingLink) understand(r *webmessaging.Reply) ([]occurrence, error) {
	if l.ending.Load() && (r.TracingID == clearID || r.Failed != nil && r.TracingID == "") {
		select {
		case l.cleared <- r:
		default:
		}
	}
	switch {
	case r.Failed != nil:
		if ended := (*endedError)(nil); errors.As(asEnded(r.Failed), &ended) {
			return nil, ended
		}
		return []occurrence{{what: declined{r.TracingID, r.Failed}}}, nil
	case r.Message != nil:
		return l.guest.occurrences(r.Message, r.TracingID, true), nil
	case r.Session != nil && !r.Session.Connected:
		return nil, &endedError{sdk.ChatOver, "The conversation has ended."}
	case r.Closed != nil:
		return nil, putOut(r.Closed, l.ending.Load())
	}
	return nil, nil
}

// putOut reads the vendor's closing of a connection in an error.
func putOut(err error, ending bool) error {
	closed := (*webmessaging.ClosedError)(nil)
	switch {
	case !errors.As(err, &closed):
		return err
	case closed.Reason != "" || ending:
		return &endedError{sdk.ChatOver, "The conversation goes on elsewhere."}
	}
	return errCrowded
}

func (l *messagingLink) send(ctx context.Context, messageID, text string) (string, time.Time, error) {
	l.guest.mu.Lock()
	attributes := l.guest.attributes
	l.guest.mu.Unlock()
	if err := l.conn.Text(ctx, messageID, text, attributes); err != nil {
		return "", time.Time{}, err
	}
	return "", time.Time{}, nil
}

func (l *messagingLink) typing(ctx context.Context) error { return l.conn.Typing(ctx) }

// end clears the conversation, which ends it for the agent, where the deployment
// lets guests do that, and the session in any case.
func (l *messagingLink) end(ctx context.Context) error {
	l.ending.Store(true)
	err := l.clear(ctx)
	if err == nil {
		err = l.conn.CloseSession(ctx)
	}
	if err == nil {
		select {
		case <-l.done:
			err = l.why
		case <-ctx.Done():
			err = &cloud.Error{Sent: true, Err: ctx.Err()}
		}
	}
	if ended := (*endedError)(nil); errors.As(asEnded(err), &ended) {
		return nil
	}
	return err
}

// clear clears the conversation, if guests may.
func (l *messagingLink) clear(ctx context.Context) error {
	for {
		select {
		case <-l.cleared: // by an earlier try
		default:
		}
		if err := l.conn.Clear(ctx, clearID); err != nil {
			return err
		}
		var refused *cloud.Error
		select {
		case r := <-l.cleared:
			refused = r.Failed
		case <-time.After(clearTime): // the vendor does not promise one
		case <-l.done:
			return l.why
		case <-ctx.Done():
			return &cloud.Error{Sent: true, Err: ctx.Err()}
		}
		switch {
		case refused == nil, refused.Status == http.StatusForbidden:
			return nil
		case failure(refused).Kind != sdk.Retry:
			return refused
		}
		pause(ctx, max(refused.RetryAfter, paceWindow))
	}
}

func (l *messagingLink) ping(within time.Duration) error { return l.conn.Ping(within) }

func (l *messagingLink) close() { l.conn.Close() }
