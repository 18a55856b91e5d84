package session_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/journal/memory"
	"github.com/deskhost/deskhost/host/internal/session"
)

const day = 24 * time.Hour

func TestExpiredSessionIsKeptForAWhileAndThenRemoved(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		for i := range 1000 { // of more keys than are removed at once
			g.emit(says(id, fmt.Sprint("a", i), "x"))
		}
		b.want(g.emit(hangsUp(id)), "ok")
		time.Sleep(b.limits.SessionTTL + keepExpired - time.Hour)
		if n := len(b.log()); n != 1004 {
			t.Fatalf("%d entries are left of a session that is to be kept", n)
		}
		time.Sleep(4 * time.Hour)
		if left := b.keys(); left != 0 {
			t.Fatalf("%d keys are left of a session that expired long ago", left)
		}
	})
}

// TestHostThatIsRestartedOften removes what expired all the same.
func TestHostThatIsRestartedOften(t *testing.T) {
	run(t, func(b *bench) {
		time.Sleep(b.limits.SessionTTL + keepExpired - time.Hour)
		for range 2 {
			b.restart()
			time.Sleep(20 * time.Minute)
			if b.keys() == 0 {
				t.Fatal("a session that is to be kept was removed")
			}
		}
		for range 5 {
			b.restart()
			time.Sleep(20 * time.Minute)
		}
		if left := b.keys(); left != 0 {
			t.Errorf("%d keys are left of a session that expired long ago", left)
		}
	})
}

// TestClockThatIsWrongAtTheStart is set right before the sweeper believes it.
func TestClockThatIsWrongAtTheStart(t *testing.T) {
	run(t, func(b *bench) {
		b.step.Store(int64(365 * day))
		b.restart()
		time.Sleep(5 * time.Minute)
		b.step.Store(0)
		time.Sleep(3 * time.Hour)
		if b.keys() == 0 {
			t.Error("a session that nobody has used for three hours was removed")
		}
	})
}

func TestWhatIsInUseIsNotSwept(t *testing.T) {
	run(t, func(b *bench) {
		b.limits.AbandonWaiting, b.limits.AbandonConnected, b.limits.JoinTimeout = 1000*day, 1000*day, 1000*day
		b.limits.EndRetry, b.limits.DeskAwayLimit = 1000*day, 1000*day
		b.keep = time.Hour
		b.restart()
		g := b.generation()
		unattended, listening, called, owing := b.session(), b.session(), b.session(), b.session()
		for _, ref := range []session.Ref{unattended, owing} {
			if _, err := b.svc.StartChat(b.t.Context(), ref, session.StartRequest{ID: "c"}); err != nil {
				t.Fatal(err)
			}
		}
		f, err := b.svc.Subscribe(b.t.Context(), listening, 0, func() {})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		g.down()
		if err := b.svc.EndChat(b.t.Context(), owing, ""); err != nil {
			t.Fatal(err)
		}
		for range 5 { // far longer than what nobody uses is kept
			time.Sleep(20 * time.Hour)
			if _, err := b.svc.Info(b.t.Context(), called); err != nil {
				t.Fatal(err)
			}
		}
		for what, ref := range map[string]session.Ref{
			"with an open chat": unattended, "with an open page": listening, "that is called": called, "that owes EndChat": owing,
		} {
			if _, err := b.svc.Info(b.t.Context(), ref); err != nil {
				t.Errorf("a session %s: %v", what, err)
			}
		}
		_, err = journal.New(b.store).Session(b.ref.ID)
		if !errors.Is(err, journal.ErrNotFound) {
			t.Errorf("the session that nobody uses is kept: %v", err)
		}
	})
}

// TestIdleSessionLeavesMemoryAndComesBack holds that a session is the same
// whether it was in memory or not.
func TestIdleSessionLeavesMemoryAndComesBack(t *testing.T) {
	run(t, func(b *bench) {
		wantLoaded := func(want int) {
			b.t.Helper()
			time.Sleep(3 * time.Minute)
			if n, err := b.svc.Loaded(b.t.Context()); err != nil || n != want {
				b.t.Fatalf("%d sessions are in memory, want %d; %v", n, want, err)
			}
		}
		g := b.generation()
		f := b.attend()
		id := b.chat(g)
		b.wantSent("m1", "hello", "delivered")
		wantLoaded(1)
		b.want(g.emit(says(id, "a1", "hi"), hangsUp(id)), "ok", "ok")
		wantLoaded(1) // its page listens
		f.Close()
		wantLoaded(0)

		info, err := b.svc.Info(b.t.Context(), b.ref)
		if err != nil || info.LastSeq != 7 || info.Chat != nil {
			t.Fatalf("the session came back as %+v, %v", info, err)
		}
		wantLoaded(0)
		if again := b.startChat("c1"); again != id {
			t.Fatalf("the same request made chat %s, then %s", id, again)
		}
		wantLoaded(0)
		sent, err := b.svc.SendMessage(b.t.Context(), b.ref, session.Message{ID: "m1", ChatID: id, Text: "hello"})
		if err != nil || sent.Seq != 4 || stateNames[sent.Status] != "delivered" {
			t.Fatalf("the same message came to %+v, %v", sent, err)
		}
		wantLoaded(0)
		_, err = b.svc.SendMessage(b.t.Context(), b.ref, session.Message{ID: "m1", ChatID: id, Text: "other"})
		b.wantCode(err, session.CodeIDReused)
		wantLoaded(0)
		b.want(g.emit(says(id, "a1", "hi"), says(id, "a2", "late")), "REFUSAL_CODE_CHAT_OVER", "REFUSAL_CODE_CHAT_OVER")
		wantLoaded(0)

		next := b.startChat("c2")
		b.want(g.emit(joined(next, "j1")), "ok")
		b.wantSent("m1", "of another chat", "delivered")
		b.wantLog("requested", "started", "joined Ada", "user hello", "status m1 delivered", "agent hi", "ended by agent",
			"requested", "started", "joined Ada", "user of another chat", "status m1 delivered")
		b.want(g.got("send"), "1:hello", "1:of another chat")
		var last uint64
		f = b.attend()
		defer f.Close()
		if drain(t, f, &last); last != 12 {
			t.Fatalf("the page got entries up to %d, want 12", last)
		}
	})
}

// TestDeletedSessionIsForgottenAfterACrash ends the host at each commit between
// the user's wish and the last key.
func TestDeletedSessionIsForgottenAfterACrash(t *testing.T) {
	for crashAt := 1; ; crashAt++ {
		commits := 0
		t.Run(fmt.Sprint("crash at commit ", crashAt), func(t *testing.T) {
			run(t, func(b *bench) {
				g := b.generation()
				id := b.chat(g)
				for i := range 600 {
					g.emit(says(id, fmt.Sprint("a", i), "x"))
				}
				b.want(g.emit(hangsUp(id)), "ok")
				var disk *memory.Store // what a crash leaves
				b.store.OnCommit = func([]journal.Op) error {
					if commits++; commits == crashAt+1 {
						disk = b.store.Reopen()
					}
					return nil
				}
				if err := b.svc.Delete(b.t.Context(), b.ref); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				b.svc.Close()
				if left := b.keys(); left != 0 {
					t.Fatalf("%d keys are left without a crash", left)
				}
				if disk == nil {
					return // the crash would have come after the end
				}
				b.store = disk
				b.start()
				_, err := b.svc.Info(b.t.Context(), b.ref)
				b.wantCode(err, session.CodeSessionUnknown)
				time.Sleep(time.Minute)
				if left := b.keys(); left != 0 {
					t.Fatalf("%d keys are left after a crash", left)
				}
			})
		})
		if t.Failed() {
			return
		}
		if commits <= crashAt {
			if crashAt < 4 {
				t.Fatalf("all was removed in %d commits, so nothing was tested", crashAt)
			}
			return
		}
	}
}

// TestManyDeletedAtOnceAreAllForgotten deletes more sessions than the sweeper
// remembers.
func TestManyDeletedAtOnceAreAllForgotten(t *testing.T) {
	run(t, func(b *bench) {
		for range 2000 {
			ref := b.session()
			if err := b.svc.Delete(b.t.Context(), ref); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Hour)
		if left := b.keys(); left != 1 {
			t.Fatalf("%d keys are left, want the head of the one session", left)
		}
	})
}

// TestSteppedClock sets the clock on the wall under open chats: each limit comes
// when its time is up, neither sooner nor later, and nothing is removed.
func TestSteppedClock(t *testing.T) {
	for name, steps := range map[string][2]time.Duration{
		"forward":          {day, day},
		"back":             {-day, -day},
		"forward and back": {day, 0},
		"back and forward": {-day, 0},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				step := func() {
					for _, off := range steps {
						time.Sleep(time.Minute)
						b.step.Store(int64(off))
					}
				}
				// until wants a session's chat to be open up to a time from now, and
				// to have ended for the reason behind it.
				until := func(ref session.Ref, limit time.Duration, reason string) {
					b.t.Helper()
					time.Sleep(limit - 10*time.Second)
					if log := b.logOf(ref); strings.Contains(log, "ended") || strings.Contains(log, "failed") {
						b.t.Fatalf("too early: %s", log)
					}
					time.Sleep(20 * time.Second)
					if log := b.logOf(ref); !strings.Contains(log, "("+reason+")") {
						b.t.Fatalf("too late: %s", log)
					}
				}
				g := b.generation()
				defer b.attend().Close()

				left := b.session()
				id, err := b.svc.StartChat(b.t.Context(), left, session.StartRequest{ID: "c1"})
				if err != nil {
					t.Fatal(err)
				}
				b.want(g.emit(joined(id, "j1")), "ok")
				step()
				until(left, b.limits.AbandonConnected-2*time.Minute, "abandoned")

				b.startChat("nobody joins")
				step()
				until(b.ref, b.limits.JoinTimeout-2*time.Minute, "join_timeout")

				b.ref = b.session()
				defer b.attend().Close()
				b.chat(g)
				g.down()
				b.wantSent("m1", "x", "")
				step()
				until(b.ref, b.limits.MessageWait-2*time.Minute-b.limits.SendWait, "waited_too_long")
				time.Sleep(b.limits.DeskAwayLimit - b.limits.MessageWait - time.Minute)
				if log := b.logOf(b.ref); strings.Contains(log, "ended") {
					t.Fatalf("too early: %s", log)
				}
				time.Sleep(time.Minute)
				if log := b.logOf(b.ref); !strings.Contains(log, "(desk_away)") {
					t.Fatalf("too late: %s", log)
				}

				// The sweeper sees each clock, and one that is far off for a while.
				step()
				time.Sleep(3 * time.Hour)
				b.step.Add(int64(365 * day))
				time.Sleep(59 * time.Minute)
				b.step.Add(-int64(365 * day))
				time.Sleep(3 * time.Hour)
				if log := b.logOf(left); !strings.HasPrefix(log, "requested") {
					t.Fatalf("a session was removed: %q", log)
				}
				if _, err := b.svc.Info(b.t.Context(), b.ref); err != nil {
					t.Fatalf("a session with an open page: %v", err)
				}
			})
		})
	}
}

// logOf returns the entries of a session in short.
func (b *bench) logOf(ref session.Ref) string {
	b.t.Helper()
	own := b.ref
	defer func() { b.ref = own }()
	b.ref = ref
	return strings.Join(b.log(), "; ")
}
