package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deskhost/deskhost/host/internal/journal"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	"github.com/deskhost/deskhost/host/internal/session"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

const (
	retry   = deskv1.FailureKind_FAILURE_KIND_RETRY
	unknown = deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN
	gone    = deskv1.FailureKind_FAILURE_KIND_CHAT_UNKNOWN
	over    = deskv1.FailureKind_FAILURE_KIND_CHAT_OVER
	refused = deskv1.FailureKind_FAILURE_KIND_REFUSED
)

func dedupeNone(g *fake) { g.desc.SendDedupe = deskv1.SendDedupe_SEND_DEDUPE_NONE }

func TestConversation(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		b.wantSent("m1", "hello", "delivered")
		b.want(g.emit(says(id, "a1", "hi"), typing(id)), "ok", "ok")
		b.want(g.emit(hangsUp(id)), "ok")
		b.wantLog("requested", "started", "joined Ada", "user hello", "status m1 delivered", "agent hi", "ended by agent")
		b.want(g.got("send"), "1:hello")
		b.want(g.got("end")) // the desk knows already
	})
}

func TestOptionalCalls(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation(func(g *fake) { g.online = deskv1.Availability_AVAILABILITY_ONLINE })
		a, err := b.svc.Availability(b.t.Context(), b.ref)
		if err != nil || a.Online == nil || !*a.Online {
			t.Fatalf("availability %+v, %v", a, err)
		}
		id := b.startChat("c1")
		_ = b.svc.Typing(b.t.Context(), b.ref, true) // nobody is there to see it
		b.want(g.got("typing"))
		g.emit(joined(id, "j1"))
		for _, err := range []error{
			b.svc.Typing(b.t.Context(), b.ref, true),
			b.svc.Read(b.t.Context(), b.ref),
			b.svc.Update(b.t.Context(), b.ref, session.Update{User: &session.User{ID: "u2", Name: "Ute"}}),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		b.want(g.got("typing"), "0:true")
		b.want(g.got("read"), "0:")
		b.want(g.got("update"), "0:Ute")
		b.wantLog("requested", "started", "joined Ada", "updated")
		g.down()
		a, err = b.svc.Availability(b.t.Context(), b.ref)
		if err != nil || a.Online == nil || *a.Online {
			t.Fatalf("a desk that is down: availability %+v, %v", a, err)
		}
	})
}

func TestAvailabilityThatDoesNotAnswerInTimeIsUnknown(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		g.onCall(g.hang("availability"))
		begin := time.Now()
		a, err := b.svc.Availability(b.t.Context(), b.ref)
		if err != nil || a.Online != nil || time.Since(begin) > 4*time.Second {
			t.Fatalf("availability %+v, %v after %v", a, err, time.Since(begin))
		}
	})
}

func TestSameStartSameAnswer(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.startChat("c1")
		if again := b.startChat("c1"); again != id {
			t.Fatalf("the same request made chat %s, then %s", id, again)
		}
		_, err := b.svc.StartChat(b.t.Context(), b.ref, session.StartRequest{ID: "c2"})
		b.wantCode(err, session.CodeChatOpen)
		if e := new(session.Error); !errors.As(err, &e) || e.ChatID != id {
			t.Fatalf("the open chat is not named: %+v", e)
		}
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			t.Fatal(err)
		}
		if again := b.startChat("c1"); again != id {
			t.Fatal("a request repeated after the end made a new chat")
		}
		if other := b.startChat("c2"); other == id {
			t.Fatal("a new request found the old chat")
		}
		if again := b.startChat("c1"); again != id {
			t.Fatal("a request repeated beside another chat found that")
		}
		if n := len(g.got("start")); n != 2 {
			t.Fatalf("%d calls of StartChat, want 2", n)
		}
	})
}

func TestRequestedBeforeTheDeskHears(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		g.onCall(func(_ context.Context, c call) error {
			if head, err := journal.New(b.store).Chat(c.chat); err != nil || head.GetStartAttempts() != c.attempt {
				t.Errorf("StartChat attempt %d is not in the journal: %v, %v", c.attempt, head, err)
			}
			return nil
		})
		b.startChat("c1")
	})
}

func TestEventsBeforeStartReturns(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		release := make(chan struct{})
		g.onCall(func(_ context.Context, c call) error {
			if c.name == "start" {
				<-release
			}
			return nil
		})
		done := make(chan string)
		go func() { done <- b.startChat("c1") }()
		synctest.Wait()
		info, _ := b.svc.Info(b.t.Context(), b.ref)
		b.want(g.emit(saved(info.Chat.ID, "s1"), joined(info.Chat.ID, "j1")), "ok", "ok")
		close(release)
		<-done
		b.wantLog("requested", "joined Ada", "started")
	})
}

func TestRefusedStartLeavesNothingOpen(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		g.onCall(func(context.Context, call) error { return fail(refused) })
		for range 2 { // the same request, the same answer
			_, err := b.svc.StartChat(b.t.Context(), b.ref, session.StartRequest{ID: "c1"})
			b.wantCode(err, session.CodeStartRefused)
		}
		b.want(g.got("start"), "1:")
		b.want(g.got("end"))
		b.wantLog("requested", "ended by desk (start_refused)")
		g.onCall(nil)
		b.startChat("c2")
	})
}

func TestStartThatTakesTooLongIsEndedBehind(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		g.onCall(g.hang("start"))
		begin := time.Now()
		_, err := b.svc.StartChat(b.t.Context(), b.ref, session.StartRequest{ID: "c1"})
		b.wantCode(err, session.CodeStartTimeout)
		if d := time.Since(begin); d > 10*time.Second {
			t.Fatalf("answered after %v", d)
		}
		b.want(g.got("end"), "1:")
		b.wantLog("requested", "ended by host (start_timeout)")
	})
}

func TestStartWhileTheDeskIsDown(t *testing.T) {
	run(t, func(b *bench) {
		_, err := b.svc.StartChat(b.t.Context(), b.ref, session.StartRequest{ID: "c1"})
		b.wantCode(err, session.CodeDeskUnavailable)
		g := b.generation()
		b.want(g.got("start")) // it was never called, and need not be ended
		b.want(g.got("end"))
		// A desk that comes back in time takes the chat.
		g.down()
		go func() {
			time.Sleep(3 * time.Second)
			b.generation()
		}()
		b.startChat("c2")
	})
}

func TestCrashDuringStart(t *testing.T) {
	for _, who := range []string{"plugin", "host"} {
		t.Run(who, func(t *testing.T) {
			run(t, func(b *bench) {
				g := b.generation()
				g.onCall(g.hang("start"))
				go func() {
					_, _ = b.svc.StartChat(context.Background(), b.ref, session.StartRequest{ID: "c1"})
				}()
				synctest.Wait()
				info, err := b.svc.Info(b.t.Context(), b.ref)
				if err != nil {
					t.Fatal(err)
				}
				b.want(g.emit(saved(info.Chat.ID, "token")), "ok")
				if who == "host" {
					g.die()
					b.restart()
				} else {
					g.down()
				}
				next := b.generation()
				time.Sleep(time.Second)
				b.want(next.got("start"), "2:token")
				b.wantLog("requested", "started")
				if id := b.startChat("c1"); id != info.Chat.ID {
					t.Fatal("the repeated request made another chat")
				}
			})
		})
	}
}

func TestMessagesGoOneAtATimeAndInOrder(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		b.chat(g)
		release := make(chan error)
		g.onCall(func(_ context.Context, c call) error {
			if c.name == "send" {
				return <-release
			}
			return nil
		})
		for i := range 5 {
			b.wantSent(fmt.Sprint("m", i), fmt.Sprint(i), "") // accepted
		}
		b.want(g.got("send"), "1:0")
		release <- nil
		b.want(g.got("send"), "1:0", "1:1")
		release <- fail(retry)
		time.Sleep(time.Minute)
		b.want(g.got("send"), "1:0", "1:1", "2:1")
		for range 4 {
			release <- nil
			synctest.Wait()
		}
		b.want(g.got("send"), "1:0", "1:1", "2:1", "1:2", "1:3", "1:4")
	})
}

func TestMarkedBeforeSending(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		b.chat(g)
		g.onCall(func(_ context.Context, c call) error {
			m, err := journal.New(b.store).Out(c.chat, "m1")
			if err != nil || m.GetState() != recordv1.OutState_OUT_STATE_SENDING || m.GetAttempts() != c.attempt {
				t.Errorf("attempt %d is not marked in the journal: %v, %v", c.attempt, m, err)
			}
			if c.attempt < 3 {
				return fail(retry)
			}
			return nil
		})
		b.wantSent("m1", "x", "delivered")
	})
}

func TestUnclearOutcome(t *testing.T) {
	t.Run("a desk with a key gets the message again", func(t *testing.T) {
		run(t, func(b *bench) {
			g := b.generation()
			b.chat(g)
			g.onCall(func(_ context.Context, c call) error {
				if c.attempt == 1 {
					return fail(unknown)
				}
				return nil
			})
			b.wantSent("m1", "x", "delivered")
			b.want(g.got("send"), "1:x", "2:x")
		})
	})
	t.Run("a desk without does not, and the next message follows", func(t *testing.T) {
		run(t, func(b *bench) {
			g := b.generation(dedupeNone)
			b.chat(g)
			g.onCall(func(_ context.Context, c call) error {
				if c.text == "x" {
					return fail(unknown)
				}
				return nil
			})
			b.wantSent("m1", "x", "unknown")
			b.wantSent("m2", "y", "delivered")
			b.want(g.got("send"), "1:x", "1:y")
		})
	})
}

func TestCrashDuringSend(t *testing.T) {
	for _, who := range []string{"plugin", "host"} {
		for name, change := range map[string]func(*fake){"key": func(*fake) {}, "none": dedupeNone} {
			t.Run(who+" "+name, func(t *testing.T) {
				run(t, func(b *bench) {
					g := b.generation(change)
					id := b.chat(g)
					b.want(g.emit(saved(id, "cursor")), "ok")
					g.onCall(g.hang("send"))
					go func() { _, _ = b.send("m1", "x") }()
					synctest.Wait()
					go func() { _, _ = b.send("m2", "y") }()
					synctest.Wait()
					b.want(g.got("send"), "1:x")
					if who == "host" {
						g.die()
						b.restart()
					} else {
						g.down()
					}
					next := b.generation(change)
					time.Sleep(time.Second)
					b.want(next.got("resume"), "1:cursor")
					sends, status := []string{"2:x", "1:y"}, "status m1 delivered"
					if name == "none" {
						sends, status = []string{"1:y"}, "status m1 unknown (outcome_unknown)"
					}
					b.want(next.got("send"), sends...)
					log := strings.Join(b.log(), "; ")
					if !strings.Contains(log, status) || !strings.Contains(log, "status m2 delivered") {
						t.Fatalf("the log is %q", log)
					}
				})
			})
		}
	}
}

func TestSameMessageSameAnswer(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		b.chat(g)
		b.wantSent("m1", "x", "delivered")
		b.wantSent("m1", "x", "delivered")
		_, err := b.send("m1", "y")
		b.wantCode(err, session.CodeIDReused)
		b.restart()
		b.wantSent("m1", "x", "delivered")
		_, err = b.send("m1", "y")
		b.wantCode(err, session.CodeIDReused)
		b.generation()
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			t.Fatal(err)
		}
		b.wantSent("m1", "x", "delivered")
		_, err = b.send("m2", "y")
		b.wantCode(err, session.CodeNoChat)
		b.want(g.got("send"), "1:x")
	})
}

func TestMessageWaitsForItsDeskAndThenFails(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		b.chat(g)
		defer b.attend().Close()
		g.down()
		b.wantSent("m1", "x", "")
		time.Sleep(b.limits.MessageWait)
		b.wantLog("requested", "started", "joined Ada", "away", "user x", "status m1 failed (waited_too_long)")
		b.wantSent("m2", "y", "")
		next := b.generation()
		b.want(next.got("send"), "1:y")
	})
}

func TestTooMuchIsRefusedAndChangesNothing(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation(func(g *fake) { g.desc.MaxTextBytes = 3 })
		b.chat(g)
		before := b.log()
		_, err := b.send("m1", "four")
		b.wantCode(err, session.CodeTextTooLong)
		b.wantLog(before...)
		g.onCall(g.hang("send"))
		for i := range b.limits.QueuedMessages {
			go func() { _, _ = b.send(fmt.Sprint("m", i), "x") }()
		}
		synctest.Wait()
		_, err = b.send("one more", "x")
		b.wantCode(err, session.CodeTooManyMessages)
	})
}

func TestEventsAreTakenOnce(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		b.want(g.emit(says(id, "a1", "hi"), says(id, "a1", "hi")), "ok", "ok") // in one batch
		b.want(g.emit(says(id, "a1", "hi")), "ok")
		b.restart()
		next := b.generation()
		b.want(next.emit(says(id, "a1", "hi"), says(id, "a2", "there")), "ok", "ok")
		b.wantLog("requested", "started", "joined Ada", "agent hi", "agent there")
	})
}

func TestRefusedEvents(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		other := b.generation(func(g *fake) { g.name = "other" })
		b.want(other.emit(says(id, "a1", "not mine")), "REFUSAL_CODE_CHAT_UNKNOWN")
		b.want(g.emit(says("nonsense", "a1", "")), "REFUSAL_CODE_CHAT_UNKNOWN")
		b.want(g.emit(says(b.ref.ID+"-aaaaaaaa", "a1", "")), "REFUSAL_CODE_CHAT_UNKNOWN")
		link := says(id, "a1", "")
		link.GetMessageToUser().Parts[0] = &deskv1.MessagePart{Kind: &deskv1.MessagePart_Link{Link: &deskv1.LinkPart{Url: "javascript:alert(1)"}}}
		b.want(g.emit(link, &deskv1.Event{ChatId: id}), "REFUSAL_CODE_INVALID", "REFUSAL_CODE_INVALID")
		g.down()
		next := b.generation()
		b.want(g.emit(says(id, "late", "")), "REFUSAL_CODE_MOVED")
		b.want(next.emit(hangsUp(id), says(id, "after", "")), "ok", "REFUSAL_CODE_CHAT_OVER")
		b.want(next.emit(says(id, "after", "")), "REFUSAL_CODE_CHAT_OVER")
		b.wantLog("requested", "started", "joined Ada", "away", "back", "ended by agent")
	})
}

func TestAcknowledgedOnlyWhenDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		hold := false
		b := &bench{t: t, limits: session.DefaultLimits()}
		b.store = newStore(func() {
			if hold {
				<-held
			}
		})
		b.start()
		t.Cleanup(b.stop)
		made, err := b.svc.Create(b.t.Context(), session.CreateRequest{})
		if err != nil {
			t.Fatal(err)
		}
		b.ref = session.Ref{ID: made.ID, Token: made.Token}
		g := b.generation()
		id := b.chat(g)
		woken := 0
		f, err := b.svc.Subscribe(b.t.Context(), b.ref, 3, func() { woken++ })
		if err != nil {
			t.Fatal(err)
		}
		if news, err := f.Pull(10); err != nil || len(news) > 0 {
			t.Fatal(news, err)
		}
		hold = true
		b.want(g.emit(says(id, "a1", "hi")), "") // neither acknowledged
		if woken > 0 {
			t.Fatal("a page was told before the entry was durable")
		}
		close(held)
		synctest.Wait()
		if _, ok := g.settled[g.seq]; !ok || woken != 1 {
			t.Fatalf("once durable: settled %v, woken %d times", ok, woken)
		}
		f.Close()
	})
}

func TestEndIsRetriedBehindTheAnswer(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		b.want(g.emit(saved(id, "token")), "ok")
		fails := 2
		g.onCall(func(_ context.Context, c call) error {
			if c.name == "end" && fails > 0 {
				fails--
				return fail(unknown)
			}
			return nil
		})
		begin := time.Now()
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			t.Fatal(err)
		}
		if time.Since(begin) > 0 {
			t.Fatal("the answer waited for the desk")
		}
		b.startChat("c2") // meanwhile
		b.want(g.emit(says(id, "late", "")), "REFUSAL_CODE_CHAT_OVER")
		time.Sleep(10 * time.Second)
		b.want(g.got("end"), "1:token", "2:token", "3:token")
	})
}

func TestEndOwedSurvivesTheHost(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		b.chat(g)
		g.down()
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			t.Fatal(err)
		}
		b.restart()
		next := b.generation()
		b.want(next.got("end"), "1:")
		b.want(next.got("resume"))
		b.restart()
		b.want(b.generation().got("end"))
	})
}

func TestEndOfAnotherChatChangesNothing(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		first := b.startChat("c1")
		for _, chat := range []string{first, first} {
			if err := b.svc.EndChat(b.t.Context(), b.ref, chat); err != nil {
				t.Fatal(err)
			}
		}
		b.startChat("c2")
		if err := b.svc.EndChat(b.t.Context(), b.ref, first); err != nil { // late
			t.Fatal(err)
		}
		b.want(g.got("end"), "1:")
		b.wantLog("requested", "started", "ended by user", "requested", "started")
	})
}

func TestEndIsGivenUpAfterAWhile(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		b.chat(g)
		g.onCall(func(context.Context, call) error { return fail(retry) })
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(b.limits.EndRetry + time.Minute)
		n := len(g.got("end"))
		time.Sleep(time.Hour)
		if after := len(g.got("end")); n < 10 || after != n {
			t.Fatalf("%d calls of EndChat within its time, %d after", n, after)
		}
	})
}

func TestMessageUnderWayWhenTheChatEnds(t *testing.T) {
	for _, who := range []string{"answered", "host killed"} {
		t.Run(who, func(t *testing.T) {
			run(t, func(b *bench) {
				g := b.generation()
				id := b.chat(g)
				release := make(chan struct{})
				g.onCall(func(ctx context.Context, c call) error {
					if c.name == "send" {
						select {
						case <-release:
						case <-ctx.Done():
						}
					}
					return nil
				})
				go func() { _, _ = b.send("m1", "bye") }()
				synctest.Wait()
				b.want(g.emit(hangsUp(id)), "ok")
				status := "status m1 delivered"
				if who == "host killed" {
					b.restart()
					synctest.Wait()
					time.Sleep(time.Second)
					status = "status m1 unknown (outcome_unknown)"
				} else {
					close(release)
				}
				b.wantLog("requested", "started", "joined Ada", "user bye", "ended by agent", status)
				b.startChat2()
			})
		})
	}
}

// startChat2 shows that the session is free for another chat.
func (b *bench) startChat2() {
	b.t.Helper()
	b.generation()
	b.startChat("c2")
}

func TestDeskSaysOverToAMessage(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		g.onCall(func(_ context.Context, c call) error {
			if c.name == "send" {
				return fail(over)
			}
			return nil
		})
		b.wantSent("m1", "x", "failed")
		b.want(g.emit(says(id, "last", "bye")), "ok") // the desk's last words still count
		time.Sleep(10 * time.Second)
		b.wantLog("requested", "started", "joined Ada", "user x", "status m1 failed (chat_over)", "agent bye", "ended by desk (chat_over)")
	})
}

func TestDeskAwayAndBack(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		b.want(g.emit(saved(id, "cursor")), "ok")
		g.down()
		b.wantSent("m1", "while away", "")
		next := b.generation()
		b.want(next.got("resume"), "1:cursor")
		b.want(next.emit(says(id, "a1", "meanwhile")), "ok")
		b.wantLog("requested", "started", "joined Ada", "away", "user while away", "back", "status m1 delivered", "agent meanwhile")
	})
}

func TestDeskThatNoLongerKnowsTheChat(t *testing.T) {
	run(t, func(b *bench) {
		b.chat(b.generation())
		b.restart()
		g := b.generation(func(g *fake) {
			g.answer = func(context.Context, call) error { return fail(gone) }
		})
		b.want(g.got("end"))
		b.wantLog("requested", "started", "joined Ada", "ended by desk (chat_unknown)")
	})
}

func TestPluginThatCannotResume(t *testing.T) {
	run(t, func(b *bench) {
		plain := func(g *fake) { g.desc.Capabilities = nil }
		g := b.generation(plain)
		b.chat(g)
		g.down()
		next := b.generation(plain)
		b.want(next.got("resume"))
		b.want(next.got("end"), "1:")
		b.wantLog("requested", "started", "joined Ada", "away", "ended by host (desk_restarted)")
	})
}

func TestResumeIsTriedAgain(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		b.chat(g)
		g.down()
		next := b.generation(func(g *fake) {
			g.answer = func(_ context.Context, c call) error {
				if c.attempt < 4 {
					return fail(unknown)
				}
				return nil
			}
		})
		time.Sleep(20 * time.Second)
		b.want(next.got("resume"), "1:", "2:", "3:", "4:")
		b.wantLog("requested", "started", "joined Ada", "away", "back")
	})
}

func TestTimeLimits(t *testing.T) {
	tests := map[string]struct {
		join, attended, deskDown bool
		limit                    func(session.Limits) time.Duration
		reason                   string
	}{
		"nobody waits any more":    {limit: func(l session.Limits) time.Duration { return l.AbandonWaiting }, reason: "abandoned"},
		"nobody attends any more":  {join: true, limit: func(l session.Limits) time.Duration { return l.AbandonConnected }, reason: "abandoned"},
		"no agent joins":           {attended: true, limit: func(l session.Limits) time.Duration { return l.JoinTimeout }, reason: "join_timeout"},
		"the desk stays down":      {attended: true, join: true, deskDown: true, limit: func(l session.Limits) time.Duration { return l.DeskAwayLimit }, reason: "desk_away"},
		"an attended chat goes on": {attended: true, join: true, limit: func(session.Limits) time.Duration { return 48 * time.Hour }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				g := b.generation()
				id := b.startChat("c1")
				if tt.join {
					g.emit(joined(id, "j1"))
				}
				if tt.attended {
					defer b.attend().Close()
				}
				if tt.deskDown {
					g.down()
				}
				limit := tt.limit(b.limits)
				time.Sleep(limit - time.Second)
				if log := strings.Join(b.log(), "; "); strings.Contains(log, "ended") {
					t.Fatalf("too early: %s", log)
				}
				time.Sleep(2 * time.Second)
				log := strings.Join(b.log(), "; ")
				if tt.reason == "" && strings.Contains(log, "ended") || tt.reason != "" && !strings.Contains(log, "ended by host ("+tt.reason+")") {
					t.Fatalf("the log is %s", log)
				}
				if tt.reason != "" && !tt.deskDown && len(g.got("end")) != 1 {
					t.Fatal("the desk was not told")
				}
			})
		})
	}
}

func TestTokensAndExpiry(t *testing.T) {
	run(t, func(b *bench) {
		_, err := b.svc.Info(b.t.Context(), session.Ref{ID: b.ref.ID, Token: "wrong"})
		b.wantCode(err, session.CodeTokenWrong)
		_, err = b.svc.Info(b.t.Context(), session.Ref{ID: "nope", Token: b.ref.Token})
		b.wantCode(err, session.CodeSessionUnknown)
		time.Sleep(b.limits.SessionTTL)
		if _, err = b.svc.Info(b.t.Context(), b.ref); err != nil {
			t.Fatal("a session died within its time:", err)
		}
		b.restart()
		time.Sleep(b.limits.SessionTTL - 2*time.Hour)
		if _, err = b.svc.Info(b.t.Context(), b.ref); err != nil {
			t.Fatal("the last use was forgotten:", err)
		}
		time.Sleep(b.limits.SessionTTL + 2*time.Hour)
		_, err = b.svc.Info(b.t.Context(), b.ref)
		b.wantCode(err, session.CodeSessionUnknown)
	})
}

func TestDeletedSessionIsForgottenOnceTheDeskKnows(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		b.chat(g)
		b.wantSent("m1", "x", "delivered")
		f := b.attend()
		defer f.Close()
		g.onCall(func(context.Context, call) error { return fail(retry) })
		if err := b.svc.Delete(b.t.Context(), b.ref); err != nil {
			t.Fatal(err)
		}
		_, err := b.svc.Info(b.t.Context(), b.ref)
		b.wantCode(err, session.CodeSessionUnknown)
		_, err = f.Pull(100)
		b.wantCode(err, session.CodeSessionUnknown)
		b.restart()
		b.generation()
		_ = b.log()
		if left := b.keys(); left != 0 {
			t.Fatalf("%d keys of a deleted session are left", left)
		}
	})
}

// keys counts all keys in the store.
func (b *bench) keys() (n int) {
	synctest.Wait()
	if err := b.store.Scan([]byte{0}, []byte{0xff}, func([]byte, []byte) (bool, error) {
		n++
		return true, nil
	}); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// TestFullDiskTakesNothingNew holds that what is open goes on to its end.
func TestFullDiskTakesNothingNew(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		b.wantSent("m1", "x", "delivered")
		idle := b.session()

		b.full.Store(true)
		_, err := b.svc.Create(b.t.Context(), session.CreateRequest{})
		b.wantCode(err, session.CodeStorageFull)
		_, err = b.svc.StartChat(b.t.Context(), idle, session.StartRequest{ID: "c1"})
		b.wantCode(err, session.CodeStorageFull)
		_, err = b.send("m2", "y")
		b.wantCode(err, session.CodeStorageFull)
		b.wantLog("requested", "started", "joined Ada", "user x", "status m1 delivered")

		// What was taken before is answered as before.
		if again := b.startChat("c1"); again != id {
			t.Fatalf("the same request made chat %s, then %s", id, again)
		}
		b.wantSent("m1", "x", "delivered")
		if err := b.svc.Typing(b.t.Context(), b.ref, true); err != nil {
			t.Fatal(err)
		}
		b.want(g.got("typing"), "0:true")
		b.want(g.emit(says(id, "a1", "hi")), "ok")
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			t.Fatal(err)
		}
		b.want(g.got("end"), "1:")

		b.full.Store(false)
		b.startChat("c2")
		b.wantSent("m2", "y", "delivered")
		b.session()
	})
}

func TestJournalFailureStopsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := false
		b := &bench{t: t, limits: session.DefaultLimits()}
		b.store = newStore(nil)
		b.store.OnCommit = func([]journal.Op) error {
			if broken {
				return errors.New("disk on fire")
			}
			return nil
		}
		b.start()
		t.Cleanup(b.stop)
		made, err := b.svc.Create(b.t.Context(), session.CreateRequest{})
		if err != nil {
			t.Fatal(err)
		}
		b.ref = session.Ref{ID: made.ID, Token: made.Token}
		g := b.generation()
		id := b.chat(g)
		broken = true
		b.want(g.emit(says(id, "a1", "hi")), "")
		if err := <-b.svc.Failed(); err == nil || !strings.Contains(err.Error(), "disk on fire") {
			t.Fatal(err)
		}
		_, err = b.send("m1", "x")
		b.wantCode(err, session.CodeStopping)
	})
}

func TestParkLeavesChatsForTheNextStart(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		release := make(chan struct{})
		g.onCall(func(_ context.Context, c call) error {
			if c.name == "send" {
				<-release
			}
			return nil
		})
		go func() { _, _ = b.send("m1", "x") }()
		synctest.Wait()
		parked := make(chan struct{})
		go func() {
			b.svc.Park(b.t.Context())
			close(parked)
		}()
		synctest.Wait()
		_, err := b.send("m2", "y")
		b.wantCode(err, session.CodeStopping)
		b.want(g.emit(says(id, "a1", "still heard")), "ok")
		close(release)
		<-parked
		g.down()
		b.restart()
		b.want(b.generation().got("resume"), "1:")
		b.wantLog("requested", "started", "joined Ada", "user x", "agent still heard", "status m1 delivered", "away", "back")
	})
}

func TestManyChatsResumeOldestFirstAndBounded(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		var order []string
		for range 200 {
			made, err := b.svc.Create(b.t.Context(), session.CreateRequest{})
			if err != nil {
				t.Fatal(err)
			}
			id, err := b.svc.StartChat(b.t.Context(), session.Ref{ID: made.ID, Token: made.Token}, session.StartRequest{ID: "c"})
			if err != nil {
				t.Fatal(err)
			}
			order = append(order, id)
			time.Sleep(time.Millisecond)
		}
		g.down()
		atOnce, most := 0, 0
		next := b.generation(func(g *fake) {
			g.answer = func(context.Context, call) error {
				g.mu.Lock()
				atOnce++
				most = max(most, atOnce)
				g.mu.Unlock()
				time.Sleep(100 * time.Millisecond)
				g.mu.Lock()
				atOnce--
				g.mu.Unlock()
				return nil
			}
		})
		time.Sleep(10 * time.Second)
		if n := len(next.got("resume")); n != len(order) {
			t.Fatalf("%d of %d chats were resumed", n, len(order))
		}
		if most > 128 {
			t.Fatalf("%d at once", most)
		}
		if next.calls[0].chat != order[0] && next.calls[1].chat != order[0] {
			// Shards go side by side: the oldest is among the first of each.
			pos := 0
			for i, c := range next.calls {
				if c.chat == order[0] {
					pos = i
				}
			}
			if pos > most {
				t.Fatalf("the oldest chat was resumed as number %d", pos)
			}
		}
	})
}

func TestReconfigure(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		g := b.generation()
		chat := b.chat(g)
		short := b.limits
		short.TextBytes = 4
		b.svc.Reconfigure([]string{"other"}, "other", short)

		// The desk's open chat goes on, by the new limits, for as long as its process does.
		b.wantSent("m1", "four", "delivered")
		_, err := b.send("m2", "fives")
		b.wantCode(err, session.CodeTextTooLong)
		b.want(g.emit(says(chat, "e1", "hello")), "ok")
		// Nothing new begins there.
		_, err = b.svc.Create(b.t.Context(), session.CreateRequest{Desk: deskName})
		b.wantCode(err, session.CodeDeskUnknown)
		if made, err := b.svc.Create(b.t.Context(), session.CreateRequest{}); err != nil {
			t.Error(err)
		} else if info, err := b.svc.Info(b.t.Context(), session.Ref{ID: made.ID, Token: made.Token}); err != nil || info.Desk != "other" {
			t.Errorf("desk %+v, %v", info, err)
		}
		g.down()
		b.wantSent("m3", "wait", "")

		// The desk comes back before desk_away_limit ends the chat.
		b.svc.Reconfigure([]string{deskName, "other"}, "other", b.limits)
		again := b.generation()
		b.want(again.got("resume"), "1:")
		b.want(again.got("send"), "1:wait")
		again.down()
		b.svc.Reconfigure([]string{"other"}, "other", b.limits)
		time.Sleep(b.limits.DeskAwayLimit + time.Second)
		_, err = b.svc.StartChat(b.t.Context(), b.ref, session.StartRequest{ID: "c2"})
		b.wantCode(err, session.CodeDeskUnknown)
		b.wantLog("requested", "started", "joined Ada", "user four", "status m1 delivered", "agent hello", "away",
			"user wait", "back", "status m3 delivered", "away", "ended by host (desk_away)")
	})
}

// A host starts without a desk that has chats, and is given it later.
func TestDeskThatIsConfiguredLater(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		b.chat(b.generation())
		b.desks = []string{"other"}
		b.restart()
		b.attend()
		b.svc.Reconfigure([]string{deskName, "other"}, deskName, b.limits)
		b.want(b.generation().got("resume"), "1:")
		if got := b.svc.OpenChats()[deskName]; got != (session.DeskChats{Open: 1}) {
			t.Errorf("counted %+v", got)
		}
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := b.svc.OpenChats()[deskName]; got != (session.DeskChats{}) {
			t.Errorf("counted %+v", got)
		}
	})
}
