package session_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/journal/memory"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	"github.com/deskhost/deskhost/host/internal/session"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// runOn is run over a store of which each commit first calls before.
func runOn(t *testing.T, before func() error, fn func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: new(memory.Store), limits: session.DefaultLimits()}
		b.store.OnCommit = func([]journal.Op) error { return before() }
		b.start()
		t.Cleanup(b.stop)
		b.ref = b.session()
		fn(b)
	})
}

func (b *bench) session() session.Ref {
	b.t.Helper()
	made, err := b.svc.Create(b.t.Context(), session.CreateRequest{})
	if err != nil {
		b.t.Fatal(err)
	}
	return session.Ref{ID: made.ID, Token: made.Token}
}

// update changes something of the user, which is worth a commit.
func (b *bench) update(ctx context.Context, ref session.Ref) error {
	name := "en"
	return b.svc.Update(ctx, ref, session.Update{Locale: &name})
}

// runHeld gives fn a function that stops the session's shard in its next commit,
// so that what is asked of it meanwhile is one turn, and one that lets it go.
func runHeld(t *testing.T, fn func(b *bench, hold, release func())) {
	t.Helper()
	var gate atomic.Pointer[chan struct{}]
	runOn(t, func() error {
		if g := gate.Load(); g != nil {
			<-*g
		}
		return nil
	}, func(b *bench) {
		held := make(chan struct{})
		fn(b, func() {
			gate.Store(&held)
			go func() { _ = b.update(context.Background(), b.ref) }()
			synctest.Wait()
		}, func() {
			gate.Store(nil)
			close(held)
			synctest.Wait()
		})
	})
}

// runBroken gives fn a function from which on commits hang, each until it gets
// something from held, and fail.
func runBroken(t *testing.T, fn func(b *bench, breakIt func(), held chan struct{})) {
	t.Helper()
	var gate atomic.Pointer[chan struct{}]
	runOn(t, func() error {
		g := gate.Load()
		if g == nil {
			return nil
		}
		<-*g
		return errors.New("disk on fire")
	}, func(b *bench) {
		held := make(chan struct{})
		fn(b, func() { gate.Store(&held) }, held)
	})
}

func TestRepeatedMessageWaitsForItsOwnChatOnly(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		b.chat(g)
		defer b.attend().Close()
		release := make(chan struct{})
		g.onCall(func(_ context.Context, c call) error {
			if c.name == "send" {
				<-release
			}
			return nil
		})
		b.wantSent("m1", "x", "") // with the desk when its chat ends
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			t.Fatal(err)
		}
		b.startChat("c2")
		b.wantSent("m1", "x", "") // an id is unique in its chat
		b.wantSent("m1", "x", "") // a repeat, of which the caller has gone when the outcomes come
		close(release)
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- b.svc.Read(context.Background(), b.ref) }()
		synctest.Wait()
		if len(done) == 0 {
			t.Fatal("the shard is blocked")
		}
	})
}

// A message that is repeated in the very turn in which its outcome is recorded has
// that outcome, and not what the journal knew before.
func TestRepeatedMessageBesideItsOutcome(t *testing.T) {
	type answer struct {
		sent *session.Sent
		err  error
		took time.Duration
	}
	for name, c := range map[string]struct {
		// before says that the message is with the desk when the turn begins, ends that
		// the chat ends in it.
		before, ends bool
		want         recordv1.OutState
	}{
		"delivered":                  {true, false, recordv1.OutState_OUT_STATE_DELIVERED},
		"delivered as the chat ends": {true, true, recordv1.OutState_OUT_STATE_DELIVERED},
		"taken as the chat ends":     {false, true, recordv1.OutState_OUT_STATE_FAILED},
	} {
		t.Run(name, func(t *testing.T) {
			runHeld(t, func(b *bench, hold, release func()) {
				g := b.generation()
				b.chat(g)
				defer b.attend().Close()
				arrives := make(chan struct{})
				g.onCall(func(_ context.Context, c call) error {
					if c.name == "send" {
						<-arrives
					}
					return nil
				})
				send := func(id string) chan answer {
					got := make(chan answer, 1)
					go func() {
						begun := time.Now()
						sent, err := b.send(id, "x")
						got <- answer{sent, err, time.Since(begun)}
					}()
					synctest.Wait()
					return got
				}
				first := send("m1") // with the desk; what else there is waits behind it
				id := "m1"
				hold()
				if !c.before {
					id = "m2"
					send(id)
				} else {
					close(arrives)
					synctest.Wait()
				}
				if c.ends {
					go func() { _ = b.svc.EndChat(context.Background(), b.ref, "") }()
					synctest.Wait()
				}
				again := send(id)
				release()
				if got := <-again; got.err != nil || got.sent.Status != c.want || got.took != 0 {
					t.Errorf("%+v, %v after %v, want %v", got.sent, got.err, got.took, c.want)
				}
				if !c.before {
					close(arrives)
				}
				<-first
			})
		})
	}
}

func TestFeedGoesOnAfterTooMuchPassingNews(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		wakes := 0
		f, err := b.svc.Subscribe(b.t.Context(), b.ref, 3, func() { wakes++ })
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		last := uint64(3)
		drain(t, f, &last)
		flood := make([]*deskv1.Event, 129)
		for i := range flood {
			flood[i] = typing(id)
		}
		g.emit(flood...)
		drain(t, f, &last)
		g.emit(says(id, "a1", "hi"))
		if wakes != 2 {
			t.Fatalf("woken %d times, want twice: the page hears nothing any more", wakes)
		}
	})
}

func TestSubscriberWhoLeavesEarlyIsNotCounted(t *testing.T) {
	runHeld(t, func(b *bench, hold, release func()) {
		b.chat(b.generation())
		hold()
		ctx, cancel := context.WithCancel(b.t.Context())
		done := make(chan error)
		go func() {
			_, err := b.svc.Subscribe(ctx, b.ref, 0, func() {})
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		release()
		time.Sleep(b.limits.AbandonConnected + time.Minute)
		if log := strings.Join(b.log(), "; "); !strings.Contains(log, "abandoned") {
			t.Fatalf("a feed that nobody reads keeps the chat open: %s", log)
		}
	})
}

func TestEveryShardMayFail(t *testing.T) {
	runBroken(t, func(b *bench, breakIt func(), held chan struct{}) {
		var refs []session.Ref
		for range 64 { // spread over the shards
			refs = append(refs, b.session())
		}
		breakIt()
		for _, ref := range refs {
			go func() { _ = b.update(context.Background(), ref) }()
		}
		synctest.Wait() // all are in Commit
		held <- struct{}{}
		if err := <-b.svc.Failed(); err == nil {
			t.Fatal("no error")
		}
		close(held)
		synctest.Wait()
	})
}

func TestParkReturnsWhenTheJournalFailsLate(t *testing.T) {
	runBroken(t, func(b *bench, breakIt func(), held chan struct{}) {
		breakIt()
		go func() { _ = b.update(context.Background(), b.ref) }()
		synctest.Wait()
		parked := make(chan struct{})
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			b.svc.Park(ctx)
			close(parked)
		}()
		time.Sleep(6 * time.Second)
		close(held)
		synctest.Wait()
		select {
		case <-parked:
		default:
			t.Fatal("Park waits for ever")
		}
	})
}

func TestParkWaitsUntilOutcomesAreTaken(t *testing.T) {
	runHeld(t, func(b *bench, hold, release func()) {
		g := b.generation()
		id := b.chat(g)
		answer := make(chan struct{})
		g.onCall(func(_ context.Context, c call) error {
			if c.name == "send" {
				<-answer
			}
			return nil
		})
		go func() { _, _ = b.send("m1", "x") }()
		synctest.Wait()
		parked := make(chan struct{})
		go func() {
			b.svc.Park(context.Background())
			close(parked)
		}()
		synctest.Wait()
		hold()
		g.emit(says(id, "a1", "hello")) // on its way to the disk when the desk answers
		close(answer)
		synctest.Wait()
		select {
		case <-parked:
			t.Error("Close may come before the outcome is known")
		default:
		}
		release()
		<-parked
		g.down()
		b.restart()
		b.wantLog("requested", "started", "joined Ada", "user x", "agent hello", "status m1 delivered", "away")
	})
}

func TestDefiniteAnswerAfterAnUnclearOne(t *testing.T) {
	for name, kind := range map[string]deskv1.FailureKind{
		"over": over, "gone": gone, "refused": refused, "invalid": deskv1.FailureKind_FAILURE_KIND_INVALID,
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				g := b.generation()
				b.chat(g)
				g.onCall(func(_ context.Context, c call) error {
					switch {
					case c.name != "send":
						return nil
					case c.attempt == 1:
						return fail(unknown)
					}
					return fail(kind)
				})
				b.wantSent("m1", "x", "unknown")
			})
		})
	}
}

func TestStateOfARepeatedEventIsKept(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		b.want(g.emit(says(id, "a1", "hi")), "ok")
		again := says(id, "a1", "hi")
		again.State = &deskv1.ResumeState{Data: []byte("new token"), Format: 1}
		b.want(g.emit(again), "ok")
		g.down()
		b.want(b.generation().got("resume"), "1:new token")
	})
}

func TestSameStartInOneTurn(t *testing.T) {
	runHeld(t, func(b *bench, hold, release func()) {
		g := b.generation()
		hold()
		start := func() {
			_, _ = b.svc.StartChat(context.Background(), b.ref, session.StartRequest{ID: "c1"})
		}
		for _, do := range []func(){start, func() { _ = b.svc.EndChat(context.Background(), b.ref, "") }, start} {
			go do()
			synctest.Wait()
		}
		release()
		time.Sleep(time.Second)
		b.want(g.got("start"), "1:")
		b.want(g.got("end"), "1:")
		b.wantLog("updated", "requested", "ended by user")
	})
}

// TestSameStartInTheTurnThatLetsTheChatGo asks for a chat again before the journal
// tells what became of it.
func TestSameStartInTheTurnThatLetsTheChatGo(t *testing.T) {
	// start asks for the chat, and leaves the answer in the channel.
	start := func(b *bench) <-chan error {
		answer := make(chan error, 1)
		go func() {
			_, err := b.svc.StartChat(context.Background(), b.ref, session.StartRequest{ID: "c1"})
			answer <- err
		}()
		synctest.Wait()
		return answer
	}
	t.Run("refused", func(t *testing.T) {
		runHeld(t, func(b *bench, hold, release func()) {
			g := b.generation()
			open := g.gate("start", fail(refused))
			first := start(b)
			hold()
			open()
			again := start(b)
			release()
			b.wantCode(<-first, session.CodeStartRefused)
			b.wantCode(<-again, session.CodeStartRefused)
			b.wantLog("requested", "updated", "ended by desk (start_refused)")
		})
	})
	t.Run("ended while the desk is down", func(t *testing.T) {
		runHeld(t, func(b *bench, hold, release func()) {
			hold()
			first := start(b)
			go func() { _ = b.svc.EndChat(context.Background(), b.ref, "") }()
			synctest.Wait()
			again := start(b)
			release()
			b.wantCode(<-first, session.CodeStartFailed)
			b.wantCode(<-again, session.CodeStartFailed)
			b.wantLog("updated", "requested", "ended by user")
		})
	})
}

func TestListeningIsUse(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		time.Sleep(b.limits.SessionTTL + 3*time.Hour)
		b.restart()
		if _, err := b.svc.Info(b.t.Context(), b.ref); err != nil {
			t.Fatal("a session was forgotten under its open page:", err)
		}
	})
}

func TestStartRequestIsNotKeptForTheLifeOfTheChat(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id, err := b.svc.StartChat(b.t.Context(), b.ref, session.StartRequest{ID: "c1", Text: strings.Repeat("x", 100<<10)})
		if err != nil {
			t.Fatal(err)
		}
		g.emit(joined(id, "j1"))
		head, err := journal.New(b.store).Chat(id)
		if err != nil {
			t.Fatal(err)
		}
		if n := proto.Size(head); n > 1000 {
			t.Fatalf("the head of a chat, which each change writes, has %d bytes", n)
		}
	})
}

func TestDeadlineCountsWhileTheShardIsBusy(t *testing.T) {
	runHeld(t, func(b *bench, hold, release func()) {
		hold()
		returned := make(chan struct{}, 1100)
		for range 1100 { // more than the inbox holds
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_ = b.update(ctx, b.ref)
				returned <- struct{}{}
			}()
		}
		time.Sleep(time.Minute)
		n := len(returned)
		release()
		if n != 1100 {
			t.Fatalf("%d of 1100 callers came back within a minute; their deadline was a second", n)
		}
	})
}

func TestAvailabilityInTimeWhileTheShardIsBusy(t *testing.T) {
	runHeld(t, func(b *bench, hold, release func()) {
		b.generation()
		hold()
		go func() { time.Sleep(6 * time.Second); release() }()
		begin := time.Now()
		_, _ = b.svc.Availability(b.t.Context(), b.ref)
		if d := time.Since(begin); d > 4*time.Second {
			t.Fatalf("answered after %v", d)
		}
		time.Sleep(6 * time.Second)
	})
}

func TestUpdateBackOffIsResetBySuccess(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		b.chat(g)
		defer b.attend().Close()
		var calls atomic.Int32
		g.onCall(func(_ context.Context, c call) error {
			if c.name == "update" && calls.Add(1)%8 != 0 {
				return fail(retry)
			}
			return nil
		})
		for range 3 { // seven failures, then success
			before := calls.Load()
			if err := b.update(b.t.Context(), b.ref); err != nil {
				t.Fatal(err)
			}
			time.Sleep(90 * time.Second)
			if n := calls.Load() - before; n != 8 {
				t.Fatalf("%d calls in 90 s, want 8", n)
			}
		}
	})
}

func TestOldTypingIsNotPassedOn(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		b.chat(g)
		defer b.attend().Close()
		g.down()
		if err := b.svc.Typing(b.t.Context(), b.ref, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * time.Minute)
		b.want(b.generation().got("typing"))
	})
}

func TestStateOfTheStartDoesNotReplaceALaterOne(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation(func(g *fake) { g.state = &deskv1.ResumeState{Data: []byte("first"), Format: 1} })
		release := make(chan struct{})
		g.onCall(func(_ context.Context, c call) error {
			if c.name == "start" {
				<-release // the reply is on its way
			}
			return nil
		})
		done := make(chan string)
		go func() { done <- b.startChat("c1") }()
		synctest.Wait()
		info, err := b.svc.Info(b.t.Context(), b.ref)
		if err != nil {
			b.t.Fatal(err)
		}
		b.want(g.emit(saved(info.Chat.ID, "second")), "ok")
		close(release)
		<-done
		g.down()
		b.want(b.generation().got("resume"), "1:second")
	})
}

func TestRepeatedMessageOfTheChatBefore(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		first := b.chat(g)
		b.wantSent("m1", "x", "delivered")
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			b.t.Fatal(err)
		}
		b.startChat("c2")
		for id, want := range map[string]session.Code{"m1": "", "m2": session.CodeNoChat} {
			sent, err := b.svc.SendMessage(b.t.Context(), b.ref, session.Message{ID: id, ChatID: first, Text: "x"})
			if want != "" {
				b.wantCode(err, want)
			} else if err != nil || sent.Status != recordv1.OutState_OUT_STATE_DELIVERED {
				b.t.Fatalf("the repeated message came to %+v, %v", sent, err)
			}
		}
		b.want(g.got("send"), "1:x")
	})
}

func TestTroubleWithAMessage(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		trouble := func(event, message string) *deskv1.Event {
			return &deskv1.Event{ChatId: id, EventId: event, Payload: &deskv1.Event_ErrorStatus{ErrorStatus: &deskv1.ErrorStatus{
				Kind: deskv1.ErrorKind_ERROR_KIND_USER_MESSAGE, MessageId: message,
			}}}
		}
		b.wantSent("m1", "x", "delivered")
		b.want(g.emit(trouble("t1", "m1"), trouble("t2", "nope")), "ok", "REFUSAL_CODE_INVALID")
		b.wantSent("m1", "x", "failed")
		release := make(chan struct{})
		g.onCall(func(context.Context, call) error {
			<-release
			return nil
		})
		go func() { _, _ = b.send("m2", "y") }()
		synctest.Wait()
		b.want(g.emit(trouble("t3", "m2")), "ok") // before the call is back
		close(release)
		b.wantLog("requested", "started", "joined Ada", "user x", "status m1 delivered", "status m1 failed (desk_failed)",
			"user y", "status m2 failed (desk_failed)")
	})
}
