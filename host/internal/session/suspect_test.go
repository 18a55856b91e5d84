package session_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/deskhost/deskhost/host/internal/session"
)

// others opens chats in sessions of their own.
func (b *bench) others(n int) (ids []string) {
	b.t.Helper()
	for range n {
		made, err := b.svc.Create(b.t.Context(), session.CreateRequest{})
		if err != nil {
			b.t.Fatal(err)
		}
		id, err := b.svc.StartChat(b.t.Context(), session.Ref{ID: made.ID, Token: made.Token}, session.StartRequest{ID: "c"})
		if err != nil {
			b.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// resumed returns the chats that were to be resumed so far.
func (g *fake) resumed() (chats []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.calls {
		if c.name == "resume" {
			chats = append(chats, c.chat)
		}
	}
	return chats
}

// crashes has a generation serve until a chat gets one of some calls, which ends the
// process. Other calls are answered after a moment.
func (b *bench) crashes(chat string, names ...string) *fake {
	b.t.Helper()
	underWay := 0
	g := b.generation(func(g *fake) {
		g.answer = func(_ context.Context, c call) error {
			g.mu.Lock()
			beside := underWay
			underWay++
			g.mu.Unlock()
			if c.chat == chat && slices.Contains(names, c.name) {
				if g.n > 3 && beside > 0 {
					b.t.Errorf("%s of the suspect was called beside %d others", c.name, beside)
				}
				g.die()
				return fail(unknown)
			}
			select {
			case <-g.dead.Done():
				return fail(unknown)
			case <-time.After(10 * time.Millisecond):
			}
			g.mu.Lock()
			underWay--
			g.mu.Unlock()
			return nil
		}
	})
	select {
	case <-g.dead.Done():
	case <-time.After(2 * time.Minute):
		b.t.Fatalf("generation %d was not asked for any of %q", g.n, names)
	}
	g.down()
	return g
}

// forHours keeps chats with nobody in them.
func (b *bench) forHours() {
	b.limits.AbandonWaiting, b.limits.AbandonConnected = 24*time.Hour, 24*time.Hour
	b.restart()
}

// TestDeskIsToldOnceOfAChatThatCrashesIt ends with EndChat being given up: were it
// called earlier or again, it could lead the desk into quarantine.
func TestDeskIsToldOnceOfAChatThatCrashesIt(t *testing.T) {
	run(t, func(b *bench) {
		b.forHours()
		g := b.generation()
		poison := b.chat(g)
		others := b.others(40)
		g.down()
		for range 3 {
			b.crashes(poison, "resume", "end")
		}
		b.wantLog("requested", "started", "joined Ada", "away", "ended by host (resume_crashes)")
		g = b.generation()
		time.Sleep(9 * time.Minute)
		b.want(g.got("end"))
		g.down()
		b.want(b.crashes(poison, "end").got("end"), "1:")
		last := b.generation()
		time.Sleep(20 * time.Minute)
		b.want(last.got("end"))
		if chats := last.resumed(); len(chats) != len(others) || slices.Contains(chats, poison) {
			t.Errorf("%d chats were resumed, want the %d others", len(chats), len(others))
		}
	})
}

func TestEndThatCrashesTheAdapterIsGivenUpAtTheThirdTime(t *testing.T) {
	run(t, func(b *bench) {
		b.forHours()
		g := b.generation()
		poison := b.chat(g)
		others := b.others(3)
		g.onCall(g.hang("end"))
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			t.Fatal(err)
		}
		b.want(g.got("end"), "1:")
		g.down()
		b.want(b.crashes(poison, "end").got("end"), "2:")
		b.want(b.crashes(poison, "end").got("end"), "3:")
		last := b.generation()
		time.Sleep(20 * time.Minute)
		b.want(last.got("end"))
		if n := b.svc.OpenChats()[deskName].Open; n != len(others) {
			t.Errorf("%d chats are open, want %d", n, len(others))
		}
	})
}

func TestCrashesAreCountedOverARestartOfTheHost(t *testing.T) {
	run(t, func(b *bench) {
		b.forHours()
		g := b.generation()
		poison := b.chat(g)
		g.down()
		b.crashes(poison, "resume")
		b.crashes(poison, "resume")
		b.restart()
		b.crashes(poison, "resume")
		b.wantLog("requested", "started", "joined Ada", "away", "ended by host (resume_crashes)")
	})
}

func TestMessageThatCrashesTheAdapterIsGivenUpAtTheThirdTime(t *testing.T) {
	run(t, func(b *bench) {
		b.forHours()
		g := b.generation()
		poison := b.chat(g)
		g.onCall(g.hang("send"))
		b.wantSent("m1", "poison", "")
		g.down()
		b.crashes(poison, "send")
		b.want(b.crashes(poison, "send").got("send"), "3:poison")
		last := b.generation()
		time.Sleep(time.Minute)
		b.want(last.got("send"))
		b.wantSent("m2", "and now?", "delivered")
		b.wantLog("requested", "started", "joined Ada", "user poison", "away", "back", "away", "back", "away",
			"back", "status m1 unknown (outcome_unknown)", "user and now?", "status m2 delivered")
	})
}

func TestChatThatCrashesTheAdapterEndsByItselfAtTheThirdTime(t *testing.T) {
	run(t, func(b *bench) {
		b.limits.AbandonWaiting, b.limits.AbandonConnected = time.Hour, time.Hour
		b.restart()
		g := b.generation()
		poison := b.chat(g)
		others := b.others(40)
		g.down()

		// crash is a generation that ends while the chat is being resumed. It
		// returns which chats were asked for by then.
		crash := func() []string {
			g := b.generation(func(g *fake) {
				g.answer = func(ctx context.Context, c call) error {
					if c.name == "resume" && c.chat == poison {
						g.die()
					}
					<-g.dead.Done() // nobody has an answer by then
					return fail(unknown)
				}
			})
			time.Sleep(5 * time.Second)
			g.down()
			return g.resumed()
		}
		for i := range 2 {
			if chats := crash(); !slices.Contains(chats, poison) {
				t.Fatalf("crash %d: the chat was not resumed", i+1)
			}
		}
		// It is last now, and alone when the process ends for the third time.
		atOnce := 0
		third := b.generation(func(g *fake) {
			g.answer = func(_ context.Context, c call) error {
				g.mu.Lock()
				atOnce++
				beside := atOnce - 1
				g.mu.Unlock()
				if c.name == "resume" && c.chat == poison {
					if beside > 0 {
						t.Errorf("%d others were being resumed beside it", beside)
					}
					g.die()
					return fail(unknown)
				}
				time.Sleep(10 * time.Millisecond)
				g.mu.Lock()
				atOnce--
				g.mu.Unlock()
				return nil
			}
		})
		time.Sleep(time.Minute)
		if third.dead.Err() == nil {
			t.Fatal("the chat was not resumed")
		}
		third.down()
		b.wantLog("requested", "started", "joined Ada", "away", "ended by host (resume_crashes)")
		// All others live.
		fourth := b.generation()
		time.Sleep(time.Minute)
		resumed := fourth.resumed()
		if slices.Contains(resumed, poison) {
			t.Error("the chat was resumed once more")
		}
		for _, id := range others {
			if !slices.Contains(resumed, id) {
				t.Errorf("chat %s was not resumed", id)
			}
		}
		if n := b.svc.OpenChats()[deskName].Open; n != len(others) {
			t.Errorf("%d chats are open, want %d", n, len(others))
		}
	})
}

// A suspect that is ended while it is being resumed is alone until its call is
// back.
func TestSuspectThatEndsStaysAlone(t *testing.T) {
	run(t, func(b *bench) {
		b.forHours()
		g := b.generation()
		poison := b.chat(g)
		b.others(3)
		g.down()
		b.crashes(poison, "resume")
		b.crashes(poison, "resume")
		free := make(chan struct{})
		last := b.generation(func(g *fake) {
			g.answer = func(ctx context.Context, c call) error {
				if c.name == "resume" && c.chat == poison {
					select {
					case <-free:
					case <-ctx.Done():
					}
					return fail(unknown)
				}
				if c.name == "resume" {
					return fail(retry)
				}
				return nil
			}
		})
		for !slices.Contains(last.resumed(), poison) {
			time.Sleep(50 * time.Millisecond)
		}
		before := len(last.resumed())
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if n := len(last.resumed()); n != before {
			t.Errorf("%d chats were resumed beside it", n-before)
		}
		close(free)
		time.Sleep(time.Minute)
		if n := len(last.resumed()); n == before {
			t.Error("no other chat was resumed after it")
		}
	})
}

// TestSuspectHasItsTurn though others fail to be resumed all the time.
func TestSuspectHasItsTurn(t *testing.T) {
	run(t, func(b *bench) {
		b.forHours()
		b.limits.DeskAwayLimit = 24 * time.Hour
		b.restart()
		g := b.generation()
		poison := b.chat(g)
		g.down()
		b.crashes(poison, "resume")
		b.crashes(poison, "resume")
		g = b.generation()
		b.others(400)
		g.down() // before it was the suspect's turn
		last := b.generation(func(g *fake) {
			g.answer = func(ctx context.Context, c call) error {
				if c.name != "resume" || c.chat == poison {
					return nil
				}
				select {
				case <-ctx.Done():
				case <-time.After(9 * time.Second):
				}
				return fail(retry)
			}
		})
		time.Sleep(50 * time.Second)
		if slices.Contains(last.resumed(), poison) {
			t.Error("the suspect was not the last")
		}
		time.Sleep(time.Minute)
		b.wantLog("requested", "started", "joined Ada", "away", "back")
		before := len(last.resumed())
		time.Sleep(time.Minute)
		if len(last.resumed()) == before {
			t.Error("no other chat was resumed after it")
		}
	})
}
