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
		if n := b.svc.OpenChats()[deskName]; n != len(others) {
			t.Errorf("%d chats are open, want %d", n, len(others))
		}
	})
}
