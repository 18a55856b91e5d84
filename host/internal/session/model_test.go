package session_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/journal/memory"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	"github.com/deskhost/deskhost/host/internal/session"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// TestModel lets a page, a plugin and a vendor's desk live one session's life,
// with crashes of host and plugin at every step: before and after each write to
// the journal, each call's effect, each acknowledgement. The model is what the
// page was promised and what the desk has; in the end the two must agree.
func TestModel(t *testing.T) {
	for _, dedupe := range []deskv1.SendDedupe{deskv1.SendDedupe_SEND_DEDUPE_KEY, deskv1.SendDedupe_SEND_DEDUPE_NONE} {
		t.Run(dedupe.String(), func(t *testing.T) {
			check := func(r *rapid.T) {
				// What ends a run leaves the bubble as a value, so that rapid sees it.
				var ended any
				synctest.Test(t, func(*testing.T) {
					w := newWorld(dedupe)
					defer w.end()
					defer func() { ended = recover() }()
					r.Repeat(w.actions())
					w.heal()
					w.check()
				})
				if broken, ok := ended.(brokenPromise); ok {
					r.Fatal(broken)
				}
				if ended != nil {
					panic(ended) // rapid has no use for the run
				}
			}
			for range 5 {
				rapid.Check(t, check)
			}
		})
	}
}

// brokenPromise ends a run, with what went wrong.
type brokenPromise string

func brokenf(format string, args ...any) { panic(brokenPromise(fmt.Sprintf(format, args...))) }

// world is everything but the host's memory.
type world struct {
	dedupe deskv1.SendDedupe
	disk   *memory.Store

	store *fusedStore
	svc   *session.Service
	gens  uint64
	work  sync.WaitGroup

	mu     sync.Mutex // guards what follows, which processes share
	live   []*puppet  // generations, the newest last
	desks  map[string]*conversation
	faults []string // what goes wrong with the next calls
	deaths int      // of processes whose host lived
	spoke  chan struct{}

	// The page.
	ref      session.Ref
	feed     session.Feed
	entries  []*recordv1.Entry
	chats    []string            // asked for
	accepted map[string][]string // the messages that the host took, by chat
	ended    map[string]bool     // chats whose end the host confirmed
	messages int
}

// conversation is a chat as the vendor keeps it.
type conversation struct {
	open  bool
	said  []string // by the agent; "" is the end of the chat
	heard []string // the user's messages
}

// fusedStore is a store whose host dies at a commit. What it shows is on the disk
// only a while later, one commit after the other, and lost if the host dies first.
type fusedStore struct {
	*memory.Store // what reads see

	disk *memory.Store

	mu      sync.Mutex
	pending []unsynced
	fuse    int  // at which commit from now, 0: none
	after   bool // what has been committed by then is on the disk
	blown   bool
}

type unsynced struct {
	ops     []journal.Op
	durable chan error
}

// syncTime is how long a commit takes to the disk.
const syncTime = time.Millisecond

var errPower = errors.New("the host has died")

func (s *fusedStore) Commit(ops []journal.Op) <-chan error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := unsynced{durable: make(chan error, 1)}
	for _, op := range ops {
		c.ops = append(c.ops, journal.Op{Key: bytes.Clone(op.Key), Value: bytes.Clone(op.Value)})
	}
	if s.blown {
		c.durable <- errPower
		return c.durable
	}
	if err := <-s.Store.Commit(ops); err != nil {
		c.durable <- err
		return c.durable
	}
	s.pending = append(s.pending, c)
	if s.fuse == 1 {
		for s.after && len(s.pending) > 0 {
			s.write(errPower)
		}
		s.die()
		return c.durable
	}
	s.fuse = max(0, s.fuse-1)
	if len(s.pending) == 1 {
		time.AfterFunc(syncTime, s.sync)
	}
	return c.durable
}

// sync has the oldest commit on the disk.
func (s *fusedStore) sync() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blown {
		return
	}
	s.write(nil)
	if len(s.pending) > 0 {
		time.AfterFunc(syncTime, s.sync)
	}
}

// write writes the oldest commit to the disk, and tells its writer something.
func (s *fusedStore) write(answer error) {
	c := s.pending[0]
	s.pending = s.pending[1:]
	c.durable <- errors.Join(<-s.disk.Commit(c.ops), answer)
}

func (s *fusedStore) die() {
	s.blown = true
	for _, c := range s.pending {
		c.durable <- errPower
	}
	s.pending = nil
}

func (s *fusedStore) light(fuse int, after bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fuse, s.after = fuse, after
}

func (s *fusedStore) isBlown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blown
}

func (s *fusedStore) synced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending) == 0
}

func newWorld(dedupe deskv1.SendDedupe) *world {
	w := &world{
		dedupe: dedupe, disk: new(memory.Store),
		desks: map[string]*conversation{}, spoke: make(chan struct{}),
		accepted: map[string][]string{}, ended: map[string]bool{},
	}
	w.startHost()
	made, err := w.svc.Create(context.Background(), session.CreateRequest{})
	if err != nil {
		brokenf("create: %v", err)
	}
	w.ref = session.Ref{ID: made.ID, Token: made.Token}
	w.startPlugin()
	return w
}

func (w *world) startHost() {
	limits := session.DefaultLimits()
	for _, d := range []*time.Duration{
		&limits.SessionTTL, &limits.MessageWait, &limits.AbandonWaiting, &limits.AbandonConnected,
		&limits.JoinTimeout, &limits.DeskAwayLimit, &limits.EndRetry,
	} {
		*d = 10_000 * time.Hour // time limits have tests of their own
	}
	w.store = &fusedStore{Store: w.disk.Reopen(), disk: w.disk}
	svc, err := session.New(session.Options{
		Journal: journal.New(w.store), Desks: []string{deskName}, DefaultDesk: deskName,
		Limits: limits, Log: hclog.NewNullLogger(),
	})
	if err != nil {
		brokenf("%v", err)
	}
	w.svc, w.feed = svc, nil
}

// crashHost is kill -9: plugins die with their host, and another host starts.
func (w *world) crashHost() {
	w.store.mu.Lock()
	w.store.die()
	w.store.mu.Unlock()
	w.killAll()
	w.svc.Close()
	w.work.Wait()
	w.startHost()
}

func (w *world) killAll() {
	w.mu.Lock()
	live := w.live
	w.live = nil
	w.mu.Unlock()
	for _, g := range live {
		g.die()
	}
}

func (w *world) end() {
	w.killAll()
	if w.feed != nil {
		w.feed.Close()
	}
	w.svc.Close()
	w.work.Wait()
}

// settle lets everything happen that happens by itself, and starts the host again
// if it died of it.
func (w *world) settle() {
	for {
		synctest.Wait()
		switch {
		case w.store.isBlown():
			w.crashHost()
		case !w.store.synced():
			time.Sleep(syncTime)
		default:
			return
		}
	}
}

// page makes a call until a host that lives has answered it.
func (w *world) page(call func(context.Context) error) *session.Error {
	for {
		w.settle()
		err := call(context.Background())
		w.settle()
		var refused *session.Error
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &refused):
			brokenf("the host answered %v", err)
		case refused.Code != session.CodeStopping:
			return refused
		}
	}
}

// read takes what is new for the page.
func (w *world) read() {
	w.settle()
	for {
		if w.feed == nil {
			var last uint64
			if n := len(w.entries); n > 0 {
				last = w.entries[n-1].GetSeq()
			}
			if err := w.page(func(ctx context.Context) (err error) {
				w.feed, err = w.svc.Subscribe(ctx, w.ref, last, func() {})
				return err
			}); err != nil {
				brokenf("subscribe: %v", err)
			}
		}
		news, err := w.feed.Pull(1000)
		if err != nil {
			w.feed = nil
			continue
		}
		if len(news) == 0 {
			return
		}
		for _, n := range news {
			if n.Entry == nil {
				continue
			}
			if n.Entry.GetSeq() != uint64(len(w.entries)+1) {
				brokenf("entry %d came after %d", n.Entry.GetSeq(), len(w.entries))
			}
			w.entries = append(w.entries, n.Entry)
		}
	}
}

// openChat is the chat that the page believes to be open, "" if none.
func (w *world) openChat() string {
	if len(w.chats) == 0 {
		return ""
	}
	return w.chats[len(w.chats)-1]
}

func (w *world) conversation(chat string) *conversation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.desks[chat]
}

// say has the agent say something, or end the chat with "".
func (w *world) say(chat, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.desks[chat]
	if c == nil || !c.open {
		return
	}
	c.said = append(c.said, text)
	c.open = text != ""
	close(w.spoke)
	w.spoke = make(chan struct{})
}

func (w *world) actions() map[string]func(*rapid.T) {
	faults := []string{"die before", "die after", "hang", "retry", "lost before", "lost after"}
	return map[string]func(*rapid.T){
		"start": func(t *rapid.T) {
			if w.openChat() != "" && !w.ended[w.openChat()] && rapid.IntRange(0, 3).Draw(t, "again") > 0 {
				return
			}
			request := fmt.Sprint("c", len(w.chats))
			var chat string
			err := w.page(func(ctx context.Context) (err error) {
				chat, err = w.svc.StartChat(ctx, w.ref, session.StartRequest{ID: request})
				return err
			})
			switch {
			case err == nil:
				w.chats = append(w.chats, chat)
			case err.Code == session.CodeChatOpen:
			default: // it did not start, and nothing may be left of it
			}
		},
		"send": func(*rapid.T) {
			chat := w.openChat()
			if chat == "" {
				return
			}
			w.messages++
			id := fmt.Sprint("m", w.messages)
			err := w.page(func(ctx context.Context) error {
				_, err := w.svc.SendMessage(ctx, w.ref, session.Message{ID: id, ChatID: chat, Text: id})
				return err
			})
			switch {
			case err == nil:
				w.accepted[chat] = append(w.accepted[chat], id)
			case err.Code != session.CodeNoChat:
				brokenf("send: %v", err)
			}
		},
		"end": func(t *rapid.T) {
			if rapid.IntRange(0, 2).Draw(t, "really") > 0 {
				return
			}
			if err := w.page(func(ctx context.Context) error { return w.svc.EndChat(ctx, w.ref, "") }); err != nil {
				brokenf("end: %v", err)
			}
			if chat := w.openChat(); chat != "" {
				w.ended[chat] = true
			}
		},
		"agent says": func(*rapid.T) {
			w.messages++
			w.say(w.openChat(), fmt.Sprint("a", w.messages))
		},
		"agent ends": func(t *rapid.T) {
			if rapid.IntRange(0, 3).Draw(t, "really") == 0 {
				w.say(w.openChat(), "")
			}
		},
		"time passes": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.IntRange(1, 40_000).Draw(t, "milliseconds")) * time.Millisecond)
		},
		"calls go wrong": func(t *rapid.T) {
			more := rapid.SliceOfN(rapid.SampledFrom(faults), 1, 3).Draw(t, "faults")
			w.mu.Lock()
			defer w.mu.Unlock()
			w.faults = append(w.faults, more...)
		},
		"host dies at a commit": func(t *rapid.T) {
			w.store.light(rapid.IntRange(1, 4).Draw(t, "commit"), rapid.Bool().Draw(t, "after"))
		},
		"plugin dies": func(t *rapid.T) {
			which := rapid.IntRange(0, mostLive-1).Draw(t, "which")
			w.mu.Lock()
			defer w.mu.Unlock()
			if which < len(w.live) {
				w.live[which].die()
			}
		},
		"plugin starts": func(*rapid.T) { w.startPlugin() },
		"":              func(*rapid.T) { w.read() },
	}
}

// mostLive bounds the generations that live at a time.
const mostLive = 3

// startPlugin has another generation serve the desk, beside those that live.
func (w *world) startPlugin() {
	w.settle()
	w.mu.Lock()
	if len(w.live) == mostLive {
		w.mu.Unlock()
		return
	}
	w.gens++
	g := &puppet{
		w: w, svc: w.svc, n: w.gens, chats: map[string]*pump{}, settled: map[uint64]chan *desk.Refusal{},
		desc: &deskv1.DescribeResponse{Name: "puppet", SendDedupe: w.dedupe, Capabilities: []deskv1.Capability{deskv1.Capability_CAPABILITY_RESUME}},
	}
	g.dead, g.die = context.WithCancel(context.Background())
	w.live = append(w.live, g)
	w.mu.Unlock()
	w.svc.Ready(g)
	w.work.Go(g.supervise)
	synctest.Wait()
}

// heal ends all faults, and gives everything time to come to rest.
func (w *world) heal() {
	w.mu.Lock()
	w.faults = nil
	w.mu.Unlock()
	w.store.light(0, false)
	for range 2 { // the second for what a host that died left
		w.settle()
		w.mu.Lock()
		down := len(w.live) == 0
		w.mu.Unlock()
		if down {
			w.startPlugin()
		}
		time.Sleep(time.Hour)
	}
	w.read()
}

// crashesAllowed is how often a process may end over one chat, or one message,
// before that is given up.
const crashesAllowed = 3

// crashes tells whether a chat was given up because processes ended over it.
func (w *world) crashes(chat string) bool {
	head, err := journal.New(w.disk).Chat(chat)
	if err != nil {
		brokenf("%v", err)
	}
	return head.GetCrashes() >= crashesAllowed
}

// check compares what the page has with what the desk has.
func (w *world) check() {
	type story struct {
		user, agent []string
		status      map[string][]recordv1.OutState
		ends        int
		by          recordv1.EndedBy
	}
	stories := map[string]*story{}
	for _, e := range w.entries {
		s := stories[e.GetChatId()]
		if s == nil {
			s = &story{status: map[string][]recordv1.OutState{}}
			stories[e.GetChatId()] = s
		}
		switch x := e.GetBody().(type) {
		case *recordv1.Entry_UserMessage:
			s.user = append(s.user, x.UserMessage.GetId())
		case *recordv1.Entry_AgentMessage:
			s.agent = append(s.agent, x.AgentMessage.GetParts()[0].GetText().GetText())
		case *recordv1.Entry_MessageStatus:
			s.status[x.MessageStatus.GetId()] = append(s.status[x.MessageStatus.GetId()], x.MessageStatus.GetState())
		case *recordv1.Entry_ChatEnded:
			s.ends++
			s.by = x.ChatEnded.GetBy()
		}
	}
	for chat, s := range stories {
		c := w.conversation(chat)
		if c == nil {
			c = new(conversation) // the desk never heard of it
		}
		fail := func(format string, args ...any) {
			brokenf("%s\nthe page has user %q, agent %q, status %v, %d ends by %v\nthe desk has %+v\nthe host took %q",
				fmt.Sprintf(format, args...), s.user, s.agent, s.status, s.ends, s.by, *c, w.accepted[chat])
		}
		open := s.ends == 0
		switch {
		case s.ends > 1:
			fail("the chat ended %d times", s.ends)
		case open != c.open && !w.crashes(chat):
			fail("the chat is open: %v; at the desk: %v", open, c.open)
		case w.ended[chat] && open:
			fail("the chat was ended, and is open")
		case !slices.Equal(s.user, w.accepted[chat]):
			fail("the page was promised %q", w.accepted[chat])
		}
		said := slices.DeleteFunc(slices.Clone(c.said), func(text string) bool { return text == "" })
		complete := open || s.by == recordv1.EndedBy_ENDED_BY_AGENT
		if complete && !slices.Equal(s.agent, said) || len(s.agent) > len(said) || !slices.Equal(s.agent, said[:len(s.agent)]) {
			fail("the agent said %q", said)
		}
		var delivered []string
		for _, id := range s.user {
			status := s.status[id]
			heard := slices.Contains(c.heard, id)
			switch {
			case len(status) != 1:
				fail("message %s has %d outcomes", id, len(status))
			case status[0] == recordv1.OutState_OUT_STATE_DELIVERED && !heard, status[0] == recordv1.OutState_OUT_STATE_FAILED && heard:
				fail("message %s came to %v; the desk has it: %v", id, status[0], heard)
			case open && w.dedupe == deskv1.SendDedupe_SEND_DEDUPE_KEY && !heard && w.deaths < crashesAllowed:
				fail("message %s is missing", id)
			}
			if heard {
				delivered = append(delivered, id)
			}
		}
		if !slices.Equal(delivered, c.heard) {
			fail("the desk heard %q, of the page's %q", c.heard, delivered)
		}
	}
	for chat := range w.desks {
		if stories[chat] == nil {
			brokenf("the desk has a chat that the page was never told of")
		}
	}
}

// puppet is a generation of a plugin for the vendor's desk of the model.
type puppet struct {
	w    *world
	svc  *session.Service
	n    uint64
	desc *deskv1.DescribeResponse
	dead context.Context
	die  context.CancelFunc

	// Guarded by the world's lock.
	seq     uint64
	settled map[uint64]chan *desk.Refusal
	chats   map[string]*pump
}

// pump carries what the agent says in one chat to the host.
type pump struct {
	cursor  int
	stop    context.CancelFunc
	stopped chan struct{}
}

// supervise does what the owner of a desk's life does at the end of a process.
func (g *puppet) supervise() {
	<-g.dead.Done()
	w := g.w
	w.mu.Lock()
	i := slices.Index(w.live, g)
	if i >= 0 {
		w.live = slices.Delete(w.live, i, i+1)
		w.deaths++
	}
	var serves *puppet
	if n := len(w.live); n > 0 {
		serves = w.live[n-1]
	}
	w.mu.Unlock()
	if i < 0 {
		return // the host has died
	}
	g.svc.Down(g, errors.New("killed"))
	if serves != nil && serves.n < g.n {
		g.svc.Ready(serves)
	}
}

var errLost = &desk.CallError{Kind: deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN, Err: errors.New("lost")}

// do makes a call's effect, unless something goes wrong.
func (g *puppet) do(ctx context.Context, effect func() error) error {
	if g.dead.Err() != nil {
		return &desk.CallError{Kind: deskv1.FailureKind_FAILURE_KIND_RETRY, Err: errors.New("no connection")}
	}
	g.w.mu.Lock()
	fault := ""
	if len(g.w.faults) > 0 {
		fault, g.w.faults = g.w.faults[0], g.w.faults[1:]
	}
	g.w.mu.Unlock()
	switch fault {
	case "die before":
		g.die()
		return errLost
	case "hang":
		select {
		case <-ctx.Done():
		case <-g.dead.Done():
		}
		return errLost
	case "retry":
		return &desk.CallError{Kind: deskv1.FailureKind_FAILURE_KIND_RETRY, Err: errors.New("not now")}
	case "lost before":
		return errLost
	}
	err := effect()
	switch fault {
	case "die after":
		g.die()
		return errLost
	case "lost after":
		return errLost
	}
	return err
}

func refuse(kind deskv1.FailureKind) error {
	return &desk.CallError{Kind: kind, Err: errors.New(kind.String())}
}

func (g *puppet) Desk() string                       { return deskName }
func (g *puppet) Number() uint64                     { return g.n }
func (g *puppet) Describe() *deskv1.DescribeResponse { return g.desc }

func (g *puppet) StartChat(ctx context.Context, r *deskv1.StartChatRequest) (*deskv1.StartChatResponse, error) {
	return &deskv1.StartChatResponse{}, g.do(ctx, func() error {
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		if g.w.desks[r.GetChatId()] == nil {
			g.w.desks[r.GetChatId()] = &conversation{open: true}
		}
		g.follow(r.GetChatId(), r.GetState())
		return nil
	})
}

func (g *puppet) ResumeChat(ctx context.Context, r *deskv1.ResumeChatRequest) error {
	return g.do(ctx, func() error {
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		if g.w.desks[r.GetChatId()] == nil {
			return refuse(deskv1.FailureKind_FAILURE_KIND_CHAT_UNKNOWN)
		}
		g.follow(r.GetChatId(), r.GetState())
		return nil
	})
}

func (g *puppet) QuiesceChat(ctx context.Context, r *deskv1.QuiesceChatRequest) (*deskv1.QuiesceChatResponse, error) {
	resp := &deskv1.QuiesceChatResponse{}
	return resp, g.do(ctx, func() error {
		g.w.mu.Lock()
		p := g.chats[r.GetChatId()]
		delete(g.chats, r.GetChatId())
		g.w.mu.Unlock()
		if p == nil {
			return refuse(deskv1.FailureKind_FAILURE_KIND_CHAT_UNKNOWN)
		}
		p.stop()
		<-p.stopped
		resp.State = cursorState(p.cursor)
		return nil
	})
}

func (g *puppet) SendMessageToAgent(ctx context.Context, r *deskv1.SendMessageToAgentRequest) (*deskv1.SendMessageToAgentResponse, error) {
	return nil, g.do(ctx, func() error {
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		c := g.w.desks[r.GetChatId()]
		known := c != nil && g.w.dedupe == deskv1.SendDedupe_SEND_DEDUPE_KEY && slices.Contains(c.heard, r.GetMessageId())
		switch {
		case c == nil:
			return refuse(deskv1.FailureKind_FAILURE_KIND_CHAT_UNKNOWN)
		case known:
		case !c.open:
			return refuse(deskv1.FailureKind_FAILURE_KIND_CHAT_OVER)
		default:
			c.heard = append(c.heard, r.GetMessageId())
		}
		return nil
	})
}

func (g *puppet) EndChat(ctx context.Context, r *deskv1.EndChatRequest) error {
	return g.do(ctx, func() error {
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		if c := g.w.desks[r.GetChatId()]; c != nil {
			c.open = false
		}
		return nil
	})
}

var errNot = refuse(deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED)

func (g *puppet) AreAnyAgentsOnline(context.Context, *deskv1.AreAnyAgentsOnlineRequest) (*deskv1.AreAnyAgentsOnlineResponse, error) {
	return nil, errNot
}
func (g *puppet) UpdateState(context.Context, *deskv1.UpdateStateRequest) error { return errNot }
func (g *puppet) UserTyping(context.Context, *deskv1.UserTypingRequest) error   { return errNot }
func (g *puppet) UserReadMessages(context.Context, *deskv1.UserReadMessagesRequest) error {
	return errNot
}
func (g *puppet) HandleHTTP(context.Context, *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error) {
	return nil, errNot
}

func (g *puppet) Settle(seq uint64, r *desk.Refusal) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	g.settled[seq] <- r
	delete(g.settled, seq)
}

func cursorState(cursor int) *deskv1.ResumeState {
	return &deskv1.ResumeState{Data: binary.AppendUvarint(nil, uint64(cursor)), Format: 1}
}

// follow reads a chat from where its state is. The caller holds the world's lock.
func (g *puppet) follow(chat string, state *deskv1.ResumeState) {
	if g.chats[chat] != nil {
		return
	}
	cursor, _ := binary.Uvarint(state.GetData())
	ctx, stop := context.WithCancel(g.dead)
	p := &pump{cursor: int(cursor), stop: stop, stopped: make(chan struct{})}
	g.chats[chat] = p
	g.w.work.Go(func() {
		defer close(p.stopped)
		defer stop()
		g.pump(ctx, chat, p)
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		if g.chats[chat] == p {
			delete(g.chats, chat) // refused; it may be asked to serve the chat again
		}
	})
}

// pump emits one event after the other, and moves on once each is settled.
func (g *puppet) pump(ctx context.Context, chat string, p *pump) {
	for {
		g.w.mu.Lock()
		c, spoke := g.w.desks[chat], g.w.spoke
		var ev *deskv1.Event
		if p.cursor < len(c.said) {
			id := fmt.Sprint("e", p.cursor)
			if text := c.said[p.cursor]; text != "" {
				ev = says(chat, id, text)
			} else {
				ev = hangsUp(chat)
			}
			if p.cursor%3 == 2 { // what came since is emitted again after a crash
				ev.State = cursorState(p.cursor + 1)
			}
		}
		g.w.mu.Unlock()
		if ev == nil {
			select {
			case <-spoke:
				continue
			case <-ctx.Done():
				return
			}
		}
		settled := make(chan *desk.Refusal, 1)
		g.w.mu.Lock()
		g.seq++
		ev.Seq = g.seq
		g.settled[ev.Seq] = settled
		g.w.mu.Unlock()
		g.svc.Events(g, []*deskv1.Event{ev})
		select {
		case refused := <-settled:
			if refused != nil {
				return // another serves the chat, or it is over
			}
			p.cursor++
		case <-g.dead.Done():
			return
		}
	}
}
