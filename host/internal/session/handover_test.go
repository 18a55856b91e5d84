package session_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/session"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// gate makes a generation's calls of one name wait until it is opened.
func (g *fake) gate(name string, answer error) (open func()) {
	gate := make(chan struct{})
	g.onCall(func(ctx context.Context, c call) error {
		if c.name != name {
			return nil
		}
		select {
		case <-gate:
			return answer
		case <-g.dead.Done():
		case <-ctx.Done():
		}
		return fail(unknown)
	})
	return func() { close(gate); synctest.Wait() }
}

func state(text string, format uint32) *deskv1.ResumeState {
	return &deskv1.ResumeState{Data: []byte(text), Format: format}
}

func (b *bench) wantChats(of map[*fake]int) {
	b.t.Helper()
	synctest.Wait()
	for g, want := range of {
		if got := b.svc.Chats(deskName, g.n); got != want {
			b.t.Errorf("generation %d has %d chats, want %d", g.n, got, want)
		}
	}
}

func TestHandOver(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		old := b.generation()
		chat := b.chat(old)
		old.final = state("at 17", 1)
		open := old.gate("quiesce", nil)
		next := b.generation()
		b.want(old.got("quiesce"), "0:")
		// What the one before still has to say is taken; what the user says waits.
		b.want(old.emit(says(chat, "e1", "one moment")), "ok")
		b.wantSent("m1", "hello?", "")
		if err := b.svc.Typing(b.t.Context(), b.ref, true); err != nil {
			t.Fatal(err)
		}
		b.wantChats(map[*fake]int{old: 1, next: 1}) // neither may end now
		open()
		b.want(next.got("resume"), "1:at 17")
		b.want(next.got("send"), "1:hello?")
		b.want(next.got("typing"), "0:true")
		b.want(old.got("send"))
		b.want(old.emit(says(chat, "e2", "too late")), "REFUSAL_CODE_MOVED")
		b.want(next.emit(says(chat, "e2", "go on"), says(chat, "e1", "one moment")), "ok", "ok")
		b.wantChats(map[*fake]int{old: 0, next: 1})
		old.down()
		b.wantSent("m2", "thanks", "delivered")
		b.wantLog("requested", "started", "joined Ada", "agent one moment", "user hello?", "status m1 delivered",
			"agent go on", "user thanks", "status m2 delivered")
	})
}

func TestHandOverAwaitsCallsUnderWay(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		old := b.generation()
		b.chat(old)
		open := old.gate("send", nil)
		b.wantSent("m1", "one", "")
		next := b.generation()
		time.Sleep(time.Second)
		b.want(old.got("quiesce"))
		open()
		b.want(old.got("quiesce"), "0:")
		b.want(next.got("send"))
		b.wantSent("m2", "two", "delivered")
		b.want(next.got("send"), "1:two")
	})
}

func TestHandOverCutsCallsThatTakeTooLong(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		old := b.generation()
		b.chat(old)
		old.onCall(old.hang("send"))
		b.wantSent("m1", "one", "")
		next := b.generation()
		time.Sleep(6 * time.Second)
		b.want(old.got("quiesce"), "0:")
		b.want(next.got("send"), "2:one") // it may have arrived
		b.wantLog("requested", "started", "joined Ada", "user one", "status m1 delivered")
	})
}

func TestChatThatCannotBeHandedOverStaysAndIsTriedAgain(t *testing.T) {
	for _, refuses := range []string{"quiesce", "resume"} {
		t.Run(refuses, func(t *testing.T) {
			run(t, func(b *bench) {
				defer b.attend().Close()
				old := b.generation()
				chat := b.chat(old)
				refuse := func(_ context.Context, c call) error {
					if c.name == refuses && c.attempt <= 1 {
						return fail(deskv1.FailureKind_FAILURE_KIND_RETRY)
					}
					return nil
				}
				if refuses == "quiesce" {
					old.onCall(refuse)
				}
				next := b.generation(func(g *fake) {
					if refuses == "resume" {
						g.answer = refuse
					}
				})
				b.want(old.got("resume"), map[string]string{"quiesce": "1:", "resume": "2:"}[refuses])
				b.wantSent("m1", "still there?", "delivered")
				b.want(old.got("send"), "1:still there?")
				b.want(next.emit(says(chat, "e1", "not mine")), "REFUSAL_CODE_MOVED")
				b.wantChats(map[*fake]int{old: 1, next: 0})
				old.onCall(nil)
				time.Sleep(2 * time.Second)
				b.wantChats(map[*fake]int{old: 0, next: 1})
				b.wantSent("m2", "and now?", "delivered")
				b.want(next.got("send"), "1:and now?")
				b.wantLog("requested", "started", "joined Ada", "user still there?", "status m1 delivered", "user and now?", "status m2 delivered")
			})
		})
	}
}

func TestGenerationEndsWhileItTakesChats(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		old := b.generation()
		b.chat(old)
		for range 3 { // as often as would end a chat that crashes its adapter
			next := b.generation(func(g *fake) { g.answer = g.hang("resume") })
			b.wantChats(map[*fake]int{old: 1, next: 1})
			next.down()
			b.svc.Ready(old)
			b.wantChats(map[*fake]int{old: 1, next: 0})
		}
		b.wantSent("m1", "still there?", "delivered")
		b.want(old.got("send"), "1:still there?")
		b.wantLog("requested", "started", "joined Ada", "user still there?", "status m1 delivered")
	})
}

func TestGenerationEndsBeforeItTakesChats(t *testing.T) {
	for _, at := range []string{"send", "quiesce"} {
		t.Run(at, func(t *testing.T) {
			run(t, func(b *bench) {
				defer b.attend().Close()
				old := b.generation()
				b.chat(old)
				open := old.gate(at, nil)
				if at == "send" {
					b.wantSent("m0", "first", "")
				}
				next := b.generation()
				next.down()
				open()
				b.wantSent("m1", "still there?", "delivered")
				b.wantChats(map[*fake]int{old: 1, next: 0})
				if at == "quiesce" {
					b.want(old.got("resume"), "1:")
				}
			})
		})
	}
}

func TestGenerationEndsWithChatsThatItTook(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		old := b.generation()
		b.chat(old)
		next := b.generation()
		b.wantChats(map[*fake]int{old: 0, next: 1})
		next.down()
		b.svc.Ready(old)
		b.wantChats(map[*fake]int{old: 1, next: 0})
		b.wantSent("m1", "still there?", "delivered")
		b.wantLog("requested", "started", "joined Ada", "user still there?", "status m1 delivered")
	})
}

func TestGenerationBeforeEndsWhileItLetsChatsGo(t *testing.T) {
	for _, at := range []string{"send", "quiesce", "resume"} {
		t.Run(at, func(t *testing.T) {
			run(t, func(b *bench) {
				defer b.attend().Close()
				old := b.generation()
				b.chat(old)
				old.onCall(old.hang(at))
				if at == "send" {
					b.wantSent("m0", "first", "")
				}
				next := b.generation(func(g *fake) {
					g.answer = func(_ context.Context, c call) error {
						if c.name == "resume" && at == "resume" && c.attempt == 1 {
							return fail(deskv1.FailureKind_FAILURE_KIND_RETRY)
						}
						return nil
					}
				})
				old.down()
				time.Sleep(time.Second)
				b.wantChats(map[*fake]int{old: 0, next: 1})
				b.wantSent("m1", "still there?", "delivered")
				if slices.Contains(b.log(), "away") {
					t.Errorf("the user was told: %q", b.log())
				}
			})
		})
	}
}

func TestChatEndsWhileItIsHandedOver(t *testing.T) {
	for _, at := range []string{"send", "quiesce", "resume"} {
		t.Run(at, func(t *testing.T) {
			run(t, func(b *bench) {
				old := b.generation()
				b.chat(old)
				open := func() {}
				if at != "resume" {
					open = old.gate(at, nil)
				}
				if at == "send" {
					b.wantSent("m0", "first", "")
				}
				next := b.generation(func(g *fake) {
					if at == "resume" {
						open = g.gate(at, nil)
					}
				})
				if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
					t.Fatal(err)
				}
				b.want(slices.Concat(old.got("end"), next.got("end")))
				open()
				b.want(slices.Concat(old.got("end"), next.got("end")), "1:")
				b.wantChats(map[*fake]int{old: 0, next: 0})
			})
		})
	}
}

func TestChatThatEndsGivesUpItsPlace(t *testing.T) {
	run(t, func(b *bench) {
		old := b.generation()
		for i := range 130 { // more than there are places
			b.startChat(fmt.Sprint("c", i))
			open := old.gate("quiesce", nil)
			next := b.generation()
			if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
				t.Fatal(err)
			}
			open()
			b.want(old.got("quiesce"), "0:")
			b.want(old.got("end"), "1:")
			old.down()
			old = next
		}
		b.startChat("last")
		b.wantChats(map[*fake]int{b.generation(): 1})
	})
}

func TestDeskSaysOverToQuiesce(t *testing.T) {
	run(t, func(b *bench) {
		old := b.generation()
		b.chat(old)
		old.onCall(func(_ context.Context, c call) error {
			if c.name == "quiesce" {
				return fail(deskv1.FailureKind_FAILURE_KIND_CHAT_OVER)
			}
			return nil
		})
		next := b.generation()
		b.wantLog("requested", "started", "joined Ada", "ended by desk (chat_over)")
		b.want(next.got("resume"))
		b.wantChats(map[*fake]int{old: 0, next: 0})
	})
}

func TestChatThatStartsMeanwhileIsHandedOver(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		old := b.generation()
		open := old.gate("start", nil)
		started := make(chan string, 1)
		go func() { started <- b.startChat("c1") }()
		synctest.Wait()
		next := b.generation()
		b.wantChats(map[*fake]int{old: 1, next: 0})
		open()
		<-started
		b.want(next.got("resume"), "1:")
		b.wantChats(map[*fake]int{old: 0, next: 1})
	})
}

func TestResumeStateThatCannotBeRead(t *testing.T) {
	reads := func(formats ...uint32) func(*fake) {
		return func(g *fake) { g.desc.StateFormats = formats }
	}
	run(t, func(b *bench) {
		defer b.attend().Close()
		old := b.generation(reads(1, 2))
		chat := b.chat(old)
		late := saved(chat, "newer")
		late.State.Format = 2
		b.want(old.emit(late), "ok")

		back := &fake{b: b, name: deskName, n: 99, desc: &deskv1.DescribeResponse{
			Capabilities: old.desc.GetCapabilities(), StateFormats: []uint32{1},
		}}
		err := b.svc.Fits(back)
		if err == nil || !strings.Contains(err.Error(), "it reads resume state of formats [1], and 1 open chats of the desk have format [2]") {
			t.Errorf("Fits: %v", err)
		}
		if err := b.svc.Fits(old); err != nil {
			t.Errorf("Fits: %v", err)
		}
		// A state that comes with the last word is found out as well.
		old.final = state("newest", 3)
		next := b.generation(reads(2))
		b.want(next.got("resume"))
		b.want(old.got("resume"), "1:newest")
		b.wantSent("m1", "still there?", "delivered")
		b.want(old.got("send"), "1:still there?")
	})
}

func TestChatsOfPluginsThatCannotResumeStay(t *testing.T) {
	cannot := func(g *fake) {
		g.desc.Capabilities = slices.DeleteFunc(g.desc.Capabilities, func(c deskv1.Capability) bool {
			return c == deskv1.Capability_CAPABILITY_RESUME
		})
	}
	run(t, func(b *bench) {
		defer b.attend().Close()
		old := b.generation(cannot)
		b.chat(old)
		next := b.generation()
		others := b.others(3)
		b.wantChats(map[*fake]int{old: 1, next: len(others)})
		b.wantSent("m1", "still there?", "delivered")
		b.want(old.got("send"), "1:still there?")
		b.want(old.got("quiesce"))
		old.down()
		b.want(next.got("resume"), "1:")
	})
	run(t, func(b *bench) {
		old := b.generation(cannot)
		b.chat(old)
		next := b.generation()
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			t.Fatal(err)
		}
		b.want(old.got("end"), "1:")
		b.want(next.got("end"))
	})
}

func TestThirdGenerationTakesAll(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		first := b.generation()
		b.chat(first)
		open := first.gate("quiesce", nil)
		second := b.generation()
		third := b.generation()
		b.wantChats(map[*fake]int{first: 1, second: 1, third: 0})
		open()
		b.wantChats(map[*fake]int{first: 0, second: 0, third: 1})
		b.want(second.got("resume"))
		b.want(third.got("resume"), "1:")
		b.wantSent("m1", "still there?", "delivered")
	})
}

func TestHostParksDuringHandOver(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		old := b.generation()
		b.chat(old)
		old.final = state("at 17", 1)
		open := old.gate("quiesce", nil)
		next := b.generation()
		parked := make(chan struct{})
		go func() { b.svc.Park(context.Background()); close(parked) }()
		synctest.Wait()
		open()
		<-parked
		b.want(slices.Concat(old.got("resume"), next.got("resume")))
		b.restart()
		b.want(b.generation().got("resume"), "1:at 17")
	})
}

// A chat is asked for while another generation becomes ready. The one before
// must not end until the chat's shard knows of the other.
func TestChatStartsWhileItsGenerationIsReplaced(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		var slow chan struct{} // the disk's, if not nil
		b.stop()
		b.store.OnCommit = func([]journal.Op) error {
			if slow != nil {
				<-slow
			}
			return nil
		}
		b.start()
		old := b.generation()
		done := make(chan struct{})
		slow = done
		locale := "de"
		go func() { _ = b.svc.Update(context.Background(), b.ref, session.Update{Locale: &locale}) }()
		synctest.Wait()
		go func() { _, _ = b.svc.StartChat(context.Background(), b.ref, session.StartRequest{ID: "c1"}) }()
		synctest.Wait()
		next := b.newGeneration()
		told := make(chan struct{})
		go func() { b.svc.Ready(next); close(told) }()
		synctest.Wait()
		select {
		case <-told:
			t.Error("the desk may end the generation before now")
		default:
		}
		slow = nil
		close(done)
		<-told
		b.want(old.got("start"), "1:")
		b.wantChats(map[*fake]int{old: 0, next: 1})
	})
}

func TestNoHandOverToOneThatHasEnded(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		old := b.generation()
		b.chat(old)
		old.onCall(old.hang("send"))
		b.wantSent("m1", "one", "")
		b.generation().down()
		b.svc.Ready(old)
		time.Sleep(10 * time.Second)
		b.want(old.got("quiesce"))
		b.want(old.got("send"), "1:one")
	})
}

func TestLastWordsComeBeforeAHandOver(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		old := b.generation()
		chat := b.chat(old)
		open := old.gate("send", fail(deskv1.FailureKind_FAILURE_KIND_CHAT_OVER))
		b.wantSent("m1", "one", "")
		b.generation()
		open()
		b.want(old.got("quiesce"))
		b.want(old.emit(says(chat, "e1", "good bye"), hangsUp(chat)), "ok", "ok")
	})
}

func TestStateOfAChatThatEndsDuringQuiesce(t *testing.T) {
	run(t, func(b *bench) {
		old := b.generation()
		chat := b.chat(old)
		b.want(old.emit(saved(chat, "at 1")), "ok")
		old.final = state("at 17", 1)
		open := old.gate("quiesce", nil)
		b.generation()
		if err := b.svc.EndChat(b.t.Context(), b.ref, ""); err != nil {
			t.Fatal(err)
		}
		open()
		b.want(old.got("end"), "1:at 17")
	})
}

func TestGenerationIsNeverWithoutAChatThatComesBack(t *testing.T) {
	run(t, func(b *bench) {
		defer b.attend().Close()
		old := b.generation()
		b.chat(old)
		// The account is looked at whenever the host asks whose generation it is.
		w := &watched{fake: old}
		b.svc.Down(old, nil)
		b.svc.Ready(w)
		synctest.Wait()
		b.generation(func(g *fake) {
			g.answer = func(_ context.Context, c call) error {
				if c.name == "resume" {
					w.look = func() {
						if b.svc.Chats(deskName, old.n) == 0 {
							t.Error("the generation would be ended now, and the chat comes back to it")
						}
					}
				}
				return fail(deskv1.FailureKind_FAILURE_KIND_RETRY)
			}
		})
		b.wantSent("m1", "still there?", "delivered")
	})
}

// watched is a generation that notices when it is asked for its desk.
type watched struct {
	*fake

	look func()
}

func (w *watched) Desk() string {
	if w.look != nil {
		w.look()
	}
	return w.fake.Desk()
}

func TestManyChatsAreHandedOverAFewAtATime(t *testing.T) {
	run(t, func(b *bench) {
		b.limits.AbandonWaiting, b.limits.AbandonConnected = time.Hour, time.Hour
		b.restart()
		old := b.generation()
		const chats = 700
		b.others(chats)
		atOnce, most := 0, 0
		next := b.generation(func(g *fake) {
			g.answer = func(_ context.Context, c call) error {
				if c.name == "resume" {
					g.mu.Lock()
					atOnce++
					most = max(most, atOnce)
					g.mu.Unlock()
					time.Sleep(10 * time.Millisecond)
					g.mu.Lock()
					atOnce--
					g.mu.Unlock()
				}
				return nil
			}
		})
		time.Sleep(time.Second)
		b.wantChats(map[*fake]int{old: 0, next: chats})
		if most > 128 || most < 32 {
			t.Errorf("%d chats at once", most)
		}
		if n := len(next.resumed()); n != chats {
			t.Errorf("%d chats resumed, want %d", n, chats)
		}
	})
}

// Whatever one of the two generations answers, and whichever of them ends, a
// conversation goes on, with each message once.
func TestHandOverAtRandom(t *testing.T) {
	for seed := range uint64(200) {
		run(t, func(b *bench) { handOverAtRandom(b, seed) })
	}
}

func handOverAtRandom(b *bench, seed uint64) {
	t := b.t
	defer b.attend().Close()
	rnd := func(n uint64) uint64 {
		seed = seed*6364136223846793005 + 1442695040888963407
		return (seed >> 33) % n
	}
	var mu sync.Mutex
	delivered := map[string]int{}
	answer := func(g *fake) func(context.Context, call) error {
		return func(ctx context.Context, c call) error {
			mu.Lock()
			fate, wait := rnd(10), time.Duration(rnd(2000))*time.Millisecond
			mu.Unlock()
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return fail(unknown)
			case <-g.dead.Done():
				return fail(unknown)
			}
			switch {
			case fate == 0:
				return fail(deskv1.FailureKind_FAILURE_KIND_RETRY)
			case fate == 1 && c.name != "send":
				return fail(unknown)
			}
			if c.name == "send" {
				mu.Lock()
				delivered[c.text]++
				mu.Unlock()
			}
			return nil
		}
	}
	serves := b.generation()
	b.chat(serves)
	serves.onCall(answer(serves))
	live := []*fake{serves}
	next := func(n uint64) uint64 {
		mu.Lock()
		defer mu.Unlock()
		return rnd(n)
	}
	for i := range 12 {
		switch next(4) {
		case 0, 1:
			serves = b.generation(func(g *fake) { g.answer = answer(g) })
			live = append(live, serves)
		case 2:
			if len(live) > 1 {
				i := next(uint64(len(live)))
				g := live[i]
				live = slices.Delete(live, int(i), int(i)+1)
				g.down()
				if g == serves {
					serves = live[len(live)-1]
					b.svc.Ready(serves)
				}
			}
		}
		if _, err := b.send(fmt.Sprint("m", i), fmt.Sprint("text ", i)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(next(3000)) * time.Millisecond)
	}
	for _, g := range live {
		g.onCall(func(_ context.Context, c call) error {
			if c.name == "send" {
				mu.Lock()
				delivered[c.text]++
				mu.Unlock()
			}
			return nil
		})
	}
	time.Sleep(2 * time.Minute)
	b.wantSent("last", "last", "delivered")
	if b.svc.Chats(deskName, serves.n) != 1 {
		t.Errorf("the chat is not with the generation that serves")
	}
	for i := range 12 {
		if n := delivered[fmt.Sprint("text ", i)]; n != 1 {
			t.Errorf("message %d was taken %d times; the log is %q", i, n, b.log())
		}
	}
	// In order, whatever happened.
	var told []string
	for _, line := range b.log() {
		if id, ok := strings.CutSuffix(line, " delivered"); ok {
			told = append(told, strings.TrimPrefix(id, "status "))
		}
	}
	for i := range 12 {
		if told[i] != fmt.Sprint("m", i) {
			t.Fatalf("delivered in the order %q", told)
		}
	}
}
