package session

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/journal"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

const (
	// How long one call of a plugin may take. StartChat has limits.start_timeout.
	endTimeout    = 15 * time.Second
	sendTimeout   = 15 * time.Second
	resumeTimeout = 15 * time.Second
	newsTimeout   = 5 * time.Second // typing, read, update

	// resumesAtOnce bounds the ResumeChat calls under way for a desk, over all
	// shards together.
	resumesAtOnce = 128

	// awayGrace is how long a chat may be without its desk before its user is told,
	// if it was found in the journal or another process is there to take it: a
	// restart of the host is told by the page's own connection already, and a
	// hand-over need not be.
	awayGrace = 2 * time.Second

	// overGrace is how long a desk that has called a chat over may take to send
	// the chat's last events.
	overGrace = 5 * time.Second
)

// chat is one conversation in memory, open or ended with something left to do.
type chat struct {
	s     *session
	head  *recordv1.Chat
	state *recordv1.ResumeState // the latest, nil if none

	// gen is the generation that owns the chat: only its events are taken. It
	// is nil while none does, and set by own alone. linked says that the chat has
	// been started or resumed there; move, that it is being handed over.
	gen    desk.Generation
	linked bool
	move   *move
	// held are the generations that must live for the chat's sake: its own, and
	// those of its move.
	held [2]desk.Generation
	// streamed says that a state has come on the stream since StartChat was
	// last called. It is newer than one in the reply: the two are not in order.
	streamed bool

	// Calls under way. At most one of each, and EndChat only when alone.
	linking bool // StartChat, ResumeChat or QuiesceChat
	sending bool // SendMessageToAgent for outs[0]
	closing bool // EndChat
	// calls is the parent of the ctx of each, and cut ends it.
	calls context.Context //nolint:containedctx // it is that of calls to come
	cut   context.CancelFunc

	// seen holds the events that the chat has had; nil: not loaded.
	seen seenSet

	// outs are the user's messages that have no outcome yet, oldest first; taken
	// holds the ids of all messages that the user has sent in the chat.
	outs  []*out
	taken seenSet

	// News for the desk that is only worth its latest value.
	update, typing, read note
	typingNow            bool

	// When the next try of each call may be made.
	linkRetry, sendRetry, endRetry, updateRetry, moveRetry retry

	// starters wait for the chat to start; signInToken goes to StartChat.
	starters    []chan<- error
	signInToken string

	// unclear says that an attempt to resume or end the chat came to no answer
	// from the generation that the desk has now; fell, that the process has ended
	// during the attempt under way.
	unclear, fell bool

	since     time.Time // requested, or loaded
	endedAt   time.Time // ended, or loaded
	awaySince time.Time // not linked since; zero while it is
	overAt    time.Time // the desk called the chat over; zero if not
	quiet     bool      // its user need not be told at once that it is not linked
	queued    bool      // waits for its turn to be resumed or handed over
	placed    bool      // has its turn
	away      bool      // is counted as one that no process serves
	alone     bool      // and no other chat has
	released  bool      // nothing is left to be done for it
	// When the chat is looked at next, zero if never, and its place among the alarms.
	alarm      time.Time
	alarmIndex int
}

// out is a message of the user on its way.
type out struct {
	record  *recordv1.OutMessage
	entry   *recordv1.UserMessage
	at      time.Time // when the host took it
	since   time.Time // taken, or loaded
	waiters []chan<- Sent
	// deskFailed says that the desk has called the message failed already.
	deskFailed bool
	// crashes counts the ends of the desk's process while it had the message.
	crashes int
}

// note is a call of which only the latest value matters.
type note struct{ wanted, underway bool }

// retry counts the failures of a call in a row and when the next try may come.
type retry struct {
	at time.Time
	n  int
}

// later sets the next try: exponential from 250 ms to 30 s, with jitter, and no
// sooner than the plugin wishes.
func (r *retry) later(now time.Time, wish time.Duration) {
	wait := min(250*time.Millisecond<<min(r.n, 7), 30*time.Second)
	wait = wait/2 + rand.N(wait/2)
	r.n++
	r.at = now.Add(max(wait, min(wish, 5*time.Minute)))
}

func (c *chat) id() string       { return c.head.GetId() }
func (c *chat) deskName() string { return c.head.GetDesk() }
func (c *chat) open() bool       { return c.head.GetPhase() != recordv1.ChatPhase_CHAT_PHASE_ENDED }
func (c *chat) starting() bool   { return c.head.GetPhase() == recordv1.ChatPhase_CHAT_PHASE_STARTING }

func (c *chat) info() *ChatInfo {
	info := &ChatInfo{
		ID:          c.id(),
		RequestID:   c.head.GetRequestId(),
		State:       "waiting",
		RequestedAt: c.head.GetRequestedAt().AsTime(),
		Agent:       c.head.GetAgent(),
		DeskAway:    c.head.GetDeskAway(),
	}
	switch {
	case c.starting():
		info.State = "starting"
	case c.head.GetAgentJoined():
		info.State = "connected"
	}
	return info
}

func pending(s recordv1.OutState) bool {
	return s == recordv1.OutState_OUT_STATE_WAITING || s == recordv1.OutState_OUT_STATE_SENDING
}

// startChat opens a chat, or finds the one that the same request has opened.
// The answer goes to started once there is one.
func (sh *shard) startChat(s *session, id string, req StartRequest, started chan<- error) error {
	if req.ID == "" || len(req.ID) > maxIDBytes {
		return &Error{Code: CodeInvalid, Detail: "The id of a chat must have 1 to 128 bytes."}
	}
	if c := sh.chats[id]; c != nil {
		if c.starting() {
			c.starters = append(c.starters, started)
			return nil
		}
		answer := startAnswer(c.head)
		sh.effect(func() { started <- answer })
		return nil
	}
	switch old, err := sh.svc.opts.Journal.Chat(id); {
	case err == nil:
		answer := startAnswer(old)
		sh.effect(func() { started <- answer })
		return nil
	case !errors.Is(err, journal.ErrNotFound):
		sh.fatal(err)
		return err
	}
	if c := s.chat; c != nil {
		return &Error{Code: CodeChatOpen, Detail: "The session has an open chat.", ChatID: c.id()}
	}
	if !sh.svc.knows(s.head.GetDesk()) {
		return &Error{Code: CodeDeskUnknown, Detail: "The session's desk is no longer configured."}
	}
	if sh.svc.opts.Full() {
		return errStorageFull
	}
	c := &chat{
		s: s,
		head: &recordv1.Chat{
			Id:          id,
			SessionId:   s.head.GetId(),
			RequestId:   req.ID,
			Desk:        s.head.GetDesk(),
			Phase:       recordv1.ChatPhase_CHAT_PHASE_STARTING,
			RequestedAt: timestamppb.New(sh.wall),
			Start:       recordStart(req),
		},
		seen:        make(seenSet),
		taken:       make(seenSet),
		since:       sh.now,
		awaySince:   sh.now,
		signInToken: req.SignInToken,
		starters:    []chan<- error{started},
	}
	sh.allowCalls(c)
	s.chat, s.head.LastChatId = c, id
	sh.dirty(s)
	sh.chats[id] = c
	sh.svc.count(c, 1)
	sh.append(s, id, &recordv1.Entry{Body: &recordv1.Entry_ChatRequested{
		ChatRequested: &recordv1.ChatRequested{Desk: c.deskName(), Text: req.Text},
	}})
	sh.batch.PutChat(c.head)
	sh.step(c)
	return nil
}

// startAnswer is what the request that opened a chat was answered with.
func startAnswer(c *recordv1.Chat) error {
	if p := c.GetStartProblem(); p != nil {
		return &Error{Code: Code(p.GetCode()), Detail: p.GetDetail(), UserMessage: c.GetEnded().GetMessage()}
	}
	return nil
}

// takeMessage journals a message of the user, or finds the one that the same
// request has left. The outcome goes to outcome if it is not in the answer.
func (sh *shard) takeMessage(s *session, m Message, outcome chan<- Sent) (Sent, error) {
	if m.ID == "" || len(m.ID) > maxIDBytes {
		return Sent{}, &Error{Code: CodeInvalid, Detail: "The id of a message must have 1 to 128 bytes."}
	}
	hash := messageHash(m.Text, m.Data)
	chat := m.ChatID
	if chat == "" {
		chat = s.head.GetLastChatId()
	}
	if sessionID, ok := journal.SessionOf(chat); ok && sessionID == s.head.GetId() {
		switch o, old, err := sh.message(chat, m.ID); {
		case err != nil:
			return Sent{}, err
		case old != nil && !bytes.Equal(old.GetTextSha256(), hash):
			return Sent{}, &Error{Code: CodeIDReused, Detail: "Another message has this id already."}
		case old != nil:
			if o != nil {
				o.waiters = append(o.waiters, outcome)
			}
			return Sent{Seq: old.GetSeq(), Status: old.GetState(), Reason: old.GetReason()}, nil
		}
	}
	c := s.chat
	if c == nil || c.id() != chat {
		return Sent{}, &Error{Code: CodeNoChat, Detail: "The session has no open chat, or another than the message is for."}
	}
	if limit := sh.svc.textLimit(c.deskName()); len(m.Text) > limit {
		return Sent{}, &Error{Code: CodeTextTooLong, Detail: fmt.Sprintf("The text has %d bytes; the desk takes %d.", len(m.Text), limit)}
	}
	if len(c.outs) >= sh.svc.limits().QueuedMessages {
		return Sent{}, &Error{Code: CodeTooManyMessages, Detail: "Too many messages of this chat are waiting for the desk."}
	}
	if sh.svc.opts.Full() {
		return Sent{}, errStorageFull
	}
	o := &out{
		record: &recordv1.OutMessage{
			Id:         m.ID,
			TextSha256: hash,
			State:      recordv1.OutState_OUT_STATE_WAITING,
		},
		entry:   &recordv1.UserMessage{Id: m.ID, Text: m.Text, DataJson: m.Data},
		at:      sh.wall,
		since:   sh.now,
		waiters: []chan<- Sent{outcome},
	}
	sh.append(s, c.id(), &recordv1.Entry{Body: &recordv1.Entry_UserMessage{UserMessage: o.entry}})
	o.record.Seq = s.lastSeq
	c.outs = append(c.outs, o)
	c.taken.add(m.ID)
	sh.step(c)
	if o.record.GetState() == recordv1.OutState_OUT_STATE_WAITING {
		sh.batch.PutOut(c.id(), o.record) // otherwise the mark has been written
	}
	return Sent{Seq: o.record.GetSeq(), Status: o.record.GetState(), Reason: o.record.GetReason()}, nil
}

// messageHash tells one message from another.
func messageHash(text string, data []byte) []byte {
	h := sha256.New()
	h.Write([]byte(text))
	h.Write([]byte{0})
	h.Write(data)
	return h.Sum(nil)
}

// message returns what is recorded of a message of the user, nil if there is no
// such message, and the message itself while it has no outcome.
func (sh *shard) message(chatID, id string) (*out, *recordv1.OutMessage, error) {
	if c := sh.chats[chatID]; c != nil {
		if !c.taken.has(id) {
			return nil, nil, nil
		}
		for _, o := range c.outs { // of this very turn, perhaps: not in the journal yet
			if o.record.GetId() == id {
				return o, o.record, nil
			}
		}
	}
	if m := sh.recorded[outKey{chatID, id}]; m != nil {
		return nil, m, nil
	}
	switch m, err := sh.svc.opts.Journal.Out(chatID, id); {
	case err == nil:
		return nil, m, nil
	case errors.Is(err, journal.ErrNotFound):
		return nil, nil, nil
	default:
		sh.fatal(err)
		return nil, nil, err
	}
}

// step does what is due for a chat, and sets the alarm for what will be. It is
// called after every change, and may be called at any time.
func (sh *shard) step(c *chat) {
	if c.released {
		return
	}
	if c.open() {
		sh.stepLimits(c)
	}
	if c.open() && !sh.parked {
		sh.stepLink(c)
		sh.stepSend(c)
		sh.stepNews(c)
	}
	if away := c.open() && !c.starting() && !c.linked; away != c.away {
		c.away = away
		sh.svc.countAway(c)
	}
	if !c.open() {
		sh.stepEnd(c)
	}
}

// reached tells whether a time has come, and sees to it that the chat is looked
// at when it has not.
func (sh *shard) reached(c *chat, at time.Time) bool {
	if !at.After(sh.now) {
		return true
	}
	sh.alarms.set(c, at)
	return false
}

// stepLimits ends what has lasted too long.
func (sh *shard) stepLimits(c *chat) {
	l := sh.svc.limits()
	switch {
	case c.starting():
		if sh.reached(c, c.since.Add(l.StartTimeout)) {
			p := &recordv1.StartProblem{Code: string(CodeStartTimeout), Detail: "The desk did not take the chat in time."}
			if c.head.GetStartAttempts() == 0 {
				p = &recordv1.StartProblem{Code: string(CodeDeskUnavailable), Detail: "The desk cannot be reached at present."}
			}
			sh.failStart(c, recordv1.EndedBy_ENDED_BY_HOST, p, "", c.head.GetStartAttempts() > 0)
			return
		}
	case c.linked:
		c.quiet = false
	default:
		if !c.head.GetDeskAway() && (!c.quiet || sh.reached(c, c.awaySince.Add(awayGrace))) {
			sh.setAway(c, true)
		}
		if sh.reached(c, c.awaySince.Add(l.DeskAwayLimit)) {
			sh.end(c, recordv1.EndedBy_ENDED_BY_HOST, "desk_away", "", true)
			return
		}
	}
	if !c.overAt.IsZero() && sh.reached(c, c.overAt.Add(overGrace)) {
		sh.end(c, recordv1.EndedBy_ENDED_BY_DESK, "chat_over", "", false)
		return
	}
	if len(c.s.feeds) == 0 {
		limit := l.AbandonWaiting
		if c.head.GetAgentJoined() {
			limit = l.AbandonConnected
		}
		if sh.reached(c, c.s.seen.Add(limit)) {
			sh.end(c, recordv1.EndedBy_ENDED_BY_HOST, "abandoned", "", true)
			return
		}
	}
	if !c.head.GetAgentJoined() && sh.reached(c, c.since.Add(l.JoinTimeout)) {
		sh.end(c, recordv1.EndedBy_ENDED_BY_HOST, "join_timeout", "", true)
		return
	}
	for len(c.outs) > 0 && !c.sending && sh.reached(c, c.outs[0].since.Add(l.MessageWait)) {
		sh.giveUp(c, 0, "waited_too_long")
	}
}

// warn logs trouble with a chat: the first hundred times at its desk, then at most
// ten times a second.
func (sh *shard) warn(c *chat, what string, more ...any) {
	say := func() {
		sh.svc.log.Warn(what, append([]any{"desk", c.deskName(), "chat", c.id()}, more...)...)
	}
	if d := sh.svc.desk(c.deskName()); d != nil {
		d.warned.Do(say)
	} else {
		say()
	}
}

// setAway tells the user whether the desk serves the chat.
func (sh *shard) setAway(c *chat, away bool) {
	if c.head.GetDeskAway() == away {
		return
	}
	c.head.DeskAway = away
	e := &recordv1.Entry{Body: &recordv1.Entry_DeskBack{DeskBack: &recordv1.DeskBack{}}}
	if away {
		e.Body = &recordv1.Entry_DeskAway{DeskAway: &recordv1.DeskAway{}}
	}
	sh.append(c.s, c.id(), e)
	sh.batch.PutChat(c.head)
}

// allowCalls lets calls for a chat begin, at first and after a cut.
func (sh *shard) allowCalls(c *chat) { c.calls, c.cut = context.WithCancel(sh.svc.ctx) }

// call begins a call to a plugin once this turn is durable, and hands its
// outcome to then in a later turn.
func (sh *shard) call(c *chat, timeout time.Duration, rpc func(context.Context) error, then func(error)) {
	parent := c.calls
	sh.effect(func() {
		sh.svc.calls.Go(func() {
			ctx, cancel := context.WithTimeout(parent, timeout)
			err := rpc(ctx)
			cancel()
			sh.post(func() { then(err) })
		})
	})
}

// failure tells what became of a call that failed.
func failure(err error) *desk.CallError {
	var ce *desk.CallError
	if !errors.As(err, &ce) {
		ce = &desk.CallError{Kind: deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN, Err: err}
	}
	return ce
}

// stepLink has the desk's current generation start or resume the chat, or take
// it over from the one before.
func (sh *shard) stepLink(c *chat) {
	d := sh.desk(c.deskName())
	switch {
	case c.linked:
		sh.stepMove(c, d)
	case c.linking || d.gen == nil || !sh.reached(c, c.linkRetry.at):
	case c.starting():
		sh.callStart(c, d.gen)
	case !desk.Has(d.gen, deskv1.Capability_CAPABILITY_RESUME):
		sh.end(c, recordv1.EndedBy_ENDED_BY_HOST, "desk_restarted", "", true)
	case sh.enter(c, d):
		g := d.gen
		sh.callResume(c, g, func(err error) { sh.resumeDone(c, g, err) })
	}
}

// own has a generation own the chat, or none.
func (sh *shard) own(c *chat, g desk.Generation) {
	c.gen = g
	sh.hold(c)
}

// hold counts the chat for the generations that must live for its sake.
func (sh *shard) hold(c *chat) {
	next := [2]desk.Generation{c.gen}
	if m := c.move; m != nil {
		next = [2]desk.Generation{m.from, m.to}
	}
	before := c.held
	c.held = next
	// None may be without chats in between: its desk would end it.
	for _, g := range next {
		sh.svc.countOwned(g, 1)
	}
	for _, g := range before {
		sh.svc.countOwned(g, -1)
	}
}

// enter gives a chat its turn to be resumed or handed over, or has it wait.
func (sh *shard) enter(c *chat, d *shardDesk) bool {
	// A suspect does not queue: where it may go on no other is under way.
	if !c.suspect() && d.resuming >= sh.resumes {
		if !c.queued {
			c.queued = true
			d.queue = append(d.queue, c)
		}
		return false
	}
	if !sh.svc.desk(c.deskName()).resumes.enter(c.suspect(), sh.now) {
		sh.reached(c, sh.now.Add(resumeAgain))
		return false
	}
	d.resuming++
	c.placed, c.alone = true, c.suspect()
	return true
}

// leave ends a chat's turn, if it has one, and begins those of others.
func (sh *shard) leave(c *chat) {
	if !c.placed {
		return
	}
	c.placed = false
	d := sh.desk(c.deskName())
	d.resuming--
	sh.svc.desk(c.deskName()).resumes.leave(c.alone)
	for len(d.queue) > 0 && d.resuming < sh.resumes {
		next := d.queue[0]
		d.queue = d.queue[1:]
		next.queued = false
		sh.step(next)
	}
}

func (sh *shard) callStart(c *chat, g desk.Generation) {
	sh.own(c, g)
	c.linking, c.streamed = true, false
	c.head.StartAttempts++
	sh.batch.PutChat(c.head)
	start := c.head.GetStart()
	req := &deskv1.StartChatRequest{
		ChatId:             c.id(),
		Attempt:            c.head.GetStartAttempts(),
		State:              wireState(c.state),
		Context:            wireContext(c.s.head.GetContext()),
		ConnectMessageJson: start.GetConnectMessageJson(),
		Text:               start.GetText(),
		History:            wireHistory(start.GetHistory()),
		SignInToken:        c.signInToken,
	}
	var resp *deskv1.StartChatResponse
	sh.call(c, sh.svc.limits().StartTimeout, func(ctx context.Context) (err error) {
		resp, err = g.StartChat(ctx, req)
		return err
	}, func(err error) {
		c.linking = false
		if err == nil && resp.GetState() != nil && !c.streamed && (c.gen == nil || c.gen == g) {
			sh.putState(c, resp.GetState())
		}
		sh.startDone(c, g, err)
		sh.step(c)
	})
}

// startDone takes the outcome of StartChat.
func (sh *shard) startDone(c *chat, g desk.Generation, err error) {
	if !c.open() {
		return // EndChat follows
	}
	if err == nil {
		if c.starting() {
			c.head.Phase = recordv1.ChatPhase_CHAT_PHASE_OPEN
			c.head.Start = nil // StartChat is not called again
			sh.append(c.s, c.id(), &recordv1.Entry{Body: &recordv1.Entry_ChatStarted{ChatStarted: &recordv1.ChatStarted{}}})
			sh.batch.PutChat(c.head)
			sh.answerStarters(c, nil)
		}
		if c.gen == g {
			sh.setLinked(c)
		}
		return
	}
	f := failure(err)
	sh.warn(c, "a chat could not be started",
		"attempt", c.head.GetStartAttempts(), "outcome", f.Kind, "error", f)
	switch f.Kind {
	case deskv1.FailureKind_FAILURE_KIND_RETRY, deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN:
		// Starting is idempotent: try again until the time is up.
		c.linkRetry.later(sh.now, f.RetryAfter)
	case deskv1.FailureKind_FAILURE_KIND_REFUSED:
		// An attempt before this one may have reached the desk all the same.
		sh.failStart(c, recordv1.EndedBy_ENDED_BY_DESK, &recordv1.StartProblem{
			Code: string(CodeStartRefused), Detail: "The desk does not take the chat.",
		}, f.UserMessage, c.head.GetStartAttempts() > 1)
	default:
		sh.failStart(c, recordv1.EndedBy_ENDED_BY_DESK, &recordv1.StartProblem{
			Code: string(CodeStartFailed), Detail: "The desk could not start the chat.",
		}, f.UserMessage, c.head.GetStartAttempts() > 1)
	}
}

// failStart ends a chat that never began.
func (sh *shard) failStart(c *chat, by recordv1.EndedBy, p *recordv1.StartProblem, userMessage string, owed bool) {
	c.head.StartProblem = p
	sh.end(c, by, p.GetCode(), userMessage, owed)
}

func (sh *shard) answerStarters(c *chat, err error) {
	for _, w := range c.starters {
		sh.effect(func() { w <- err })
	}
	c.starters, c.signInToken = nil, ""
}

// callResume has a generation resume the chat, and hands the outcome to done.
func (sh *shard) callResume(c *chat, g desk.Generation, done func(error)) {
	sh.own(c, g)
	c.linking, c.fell = true, false
	c.head.ResumeAttempts++
	sh.batch.PutChat(c.head)
	req := &deskv1.ResumeChatRequest{
		ChatId:  c.id(),
		Attempt: c.head.GetResumeAttempts(),
		State:   wireState(c.state),
		Context: wireContext(c.s.head.GetContext()),
	}
	sh.call(c, resumeTimeout, func(ctx context.Context) error { return g.ResumeChat(ctx, req) }, func(err error) {
		c.linking = false
		sh.answered(c, err)
		done(err)
		if c.move == nil {
			sh.leave(c)
		}
		sh.step(c)
	})
}

// resumeDone takes the outcome of ResumeChat.
func (sh *shard) resumeDone(c *chat, g desk.Generation, err error) {
	if !c.open() || c.gen != g {
		return
	}
	if err == nil {
		sh.setLinked(c)
		return
	}
	f := failure(err)
	sh.warn(c, "a chat could not be resumed", "outcome", f.Kind, "error", f)
	switch f.Kind {
	case deskv1.FailureKind_FAILURE_KIND_RETRY, deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN:
		c.linkRetry.later(sh.now, f.RetryAfter)
	case deskv1.FailureKind_FAILURE_KIND_CHAT_OVER:
		sh.end(c, recordv1.EndedBy_ENDED_BY_DESK, "chat_over", f.UserMessage, false)
	case deskv1.FailureKind_FAILURE_KIND_CHAT_UNKNOWN:
		sh.end(c, recordv1.EndedBy_ENDED_BY_DESK, "chat_unknown", f.UserMessage, false)
	default:
		sh.end(c, recordv1.EndedBy_ENDED_BY_DESK, "resume_failed", f.UserMessage, true)
	}
}

// setLinked says that the owning generation serves the chat now.
func (sh *shard) setLinked(c *chat) {
	c.linked, c.awaySince = true, time.Time{}
	c.unclear = false
	if c.head.GetCrashes() > 0 {
		c.head.Crashes = 0
		sh.batch.PutChat(c.head)
	}
	c.linkRetry, c.sendRetry, c.updateRetry = retry{}, retry{}, retry{}
	sh.setAway(c, false)
}

// unlink says that no generation serves the chat now. Quiet says that its user
// need not be told at once.
func (sh *shard) unlink(c *chat, quiet bool) {
	c.linked, c.quiet, c.awaySince = false, quiet, sh.now
}

// stepSend gives the oldest message to the desk.
func (sh *shard) stepSend(c *chat) {
	for !c.sending && len(c.outs) > 0 {
		if !c.linked || c.move != nil || !c.overAt.IsZero() {
			return
		}
		o, g := c.outs[0], c.gen
		if o.record.GetState() == recordv1.OutState_OUT_STATE_SENDING && (!dedupes(g) || o.crashes >= mostCrashes) {
			// An earlier try may have arrived, and a second would be seen twice; or
			// each has ended the process.
			sh.settle(c, 0, recordv1.OutState_OUT_STATE_UNKNOWN, "outcome_unknown")
			continue
		}
		if !sh.reached(c, c.sendRetry.at) {
			return
		}
		sh.callSend(c, o, g)
	}
}

func dedupes(g desk.Generation) bool {
	switch g.Describe().GetSendDedupe() {
	case deskv1.SendDedupe_SEND_DEDUPE_KEY, deskv1.SendDedupe_SEND_DEDUPE_LOOKUP:
		return true
	}
	return false
}

func (sh *shard) callSend(c *chat, o *out, g desk.Generation) {
	c.sending = true
	unclear := o.record.GetState() == recordv1.OutState_OUT_STATE_SENDING
	o.record.State = recordv1.OutState_OUT_STATE_SENDING
	o.record.Attempts++
	sh.batch.PutOut(c.id(), o.record)
	req := &deskv1.SendMessageToAgentRequest{
		ChatId:    c.id(),
		MessageId: o.record.GetId(),
		Attempt:   o.record.GetAttempts(),
		Text:      o.entry.GetText(),
		DataJson:  o.entry.GetDataJson(),
		Time:      timestamppb.New(o.at),
	}
	sh.call(c, sendTimeout, func(ctx context.Context) error {
		_, err := g.SendMessageToAgent(ctx, req)
		return err
	}, func(err error) {
		c.sending = false
		sh.sendDone(c, o, unclear, err)
		sh.step(c)
	})
}

// sendDone takes the outcome of SendMessageToAgent. Unclear says that an
// earlier try of the same message may have arrived.
func (sh *shard) sendDone(c *chat, o *out, unclear bool, err error) {
	if err == nil {
		c.sendRetry = retry{}
		sh.settle(c, 0, recordv1.OutState_OUT_STATE_DELIVERED, "")
		return
	}
	f := failure(err)
	sh.warn(c, "a message could not be delivered", "message", o.record.GetId(),
		"attempt", o.record.GetAttempts(), "outcome", f.Kind, "error", f)
	fail := func(reason string) {
		if unclear { // said of this try only
			sh.settle(c, 0, recordv1.OutState_OUT_STATE_UNKNOWN, "outcome_unknown")
		} else {
			sh.settle(c, 0, recordv1.OutState_OUT_STATE_FAILED, reason)
		}
	}
	switch f.Kind {
	case deskv1.FailureKind_FAILURE_KIND_RETRY:
		c.sendRetry.later(sh.now, f.RetryAfter)
		o.crashes = 0 // The process did not have it.
		if !unclear {
			o.record.State = recordv1.OutState_OUT_STATE_WAITING
			sh.batch.PutOut(c.id(), o.record)
		}
	case deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN:
		c.sendRetry.later(sh.now, 0) // the mark stays
	case deskv1.FailureKind_FAILURE_KIND_CHAT_OVER, deskv1.FailureKind_FAILURE_KIND_CHAT_UNKNOWN:
		fail("chat_over")
		if c.open() {
			c.overAt = sh.now
		}
	case deskv1.FailureKind_FAILURE_KIND_REFUSED:
		fail("refused")
	default:
		fail("invalid")
	}
}

// giveUp settles a message that no call has in hand.
func (sh *shard) giveUp(c *chat, i int, reason string) {
	if c.outs[i].record.GetState() == recordv1.OutState_OUT_STATE_SENDING {
		sh.settle(c, i, recordv1.OutState_OUT_STATE_UNKNOWN, "outcome_unknown")
	} else {
		sh.settle(c, i, recordv1.OutState_OUT_STATE_FAILED, reason)
	}
}

// settle records the outcome of a message that has none yet.
func (sh *shard) settle(c *chat, i int, state recordv1.OutState, reason string) {
	o := c.outs[i]
	c.outs = slices.Delete(c.outs, i, i+1)
	if o.deskFailed {
		state, reason = recordv1.OutState_OUT_STATE_FAILED, "desk_failed"
	}
	sh.record(c, o.record, state, reason)
	sent := Sent{Seq: o.record.GetSeq(), Status: state, Reason: reason}
	for _, w := range o.waiters {
		sh.effect(func() { w <- sent })
	}
}

// record writes the outcome of a message.
func (sh *shard) record(c *chat, m *recordv1.OutMessage, state recordv1.OutState, reason string) {
	m.State, m.Reason = state, reason
	sh.append(c.s, c.id(), &recordv1.Entry{Body: &recordv1.Entry_MessageStatus{
		MessageStatus: &recordv1.MessageStatus{Id: m.GetId(), State: state, Reason: reason},
	}})
	sh.batch.PutOut(c.id(), m)
	sh.recorded[outKey{c.id(), m.GetId()}] = m
}

// stepNews tells the desk what is only worth its latest value.
func (sh *shard) stepNews(c *chat) {
	if !c.linked || c.move != nil {
		return
	}
	g := c.gen
	if c.update.wanted && !c.update.underway && sh.reached(c, c.updateRetry.at) {
		req := &deskv1.UpdateStateRequest{ChatId: c.id(), Context: wireContext(c.s.head.GetContext())}
		sh.note(c, &c.update, deskv1.Capability_CAPABILITY_UPDATE_STATE, func(ctx context.Context) error {
			return g.UpdateState(ctx, req)
		}, func(f *desk.CallError) {
			switch f.Kind {
			case deskv1.FailureKind_FAILURE_KIND_RETRY, deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN:
				c.update.wanted = true
				c.updateRetry.later(sh.now, f.RetryAfter)
			default:
				sh.warn(c, "a desk did not take the user's new state", "outcome", f.Kind, "error", f)
			}
		})
	}
	if c.typing.wanted && !c.typing.underway {
		req := &deskv1.UserTypingRequest{ChatId: c.id(), Typing: c.typingNow}
		sh.note(c, &c.typing, deskv1.Capability_CAPABILITY_USER_TYPING, func(ctx context.Context) error {
			return g.UserTyping(ctx, req)
		}, passed)
	}
	if c.read.wanted && !c.read.underway {
		req := &deskv1.UserReadMessagesRequest{ChatId: c.id()}
		sh.note(c, &c.read, deskv1.Capability_CAPABILITY_USER_READ, func(ctx context.Context) error {
			return g.UserReadMessages(ctx, req)
		}, passed)
	}
}

// passed is for news that is not worth a second try.
func passed(*desk.CallError) {}

// note begins a call of which only the latest value matters, if the desk has it.
func (sh *shard) note(c *chat, n *note, need deskv1.Capability, rpc func(context.Context) error, failed func(*desk.CallError)) {
	n.wanted = false
	if !desk.Has(c.gen, need) {
		return
	}
	n.underway = true
	sh.call(c, newsTimeout, rpc, func(err error) {
		n.underway = false
		switch {
		case err != nil:
			failed(failure(err))
		case n == &c.update:
			c.updateRetry = retry{}
		}
		sh.step(c)
	})
}
