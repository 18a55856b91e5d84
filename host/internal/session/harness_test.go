package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/journal/memory"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	"github.com/deskhost/deskhost/host/internal/session"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

const (
	deskName    = "support"
	keepExpired = 30 * 24 * time.Hour
)

// bench is a host's session layer over a journal in memory, in a bubble of fake
// time. The store outlives the service, as a disk outlives a process.
type bench struct {
	t      *testing.T
	store  *memory.Store
	limits session.Limits
	desks  []string // that are configured, the default one first; nil: the usual
	keep   time.Duration
	full   atomic.Bool
	step   atomic.Int64 // by how far the clock on the wall is off, as a Duration
	svc    *session.Service
	ref    session.Ref // of the session made by newBench
	gens   uint64
}

// run gives fn a bench in a bubble.
func run(t *testing.T, fn func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: new(memory.Store), limits: session.DefaultLimits(), keep: keepExpired}
		b.start()
		t.Cleanup(b.stop)
		made, err := b.svc.Create(t.Context(), session.CreateRequest{Context: session.Context{UserID: "u1", UserName: "Una"}})
		if err != nil {
			t.Fatal(err)
		}
		b.ref = session.Ref{ID: made.ID, Token: made.Token}
		fn(b)
	})
}

func (b *bench) start() {
	b.t.Helper()
	if b.desks == nil {
		b.desks = []string{deskName, "other"}
	}
	svc, err := session.New(session.Options{
		Journal: journal.New(b.store), Desks: b.desks, DefaultDesk: b.desks[0],
		Limits: b.limits, KeepExpired: b.keep, Full: b.full.Load, Log: hclog.NewNullLogger(),
		// Without a monotonic reading, like every time that was written down.
		Wall: func() time.Time { return time.Now().Round(0).Add(time.Duration(b.step.Load())) },
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.svc = svc
}

func (b *bench) stop() { b.svc.Close() }

// restart is kill -9 and a new start: the new service sees what was committed
// at this moment, and nothing that the old one does while it winds down.
func (b *bench) restart() {
	b.t.Helper()
	synctest.Wait()
	old := b.svc
	var ops []journal.Op
	if err := b.store.Scan([]byte{0}, []byte{0xff}, func(k, v []byte) (bool, error) {
		ops = append(ops, journal.Op{Key: slices.Clone(k), Value: append([]byte{}, v...)})
		return true, nil
	}); err != nil {
		b.t.Fatal(err)
	}
	b.store = new(memory.Store)
	if err := <-b.store.Commit(ops); err != nil {
		b.t.Fatal(err)
	}
	old.Close()
	b.start()
}

// call is one call that a fake generation got.
type call struct {
	name    string
	chat    string
	attempt uint32
	text    string // of a message, or the state of a start, resume or end
}

// fake is a generation whose plugin does as the test says.
type fake struct {
	b    *bench
	name string
	n    uint64
	desc *deskv1.DescribeResponse

	mu      sync.Mutex
	calls   []call
	answer  func(ctx context.Context, c call) error // nil: all is well
	state   *deskv1.ResumeState                     // StartChat answers with it
	final   *deskv1.ResumeState                     // and QuiesceChat with this
	online  deskv1.Availability
	seq     uint64
	settled map[uint64]*desk.Refusal
	dead    context.Context
	die     context.CancelFunc
}

// generation makes a generation with all capabilities, and has it serve.
func (b *bench) generation(change ...func(*fake)) *fake {
	g := b.newGeneration(change...)
	b.svc.Ready(g)
	synctest.Wait()
	return g
}

// newGeneration makes one that does not serve yet.
func (b *bench) newGeneration(change ...func(*fake)) *fake {
	b.gens++
	g := &fake{
		b: b, name: deskName, n: b.gens,
		desc: &deskv1.DescribeResponse{Name: "fake", SendDedupe: deskv1.SendDedupe_SEND_DEDUPE_KEY, Capabilities: []deskv1.Capability{
			deskv1.Capability_CAPABILITY_AVAILABILITY, deskv1.Capability_CAPABILITY_UPDATE_STATE,
			deskv1.Capability_CAPABILITY_USER_TYPING, deskv1.Capability_CAPABILITY_USER_READ,
			deskv1.Capability_CAPABILITY_RESUME,
		}},
		settled: make(map[uint64]*desk.Refusal),
	}
	g.dead, g.die = context.WithCancel(context.Background())
	b.t.Cleanup(g.die)
	for _, c := range change {
		c(g)
	}
	return g
}

// down kills the generation: calls under way fail with their outcome unknown.
func (g *fake) down() {
	g.die()
	g.b.svc.Down(g, errors.New("killed"))
	synctest.Wait()
}

func (g *fake) Desk() string                       { return g.name }
func (g *fake) Number() uint64                     { return g.n }
func (g *fake) Describe() *deskv1.DescribeResponse { return g.desc }

func (g *fake) do(ctx context.Context, c call) error {
	if g.dead.Err() != nil {
		return fail(deskv1.FailureKind_FAILURE_KIND_RETRY)
	}
	g.mu.Lock()
	g.calls = append(g.calls, c)
	answer := g.answer
	g.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx, c)
}

// hang answers a call of this name never, until its deadline or the process's end.
func (g *fake) hang(name string) func(context.Context, call) error {
	return func(ctx context.Context, c call) error {
		if c.name != name {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-g.dead.Done():
		}
		return fail(deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN)
	}
}

func fail(kind deskv1.FailureKind) error {
	return &desk.CallError{Kind: kind, Err: fmt.Errorf("fake: %v", kind)}
}

func stateText(s *deskv1.ResumeState) string { return string(s.GetData()) }

func (g *fake) StartChat(ctx context.Context, r *deskv1.StartChatRequest) (*deskv1.StartChatResponse, error) {
	err := g.do(ctx, call{"start", r.GetChatId(), r.GetAttempt(), stateText(r.GetState())})
	return &deskv1.StartChatResponse{State: g.state}, err
}

func (g *fake) EndChat(ctx context.Context, r *deskv1.EndChatRequest) error {
	return g.do(ctx, call{"end", r.GetChatId(), r.GetAttempt(), stateText(r.GetState())})
}

func (g *fake) SendMessageToAgent(ctx context.Context, r *deskv1.SendMessageToAgentRequest) (*deskv1.SendMessageToAgentResponse, error) {
	return nil, g.do(ctx, call{"send", r.GetChatId(), r.GetAttempt(), r.GetText()})
}

func (g *fake) AreAnyAgentsOnline(ctx context.Context, _ *deskv1.AreAnyAgentsOnlineRequest) (*deskv1.AreAnyAgentsOnlineResponse, error) {
	return &deskv1.AreAnyAgentsOnlineResponse{Availability: g.online}, g.do(ctx, call{name: "availability"})
}

func (g *fake) UpdateState(ctx context.Context, r *deskv1.UpdateStateRequest) error {
	return g.do(ctx, call{"update", r.GetChatId(), 0, r.GetContext().GetUser().GetName()})
}

func (g *fake) UserTyping(ctx context.Context, r *deskv1.UserTypingRequest) error {
	return g.do(ctx, call{"typing", r.GetChatId(), 0, fmt.Sprint(r.GetTyping())})
}

func (g *fake) UserReadMessages(ctx context.Context, r *deskv1.UserReadMessagesRequest) error {
	return g.do(ctx, call{name: "read", chat: r.GetChatId()})
}

func (g *fake) ResumeChat(ctx context.Context, r *deskv1.ResumeChatRequest) error {
	return g.do(ctx, call{"resume", r.GetChatId(), r.GetAttempt(), stateText(r.GetState())})
}

func (g *fake) QuiesceChat(ctx context.Context, r *deskv1.QuiesceChatRequest) (*deskv1.QuiesceChatResponse, error) {
	err := g.do(ctx, call{name: "quiesce", chat: r.GetChatId()})
	return &deskv1.QuiesceChatResponse{State: g.final}, err
}

func (g *fake) HandleHTTP(context.Context, *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error) {
	return nil, fail(deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED)
}

func (g *fake) Settle(seq uint64, r *desk.Refusal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, twice := g.settled[seq]; twice {
		g.b.t.Errorf("event %d was settled twice", seq)
	}
	g.settled[seq] = r
}

// got returns the calls of one name so far, as "attempt:text".
func (g *fake) got(name string) []string {
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for _, c := range g.calls {
		if c.name == name {
			out = append(out, fmt.Sprintf("%d:%s", c.attempt, c.text))
		}
	}
	return out
}

func (g *fake) onCall(answer func(context.Context, call) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answer = answer
}

// emit sends events as one batch and returns what became of each once all that
// can happen has: "ok", a refusal's code, or "" if it is not settled.
func (g *fake) emit(events ...*deskv1.Event) []string {
	first := g.seq + 1
	for _, ev := range events {
		g.seq++
		ev.Seq = g.seq
	}
	g.b.svc.Events(g, events)
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for seq := first; seq <= g.seq; seq++ {
		r, ok := g.settled[seq]
		switch {
		case !ok:
			out = append(out, "")
		case r == nil:
			out = append(out, "ok")
		default:
			out = append(out, r.Code.String())
		}
	}
	return out
}

func joined(chat, id string) *deskv1.Event {
	return &deskv1.Event{ChatId: chat, EventId: id, Payload: &deskv1.Event_AgentJoined{
		AgentJoined: &deskv1.AgentJoined{Agent: &deskv1.Agent{Id: "ada", Nickname: "Ada"}},
	}}
}

func says(chat, id, text string) *deskv1.Event {
	return &deskv1.Event{ChatId: chat, EventId: id, Payload: &deskv1.Event_MessageToUser{
		MessageToUser: &deskv1.MessageToUser{Parts: []*deskv1.MessagePart{{Kind: &deskv1.MessagePart_Text{Text: &deskv1.TextPart{Text: text}}}}},
	}}
}

func typing(chat string) *deskv1.Event {
	return &deskv1.Event{ChatId: chat, Payload: &deskv1.Event_AgentTyping{AgentTyping: &deskv1.AgentTyping{Typing: true}}}
}

func saved(chat, state string) *deskv1.Event {
	return &deskv1.Event{
		ChatId: chat, State: &deskv1.ResumeState{Data: []byte(state), Format: 1},
		Payload: &deskv1.Event_StateSaved{StateSaved: &deskv1.StateSaved{}},
	}
}

func hangsUp(chat string) *deskv1.Event {
	return &deskv1.Event{ChatId: chat, EventId: "bye", Payload: &deskv1.Event_AgentEndedChat{AgentEndedChat: &deskv1.AgentEndedChat{Reason: "solved"}}}
}

// log returns the session's entries in short.
func (b *bench) log() []string {
	b.t.Helper()
	synctest.Wait()
	var out []string
	var last uint64
	if err := journal.New(b.store).Entries(b.ref.ID, 0, func(e *recordv1.Entry) bool {
		if e.GetSeq() != last+1 {
			b.t.Errorf("entry %d follows %d", e.GetSeq(), last)
		}
		last = e.GetSeq()
		out = append(out, short(e))
		return true
	}); err != nil {
		b.t.Fatal(err)
	}
	return out
}

func short(e *recordv1.Entry) string {
	switch x := e.GetBody().(type) {
	case *recordv1.Entry_ChatRequested:
		return "requested"
	case *recordv1.Entry_ChatStarted:
		return "started"
	case *recordv1.Entry_AgentJoined:
		return "joined " + x.AgentJoined.GetAgent().GetNickname()
	case *recordv1.Entry_UserMessage:
		return "user " + x.UserMessage.GetText()
	case *recordv1.Entry_AgentMessage:
		return "agent " + x.AgentMessage.GetParts()[0].GetText().GetText()
	case *recordv1.Entry_MessageStatus:
		return "status " + x.MessageStatus.GetId() + " " + stateNames[x.MessageStatus.GetState()] + reason(x.MessageStatus.GetReason())
	case *recordv1.Entry_DeskAway:
		return "away"
	case *recordv1.Entry_DeskBack:
		return "back"
	case *recordv1.Entry_StateUpdated:
		return "updated"
	case *recordv1.Entry_ChatEnded:
		return "ended by " + byNames[x.ChatEnded.GetBy()] + reason(x.ChatEnded.GetReason())
	case *recordv1.Entry_Trouble:
		return "trouble " + x.Trouble.GetMessage()
	}
	return fmt.Sprintf("%T", e.GetBody())
}

func reason(r string) string {
	if r == "" {
		return ""
	}
	return " (" + r + ")"
}

var stateNames = map[recordv1.OutState]string{
	recordv1.OutState_OUT_STATE_DELIVERED: "delivered",
	recordv1.OutState_OUT_STATE_FAILED:    "failed",
	recordv1.OutState_OUT_STATE_UNKNOWN:   "unknown",
}

var byNames = map[recordv1.EndedBy]string{
	recordv1.EndedBy_ENDED_BY_USER:  "user",
	recordv1.EndedBy_ENDED_BY_AGENT: "agent",
	recordv1.EndedBy_ENDED_BY_DESK:  "desk",
	recordv1.EndedBy_ENDED_BY_HOST:  "host",
}

func (b *bench) wantLog(want ...string) {
	b.t.Helper()
	if got := b.log(); !slices.Equal(got, want) {
		b.t.Fatalf("the log is\n  %q\nwant\n  %q", got, want)
	}
}

func (b *bench) want(got []string, want ...string) {
	b.t.Helper()
	if !slices.Equal(got, want) {
		b.t.Fatalf("got %q, want %q", got, want)
	}
}

func (b *bench) wantCode(err error, code session.Code) {
	b.t.Helper()
	var e *session.Error
	if !errors.As(err, &e) || e.Code != code {
		b.t.Fatalf("got error %v, want code %q", err, code)
	}
}

// chat starts a chat and has Ada join it.
func (b *bench) chat(g *fake) string {
	b.t.Helper()
	id := b.startChat("c1")
	b.want(g.emit(joined(id, "j1")), "ok")
	return id
}

func (b *bench) startChat(request string) string {
	b.t.Helper()
	id, err := b.svc.StartChat(b.t.Context(), b.ref, session.StartRequest{ID: request})
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

func (b *bench) send(id, text string) (*session.Sent, error) {
	return b.svc.SendMessage(b.t.Context(), b.ref, session.Message{ID: id, Text: text})
}

// wantSent sends a message and wants an outcome: "delivered", "failed",
// "unknown", or "" for accepted.
func (b *bench) wantSent(id, text, want string) {
	b.t.Helper()
	sent, err := b.send(id, text)
	if err != nil {
		b.t.Fatal(err)
	}
	if got := stateNames[sent.Status]; got != want {
		b.t.Fatalf("message %s came to %q, want %q", id, got, want)
	}
}

// attend opens a feed, so that the chat is not abandoned.
func (b *bench) attend() session.Feed {
	b.t.Helper()
	f, err := b.svc.Subscribe(b.t.Context(), b.ref, 0, func() {})
	if err != nil {
		b.t.Fatal(err)
	}
	return f
}
