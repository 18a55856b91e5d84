package session

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/journal"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
)

const (
	// inboxSize bounds the tasks that wait for a shard; whoever posts more waits.
	inboxSize = 1024
	// turnTasks bounds the tasks of one turn, so that the first does not wait
	// for the last for too long.
	turnTasks = 256
	// turnsAhead bounds the turns that wait to be durable: there is no other before
	// one of them is.
	turnsAhead = 16
	// unloadEvery is how often a shard looks for sessions that nobody uses.
	unloadEvery = time.Minute
)

// shard owns a part of the sessions. All of its fields and everything reachable
// from them belong to the goroutine of run.
type shard struct {
	svc   *Service
	inbox chan func()

	sessions map[string]*session
	chats    map[string]*chat      // open, owing, or let go of in this turn, by id
	desks    map[string]*shardDesk // by name
	alarms   alarms                // when to step which chat
	parked   bool                  // no commands, no new calls
	resumes  int                   // ResumeChat calls under way for a desk, at most

	// One turn. What lasts is timed by now, whose monotonic reading no change of
	// the clock touches; what is written down is dated by wall.
	now, wall time.Time
	batch     journal.Batch
	touched   []*session                      // have fresh news or a changed head
	released  []*chat                         // whose end the journal does not tell before this turn is written
	recorded  map[outKey]*recordv1.OutMessage // outcomes that it does not tell before, either
	told      outcome
	err       error

	// written are the turns that are not known to be durable, oldest first. The
	// shard goes on with the next meanwhile; what came of them is told in order.
	written []written
	spare   []outcome // to be used again
}

// outcome is what a turn lets out once it is durable, and all before it.
type outcome struct {
	news    []delivery
	settled []settlement
	effects []func()
}

// written is a turn on its way to the disk.
type written struct {
	durable <-chan error
	outcome
}

// delivery is the news of a session.
type delivery struct {
	to   *session
	news []News
}

// shardDesk is what a shard knows of a desk.
type shardDesk struct {
	// gen serves the desk, nil while it is down; live are all generations that
	// have not ended, those that it has replaced among them.
	gen  desk.Generation
	live []desk.Generation
	// resuming counts the chats that are being resumed or handed over; queue
	// holds those that wait for their turn, oldest first.
	resuming int
	queue    []*chat
}

// outKey names a message of a user.
type outKey struct{ chat, id string }

type settlement struct {
	gen     desk.Generation
	seq     uint64
	refusal *desk.Refusal
}

func newShard(s *Service, resumes int) *shard {
	sh := &shard{
		svc:      s,
		resumes:  resumes,
		inbox:    make(chan func(), inboxSize),
		sessions: make(map[string]*session),
		chats:    make(map[string]*chat),
		desks:    make(map[string]*shardDesk),
		recorded: make(map[outKey]*recordv1.OutMessage),
	}
	sh.tick()
	return sh
}

// desk is what the shard knows of a desk, which need not be configured.
func (sh *shard) desk(name string) *shardDesk {
	d := sh.desks[name]
	if d == nil {
		d = new(shardDesk)
		sh.desks[name] = d
	}
	return d
}

// post hands a task to the shard. It waits while the inbox is full; a shard that
// has ended runs nothing. Never called by the shard itself.
func (sh *shard) post(task func()) {
	select {
	case sh.inbox <- task:
	case <-sh.svc.closing:
	case <-sh.svc.dead:
	}
}

// run is the shard's goroutine.
func (sh *shard) run() {
	unload := time.NewTicker(unloadEvery)
	defer unload.Stop()
	alarm := time.NewTimer(unloadEvery)
	defer alarm.Stop()
	sh.turn(func() {}) // for what was loaded
	for sh.err == nil {
		if next, ok := sh.alarms.next(); ok {
			// Never a timer that is due already: in a bubble of fake time, many at once
			// crash the race detector of Go 1.26.
			alarm.Reset(max(1, time.Until(next)))
		} else {
			alarm.Stop()
		}
		inbox, ring, idle, durable := sh.inbox, alarm.C, unload.C, (<-chan error)(nil)
		if len(sh.written) > 0 {
			durable = sh.written[0].durable
			select {
			case err := <-durable: // comes before what is next
				sh.wrote(err)
				continue
			default:
			}
		}
		if len(sh.written) == turnsAhead { // no turn, whatever for
			inbox, ring, idle = nil, nil, nil
		}
		select {
		case err := <-durable:
			sh.wrote(err)
		case task := <-inbox:
			sh.turn(task)
		case <-ring:
			sh.turn(func() {})
		case <-idle:
			sh.turn(sh.unload)
		case <-sh.svc.closing:
			sh.finish()
			return
		case <-sh.svc.dead:
			return
		}
	}
	sh.svc.fail(sh.err)
}

// finish lets out what the last turns have to tell. The journal is closed next.
func (sh *shard) finish() {
	for len(sh.written) > 0 && sh.err == nil {
		select {
		case err := <-sh.written[0].durable:
			sh.wrote(err)
		case <-sh.svc.dead:
			return
		}
	}
	if sh.err != nil {
		sh.svc.fail(sh.err)
	}
}

// tick takes the time of a turn.
func (sh *shard) tick() { sh.now, sh.wall = time.Now(), sh.svc.opts.Wall() }

// turn applies tasks and hands what they write to the journal. Their effects are
// let out once that is durable.
func (sh *shard) turn(task func()) {
	sh.tick()
	for n := 0; ; n++ {
		task()
		if n >= turnTasks {
			break
		}
		select {
		case task = <-sh.inbox:
			continue
		default:
		}
		break
	}
	sh.alarms.due(sh.now, sh.step)
	for _, s := range sh.touched {
		if s.changed {
			sh.batch.PutSession(s.head)
		}
		if len(s.fresh) > 0 {
			sh.told.news = append(sh.told.news, delivery{s, s.fresh})
		}
		s.touched, s.changed, s.fresh = false, false, nil
	}
	sh.touched = reset(sh.touched)
	for _, c := range sh.released {
		delete(sh.chats, c.id())
	}
	sh.released = reset(sh.released)
	clear(sh.recorded)
	if sh.err != nil {
		return // nothing of this turn may be written or told
	}
	if sh.batch.Len() == 0 && len(sh.written) == 0 {
		sh.tell(&sh.told)
		return
	}
	w := written{nothing, sh.told}
	if sh.batch.Len() > 0 {
		w.durable = sh.svc.opts.Journal.Commit(&sh.batch)
		sh.batch.Reset()
	}
	sh.written = append(sh.written, w)
	sh.told = outcome{}
	if n := len(sh.spare); n > 0 {
		sh.told, sh.spare = sh.spare[n-1], sh.spare[:n-1]
	}
}

// nothing is durable as soon as what came before it is.
var nothing = func() <-chan error {
	c := make(chan error)
	close(c)
	return c
}()

// wrote learns what became of the oldest turn on its way to the disk.
func (sh *shard) wrote(err error) {
	if err != nil {
		sh.fatal(fmt.Errorf("session: write the journal: %w", err))
		return
	}
	o := sh.written[0].outcome
	sh.written = slices.Delete(sh.written, 0, 1)
	sh.tell(&o)
	sh.spare = append(sh.spare, o)
}

// tell lets out what a turn has to tell, and leaves o empty.
func (sh *shard) tell(o *outcome) {
	for _, d := range o.news {
		for _, f := range d.to.feeds {
			f.push(d.news)
		}
	}
	for _, x := range o.settled {
		x.gen.Settle(x.seq, x.refusal)
	}
	for _, effect := range o.effects {
		effect()
	}
	o.news, o.settled, o.effects = reset(o.news), reset(o.settled), reset(o.effects)
}

// reset empties a slice, keeps its memory, and lets go of what it held.
func reset[T any](s []T) []T {
	clear(s)
	return s[:0]
}

// effect lets something out once this turn is durable. It must not block.
func (sh *shard) effect(fn func()) { sh.told.effects = append(sh.told.effects, fn) }

// fatal stops the shard at the end of the turn: the journal cannot be read.
func (sh *shard) fatal(err error) {
	if sh.err == nil {
		sh.err = err
	}
}

// session is one widget's session in memory.
type session struct {
	head *recordv1.Session
	// lastSeq is the seq of the last entry. The log itself tells it, so that an
	// entry need not write the head.
	lastSeq uint64

	chat   *chat   // the open one, or nil
	ending []*chat // ended, and something is left to be done
	feeds  []*feed
	// used is when the session was last used; seen when a page last attended.
	used, seen time.Time

	// One turn.
	touched bool   // is in the shard's list
	changed bool   // the head is to be written
	fresh   []News // to be told once the turn is durable
}

func newSession(head *recordv1.Session) *session { return &session{head: head} }

// touch puts the session on the list of this turn.
func (sh *shard) touch(s *session) {
	if !s.touched {
		s.touched = true
		sh.touched = append(sh.touched, s)
	}
}

// dirty has the session's head written with this turn.
func (sh *shard) dirty(s *session) {
	s.changed = true
	sh.touch(s)
}

// append writes an entry to a session's log.
func (sh *shard) append(s *session, chatID string, e *recordv1.Entry) {
	s.lastSeq++
	e.Seq, e.Time, e.ChatId = s.lastSeq, timestamppb.New(sh.wall), chatID
	sh.batch.Append(s.head.GetId(), e)
	s.fresh = append(s.fresh, News{Entry: e})
	sh.touch(s)
}

// passing hands passing news to whoever listens right now.
func (sh *shard) passing(s *session, n News) {
	if len(s.feeds) == 0 {
		return
	}
	n.Time = sh.wall
	s.fresh = append(s.fresh, n)
	sh.touch(s)
}

var errSessionUnknown = &Error{Code: CodeSessionUnknown, Detail: "There is no such session, or it has expired."}

// authorized returns the session that ref proves the right to, and counts it as used.
func (sh *shard) authorized(ref Ref) (*session, error) {
	s, err := sh.load(ref.ID)
	if err != nil {
		return nil, err
	}
	if s == nil || s.head.GetDeleted() {
		return nil, errSessionUnknown
	}
	if !tokenMatches(ref.Token, s.head.GetTokenSha256()) {
		return nil, &Error{Code: CodeTokenWrong, Detail: "The token is not that of this session."}
	}
	if sh.expired(s) {
		return nil, errSessionUnknown
	}
	sh.use(s)
	return s, nil
}

func (sh *shard) use(s *session) {
	s.used, s.seen = sh.now, sh.now
	if sh.wall.Sub(s.head.GetUsedAt().AsTime()).Abs() > sh.svc.limits().useGrain() {
		s.head.UsedAt = timestamppb.New(sh.wall)
		sh.dirty(s)
	}
}

// idle tells whether nobody uses a session and nothing is left to be done for it.
func (s *session) idle() bool { return s.chat == nil && len(s.ending) == 0 && len(s.feeds) == 0 }

// expired tells whether a session's life is over.
func (sh *shard) expired(s *session) bool {
	return s.idle() && sh.now.Sub(s.used) > sh.svc.limits().sessionLife()
}

// load returns a session from memory or from the journal, nil if there is none.
func (sh *shard) load(sessionID string) (*session, error) {
	if s, ok := sh.sessions[sessionID]; ok {
		return s, nil
	}
	head, err := sh.svc.opts.Journal.Session(sessionID)
	if errors.Is(err, journal.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		sh.fatal(err)
		return nil, err
	}
	s := newSession(head)
	if s.lastSeq, err = sh.svc.opts.Journal.LastSeq(sessionID); err != nil {
		sh.fatal(err)
		return nil, err
	}
	// Its age is counted from here on, and no clock that is set changes it.
	s.used, s.seen = sh.now.Add(-max(0, sh.wall.Sub(head.GetUsedAt().AsTime()))), sh.now
	sh.sessions[head.GetId()] = s // not the caller's string, which may be a part of something large
	return s, nil
}

// detach removes a feed that its reader has closed.
func (sh *shard) detach(f *feed) {
	s := sh.sessions[f.sessionID]
	if s == nil {
		return
	}
	i := slices.Index(s.feeds, f)
	if i < 0 {
		return // its caller had no right to it
	}
	s.feeds = slices.Delete(s.feeds, i, i+1)
	sh.use(s)
	if s.chat != nil {
		sh.step(s.chat)
	}
}

// unload lets go of sessions that nobody uses; the journal has them.
func (sh *shard) unload() {
	for id, s := range sh.sessions {
		if len(s.feeds) > 0 {
			sh.use(s) // a page listens
		}
		if s.idle() && !s.touched && sh.now.Sub(s.used) > unloadEvery {
			delete(sh.sessions, id)
		}
	}
}

// forgetIfSettled gives a deleted session to the sweeper once nothing is owed
// for it and the journal says that it is deleted.
func (sh *shard) forgetIfSettled(s *session) {
	if !s.head.GetDeleted() || s.chat != nil || len(s.ending) > 0 {
		return
	}
	sh.effect(func() {
		delete(sh.sessions, s.head.GetId())
		sh.svc.sweeper.take(s.head.GetId())
	})
}
