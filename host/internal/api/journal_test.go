package api

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/journal/pebble"
	"github.com/deskhost/deskhost/host/internal/session"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// stack is the API over real sessions and a real journal. Its only desk takes
// every chat, and says what the test has it say.
type stack struct {
	t      *testing.T
	url    string
	svc    *session.Service
	store  *pebble.Store
	closed chan struct{} // one token for each feed that is closed
	settle chan struct{}
	seq    uint64
}

func newStack(t *testing.T, limits Limits) *stack {
	t.Helper()
	store, err := pebble.Open(t.TempDir(), pebble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &stack{t: t, store: store, closed: make(chan struct{}, 1000), settle: make(chan struct{}, 1000)}
	lasting := session.DefaultLimits()
	lasting.AbandonWaiting, lasting.JoinTimeout = time.Hour, time.Hour
	s.svc, err = session.New(session.Options{
		Journal: journal.New(store), Desks: []string{"support"}, DefaultDesk: "support",
		Limits: lasting, Log: hclog.NewNullLogger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.svc.Close)
	s.svc.Ready(plainDesk{stack: s})
	s.url = serve(t, newAPI(t, Options{Sessions: watched{s.svc, s.closed}, Limits: limits})).URL
	return s
}

// plainDesk is a generation of which only what is called here is there.
type plainDesk struct {
	desk.Generation
	stack *stack
}

func (plainDesk) Desk() string                       { return "support" }
func (plainDesk) Number() uint64                     { return 1 }
func (plainDesk) Describe() *deskv1.DescribeResponse { return &deskv1.DescribeResponse{} }

func (plainDesk) StartChat(context.Context, *deskv1.StartChatRequest) (*deskv1.StartChatResponse, error) {
	return &deskv1.StartChatResponse{}, nil
}

func (d plainDesk) Settle(_ uint64, refusal *desk.Refusal) {
	if refusal != nil {
		d.stack.t.Errorf("an event was refused: %s", refusal.Reason)
	}
	d.stack.settle <- struct{}{}
}

// watched tells when feeds are closed.
type watched struct {
	*session.Service
	closed chan struct{}
}

type watchedFeed struct {
	session.Feed
	closed chan struct{}
}

func (w watched) Subscribe(ctx context.Context, ref session.Ref, after uint64, wake func()) (session.Feed, error) {
	feed, err := w.Service.Subscribe(ctx, ref, after, wake)
	if err != nil {
		return nil, err
	}
	return watchedFeed{feed, w.closed}, nil
}

func (f watchedFeed) Close() {
	f.Feed.Close()
	f.closed <- struct{}{}
}

// chat makes a session with an open chat, of two entries.
func (s *stack) chat() (ref session.Ref, chatID string) {
	s.t.Helper()
	made, err := s.svc.Create(s.t.Context(), session.CreateRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	ref = session.Ref{ID: made.ID, Token: made.Token}
	if chatID, err = s.svc.StartChat(s.t.Context(), ref, session.StartRequest{ID: "c"}); err != nil {
		s.t.Fatal(err)
	}
	return ref, chatID
}

// say has the agent say something in each chat, n times, and returns once that
// is durable.
func (s *stack) say(n int, text string, chats ...string) {
	var events []*deskv1.Event
	for i := range n * len(chats) {
		s.seq++
		events = append(events, &deskv1.Event{Seq: s.seq, ChatId: chats[i%len(chats)], EventId: strconv.FormatUint(s.seq, 10), Payload: &deskv1.Event_MessageToUser{
			MessageToUser: &deskv1.MessageToUser{Parts: []*deskv1.MessagePart{{Kind: &deskv1.MessagePart_Text{Text: &deskv1.TextPart{Text: text}}}}},
		}})
	}
	s.svc.Events(plainDesk{stack: s}, events)
	for range events {
		<-s.settle
	}
}

func (s *stack) dial(ref session.Ref, after uint64) *websocket.Conn {
	s.t.Helper()
	return s.dialBy(new(net.Dialer).DialContext, ref, after)
}

// dialSmall dials with so little room in between that it shows who does not read.
func dialSmall(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn, conn.(*net.TCPConn).SetReadBuffer(4096)
}

func (s *stack) dialBy(dial func(ctx context.Context, network, address string) (net.Conn, error), ref session.Ref, after uint64) *websocket.Conn {
	s.t.Helper()
	d := websocket.Dialer{Subprotocols: []string{subprotocol, tokenProtocol + ref.Token}, NetDialContext: dial}
	url := fmt.Sprintf("ws%s/v1/sessions/%s/events?after=%d", strings.TrimPrefix(s.url, "http"), ref.ID, after)
	c, _, err := d.DialContext(s.t.Context(), url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestSlowReadersCostOthersNothing has eight pages stop reading while 10,000
// events flow: other pages get theirs as quickly as before, the host's memory
// does not grow by what is not read, and each slow page is dropped in time and
// gets everything by coming back.
func TestSlowReadersCostOthersNothing(t *testing.T) {
	t.Parallel()
	const events, before, slowPages, textBytes = 10_000, 1000, 8, 1000
	limits := unlimited()
	limits.SocketWrite = 5 * time.Second
	s := newStack(t, limits)
	ref, chat := s.chat()
	otherRef, otherChat := s.chat()
	padding := strings.Repeat("x", textBytes)

	// follow reads all of a session and tells how long each event took.
	follow := func(ref session.Ref) (took []time.Duration, err error) {
		c := s.dial(ref, 2)
		defer c.Close()
		for want := uint64(3); want < 3+before+events; want++ {
			e, err := next(c)
			if err != nil {
				return nil, err
			}
			if e.Seq != want {
				return nil, fmt.Errorf("entry %d came in place of %d", e.Seq, want)
			}
			sent, err := strconv.ParseInt(strings.TrimRight(*e.Text, "x"), 10, 64)
			if err != nil {
				return nil, err
			}
			took = append(took, time.Since(time.Unix(0, sent)))
		}
		return took, nil
	}
	var reading sync.WaitGroup
	for _, ref := range []session.Ref{ref, otherRef} { // beside the slow pages, and elsewhere
		reading.Go(func() {
			took, err := follow(ref)
			if err != nil {
				t.Error(err)
				return
			}
			p99 := func(d []time.Duration) time.Duration {
				d = slices.Sorted(slices.Values(d))
				return d[len(d)*99/100]
			}
			t.Logf("p99 %v, before the slow pages %v", p99(took[before:]), p99(took[:before]))
			// Whoever waited for a slow page waited for its whole deadline.
			if p99(took[before:]) > limits.SocketWrite/2 {
				t.Error("slow pages hold others up")
			}
		})
	}
	say := func(n int) {
		for range n / 25 {
			s.say(25, strconv.FormatInt(time.Now().UnixNano(), 10)+padding, chat, otherChat)
		}
	}
	say(before)
	var slow []*websocket.Conn
	for range slowPages {
		slow = append(slow, s.dialBy(dialSmall, ref, 2))
	}
	heap := heapBytes()
	say(events)
	// The store and the tests beside this one have some of it, too.
	if grown, unread := heapBytes()-heap, slowPages*events*textBytes; grown > unread/2 {
		t.Errorf("memory has grown by %d bytes under %d unread ones", grown, unread)
	} else {
		t.Logf("memory has grown by %d KiB under %d KiB unread", grown>>10, unread>>10)
	}
	reading.Wait()
	for range slowPages + 2 {
		<-s.closed
	}

	for _, c := range slow[:2] {
		if err := c.UnderlyingConn().(*net.TCPConn).SetReadBuffer(4 << 20); err != nil {
			t.Fatal(err)
		}
		last := uint64(2)
		for {
			e, err := next(c)
			if err != nil {
				break // dropped
			}
			if last++; e.Seq != last {
				t.Fatalf("entry %d came in place of %d", e.Seq, last)
			}
		}
		if last == 2+before+events {
			t.Fatal("nothing is left to catch up with: the page was not slow")
		}
		t.Logf("a slow page got %d entries before it was dropped", last-2)
		if err := wantSeqs(s.dial(ref, last), last+1, 2+before+events); err != nil {
			t.Fatal(err)
		}
	}
}

func heapBytes() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestGap holds that whoever comes with a cursor before what is kept is told so,
// once, and goes on behind it.
func TestGap(t *testing.T) {
	t.Parallel()
	s := newStack(t, unlimited())
	ref, chat := s.chat()
	s.say(10, "x", chat)
	prune := func(upTo byte) {
		t.Helper()
		var ops []journal.Op
		prefix := "s" + ref.ID + "e"
		if err := s.store.Scan([]byte(prefix), []byte(prefix+"\x00\x00\x00\x00\x00\x00\x00"+string(rune(upTo+1))), func(k, _ []byte) (bool, error) {
			ops = append(ops, journal.Op{Key: slices.Clone(k)})
			return true, nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := <-s.store.Commit(ops); err != nil {
			t.Fatal(err)
		}
	}
	wantGap := func(c *websocket.Conn, upTo uint64) {
		t.Helper()
		if e, err := next(c); err != nil || e.Type != "gap" || e.Seq != upTo {
			t.Fatalf("got %+v, %v, want a gap up to %d", e, err, upTo)
		}
	}
	prune(5)
	c := s.dial(ref, 0)
	wantGap(c, 5)
	if err := wantSeqs(c, 6, 12); err != nil {
		t.Fatal(err)
	}
	c = s.dial(ref, 3)
	wantGap(c, 5)
	if err := wantSeqs(c, 6, 12); err != nil {
		t.Fatal(err)
	}
	// By the cursor that the gap gave, there is none.
	if err := wantSeqs(s.dial(ref, 5), 6, 12); err != nil {
		t.Fatal(err)
	}
	openStream(t, s.url+"/v1/sessions/"+ref.ID+"/events", "Authorization", "Bearer "+ref.Token, "Last-Event-ID", "3").want(t, "5", "6", "7")

	prune(12)
	c = s.dial(ref, 3)
	wantGap(c, 12)
	s.say(1, "x", chat)
	if err := wantSeqs(c, 13, 13); err != nil {
		t.Fatal(err)
	}
}
