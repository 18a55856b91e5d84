package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

func TestAConversation(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		for _, opening := range []string{webChats, routed} {
			a, h := newAccount(t), desktest.NewHost(t)
			d := a.connect(h, opening, way)
			begin(t, d, "c1")
			a.play(a.AgentJoins(t.Context(), "c1"))
			await(t, h, "c1", "Ada joined")
			a.says("c1", "Hello.")
			await(t, h, "c1", "Ada joined", "Ada: Hello.")
			send(t, d, "c1", "m1", "Hi!")
			a.says("c1", "How can I help?")
			await(t, h, "c1", "Ada joined", "Ada: Hello.", "Ada: How can I help?")
			a.play(a.AgentReads("c1"))
			await(t, h, "c1", "Ada joined", "Ada: Hello.", "Ada: How can I help?", "read")
			if err := d.UserReadMessages(t.Context(), &sdk.UserReadRequest{ChatID: "c1"}); err != nil {
				t.Error(err)
			}
			a.play(a.LastWords("c1", "Goodbye."))
			await(t, h, "c1", "Ada joined", "Ada: Hello.", "Ada: How can I help?", "read", "Ada: Goodbye.", "ended")
			if got := a.heard("c1"); !slices.Equal(got, []string{"Help!", "Hi!"}) {
				t.Errorf("the agent sees %q", got)
			}
			// The next chat of the same user is another conversation.
			begin(t, d, "c2")
			a.says("c2", "Hello again.")
			await(t, h, "c2", "Ada joined", "Ada: Hello again.")
		}
	})
}

// Webhooks that bring each message to the host are not followed by a look.
func TestWebhooksSpareLooks(t *testing.T) {
	a, h := newAccount(t), desktest.NewHost(t)
	d := a.connect(h, webChats, byWebhooks)
	begin(t, d, "c1")
	want := []string{"Ada joined", "Ada: 0"}
	a.says("c1", "0")
	await(t, h, "c1", want...)
	a.play(a.Settled(t.Context()))
	before := a.called("GET Messages")
	for i := 1; i <= 10; i++ {
		send(t, d, "c1", fmt.Sprint("m", i), "And?")
		a.says("c1", fmt.Sprint(i))
		want = append(want, fmt.Sprint("Ada: ", i))
		await(t, h, "c1", want...)
	}
	a.play(a.Settled(t.Context()))
	if looks := a.called("GET Messages") - before; looks > 0 {
		t.Errorf("%d looks for 20 messages that webhooks brought in order", looks)
	}
}

// What webhooks do wrong costs time only: the host is told all, once, in order.
func TestBadWebhooks(t *testing.T) {
	for name, bad := range map[string]twiliotest.Webhooks{
		"half lost":          {Lose: 2},
		"all lost":           {Lose: 1},
		"doubled, shuffled":  {Double: true, Shuffle: true},
		"all of that":        {Lose: 2, Double: true, Shuffle: true, SilentEnds: true},
		"signed by somebody": {WrongSignature: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, h := newAccount(t), desktest.NewHost(t)
			d := a.connect(h, webChats, `"reconcile_ms": 100`)
			a.SetWebhooks(bad)
			begin(t, d, "c1")
			a.play(a.AgentJoins(t.Context(), "c1"))
			want := []string{"Ada joined"}
			for i := range 15 {
				a.says("c1", fmt.Sprint(i))
				want = append(want, fmt.Sprint("Ada: ", i))
				send(t, d, "c1", fmt.Sprint("m", i), "And?")
				if i%5 == 4 {
					await(t, h, "c1", want...)
					a.play(a.SkipIndexes("c1", 3))
				}
			}
			a.play(a.LastWords("c1", "Goodbye."))
			want = append(want, "Ada: Goodbye.", "ended")
			await(t, h, "c1", want...)
			if n := len(a.heard("c1")); n != 16 {
				t.Errorf("the agent sees %d messages", n)
			}
		})
	}
}

// An agent who leaves while another is there, or comes, is no end; who joins
// does so before the first message.
func TestTransfer(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		for _, joinsFirst := range []bool{false, true} {
			a, h := newAccount(t), desktest.NewHost(t)
			d := a.connect(h, webChats, way, `"reconcile_ms": 200`)
			begin(t, d, "c1")
			a.says("c1", "I hand you over.")
			await(t, h, "c1", "Ada joined", "Ada: I hand you over.")
			a.play(a.Transfer("c1", joinsFirst))
			a.says("c1", "I am Grace.")
			events := h.AwaitAll("c1", func(events []*sdk.Event) bool { return len(events) == 5 })
			got := told(events)
			joined, left := slices.Index(got, "Grace joined"), slices.Index(got, "Ada left")
			said := slices.Index(got, "Grace: I am Grace.")
			if joined < 0 || left < 0 || said < joined {
				t.Errorf("%q", got)
			}
			if !joinsFirst && left > joined {
				t.Errorf("Ada left before Grace joined, and the host was told %q", got)
			}
		}
	})
}

// Transfers, parking and leaving while nobody listens are told in an order that
// makes sense.
func TestWhatHappensBetweenLooks(t *testing.T) {
	a, h := newAccount(t), desktest.NewHost(t)
	d := a.connect(h, webChats, byWebhooks)
	begin(t, d, "c1")
	a.says("c1", "One.")
	await(t, h, "c1", "Ada joined", "Ada: One.")
	stop(d)

	a.says("c1", "Two.")
	a.play(a.Transfer("c1", true))
	a.says("c1", "Three.")
	a.play(a.Transfer("c1", false))
	a.says("c1", "Four.")
	d = a.connect(h, webChats, `"reconcile_ms": 100`)
	if err := d.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", Attempt: 1, State: h.State("c1")}); err != nil {
		t.Fatal(err)
	}
	// Grace came and left unseen, which the second look is sure of.
	await(t, h, "c1", "Ada joined", "Ada: One.", "Ada: Two.", "Ada left",
		"Grace joined", "Grace: Three.", "Barbara joined", "Barbara: Four.", "Grace left")
}

func TestWhoIsNoAgent(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		a, h := newAccount(t), desktest.NewHost(t)
		d := a.connect(h, webChats, way, `"bots": ["helper-bot"]`)
		begin(t, d, "c1")
		a.play(a.BotSays("c1", "I am a bot."))
		await(t, h, "c1", "desk: I am a bot.")
		a.play(a.SystemSays("c1", "You are in the queue."))
		await(t, h, "c1", "desk: I am a bot.", "desk: You are in the queue.")
		a.play(a.SupervisorJoins("c1"))
		a.play(a.AgentJoins(t.Context(), "c1"))
		await(t, h, "c1", "desk: I am a bot.", "desk: You are in the queue.", "Ada joined")
		a.says("c1", "Hello.")
		await(t, h, "c1", "desk: I am a bot.", "desk: You are in the queue.", "Ada joined", "Ada: Hello.")
	})
}

// An interaction that tells how many of its people are supervisors, and not who,
// is enough if they do not come at the same moment.
func TestSupervisorsByCount(t *testing.T) {
	a, h := newAccountWith(t, twiliotest.Options{NoMediaProperties: true}), desktest.NewHost(t)
	d := a.connect(h, webChats, byWebhooks)
	begin(t, d, "c1")
	a.play(a.SupervisorJoins("c1"))
	a.play(a.Settled(t.Context())) // the host has been told what there was to tell
	a.says("c1", "Hello.")
	await(t, h, "c1", "Ada joined", "Ada: Hello.")
	a.play(a.Transfer("c1", false))
	a.says("c1", "I am Grace.")
	await(t, h, "c1", "Ada joined", "Ada: Hello.", "Ada left", "Grace joined", "Grace: I am Grace.")
}

// A user for whom nobody is there or comes is told so, once, and the chat goes on.
func TestNobodyIsThere(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, webChats, byPolling, `"unattended_text": "Nobody is here."`)
		begin(t, d, "c1")
		time.Sleep(5 * time.Minute) // its task waits for an agent
		a.says("c1", "Hello.")
		await(t, h, "c1", "Ada joined", "Ada: Hello.")
		a.play(a.Park("c1"))
		time.Sleep(50 * time.Second)
		await(t, h, "c1", "Ada joined", "Ada: Hello.", "Ada left")
		time.Sleep(5 * time.Minute)
		await(t, h, "c1", "Ada joined", "Ada: Hello.", "Ada left", "desk: Nobody is here.")
		send(t, d, "c1", "m1", "Are you there?")
		a.says("c1", "I am.")
		await(t, h, "c1", "Ada joined", "Ada: Hello.", "Ada left", "desk: Nobody is here.", "Grace joined", "Grace: I am.")
	})
}

// A user is told when Twilio does not answer for long, and when it does again.
func TestTwilioIsAway(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, webChats, byPolling)
		begin(t, d, "c1")
		a.says("c1", "Hello.")
		await(t, h, "c1", "Ada joined", "Ada: Hello.")
		for range 2 {
			before := told(h.Events("c1"))
			a.cut(true)
			time.Sleep(15 * time.Second)
			await(t, h, "c1", before...) // not yet
			time.Sleep(time.Minute)
			await(t, h, "c1", append(before, "away")...)
			a.says("c1", "Are you there?")
			a.cut(false)
			await(t, h, "c1", append(before, "away", "back", "Ada: Are you there?")...)
		}
	})
}

// inMemory runs a test whose desk reaches the account without a network, in fake
// time.
func inMemory(t *testing.T, test func(t *testing.T, a *account, h *desktest.Host)) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{Simulator: twiliotest.New(twiliotest.Options{}), t: t, url: "http://twilio.test", calls: map[string]int{}}
		a.transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			if a.isCut() {
				return nil, &net.OpError{Op: "read", Err: errors.New("the line is cut")}
			}
			a.mu.Lock()
			first := a.first
			a.mu.Unlock()
			if first != nil {
				if resp, err := first(r); resp != nil || err != nil {
					return resp, err
				}
			}
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			if err := r.Context().Err(); err != nil {
				return nil, err // the answer came too late
			}
			return w.Result(), nil
		})
		t.Cleanup(a.Close)
		test(t, a, desktest.NewHost(t))
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestGone(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		a, h := newAccount(t), desktest.NewHost(t)
		d := a.connect(h, webChats, way)
		begin(t, d, "c1")
		a.says("c1", "Hello.")
		await(t, h, "c1", "Ada joined", "Ada: Hello.")
		a.play(a.Remove("c1"))
		await(t, h, "c1", "Ada joined", "Ada: Hello.", "ended")
	})
}

// One answer that the conversation is not there is not believed.
func TestNotGone(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, webChats, byPolling)
		begin(t, d, "c1")
		for i := range 3 {
			a.Fail(twiliotest.Fault{Status: http.StatusNotFound, Code: 20404})
			a.says("c1", "Hello.")
			h.AwaitAll("c1", func(events []*sdk.Event) bool { return len(events) == 2+i })
		}
		await(t, h, "c1", "Ada joined", "Ada: Hello.", "Ada: Hello.", "Ada: Hello.")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a.Fail(twiliotest.Fault{Call: twiliotest.CallSend, Status: http.StatusNotFound, Code: 20404})
		_, err := d.SendMessageToAgent(ctx, &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m1", Attempt: 1, Text: "Hello?"})
		wantKind(t, err, sdk.Retry)
	})
}

// A hand-over does not wait for a vendor that does not answer.
func TestQuiesceDuringALook(t *testing.T) {
	a, h := newAccount(t), desktest.NewHost(t)
	d := a.connect(h, webChats, byWebhooks)
	begin(t, d, "c1")
	a.says("c1", "One.")
	await(t, h, "c1", "Ada joined", "Ada: One.")
	a.play(a.Settled(t.Context()))
	before := a.called("GET " + a.Conversations("c1")[0])
	a.Fail(twiliotest.Fault{Late: time.Minute})
	if err := d.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", State: h.State("c1")}); err != nil {
		t.Fatal(err)
	}
	for a.called("GET "+a.Conversations("c1")[0]) == before { // the look is under way
		runtime.Gosched()
	}
	if _, err := d.QuiesceChat(t.Context(), &sdk.QuiesceChatRequest{ChatID: "c1"}); err != nil {
		t.Fatal(err)
	}
}

// A message reaches the agent once, whatever becomes of the calls.
func TestSendOnce(t *testing.T) {
	for name, f := range map[string]twiliotest.Fault{
		"done, then 500":           {Status: 500, Done: true},
		"done, then cut":           {Cut: true},
		"503":                      {Status: 503, Times: 2},
		"429":                      {Status: 429, Code: 20429, Times: 2},
		"412":                      {Status: 412, Code: 20412},
		"done, 500, and 429 after": {Status: 500, Done: true, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, h := newAccount(t), desktest.NewHost(t)
			d := a.connect(h, webChats, byWebhooks)
			begin(t, d, "c1")
			f.Call = twiliotest.CallSend
			a.Fail(f)
			if strings.HasSuffix(name, "after") {
				a.Fail(twiliotest.Fault{Call: twiliotest.CallSend, Status: 429, Code: 20429})
			}
			send(t, d, "c1", "m1", "Once.")
			if got := a.heard("c1"); !slices.Equal(got, []string{"Help!", "Once."}) {
				t.Errorf("the agent sees %q", got)
			}
			// The host tries again, after a crash of either.
			_, err := d.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m1", Attempt: 2, Text: "Once."})
			if got := a.heard("c1"); err != nil || !slices.Equal(got, []string{"Help!", "Once."}) {
				t.Errorf("tried again: %v, the agent sees %q", err, got)
			}
		})
	}
}

// A user who writes faster than Twilio takes it is held back, not refused.
func TestFastWriter(t *testing.T) {
	a, h := newAccount(t), desktest.NewHost(t)
	d := a.connect(h, webChats, byWebhooks)
	begin(t, d, "c1")
	const n = 50
	before := a.called("POST Messages")
	for i := range n {
		send(t, d, "c1", fmt.Sprint("m", i), "Faster!")
	}
	if calls := a.called("POST Messages") - before; calls != n || len(a.heard("c1")) != n+1 {
		t.Errorf("%d messages took %d calls, the agent sees %d", n, calls, len(a.heard("c1")))
	}
}

// A message that nobody can tell the outcome of in time is unknown, not failed.
func TestSendUnclear(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, webChats, byPolling)
		begin(t, d, "c1")
		a.Fail(twiliotest.Fault{Call: twiliotest.CallSend, Late: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := d.SendMessageToAgent(ctx, &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m1", Attempt: 1, Text: "Once."})
		wantKind(t, err, sdk.OutcomeUnknown)
		_, err = d.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m1", Attempt: 2, Text: "Once."})
		if got := a.heard("c1"); err != nil || !slices.Equal(got, []string{"Help!", "Once."}) {
			t.Errorf("%v, the agent sees %q", err, got)
		}
	})
}

func wantKind(t *testing.T, err error, kind sdk.FailureKind) {
	t.Helper()
	if f := (*sdk.Failure)(nil); !errors.As(err, &f) || f.Kind != kind {
		t.Errorf("it is %v, want a failure of the kind %v", err, kind)
	}
}

func TestStartOnce(t *testing.T) {
	for _, opening := range []string{webChats, routed} {
		for name, f := range map[string]twiliotest.Fault{
			"done, then 500": {Status: 500, Done: true},
			"done, then cut": {Cut: true},
			"429":            {Status: 429, Code: 45780, Times: 2},
			"503":            {Status: 503},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				a, h := newAccount(t), desktest.NewHost(t)
				d := a.connect(h, opening, byWebhooks)
				f.Call = twiliotest.CallStart
				a.Fail(f)
				begin(t, d, "c1")
				a.says("c1", "Hello.")
				await(t, h, "c1", "Ada joined", "Ada: Hello.")
				// Interactions: a conversation of which the call was cut has no
				// customer, so nobody finds it, and no task either.
				if n := len(a.Conversations("c1")); n != 1 && opening == webChats {
					t.Errorf("%d conversations", n)
				}
				if got := a.heard("c1"); !slices.Equal(got, []string{"Help!"}) {
					t.Errorf("the agent sees %q", got)
				}
			})
		}
	}
}

// A process that dies after it has opened a conversation leaves one that the
// next attempt takes up.
func TestStartAgain(t *testing.T) {
	for _, opening := range []string{webChats, routed} {
		a, h := newAccount(t), desktest.NewHost(t)
		begin(t, a.connect(h, opening, byWebhooks), "c1")
		d := a.connect(h, opening, byWebhooks)
		if _, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c1", Attempt: 2, Text: "Help!"}); err != nil {
			t.Fatal(err)
		}
		a.says("c1", "Hello.")
		await(t, h, "c1", "Ada joined", "Ada: Hello.")
		if n, got := len(a.Conversations("c1")), a.heard("c1"); n != 1 || !slices.Equal(got, []string{"Help!"}) {
			t.Errorf("%d conversations, the agent sees %q", n, got)
		}
	}
}

// A conversation whose webhook or first message is refused is closed again.
func TestHalfMadeIsClosed(t *testing.T) {
	a, h := newAccount(t), desktest.NewHost(t)
	d := a.connect(h, webChats, byWebhooks)
	a.Fail(twiliotest.Fault{Call: twiliotest.CallStart, Status: 400, Code: 50000})
	_, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c0", Attempt: 1})
	wantKind(t, err, sdk.Invalid)
	a.failAt("POST Webhooks")
	_, err = d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c1", Attempt: 1})
	wantKind(t, err, sdk.Invalid)
	if err := a.AgentSays(t.Context(), "c1", "Hello?"); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("the conversation is open: %v", err)
	}
	if _, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c1", Attempt: 2, Text: "Again."}); err != nil {
		t.Fatal(err)
	}
	a.says("c1", "Hello.")
	await(t, h, "c1", "Ada joined", "Ada: Hello.")
}

func TestEnd(t *testing.T) {
	for _, end := range []string{"interaction", "conversation", "participant"} {
		a, h := newAccount(t), desktest.NewHost(t)
		d := a.connect(h, webChats, byWebhooks, `"end": "`+end+`"`)
		st := begin(t, d, "c1")
		a.says("c1", "Hello.")
		await(t, h, "c1", "Ada joined", "Ada: Hello.")
		a.Fail(twiliotest.Fault{Call: twiliotest.CallEnd, Status: 503})
		if err := d.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "c1", Attempt: 1, ByUser: true}); err != nil {
			t.Fatalf("%s: %v", end, err)
		}
		closed := a.AgentSays(t.Context(), "c1", "Wait!") != nil
		if closed != (end != "participant") {
			t.Errorf("%s: closed is %v", end, closed)
		}
		// The host has ended the chat, and is not told of what follows from it.
		a.play(a.Settled(t.Context()))
		await(t, h, "c1", "Ada joined", "Ada: Hello.")
		// Another process is asked again.
		d = a.connect(h, webChats, byWebhooks, `"end": "`+end+`"`)
		for _, st := range []*sdk.ResumeState{st, nil} {
			f := (*sdk.Failure)(nil)
			err := d.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "c1", Attempt: 2, State: st})
			if err != nil && (!errors.As(err, &f) || f.Kind != sdk.ChatOver && f.Kind != sdk.ChatUnknown) {
				t.Errorf("%s, again: %v", end, err)
			}
		}
	}
}

// A webhook is answered 200 only once the host has what it tells of, and a chat
// moves to another process with all that it has had.
func TestHandOver(t *testing.T) {
	a, h := newAccount(t), desktest.NewHost(t)
	old := a.connect(h, webChats, byWebhooks)
	begin(t, old, "c1")
	a.says("c1", "One.")
	await(t, h, "c1", "Ada joined", "Ada: One.")
	a.play(a.Settled(t.Context()))

	release := h.Hold()
	a.says("c1", "Two.")
	for range 3 { // until the message waits for the host
		h.Await("c1")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if a.Settled(ctx) == nil {
		t.Error("a webhook was answered before the host had the message")
	}
	_, err := old.QuiesceChat(ctx, &sdk.QuiesceChatRequest{ChatID: "c1"})
	wantKind(t, err, sdk.Retry)
	release()
	await(t, h, "c1", "Ada joined", "Ada: One.", "Ada: Two.")

	resp, err := old.QuiesceChat(t.Context(), &sdk.QuiesceChatRequest{ChatID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	a.says("c1", "Three.")
	a.webhooks = strings.Replace(a.webhooks, "127.0.0.1", "localhost", 1) // the public URL has changed
	next := a.connect(h, webChats, byWebhooks)
	if err := next.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", Attempt: 1, State: resp.State}); err != nil {
		t.Fatal(err)
	}
	await(t, h, "c1", "Ada joined", "Ada: One.", "Ada: Two.", "Ada: Three.")
	a.play(a.Settled(t.Context()))
	a.says("c1", "Four.")
	await(t, h, "c1", "Ada joined", "Ada: One.", "Ada: Two.", "Ada: Three.", "Ada: Four.")
	_, err = old.QuiesceChat(t.Context(), &sdk.QuiesceChatRequest{ChatID: "c1"})
	wantKind(t, err, sdk.ChatUnknown)
}

// A conversation that is closed while nobody listens tells its last words.
func TestResumeWhatHasEnded(t *testing.T) {
	a, h := newAccount(t), desktest.NewHost(t)
	d := a.connect(h, webChats, byWebhooks)
	st := begin(t, d, "c1")
	stop(d)
	a.play(a.LastWords("c1", "Goodbye."))
	d = a.connect(h, webChats, byWebhooks)
	if err := d.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", Attempt: 1, State: st}); err != nil {
		t.Fatal(err)
	}
	await(t, h, "c1", "Ada joined", "Ada: Goodbye.", "ended")
}

// A burst of refusals is borne: 429 and 5xx for any call.
func TestBursts(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		a, h := newAccount(t), desktest.NewHost(t)
		d := a.connect(h, webChats, way, `"reconcile_ms": 100`)
		a.Fail(twiliotest.Fault{Status: 503, Times: 2})
		begin(t, d, "c1")
		want := []string{"Ada joined"}
		for i := range 4 {
			a.Fail(twiliotest.Fault{Status: 429, Code: 20429, Times: 2})
			a.Fail(twiliotest.Fault{Status: 500, Times: 2})
			a.says("c1", fmt.Sprint(i))
			req := &sdk.SendMessageRequest{ChatID: "c1", MessageID: fmt.Sprint("m", i), Text: fmt.Sprint("re ", i)}
			for err := errors.New("not sent"); err != nil && req.Attempt < 5; { // as the host does
				req.Attempt++
				_, err = d.SendMessageToAgent(t.Context(), req)
			}
			want = append(want, fmt.Sprint("Ada: ", i))
		}
		await(t, h, "c1", want...)
		if got := a.heard("c1"); !slices.Equal(got, []string{"Help!", "re 0", "re 1", "re 2", "re 3"}) {
			t.Errorf("the agent sees %q", got)
		}
	})
}

func TestPagesOfAnotherOrigin(t *testing.T) {
	a, h := newAccount(t), desktest.NewHost(t)
	d := a.connect(h, webChats, byWebhooks)
	st := begin(t, d, "c1")
	stop(d)
	asked := 0
	elsewhere := newServer(t, func(w http.ResponseWriter, _ *http.Request) { asked++; w.WriteHeader(http.StatusTeapot) })
	a.SetForeignPages(elsewhere)
	want := []string{"Ada joined"}
	for i := range 250 {
		a.says("c1", fmt.Sprint(i))
		want = append(want, fmt.Sprint("Ada: ", i))
	}
	d = a.connect(h, webChats, byWebhooks)
	if err := d.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", Attempt: 1, State: st}); err != nil {
		t.Fatal(err)
	}
	await(t, h, "c1", want...)
	if asked > 0 {
		t.Errorf("another origin was called %d times", asked)
	}
}

func TestAvailability(t *testing.T) {
	a, h := newAccount(t), desktest.NewHost(t)
	d := a.connect(h, webChats, byWebhooks)
	before := a.called("GET RealTimeStatistics")
	done := make(chan error, 20)
	for range cap(done) {
		go func() {
			resp, err := d.AreAnyAgentsOnline(t.Context(), &sdk.AvailabilityRequest{})
			if err == nil && resp.Online != sdk.OnlineYes {
				err = fmt.Errorf("online is %v", resp.Online)
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := a.called("GET RealTimeStatistics") - before; n != 1 {
		t.Errorf("20 questions made %d calls", n)
	}
	a.SetWorkers(0)
	if resp, err := a.connect(h, webChats, byWebhooks).AreAnyAgentsOnline(t.Context(), &sdk.AvailabilityRequest{}); err != nil || resp.Online != sdk.OnlineNo {
		t.Errorf("%v, %v", resp, err)
	}
}
