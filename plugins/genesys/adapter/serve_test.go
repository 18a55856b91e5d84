package adapter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/plugins/genesys/webmessaging"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// fakeGuest is a vendor in memory, with one link at a time.
type fakeGuest struct {
	// connects answers each connect; nil is a link.
	connects func(n int) error
	n        int
	at       []time.Time
	// losses end a link with an error, happened is read from it.
	losses   chan error
	happened chan occurrence
	// missed is what each connect finds.
	missed []occurrence
	// sent are the messages that links were given. They fail with lose, or if it is
	// mute are not confirmed.
	sent []string
	lose error
	mute bool
	// broken fails what else a link writes.
	broken error
	// deaf, if set, keeps a link that is being read from ending until it is closed.
	deaf chan struct{}
}

func (g *fakeGuest) prepare(_ context.Context, st *state) (bool, error) {
	changed := st.Token == ""
	st.Token = "token"
	return changed, nil
}

func (g *fakeGuest) connect(context.Context, *state) (link, *past, error) {
	g.n++
	g.at = append(g.at, time.Now())
	if err := g.connects(g.n); err != nil {
		return nil, nil, err
	}
	return &fakeLink{fakeGuest: g, closed: make(chan struct{})}, &past{happened: g.missed}, nil
}

func (g *fakeGuest) update(context.Context, link, *sdk.UserContext) error { return nil }

type fakeLink struct {
	*fakeGuest

	once   sync.Once
	closed chan struct{}
}

func (l *fakeLink) read(context.Context) ([]occurrence, error) {
	select {
	case err := <-l.losses:
		return nil, err
	case o := <-l.happened:
		return []occurrence{o}, nil
	case <-l.closed:
		if l.deaf != nil {
			<-l.deaf
		}
		return nil, errors.New("closed")
	}
}

func (l *fakeLink) send(_ context.Context, id, _ string) (string, time.Time, error) {
	l.sent = append(l.sent, id)
	if l.lose != nil || l.mute {
		return "", time.Time{}, l.lose
	}
	return "desk-" + id, time.Now(), nil
}
func (l *fakeLink) typing(context.Context) error { return l.broken }
func (l *fakeLink) end(context.Context) error    { return nil }
func (l *fakeLink) ping(time.Duration) error     { return l.broken }
func (l *fakeLink) close()                       { l.once.Do(func() { close(l.closed) }) }

// withGuest has a chat served at a vendor in memory, in faked time.
func withGuest(t *testing.T, connects func(n int) error, test func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host)) {
	synctest.Test(t, func(t *testing.T) {
		h := desktest.NewHost(t)
		d := New(h)
		d.timeouts.connect, d.timeouts.answer, d.timeouts.reconnect = 8*time.Second, 10*time.Second, 5*time.Minute
		g := &fakeGuest{connects: connects, losses: make(chan error), happened: make(chan occurrence)}
		c, err := d.open("c", state{Mode: modeMessaging}, func() guest { return g })
		if err != nil {
			t.Fatal(err)
		}
		if err := c.awaitOpen(t.Context()); err != nil {
			t.Fatal(err)
		}
		test(t, g, c, h)
		if err := d.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// pass lets faked time pass, and all that happens in it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// story is what the host was told, with the time since the beginning.
func story(h *desktest.Host) (lines []string) {
	for _, e := range h.Events("c") {
		switch p := e.Payload.(type) {
		case sdk.ErrorStatus:
			lines = append(lines, fmt.Sprint("lost ", p.Disconnected))
		case sdk.AgentEndedChat:
			lines = append(lines, "ended")
		case sdk.MessageToUser:
			lines = append(lines, fmt.Sprint(p.Parts[0]))
		}
	}
	return lines
}

func unavailable(from, to int) func(int) error {
	return func(n int) error {
		if n >= from && n < to {
			return &cloud.Error{Status: http.StatusServiceUnavailable, Sent: true}
		}
		return nil
	}
}

func text(id string, at time.Time) occurrence {
	return occurrence{id: id, at: at, listed: true, what: said{parts: []sdk.Part{sdk.Text(id)}}}
}

// TestAChatThatTheHostHasEnded keeps its link for EndChat, if it comes in time.
func TestAChatThatTheHostHasEnded(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		linked := func(c *chat) bool { return c.link != nil }
		h.Refuse("c", sdk.RefusedChatOver)
		g.happened <- text("1", time.Unix(100, 0))
		g.happened <- text("2", time.Unix(101, 0))
		pass(endAwaited / 2)
		h.Refuse("c", 0)
		g.happened <- text("3", time.Unix(102, 0))
		pass(endAwaited / 3)
		if links := len(c.desk.all(linked)); links != 1 || g.n != 1 {
			t.Errorf("%d links after %d connects", links, g.n)
		}
		if got := story(h); got != nil {
			t.Errorf("the host was told %q", got)
		}
		pass(endAwaited)
		if c.desk.find("c") != nil || c.reading.Err() == nil {
			t.Error("the chat is still there")
		}
	})
}

// TestAStartThatTheHostHasEnded is not gone on with, since nobody would find it.
func TestAStartThatTheHostHasEnded(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		h.Refuse("late", sdk.RefusedChatOver)
		g = &fakeGuest{connects: unavailable(0, 0)}
		late, err := c.desk.open("late", state{Mode: modeMessaging}, func() guest { return g })
		if err != nil {
			t.Fatal(err)
		}
		if err := late.awaitOpen(t.Context()); failure(err).Kind != sdk.Retry || g.n != 0 {
			t.Errorf("%v after %d connects", err, g.n)
		}
	})
}

// TestDrainEndsInTime though a connection does not.
func TestDrainEndsInTime(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		g.deaf = make(chan struct{})
		g.happened <- text("1", time.Unix(100, 0))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		err := c.desk.Drain(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if got := story(h); !slices.Equal(got, []string{"1"}) {
			t.Errorf("the host was told %q", got)
		}
		close(g.deaf)
	})
}

func TestAShortLossIsNotTold(t *testing.T) {
	withGuest(t, unavailable(2, 3), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		g.losses <- errors.New("cut")
		pass(time.Minute)
		if got := story(h); got != nil || g.n != 3 {
			t.Errorf("%q after %d connects", got, g.n)
		}
	})
}

func TestALongLossIsTold(t *testing.T) {
	withGuest(t, unavailable(2, 12), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		g.missed = []occurrence{text("meanwhile", time.Now())}
		g.losses <- errors.New("cut")
		pass(3 * time.Minute)
		if got, want := story(h), []string{"lost true", "meanwhile", "lost false"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		for i := 2; i < len(g.at); i++ {
			if pause := g.at[i].Sub(g.at[i-1]); pause < minPause/2 || pause > 3*maxPause/2 {
				t.Errorf("a pause of %s", pause)
			}
		}
	})
}

func TestALossWithoutEndIsGivenUp(t *testing.T) {
	withGuest(t, unavailable(2, 1000), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		g.losses <- errors.New("cut")
		pass(10 * time.Minute)
		if got, want := story(h), []string{"lost true", "ended"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if took := g.at[len(g.at)-1].Sub(g.at[0]); took < 5*time.Minute || took > 6*time.Minute {
			t.Errorf("given up after %s", took)
		}
		if c.desk.find("c") != nil {
			t.Error("the chat is still there")
		}
	})
}

func TestTooManyConnections(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		g.losses <- errCrowded
		pass(3 * time.Minute)
		if got, want := story(h), []string{"lost true", "lost false"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if pause := g.at[1].Sub(g.at[0]); len(g.at) != 2 || pause < crowdedPause {
			t.Errorf("connects at %v", g.at)
		}
	})
}

// TestEventsThatOvertake has events come in another order than they happened.
func TestEventsThatOvertake(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		at := func(ms int) time.Time { return time.Unix(100, 0).Add(time.Duration(ms) * time.Millisecond) }
		g.happened <- occurrence{id: "ended", at: at(5), what: over{}}
		g.happened <- text("3", at(3))
		g.happened <- text("1", at(1))
		pass(holdBack / 2)
		g.happened <- text("2", at(2))
		pass(2 * holdBack)
		g.happened <- text("4", at(4)) // later than anything waits for, but the end
		pass(time.Minute)
		if got, want := story(h), []string{"1", "2", "3", "4", "ended"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// TestTypingEndsInTime has an agent type who then neither writes nor stops.
func TestTypingEndsInTime(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		began := time.Now()
		var got []string
		g.happened <- occurrence{what: typing{on: true, lasts: 5 * time.Second}}
		pass(time.Minute)
		for e := h.Await("c"); ; e = h.Await("c") {
			if p, ok := e.Payload.(sdk.AgentTyping); ok {
				got = append(got, fmt.Sprint(p.Typing))
				if !p.Typing {
					break
				}
			}
		}
		if !slices.Equal(got, []string{"true", "false"}) || time.Since(began) != time.Minute {
			t.Errorf("%q", got)
		}
	})
}

// TestNoMoreThanTwoASecond sends as fast as it can.
func TestNoMoreThanTwoASecond(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		began := time.Now()
		for i := range 8 {
			id := fmt.Sprint("m", i)
			if deskID, err := c.deliver(t.Context(), message{id: id, text: id, first: true}); err != nil || deskID != "desk-"+id {
				t.Errorf("%s: %s, %v", id, deskID, err)
			}
		}
		if took := time.Since(began); took != 3*paceWindow {
			t.Errorf("8 messages took %s", took)
		}
		st, err := readState(h.State("c"))
		if err != nil || st.Sent.MessageID != "m7" {
			t.Errorf("the state knows of %+v, %v", st.Sent, err)
		}
		if err := c.desk.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "c"}); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 4*paceWindow {
			t.Errorf("with the end they took %s", took)
		}
	})
}

// TestAHandOverThatFailsLeavesTheChatServed has a hand-over end before the chat's
// reader has, and the host resume the chat in the same process.
func TestAHandOverThatFailsLeavesTheChatServed(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.desk.QuiesceChat(ctx, &sdk.QuiesceChatRequest{ChatID: "c"}); failure(err).Kind != sdk.Retry {
			t.Errorf("handed over: %v", err)
		}
		pass(time.Minute)
		if err := c.desk.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c"}); err != nil {
			t.Error(err)
		}
		select {
		case g.happened <- text("1", time.Unix(100, 0)):
		case <-time.After(time.Minute):
			t.Fatal("nobody reads the chat")
		}
		pass(time.Minute)
		if got, want := story(h), []string{"1"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if _, err := c.desk.QuiesceChat(t.Context(), &sdk.QuiesceChatRequest{ChatID: "c"}); err != nil {
			t.Errorf("the next hand-over: %v", err)
		}
	})
}

// TestAVendorWhoAsksForALongWait is told to the user at once, and given up in time.
func TestAVendorWhoAsksForALongWait(t *testing.T) {
	busy := func(n int) error {
		if n == 1 {
			return nil
		}
		return &cloud.Error{Status: http.StatusServiceUnavailable, Sent: true, RetryAfter: time.Hour}
	}
	withGuest(t, busy, func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		g.losses <- errors.New("cut")
		pass(10 * time.Second)
		if got, want := story(h), []string{"lost true"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		pass(c.desk.timeouts.reconnect)
		if got, want := story(h), []string{"lost true", "ended"}; !slices.Equal(got, want) || g.n != 3 {
			t.Errorf("%q after %d connects, want %q", got, g.n, want)
		}
	})
}

// TestASlowHostIsNoLostVendor has the host take longer than the vendor may.
func TestASlowHostIsNoLostVendor(t *testing.T) {
	withGuest(t, unavailable(2, 3), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		release := h.Hold()
		for i := range maxQueued + 1 {
			g.happened <- text(fmt.Sprint(i), time.Unix(100+int64(i), 0))
		}
		pass(c.desk.timeouts.reconnect + time.Minute)
		release()
		pass(time.Minute)
		if got := story(h); g.n != 3 || len(got) != maxQueued || got[maxQueued-1] != fmt.Sprint(maxQueued-1) {
			t.Errorf("%d connects, %q", g.n, got)
		}
	})
}

// TestStartsThatWaitForTheHostHoldNobodyUp has as many of them as there are places
// for those who connect.
func TestStartsThatWaitForTheHostHoldNobodyUp(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		release := h.Hold()
		var starts []*chat
		for i := range maxDials {
			slow := &fakeGuest{connects: unavailable(0, 0), losses: make(chan error), happened: make(chan occurrence)}
			start, err := c.desk.open(fmt.Sprint("start-", i), state{Mode: modeMessaging}, func() guest { return slow })
			if err != nil {
				t.Fatal(err)
			}
			starts = append(starts, start)
		}
		synctest.Wait()
		g.losses <- errors.New("cut")
		pass(time.Minute)
		if g.n != 2 {
			t.Errorf("%d connects of the chat that lost its link", g.n)
		}
		release()
		for _, start := range starts {
			if err := start.awaitOpen(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestAPreparedConversationThatIsGone has an attempt find that the vendor has
// forgotten what an earlier one prepared.
func TestAPreparedConversationThatIsGone(t *testing.T) {
	gone := func(n int) error {
		if n == 1 {
			return &cloud.Error{Status: webmessaging.CodeSessionNotFound}
		}
		return nil
	}
	prepared := state{Mode: modeMessaging, Token: "of an earlier attempt"}
	used := prepared
	used.Sent.DeskID = "1"
	for _, test := range []struct {
		name  string
		st    state
		wants string
	}{{"unused", prepared, "token"}, {"used", used, ""}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := New(desktest.NewHost(t))
				d.timeouts.connect = 8 * time.Second
				g := &fakeGuest{connects: gone}
				c, err := d.open("c", test.st, func() guest { return g })
				if err != nil {
					t.Fatal(err)
				}
				err = c.awaitOpen(t.Context())
				if test.wants == "" {
					if failure(err).Kind != sdk.ChatUnknown || g.n != 1 {
						t.Errorf("%v after %d connects", err, g.n)
					}
				} else if err != nil || c.st.Token != test.wants {
					t.Errorf("token %q, %v", c.st.Token, err)
				}
				if err := d.Drain(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestAMessageIsFoundBehindAnyHistory has a lost message in the history of one
// connect, and no longer in that of the next, which begins later.
func TestAMessageIsFoundBehindAnyHistory(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		g.missed = []occurrence{{id: "at-the-desk", at: time.Unix(100, 0), listed: true, what: wrote{"", "Hello?"}}}
		g.losses <- errors.New("cut")
		pass(time.Minute)
		g.missed = []occurrence{text("1", time.Unix(101, 0))}
		g.losses <- errors.New("cut")
		pass(time.Minute)
		if deskID, err := c.deliver(t.Context(), message{id: "m", text: "Hello?"}); deskID != "at-the-desk" || err != nil {
			t.Errorf("sent again as %s, %v", deskID, err)
		}
	})
}

// TestAMessageThatArrivesLate is at the desk only after a first look for it.
func TestAMessageThatArrivesLate(t *testing.T) {
	late := occurrence{id: "at-the-desk", at: time.Unix(100, 0), listed: true, what: wrote{"", "Hello?"}}
	t.Run("behind a loss", func(t *testing.T) {
		withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
			g.lose = &cloud.Error{Sent: true, Err: errors.New("cut")}
			arrived := time.AfterFunc(arrives/2, func() {
				c.mu.Lock() // as who connects does before
				defer c.mu.Unlock()
				g.missed = []occurrence{late}
			})
			defer arrived.Stop()
			deskID, err := c.deliver(t.Context(), message{id: "m", text: "Hello?", first: true})
			if deskID != "at-the-desk" || err != nil || len(g.sent) != 1 {
				t.Errorf("%q, %v; sent %q", deskID, err, g.sent)
			}
		})
	})
	t.Run("behind a silence", func(t *testing.T) {
		withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
			g.mute = true
			if _, err := c.deliver(t.Context(), message{id: "m", text: "Hello?", first: true}); failure(err).Kind != sdk.OutcomeUnknown {
				t.Errorf("the first try: %v", err)
			}
			arrived := time.AfterFunc(arrives/2, func() { g.happened <- late })
			defer arrived.Stop()
			deskID, err := c.deliver(t.Context(), message{id: "m", text: "Hello?"})
			if deskID != "at-the-desk" || err != nil || len(g.sent) != 1 {
				t.Errorf("%q, %v; sent %q", deskID, err, g.sent)
			}
		})
	})
}

// TestAMessageThatDoesNotArrive is sent again once that is certain.
func TestAMessageThatDoesNotArrive(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		g.lose = &cloud.Error{Sent: true, Err: errors.New("cut")}
		began := time.Now()
		if _, err := c.deliver(t.Context(), message{id: "m", text: "Hello?", first: true}); failure(err).Kind != sdk.Retry {
			t.Errorf("the first try: %v", err)
		}
		if took := time.Since(began); took < arrives || took > 2*arrives {
			t.Errorf("that was known after %s", took)
		}
		g.lose = nil
		if deskID, err := c.deliver(t.Context(), message{id: "m", text: "Hello?"}); deskID != "desk-m" || err != nil {
			t.Errorf("the next try: %q, %v", deskID, err)
		}
	})
}

// TestALinkThatCannotBeWrittenTo is made anew, although its reader notices nothing.
func TestALinkThatCannotBeWrittenTo(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		g.broken = &cloud.Error{Sent: true, Err: errors.New("broken")}
		if err := c.userTypes(t.Context()); err == nil {
			t.Error("it can")
		}
		pass(time.Minute)
		if g.n != 2 {
			t.Errorf("%d connects", g.n)
		}
	})
}

// TestTheStateIsKeptBeforeWhatWaits has an occurrence wait for earlier ones.
func TestTheStateIsKeptBeforeWhatWaits(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		g.happened <- text("1", time.Unix(100, 0))
		synctest.Wait()
		began := time.Now()
		if err := c.keep(t.Context()); err != nil || time.Since(began) != 0 {
			t.Errorf("kept after %s, %v", time.Since(began), err)
		}
		pass(time.Minute)
		if got, want := story(h), []string{"1"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// TestAStartThatIsNotWaitedFor may still open the conversation; a resume that is not
// waited for has no effect that would matter.
func TestAStartThatIsNotWaitedFor(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		defer h.Hold()()
		slow, err := c.desk.open("slow", state{Mode: modeMessaging}, func() guest { return &fakeGuest{connects: unavailable(0, 0)} })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := slow.awaitOpen(ctx); failure(err).Kind != sdk.OutcomeUnknown {
			t.Errorf("the start: %v", err)
		}
		if err := c.desk.ResumeChat(ctx, &sdk.ResumeChatRequest{ChatID: "slow"}); failure(err).Kind != sdk.Retry {
			t.Errorf("the resume: %v", err)
		}
	})
}

// TestWaitingUsersAreToldOnce has others start while a user waits, and the host take
// nothing for long.
func TestWaitingUsersAreToldOnce(t *testing.T) {
	withGuest(t, unavailable(0, 0), func(t *testing.T, g *fakeGuest, c *chat, h *desktest.Host) {
		d, minutes := c.desk, 3
		d.availability = &availability{
			oauth: &cloud.OAuth{}, until: time.Now().Add(24 * time.Hour),
			answer: sdk.AvailabilityResponse{WaitMinutes: &minutes},
		}
		told := func() (n int) {
			for _, e := range h.Events("c") {
				if _, is := e.Payload.(sdk.AvailabilityChanged); is {
					n++
				}
			}
			return n
		}
		d.readers.Go(d.tellWaiting)
		for range 10 {
			d.started <- struct{}{}
			synctest.Wait()
		}
		if n := told(); n != 1 {
			t.Errorf("told %d times while others start", n)
		}
		pass(2*waitTold + time.Second)
		if n := told(); n != 3 {
			t.Errorf("told %d times in 40 s", n)
		}
		release := h.Hold()
		pass(maxQueued * waitTold)
		c.mu.Lock()
		n := len(c.queue)
		c.mu.Unlock()
		if n != 1 {
			t.Errorf("%d wait for the host", n)
		}
		release()
	})
}
