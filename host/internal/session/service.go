package session

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/journal"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// shardsOf is how many goroutines own sessions on a machine with so many
// processors. Each may be waiting for the disk, so there are more of them than
// processors; but not many more: what arrives together at one shard is written
// together, and each commit costs.
func shardsOf(processors int) int { return 2 * processors }

// availabilityTimeout leaves room for the answer's way within the four seconds
// that a page is promised.
const availabilityTimeout = 3500 * time.Millisecond

// Options configure a Service.
type Options struct {
	// Journal is written by this service alone from now on. It is not closed.
	Journal *journal.Journal
	// Desks are the names of the configured desks; DefaultDesk is one of them,
	// or empty.
	Desks       []string
	DefaultDesk string
	Limits      Limits
	// KeepExpired is for how long an expired session stays in the journal.
	KeepExpired time.Duration
	// Full tells whether the journal has no room for a new session, chat or
	// message; nil: it always has. It must not block.
	Full func() bool
	// Wall is the clock by which things are dated; nil: time.Now. Tests set it.
	Wall func() time.Time
	Log  hclog.Logger
}

// Service owns all sessions. Its methods may be called concurrently.
type Service struct {
	opts     Options
	log      hclog.Logger
	shards   []*shard
	sweeper  *sweeper
	settings atomic.Pointer[settings]

	// ctx is the parent of every call to a plugin; calls waits for them.
	ctx    context.Context
	cancel context.CancelFunc
	calls  sync.WaitGroup
	loops  sync.WaitGroup

	closing chan struct{} // closed: no inbox is read any more
	once    sync.Once

	dead     chan struct{} // closed on a fatal error
	deadErr  chan error
	failOnce sync.Once
}

// settings are what [Service.Reconfigure] changes. They are replaced as a whole.
type settings struct {
	// desks has every desk since the start; those that are configured are known.
	desks       map[string]*deskState
	known       []string
	defaultDesk string
	limits      Limits
}

// deskState is what all shards may know of a desk.
type deskState struct {
	// current is the generation that serves the desk, nil while it is down.
	current atomic.Pointer[desk.Generation]
	// described is what the desk last said of itself, nil before it was ready.
	described atomic.Pointer[deskv1.DescribeResponse]
	// chats counts the open ones, away those of them that no process serves.
	chats, away atomic.Int64
	// resumes are the ResumeChat calls under way.
	resumes resumes
	// warned keeps trouble with each of thousands of chats from filling the log.
	warned rate.Sometimes

	mu    sync.Mutex
	owned map[uint64]int // how many chats each generation has
}

func newDeskState() *deskState {
	return &deskState{warned: rate.Sometimes{First: 100, Interval: 100 * time.Millisecond}}
}

func (d *deskState) generation() desk.Generation {
	if g := d.current.Load(); g != nil {
		return *g
	}
	return nil
}

// New reads the open chats from the journal and starts the shards.
func New(opts Options) (*Service, error) {
	s := &Service{
		opts:    opts,
		log:     opts.Log,
		closing: make(chan struct{}),
		dead:    make(chan struct{}),
		deadErr: make(chan error, 1),
	}
	if s.opts.Wall == nil {
		s.opts.Wall = time.Now
	}
	if s.opts.Full == nil {
		s.opts.Full = func() bool { return false }
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.settings.Store(&settings{})
	s.Reconfigure(opts.Desks, opts.DefaultDesk, opts.Limits)
	n := shardsOf(runtime.GOMAXPROCS(0))
	for range n {
		s.shards = append(s.shards, newShard(s, max(1, resumesAtOnce/n)))
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	s.sweeper = newSweeper(s)
	for _, sh := range s.shards {
		s.loops.Go(sh.run)
	}
	s.loops.Go(s.sweeper.run)
	return s, nil
}

// Reconfigure changes the desks and the limits. A desk that is no longer named
// takes no new sessions and no new chats; its open chats are away until they end
// by desk_away_limit, or it is named again. It is not called concurrently.
func (s *Service) Reconfigure(desks []string, defaultDesk string, limits Limits) {
	next := &settings{known: desks, defaultDesk: defaultDesk, limits: limits}
	next.desks = maps.Clone(s.settings.Load().desks)
	if next.desks == nil {
		next.desks = make(map[string]*deskState, len(desks))
	}
	for _, name := range desks {
		if next.desks[name] == nil {
			next.desks[name] = newDeskState()
		}
	}
	s.settings.Store(next)
}

// remember keeps account of a desk that has chats, and may be configured later.
// No shard runs yet.
func (s *Service) remember(name string) {
	now := s.settings.Load()
	if now.desks[name] == nil {
		now.desks[name] = newDeskState()
	}
}

// desk is what is known of a desk, nil if it has neither chats nor been configured in this run.
func (s *Service) desk(name string) *deskState { return s.settings.Load().desks[name] }

// knows tells whether a desk is configured now.
func (s *Service) knows(name string) bool { return slices.Contains(s.settings.Load().known, name) }

func (s *Service) limits() *Limits { return &s.settings.Load().limits }

// load gives each shard its open chats. The shards do not run yet, and read side
// by side what they will own.
func (s *Service) load() error {
	ids := make([][]string, len(s.shards))
	chats := 0
	var fault error
	if err := s.opts.Journal.OpenChats(func(id string) bool {
		sessionID, ok := journal.SessionOf(id)
		if !ok {
			fault = fmt.Errorf("session: the journal's index of open chats names %q, which is no chat id", id)
			return false
		}
		i := shardOf(sessionID, len(s.shards))
		ids[i] = append(ids[i], id)
		chats++
		return true
	}); err != nil || fault != nil {
		return cmp.Or(fault, err)
	}
	var loading errgroup.Group
	for i, sh := range s.shards {
		loading.Go(func() error {
			for _, id := range ids[i] {
				if err := sh.loadChat(id); err != nil {
					return fmt.Errorf("session: load chat %s: %w", id, err)
				}
			}
			return nil
		})
	}
	if err := loading.Wait(); err != nil {
		return err
	}
	for _, sh := range s.shards {
		for _, c := range sh.chats {
			s.remember(c.deskName())
			if c.open() {
				s.count(c, 1)
			}
		}
	}
	if chats > 0 {
		s.log.Info("open chats found in the journal", "chats", chats)
	}
	return nil
}

func (s *Service) shard(sessionID string) *shard {
	return s.shards[shardOf(sessionID, len(s.shards))]
}

// Park refuses new commands and begins no more calls to plugins, and waits for
// those under way, at most as long as ctx. Events of desks are still taken.
// Open chats stay as they are, for the next start.
func (s *Service) Park(ctx context.Context) {
	parked := make(chan struct{}, len(s.shards))
	for _, sh := range s.shards {
		sh.post(func() {
			sh.parked = true
			sh.effect(func() { parked <- struct{}{} })
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range s.shards {
			select {
			case <-parked:
			case <-s.dead:
				return
			case <-s.closing:
				return
			}
		}
		s.calls.Wait()
		s.everywhere(func(*shard) {}) // which takes their outcomes first
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.cancel() // every call ends at once, its outcome unknown
		<-done
	case <-s.dead:
		s.cancel()
	}
}

// Close ends the shards. Park comes first, and the desks are down.
func (s *Service) Close() {
	s.once.Do(func() { close(s.closing) })
	s.loops.Wait()
	s.cancel()
	s.calls.Wait()
}

// Failed delivers the error after which the journal cannot be trusted and the
// process must exit.
func (s *Service) Failed() <-chan error { return s.deadErr }

// fail is called by whoever finds that the journal is of no use any more.
func (s *Service) fail(err error) {
	s.failOnce.Do(func() {
		s.deadErr <- err
		close(s.dead)
	})
	s.cancel()
}

// count keeps the number of a desk's open chats.
func (s *Service) count(c *chat, n int64) {
	if d := s.desk(c.deskName()); d != nil { // the desk may have left the configuration
		d.chats.Add(n)
	}
}

// countAway keeps the number of a desk's chats that no process serves.
func (s *Service) countAway(c *chat) {
	n := int64(-1)
	if c.away {
		n = 1
	}
	if d := s.desk(c.deskName()); d != nil {
		d.away.Add(n)
	}
}

// countOwned keeps the number of a generation's chats.
func (s *Service) countOwned(g desk.Generation, n int) {
	if g == nil {
		return
	}
	d := s.desk(g.Desk())
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owned == nil {
		d.owned = map[uint64]int{}
	}
	if d.owned[g.Number()] += n; d.owned[g.Number()] == 0 {
		delete(d.owned, g.Number())
	}
}

// textLimit is how many bytes of text a desk takes.
func (s *Service) textLimit(name string) int {
	limit := s.limits().TextBytes
	if d := s.desk(name); d != nil {
		if n := int(d.described.Load().GetMaxTextBytes()); n > 0 {
			limit = min(limit, n)
		}
	}
	return limit
}

// DeskChats counts a desk's chats.
type DeskChats struct {
	// Open are those that have not ended, Away those of them that no process
	// serves: the desk is down, or has not resumed them yet.
	Open, Away int
}

// OpenChats counts the chats of each desk.
func (s *Service) OpenChats() map[string]DeskChats {
	desks := s.settings.Load().desks
	out := make(map[string]DeskChats, len(desks))
	for name, d := range desks {
		out[name] = DeskChats{Open: int(d.chats.Load()), Away: int(d.away.Load())}
	}
	return out
}

var errStopping = &Error{Code: CodeStopping, Detail: "The host is stopping. Try again in a moment."}

var errStorageFull = &Error{Code: CodeStorageFull, Detail: "The host's disk is nearly full. What is open goes on; nothing new is taken until there is room."}

// do runs fn in the session's shard once the caller has proved its right to the
// session, and returns after everything that fn did is durable.
func (s *Service) do(ctx context.Context, ref Ref, fn func(*shard, *session) error) error {
	sh := s.shard(ref.ID)
	return s.await(ctx, sh, func() error {
		ses, err := sh.authorized(ref)
		if err != nil {
			return err
		}
		return fn(sh, ses)
	})
}

// everywhere runs fn in each shard, and returns when it has run in all of them.
// In a service that ends it may run in none.
func (s *Service) everywhere(fn func(*shard)) {
	done := make(chan struct{}, len(s.shards))
	for _, sh := range s.shards {
		sh.post(func() {
			fn(sh)
			done <- struct{}{}
		})
	}
	for range s.shards {
		select {
		case <-done:
		case <-s.closing:
			return
		case <-s.dead:
			return
		}
	}
}

func (s *Service) await(ctx context.Context, sh *shard, fn func() error) error {
	done := make(chan error, 1)
	task := func() {
		err := error(errStopping)
		if !sh.parked {
			err = fn()
		}
		sh.effect(func() { done <- err })
	}
	select {
	case sh.inbox <- task:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.dead:
		return errStopping
	case <-s.closing:
		return errStopping
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.dead:
		return errStopping
	case <-s.closing:
		return errStopping
	}
}

// Create makes a session.
func (s *Service) Create(ctx context.Context, req CreateRequest) (*Created, error) {
	name := req.Desk
	if name == "" {
		name = s.settings.Load().defaultDesk
	}
	if !s.knows(name) {
		detail := "There is no desk of that name."
		if name == "" {
			detail = "The request names no desk, and the host has no default desk."
		}
		return nil, &Error{Code: CodeDeskUnknown, Detail: detail}
	}
	if s.opts.Full() {
		return nil, errStorageFull
	}
	token, hash := newToken()
	head := &recordv1.Session{
		Id:          newSessionID(),
		TokenSha256: hash,
		Desk:        name,
		Context:     recordContext(req.Context),
	}
	var expires time.Time
	sh := s.shard(head.GetId())
	err := s.await(ctx, sh, func() error {
		ses := newSession(head)
		sh.use(ses)
		head.CreatedAt = head.UsedAt
		sh.sessions[head.GetId()] = ses
		sh.dirty(ses)
		expires = sh.wall.Add(s.limits().SessionTTL)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &Created{
		ID:           head.GetId(),
		Token:        token,
		ExpiresAt:    expires,
		Capabilities: s.desk(name).capabilities(),
	}, nil
}

func (d *deskState) capabilities() Capabilities {
	desc := d.described.Load()
	out := Capabilities{Known: desc != nil}
	for _, c := range desc.GetCapabilities() {
		switch c {
		case deskv1.Capability_CAPABILITY_AVAILABILITY:
			out.Availability = true
		case deskv1.Capability_CAPABILITY_UPDATE_STATE:
			out.UpdateState = true
		case deskv1.Capability_CAPABILITY_USER_TYPING:
			out.UserTyping = true
		case deskv1.Capability_CAPABILITY_USER_READ:
			out.UserRead = true
		}
	}
	return out
}

// Info returns the state of a session.
func (s *Service) Info(ctx context.Context, ref Ref) (*Info, error) {
	var info *Info
	err := s.do(ctx, ref, func(sh *shard, ses *session) error {
		info = &Info{
			ID:        ses.head.GetId(),
			Desk:      ses.head.GetDesk(),
			ExpiresAt: sh.wall.Add(s.limits().SessionTTL),
			LastSeq:   ses.lastSeq,
		}
		if d := s.desk(ses.head.GetDesk()); d != nil {
			info.Capabilities = d.capabilities()
		}
		if c := ses.chat; c != nil {
			info.Chat = c.info()
		}
		return nil
	})
	if err != nil {
		return nil, err // info may be set yet, behind the caller's back
	}
	return info, nil
}

// Update changes what is known of the user, and tells the desk of an open chat.
func (s *Service) Update(ctx context.Context, ref Ref, u Update) error {
	return s.do(ctx, ref, func(sh *shard, ses *session) error {
		// A clone: calls under way hold on to the old one.
		c := proto.CloneOf(ses.head.GetContext())
		if c == nil {
			c = new(recordv1.UserContext)
		}
		if u.User != nil {
			c.UserId, c.UserVerified = u.User.ID, u.User.Verified
			c.UserName, c.UserAttributes = u.User.Name, u.User.Attributes
		}
		if u.Locale != nil {
			c.Locale = *u.Locale
		}
		if u.AssistantSessionID != nil {
			c.AssistantSessionId = *u.AssistantSessionID
		}
		ses.head.Context = c
		sh.dirty(ses)
		id := ""
		if ses.chat != nil {
			id = ses.chat.id()
		}
		sh.append(ses, id, &recordv1.Entry{Body: &recordv1.Entry_StateUpdated{StateUpdated: &recordv1.StateUpdated{}}})
		if ses.chat != nil {
			ses.chat.update.wanted = true
			sh.step(ses.chat)
		}
		return nil
	})
}

// Delete ends an open chat and forgets the session. What its desk is still owed
// is done behind the answer.
func (s *Service) Delete(ctx context.Context, ref Ref) error {
	return s.do(ctx, ref, func(sh *shard, ses *session) error {
		if c := ses.chat; c != nil {
			sh.end(c, recordv1.EndedBy_ENDED_BY_USER, "session_deleted", "", true)
			sh.step(c)
		}
		ses.head.Deleted = true
		sh.dirty(ses)
		for _, f := range ses.feeds {
			sh.effect(func() { f.fail(errSessionUnknown) })
		}
		sh.forgetIfSettled(ses)
		return nil
	})
}

// Availability asks the session's desk whether anybody is there. A desk that is
// down has nobody; a desk that cannot tell in time leaves it open.
func (s *Service) Availability(ctx context.Context, ref Ref) (*Availability, error) {
	ctx, cancel := context.WithTimeout(ctx, availabilityTimeout)
	defer cancel()
	var name string
	var user *recordv1.UserContext
	err := s.do(ctx, ref, func(_ *shard, ses *session) error {
		name, user = ses.head.GetDesk(), ses.head.GetContext()
		return nil
	})
	if err != nil {
		return nil, err
	}
	no := false
	d := s.desk(name)
	if d == nil {
		return &Availability{Online: &no}, nil
	}
	g := d.generation()
	if g == nil {
		return &Availability{Online: &no}, nil
	}
	if !desk.Has(g, deskv1.Capability_CAPABILITY_AVAILABILITY) {
		return &Availability{}, nil
	}
	resp, err := g.AreAnyAgentsOnline(ctx, &deskv1.AreAnyAgentsOnlineRequest{Context: wireContext(user)})
	if err != nil {
		s.log.Warn("availability is not known", "desk", name, "error", err)
		return &Availability{}, nil
	}
	out := &Availability{WaitMinutes: resp.WaitMinutes, Position: resp.Position, Message: resp.GetMessage()}
	switch resp.GetAvailability() {
	case deskv1.Availability_AVAILABILITY_ONLINE:
		yes := true
		out.Online = &yes
	case deskv1.Availability_AVAILABILITY_OFFLINE:
		out.Online = &no
	}
	return out, nil
}

// StartChat asks the desk for an agent and waits until it has taken the chat.
// The same request id gives the same answer.
func (s *Service) StartChat(ctx context.Context, ref Ref, req StartRequest) (string, error) {
	id := chatID(ref.ID, req.ID)
	started := make(chan error, 1)
	if err := s.do(ctx, ref, func(sh *shard, ses *session) error {
		return sh.startChat(ses, id, req, started)
	}); err != nil {
		return "", err
	}
	select {
	case err := <-started:
		if err != nil {
			return "", err
		}
		return id, nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-s.dead:
		return "", errStopping
	case <-s.closing:
		return "", errStopping
	}
}

// EndChat ends the open chat for the user, if there is one, and if it is the one
// named; "" names any. The desk is told behind the answer.
func (s *Service) EndChat(ctx context.Context, ref Ref, chatID string) error {
	return s.do(ctx, ref, func(sh *shard, ses *session) error {
		if c := ses.chat; c != nil && (chatID == "" || chatID == c.id()) {
			sh.end(c, recordv1.EndedBy_ENDED_BY_USER, "", "", true)
			sh.step(c)
		}
		return nil
	})
}

// SendMessage takes a message for the agent and waits a while for its outcome.
// The same id with the same text gives the same answer.
func (s *Service) SendMessage(ctx context.Context, ref Ref, m Message) (*Sent, error) {
	var sent Sent
	outcome := make(chan Sent, 1)
	if err := s.do(ctx, ref, func(sh *shard, ses *session) (err error) {
		sent, err = sh.takeMessage(ses, m, outcome)
		return err
	}); err != nil {
		return nil, err
	}
	if !pending(sent.Status) {
		return &sent, nil
	}
	timer := time.NewTimer(s.limits().SendWait)
	defer timer.Stop()
	select {
	case sent = <-outcome:
	case <-timer.C:
	case <-ctx.Done(): // taken all the same
	case <-s.dead:
	case <-s.closing:
	}
	return &sent, nil
}

// Typing passes on that the user types, or has stopped, if anybody is there to
// see it.
func (s *Service) Typing(ctx context.Context, ref Ref, typing bool) error {
	return s.do(ctx, ref, func(sh *shard, ses *session) error {
		if c := ses.chat; c != nil && c.linked && c.head.GetAgentJoined() {
			c.typing.wanted, c.typingNow = true, typing
			sh.step(c)
		}
		return nil
	})
}

// Read passes on that the user has seen all messages so far.
func (s *Service) Read(ctx context.Context, ref Ref) error {
	return s.do(ctx, ref, func(sh *shard, ses *session) error {
		if c := ses.chat; c != nil && c.head.GetAgentJoined() {
			c.read.wanted = true
			sh.step(c)
		}
		return nil
	})
}

// Subscribe delivers the entries after a seq, then what is new. Wake is called
// when a Pull that found nothing would now find something; it must not block,
// nor call the feed.
func (s *Service) Subscribe(ctx context.Context, ref Ref, after uint64, wake func()) (Feed, error) {
	f := &feed{sessionID: ref.ID, shard: s.shard(ref.ID), wake: wake}
	err := s.do(ctx, ref, func(_ *shard, ses *session) error {
		f.head = ses.lastSeq
		f.cursor, f.behind = min(after, f.head), after < f.head
		ses.feeds = append(ses.feeds, f)
		return nil
	})
	if err != nil {
		// It may be attached yet, or soon, for a caller who has gone.
		f.Close()
		return nil, err
	}
	return f, nil
}

// Transcript calls fn with what both sides said and did, in order, until fn
// returns false.
func (s *Service) Transcript(ctx context.Context, ref Ref, fn func(*recordv1.Entry) bool) error {
	var head uint64
	if err := s.do(ctx, ref, func(_ *shard, ses *session) error {
		head = ses.lastSeq
		return nil
	}); err != nil {
		return err
	}
	return s.opts.Journal.Entries(ref.ID, 0, func(e *recordv1.Entry) bool {
		if e.GetSeq() > head { // perhaps not durable yet
			return false
		}
		switch e.GetBody().(type) {
		case *recordv1.Entry_ChatRequested, *recordv1.Entry_ChatEnded, *recordv1.Entry_AgentJoined,
			*recordv1.Entry_AgentLeft, *recordv1.Entry_UserMessage, *recordv1.Entry_AgentMessage,
			*recordv1.Entry_MessageStatus:
			return fn(e)
		}
		return true
	})
}

// Ready implements desk.Handler.
func (s *Service) Ready(g desk.Generation) {
	d := s.desk(g.Desk())
	d.described.Store(g.Describe())
	d.current.Store(&g)
	// A shard that does not know yet has chats start at the generation before,
	// which must not end meanwhile for lack of any. So all are waited for.
	s.everywhere(func(sh *shard) { sh.deskReady(g) })
}

// Down implements desk.Handler.
func (s *Service) Down(g desk.Generation, cause error) {
	d := s.desk(g.Desk())
	if cur := d.generation(); cur != nil && cur.Number() == g.Number() {
		d.current.Store(nil)
	}
	for _, sh := range s.shards {
		sh.post(func() { sh.deskDown(g, cause) })
	}
}

// Events implements desk.Handler: it hands each shard its part of the batch.
func (s *Service) Events(g desk.Generation, events []*deskv1.Event) {
	parts := make(map[*shard][]*deskv1.Event, 4)
	for _, ev := range events {
		sessionID, ok := journal.SessionOf(ev.GetChatId())
		if !ok {
			g.Settle(ev.GetSeq(), refuseUnknown)
			continue
		}
		sh := s.shard(sessionID)
		parts[sh] = append(parts[sh], ev)
	}
	for sh, part := range parts {
		sh.post(func() {
			for _, ev := range part {
				sh.deskEvent(g, ev)
			}
		})
	}
}
