package adapter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/adapter"
	"github.com/deskhost/deskhost/plugins/mock/mockdesk"
	"github.com/deskhost/deskhost/sdk"
)

// The optional interfaces that the plugin is to have.
var (
	_ sdk.Configurer           = (*adapter.Desk)(nil)
	_ sdk.AvailabilityReporter = (*adapter.Desk)(nil)
	_ sdk.StateUpdater         = (*adapter.Desk)(nil)
	_ sdk.TypingReceiver       = (*adapter.Desk)(nil)
	_ sdk.ReadReceiver         = (*adapter.Desk)(nil)
	_ sdk.Resumer              = (*adapter.Desk)(nil)
	_ sdk.HTTPHandler          = (*adapter.Desk)(nil)
	_ sdk.Drainer              = (*adapter.Desk)(nil)
)

const deskURL = `{"url": "http://desk.test"}`

// kindOf returns the kind of a failure.
func kindOf(t *testing.T, err error) sdk.FailureKind {
	t.Helper()
	var f *sdk.Failure
	if !errors.As(err, &f) {
		t.Fatalf("%v is no Failure", err)
	}
	return f.Kind
}

func TestAnEmptyConfigIsAdaWhoSaysWhatYouSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := connect(t, h, `{}`, nil)
		began := time.Now()
		start(t, d, "c1")
		h.awaitLast(t, "c1", "Ada joined")
		if took := time.Since(began); took > time.Second {
			t.Errorf("Ada took %s to join", took)
		}
		send(t, d, "c1", "m1", "hello & goodbye")
		events := h.AwaitAll("c1", func(e []*sdk.Event) bool { return len(told(e)) == 2 })
		equal(t, told(events), []string{"Ada joined", "You said: hello & goodbye"})
		if p, ok := events[1].Payload.(sdk.AgentTyping); !ok || !p.Typing {
			t.Errorf("Ada did not type before she answered: %#v", events[1].Payload)
		}
		if err := d.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "c1", ByUser: true}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		equal(t, h.told("c1"), []string{"Ada joined", "You said: hello & goodbye"})
	})
}

func TestStartAndSendAreIdempotent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := connect(t, h, deskURL, newWire(newDesk(t, `{}`)))
		first := start(t, d, "c1")
		again := start(t, d, "c1")
		if a, b := conversationOf(t, first.State), conversationOf(t, again.State); a != b {
			t.Errorf("two starts made the conversations %s and %s", a, b)
		}
		h.awaitLast(t, "c1", "Ada joined")
		send(t, d, "c1", "m1", "one")
		send(t, d, "c1", "m1", "one")
		send(t, d, "c1", "m2", "two")
		h.awaitLast(t, "c1", "You said: two")
		equal(t, h.told("c1"), []string{"Ada joined", "You said: one", "You said: two"})
		_, err := d.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m1", Text: "other"})
		if k := kindOf(t, err); k != sdk.Invalid {
			t.Errorf("the same id with another text: %v", k)
		}
		if err := d.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "c1"}); err != nil {
			t.Error(err)
		}
		if err := d.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "c1"}); err != nil {
			t.Errorf("the second end: %v", err)
		}
		err = d.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "never"})
		if k := kindOf(t, err); k != sdk.ChatUnknown {
			t.Errorf("the end of an unknown chat: %v", k)
		}
	})
}

// Of two starts at once the desk declines the one, then takes the other.
func TestDeclinedStartLeavesTheChatToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		desk := newDesk(t, `{}`)
		var starts atomic.Int32
		decline, take := make(chan struct{}), make(chan struct{})
		d := connect(t, h, deskURL, newWire(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				if starts.Add(1) == 1 {
					<-decline
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				<-take
			}
			desk.ServeHTTP(w, r)
		})))
		outcomes := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c1", Attempt: 1})
				outcomes <- err
			}()
			synctest.Wait()
		}
		close(decline)
		if k := kindOf(t, <-outcomes); k != sdk.Retry {
			t.Errorf("the declined start: %v", k)
		}
		close(take)
		if err := <-outcomes; err != nil {
			t.Fatal(err)
		}
		h.awaitLast(t, "c1", "Ada joined")
	})
}

// A process dies with events on its way that the host never acknowledged, the
// agent goes on talking, and another process picks the chat up.
func TestWhatWasMissedIsFetchedOnceAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		desk := newDesk(t, `{"typing_ms": 0}`)
		dead := connect(t, h, deskURL, newWire(desk))
		start(t, dead, "c1")
		h.awaitLast(t, "c1", "Ada joined")
		want := []string{"Ada joined"}
		for i := range 5 {
			send(t, dead, "c1", fmt.Sprint("m", i), fmt.Sprint(i))
			want = append(want, fmt.Sprint("You said: ", i))
		}
		h.awaitLast(t, "c1", "You said: 4")

		release := h.Hold()
		send(t, dead, "c1", "m5", "5") // its answer is read, and never acknowledged
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := dead.Drain(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Drain with an event not acknowledged: %v", err)
		}
		release()
		equal(t, h.told("c1"), want)

		console(t, desk, "c1", `{"say": "Are you still there?"}`)
		alive := connect(t, h, deskURL, newWire(desk))
		if err := alive.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", State: h.State("c1")}); err != nil {
			t.Fatal(err)
		}
		h.awaitLast(t, "c1", "Are you still there?")
		console(t, desk, "c1", `{"say": "Hello?"}`)
		h.awaitLast(t, "c1", "Hello?")
		equal(t, h.told("c1"), append(want, "You said: 5", "Are you still there?", "Hello?"))
	})
}

func TestQuiesceHandsOverWithoutLossOrDouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		desk := newDesk(t, `{"typing_ms": 0}`)
		line := newWire(desk)
		old, next := connect(t, h, deskURL, line), connect(t, h, deskURL, line)
		start(t, old, "c1")
		h.awaitLast(t, "c1", "Ada joined")

		release := h.Hold()
		for i := range 10 {
			send(t, old, "c1", fmt.Sprint("m", i), fmt.Sprint(i))
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := old.QuiesceChat(ctx, &sdk.QuiesceChatRequest{ChatID: "c1"})
		if k := kindOf(t, err); k != sdk.Retry {
			t.Errorf("quiesce with a host that takes nothing: %v", k)
		}
		release()
		resp, err := old.QuiesceChat(t.Context(), &sdk.QuiesceChatRequest{ChatID: "c1"})
		if err != nil {
			t.Fatal(err)
		}
		send(t, next, "c1", "late", "in between")
		synctest.Wait()
		if err := next.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", State: resp.State}); err != nil {
			t.Fatal(err)
		}
		h.awaitLast(t, "c1", "You said: in between")
		if got := h.told("c1"); len(got) != 12 || got[11] != "You said: in between" || got[10] != "You said: 9" {
			t.Errorf("got %q", got)
		}
		_, err = old.QuiesceChat(t.Context(), &sdk.QuiesceChatRequest{ChatID: "c1"})
		if k := kindOf(t, err); k != sdk.ChatUnknown {
			t.Errorf("quiesce of a chat let go: %v", k)
		}
	})
}

func TestChatsOfADeskInsideEndWithTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		dead := connect(t, h, `{}`, nil)
		start(t, dead, "c1")
		h.awaitLast(t, "c1", "Ada joined")
		if err := dead.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		alive := connect(t, h, `{}`, nil)
		err := alive.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", State: h.State("c1")})
		if k := kindOf(t, err); k != sdk.ChatUnknown {
			t.Errorf("got %v", k)
		}
	})
}

// Everything that the contract knows can be had from the page by typing.
func TestEveryEventCanBeProvoked(t *testing.T) {
	for text, want := range map[string][]string{
		"/image":        {"Here is a picture.", "{http://desk.test/console/samples/picture.svg Our office A desk under a lamp at dusk}"},
		"/video":        {"{http://desk.test/console/samples/film.webm How it works A short film in which a coloured bar runs across}"},
		"/link":         {"{http://desk.test/console/samples/terms.txt Read the terms}"},
		"/file":         {"{http://desk.test/console/samples/terms.txt terms.txt text/plain 119}"},
		"/quick":        {"{When suits you? [{Today I would like to come today.} {Tomorrow } {Next week }]}"},
		"/custom":       {"map[items:[lamp chair] kind:order number:4711 paid:true]"},
		"/inline-error": {"That order number does not exist."},
		"/read":         {"read"},
		"/capabilities": {"files [image/* .pdf]"},
		"/transfer":     {"One moment, I will hand you over to a colleague.", "transfer to Grace", "Grace joined"},
		"/leave":        {"ada left"},
		" /JOIN ":       {"Ada joined"},
		"/end":          {"Thank you, and goodbye.", "ended: The agent has ended the chat."},
		"/error":        {fmt.Sprint("trouble ", sdk.LinkTrouble, " true "), fmt.Sprint("trouble ", sdk.LinkTrouble, " false ")},
		"/fail":         {fmt.Sprint("trouble ", sdk.MessageTrouble, " false m1Your message could not be shown to the agent.")},
		"/noagent":      {fmt.Sprint("trouble ", sdk.ConnectTrouble, " false All agents have gone home. Please try again tomorrow.")},
		"mine":          {"by rule: mine"},
		"mine and more": {"by prefix"},
	} {
		t.Run(strings.TrimSpace(text), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				desk := newDesk(t, `{"rules": [{"when": "mine", "do": [{"say": "by rule: {text}"}]}, {"when": "MINE *", "do": [{"say": "by prefix"}]}]}`)
				d := connect(t, h, deskURL, newWire(desk))
				start(t, d, "c1")
				h.awaitLast(t, "c1", "Ada joined")
				send(t, d, "c1", "m1", text)
				h.AwaitAll("c1", func(e []*sdk.Event) bool { return len(told(e)) > len(want) })
				equal(t, h.told("c1"), append([]string{"Ada joined"}, want...))
			})
		})
	}
}

func TestQueueNewsAndAvailability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := connect(t, h, deskURL, newWire(newDesk(t, `{"queue": {"position": 2, "wait_minutes": 4, "message": "Soon."}}`)))
		a, err := d.AreAnyAgentsOnline(t.Context(), &sdk.AvailabilityRequest{})
		if err != nil || a.Online != sdk.OnlineYes || *a.Position != 2 || *a.WaitMinutes != 4 || a.Message != "Soon." {
			t.Errorf("availability %+v, %v", a, err)
		}
		synctest.Wait() // the feed is open: passing news does not come again
		start(t, d, "c1")
		events := h.AwaitAll("c1", func(e []*sdk.Event) bool { return len(told(e)) == 1 })
		first, second := events[0].Payload.(sdk.AvailabilityChanged), events[1].Payload.(sdk.AvailabilityChanged)
		if *first.Position != 2 || *first.WaitMinutes != 4 || *second.Position != 1 || *second.WaitMinutes != 2 {
			t.Errorf("queue: %+v, %+v", first, second)
		}
		if events[0].ID != "" || events[0].State != nil || events[2].ID == "" || events[2].State == nil {
			t.Error("an event that lasts has an id and a state, passing news has neither")
		}
	})
}

func TestOfflineAndUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for script, want := range map[string]sdk.Online{`{"online": false}`: sdk.OnlineNo, `{"online": null}`: sdk.OnlineUnknown} {
			d := connect(t, newHost(t), deskURL, newWire(newDesk(t, script)))
			a, err := d.AreAnyAgentsOnline(t.Context(), &sdk.AvailabilityRequest{})
			if err != nil || a.Online != want {
				t.Errorf("%s: %+v, %v", script, a, err)
			}
		}
		d := connect(t, newHost(t), deskURL, newWire(newDesk(t, `{"online": false}`)))
		_, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c1"})
		var f *sdk.Failure
		if !errors.As(err, &f) || f.Kind != sdk.Refused || f.UserMessage != "Nobody is at the desk right now." {
			t.Errorf("got %v", err)
		}
	})
}

func TestALinkThatIsLostForLongIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		desk := newDesk(t, `{"typing_ms": 0}`)
		line := newWire(desk)
		d := connect(t, h, deskURL, line)
		start(t, d, "c1")
		h.awaitLast(t, "c1", "Ada joined")

		line.breaks()
		console(t, desk, "c1", `{"say": "during the first cut"}`)
		time.Sleep(time.Second) // of the bubble's clock
		line.mend(desk)
		h.awaitLast(t, "c1", "during the first cut")

		line.breaks()
		_, err := d.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m1", Text: "x"})
		if k := kindOf(t, err); k != sdk.Retry {
			t.Errorf("a message that never left: %v", k)
		}
		lost, back := fmt.Sprint("trouble ", sdk.LinkTrouble, " true "), fmt.Sprint("trouble ", sdk.LinkTrouble, " false ")
		h.awaitLast(t, "c1", lost)
		console(t, desk, "c1", `{"say": "during the second"}`)
		line.mend(desk)
		h.awaitLast(t, "c1", "during the second")
		equal(t, h.told("c1"), []string{"Ada joined", "during the first cut", lost, back, "during the second"})
	})
}

// The news that the link is back must not die with the process that told of
// its loss.
func TestALinkLostByOneProcessIsBackWithTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		desk := newDesk(t, `{}`)
		line := newWire(desk)
		dead := connect(t, h, deskURL, line)
		start(t, dead, "c1")
		h.awaitLast(t, "c1", "Ada joined")
		line.breaks()
		h.awaitLast(t, "c1", fmt.Sprint("trouble ", sdk.LinkTrouble, " true "))
		if err := dead.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		line.mend(desk)
		alive := connect(t, h, deskURL, line)
		synctest.Wait()
		if err := alive.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", State: h.State("c1")}); err != nil {
			t.Fatal(err)
		}
		h.awaitLast(t, "c1", fmt.Sprint("trouble ", sdk.LinkTrouble, " false "))
	})
}

func TestResumeWithTheDeskDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		desk := newDesk(t, `{}`)
		line := newWire(desk)
		d := connect(t, h, deskURL, line)
		start(t, d, "c1")
		h.awaitLast(t, "c1", "Ada joined")
		st := h.State("c1")
		if _, err := d.QuiesceChat(t.Context(), &sdk.QuiesceChatRequest{ChatID: "c1"}); err != nil {
			t.Fatal(err)
		}
		line.breaks()
		err := d.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", State: st})
		if k := kindOf(t, err); k != sdk.Retry {
			t.Errorf("got %v", k)
		}
		line.mend(desk)
		if err := d.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", State: st}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestADeskThatLostItsMemoryEndsTheChats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		line := newWire(newDesk(t, `{}`))
		d := connect(t, h, deskURL, line)
		start(t, d, "c1")
		h.awaitLast(t, "c1", "Ada joined")
		st := h.State("c1")
		line.breaks()
		line.mend(newDesk(t, `{}`))
		h.awaitLast(t, "c1", "ended: The desk has lost this conversation.")
		err := d.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", State: st})
		if k := kindOf(t, err); k != sdk.ChatUnknown {
			t.Errorf("resume: %v", k)
		}
		_, err = d.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m1", Text: "x"})
		if k := kindOf(t, err); k != sdk.ChatUnknown {
			t.Errorf("send: %v", k)
		}
	})
}

func TestARefusedChatIsLetGo(t *testing.T) {
	for _, code := range []sdk.RefusalCode{sdk.RefusedChatOver, sdk.RefusedChatUnknown, sdk.RefusedMoved} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			d := connect(t, h, deskURL, newWire(newDesk(t, `{"typing_ms": 0}`)))
			start(t, d, "c1")
			h.awaitLast(t, "c1", "Ada joined")
			h.Refuse("c1", code)
			send(t, d, "c1", "m1", "one")
			synctest.Wait()
			h.Refuse("c1", 0)
			send(t, d, "c1", "m2", "two")
			synctest.Wait()
			equal(t, h.told("c1"), []string{"Ada joined"})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := connect(t, h, deskURL, newWire(newDesk(t, `{"typing_ms": 0}`)))
		start(t, d, "c1")
		h.awaitLast(t, "c1", "Ada joined")
		h.Refuse("c1", sdk.RefusedTooLarge)
		send(t, d, "c1", "m1", "too much")
		synctest.Wait()
		h.Refuse("c1", 0)
		send(t, d, "c1", "m2", "two")
		h.awaitLast(t, "c1", "You said: two")
		equal(t, h.told("c1"), []string{"Ada joined", "You said: two"}) // one event too large is left out, no more
	})
}

// A host that takes nothing for a while gets all of it afterwards, and the
// plugin does not hold it meanwhile.
func TestASlowHostMissesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		desk := newDesk(t, `{}`)
		d := connect(t, h, deskURL, newWire(desk))
		start(t, d, "c1")
		h.awaitLast(t, "c1", "Ada joined")
		release := h.Hold()
		want := []string{"Ada joined"}
		for i := range 1000 {
			console(t, desk, "c1", fmt.Sprintf(`{"say": "%d"}`, i))
			want = append(want, fmt.Sprint(i))
		}
		synctest.Wait()
		release()
		h.awaitLast(t, "c1", "999")
		equal(t, h.told("c1"), want)
	})
}

func TestFailuresOfTheDesk(t *testing.T) {
	for fail, want := range map[string]sdk.FailureKind{
		"retry": sdk.Retry, "busy": sdk.Retry, "unknown": sdk.OutcomeUnknown, "invalid": sdk.Invalid,
		"refused": sdk.Refused, "chat_over": sdk.ChatOver, "chat_unknown": sdk.ChatUnknown,
	} {
		t.Run(fail, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				desk := newDesk(t, `{"typing_ms": 0, "calls": {"send": {"fail": "`+fail+`", "first": 1, "delay_ms": 700, "retry_after_ms": 2000, "user_message": "Sorry."}}}`)
				d := connect(t, h, deskURL, newWire(desk))
				start(t, d, "c1")
				h.awaitLast(t, "c1", "Ada joined")
				began := time.Now()
				_, err := d.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m1", Attempt: 1, Text: "one"})
				if k := kindOf(t, err); k != want {
					t.Errorf("got %v, want %v", k, want)
				}
				if took := time.Since(began); took != 700*time.Millisecond {
					t.Errorf("took %s", took)
				}
				var f *sdk.Failure
				errors.As(err, &f)
				if (want == sdk.Retry) != (f.RetryAfter == 2*time.Second) || f.UserMessage != "Sorry." {
					t.Errorf("got %+v", f)
				}
				send(t, d, "c1", "m1", "one") // whether it arrived or not: once
				h.awaitLast(t, "c1", "You said: one")
				equal(t, h.told("c1"), []string{"Ada joined", "You said: one"})
			})
		})
	}
	t.Run("a start that fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			d := connect(t, h, deskURL, newWire(newDesk(t, `{"calls": {"start": {"fail": "unknown", "every": 2}}}`)))
			start(t, d, "c1")
			h.awaitLast(t, "c1", "Ada joined") // by now the feed is open
			_, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c2", Attempt: 1})
			if k := kindOf(t, err); k != sdk.OutcomeUnknown {
				t.Fatalf("got %v", k)
			}
			h.awaitLast(t, "c2", "Ada joined") // it began all the same
			if _, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c2", Attempt: 2, State: h.State("c2")}); err != nil {
				t.Fatal(err)
			}
			send(t, d, "c2", "m1", "one")
			h.awaitLast(t, "c2", "You said: one")
			equal(t, h.told("c2"), []string{"Ada joined", "You said: one"})
		})
	})
	t.Run("catching up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			desk := newDesk(t, `{"calls": {"catch_up": {"fail": "busy", "first": 3}}}`)
			line := newWire(desk)
			d := connect(t, h, deskURL, line)
			start(t, d, "c1")
			h.awaitLast(t, "c1", "Ada joined")
			line.breaks()
			console(t, desk, "c1", `{"say": "unheard"}`)
			line.mend(desk)
			h.awaitLast(t, "c1", "unheard")
		})
	})
}

func TestADeadlineIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := connect(t, newHost(t), deskURL, newWire(newDesk(t, `{"calls": {"availability": {"delay_ms": 60000}}}`)))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		_, err := d.AreAnyAgentsOnline(ctx, &sdk.AvailabilityRequest{})
		if k := kindOf(t, err); k != sdk.OutcomeUnknown || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %s", k, time.Since(began))
		}
	})
}

func TestWhatTheUserDoesReachesTheDesk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		desk := newDesk(t, `{"console": true}`)
		d := connect(t, h, deskURL, newWire(desk))
		_, err := d.StartChat(t.Context(), &sdk.StartChatRequest{
			ChatID: "c1", Text: "the summary",
			History: []sdk.HistoryItem{{From: "user", Text: "earlier"}},
			Context: sdk.UserContext{User: sdk.User{ID: "u1", Name: "Zoe", Attributes: map[string]string{"plan": "pro"}}, Locale: "fr"},
		})
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(
			d.UserTyping(t.Context(), &sdk.UserTypingRequest{ChatID: "c1", Typing: true}),
			d.UserReadMessages(t.Context(), &sdk.UserReadRequest{ChatID: "c1"}),
			d.UpdateState(t.Context(), &sdk.UpdateStateRequest{ChatID: "c1", Context: sdk.UserContext{User: sdk.User{ID: "u1", Name: "Zoe L", Verified: true}, Locale: "en"}}),
		)
		if err != nil {
			t.Fatal(err)
		}
		status, body := forward(t, d, http.MethodGet, "/console/api/state?key=c1", "")
		for _, want := range []string{`"name":"Zoe L"`, `"state":"waiting"`, `"typing":true`, `"user_read":1`} {
			if status != http.StatusOK || !strings.Contains(body, want) {
				t.Errorf("%d: no %s in %s", status, want, body)
			}
		}
		status, body = forward(t, d, http.MethodGet, "/console/state?open="+conversation(t, d), "")
		for _, want := range []string{
			`{"name":"Id","value":"u1 (verified)"}`, `{"name":"Language","value":"en"}`, `{"name":"Summary","value":"the summary"}`,
			`{"name":"Before the agent","value":"Customer: earlier"}`,
		} {
			if status != http.StatusOK || !strings.Contains(body, want) {
				t.Errorf("%d: no %s in %s", status, want, body)
			}
		}
	})
}

func TestAPersonAtTheConsole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := connect(t, h, `{"console": true}`, nil)
		status, page := forward(t, d, http.MethodGet, "/console/", "")
		if status != http.StatusOK || !strings.Contains(page, "<title>Agent's console</title>") {
			t.Fatalf("the page: %d %.200s", status, page)
		}
		for _, absolute := range []string{`src="/`, `href="/`, `fetch("/`, `"http`} {
			if strings.Contains(page, absolute) {
				t.Errorf("the page has an absolute link: %s", absolute)
			}
		}
		for path, want := range map[string]int{"/": 404, "/v1/desk": 404, "/consolex": 404, "/console": 302, "/console/samples/picture.svg": 200} {
			if status, _ := forward(t, d, http.MethodGet, path, ""); status != want {
				t.Errorf("GET %s: %d, want %d", path, status, want)
			}
		}
		start(t, d, "c1")
		send(t, d, "c1", "m1", "anybody there?")
		do := func(agent, step string, want int) {
			t.Helper()
			status, body := forward(t, d, http.MethodPost, "/console/api/conversations/c1", `{"agent": "`+agent+`", "do": [`+step+`]}`)
			if status != want {
				t.Errorf("%s: %d %s", step, status, body)
			}
		}
		do("ada", `{"join": "ada"}`, 204)
		do("ada", `{"typing": true}`, 204)
		do("ada", `{"say": "Yes."}`, 204)
		do("ada", `{"transfer": "grace"}`, 204)
		do("grace", `{"join": "grace"}`, 204)
		do("grace", `{"read": true}`, 204)
		do("grace", `{"leave": true}`, 204)
		do("nobody", `{"leave": true}`, 422)
		do("ada", `{"say": "x", "leave": true}`, 422)
		do("ada", `{"wait_ms": 5}`, 422)
		do("ada", `{"end": "Bye."}`, 204)
		do("ada", `{"say": "too late"}`, 410)
		h.awaitLast(t, "c1", "ended: Bye.")
		equal(t, h.told("c1"), []string{"Ada joined", "Yes.", "transfer to Grace", "Grace joined", "read", "grace left", "ended: Bye."})
		if status, body := forward(t, d, http.MethodPost, "/console/do", `{"do": "attend", "text": "offline"}`); status != 204 {
			t.Errorf("offline: %d %s", status, body)
		}
		a, err := d.AreAnyAgentsOnline(t.Context(), &sdk.AvailabilityRequest{})
		if err != nil || a.Online != sdk.OnlineNo {
			t.Errorf("availability %+v, %v", a, err)
		}
	})
}

func TestConfigureFindsAWrongAddress(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"product": "other"}`)) }))
	defer other.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for url, want := range map[string]sdk.FailureKind{other.URL: sdk.Invalid, gone.URL: sdk.Retry, "ftp://x": sdk.Invalid} {
		err := adapter.New(newHost(t)).Configure(t.Context(), &sdk.ConfigureRequest{Config: json.RawMessage(`{"url": "` + url + `"}`)})
		if k := kindOf(t, err); k != want {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// Hundreds of chats over TCP, twenty messages each way, in order; and a chat
// that is quiet costs no goroutine.
func TestManyChats(t *testing.T) {
	const chats, messages = 300, 20
	server := httptest.NewServer(newDesk(t, `{"join_delay_ms": 0, "typing_ms": 0}`))
	defer server.Close()
	h := newHost(t)
	d := connect(t, h, `{"url": "`+server.URL+`"}`, nil)
	each := func(fn func(chat string)) {
		var all sync.WaitGroup
		slots := make(chan struct{}, 32)
		for i := range chats {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				fn(fmt.Sprint("c", i))
			})
		}
		all.Wait()
	}
	each(func(chat string) { start(t, d, chat) })
	each(func(chat string) {
		for i := range messages {
			send(t, d, chat, fmt.Sprint("m", i), fmt.Sprint(chat, " ", i))
		}
	})
	each(func(chat string) {
		h.awaitLast(t, chat, fmt.Sprintf("You said: %s %d", chat, messages-1))
		want := []string{"Ada joined"}
		for i := range messages {
			want = append(want, fmt.Sprintf("You said: %s %d", chat, i))
		}
		equal(t, h.told(chat), want)
	})
	if n := runtime.NumGoroutine(); n > chats {
		t.Errorf("%d goroutines for %d quiet chats", n, chats)
	}
	server.CloseClientConnections() // and every chat goes on
	each(func(chat string) { send(t, d, chat, "again", "again") })
	each(func(chat string) { h.awaitLast(t, chat, "You said: again") })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := d.Drain(ctx); err != nil {
		t.Error(err)
	}
}

// conversationOf returns the desk's id of a conversation in a resume state.
func conversationOf(t *testing.T, s *sdk.ResumeState) string {
	t.Helper()
	var st struct {
		Conversation string `json:"conversation"`
	}
	if err := json.Unmarshal(s.Data, &st); err != nil || st.Conversation == "" {
		t.Fatalf("state %s: %v", s.Data, err)
	}
	return st.Conversation
}

// conversation returns the desk's own id of its only conversation.
func conversation(t *testing.T, d *adapter.Desk) string {
	t.Helper()
	_, body := forward(t, d, http.MethodGet, "/console/state", "")
	var s struct{ Conversations []struct{ ID string } }
	if err := json.Unmarshal([]byte(body), &s); err != nil || len(s.Conversations) != 1 {
		t.Fatalf("want one conversation: %s", body)
	}
	return s.Conversations[0].ID
}

// console does one step of a person at the desk's console.
func console(t *testing.T, desk *mockdesk.Desk, chatID, step string) {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/console/api/conversations/"+chatID, strings.NewReader(`{"agent": "ada", "do": [`+step+`]}`))
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	desk.ServeHTTP(rec, req)
	if rec.Code != http.StatusNoContent {
		t.Fatalf("console: %d %s", rec.Code, rec.Body)
	}
}

// forward makes a request as it comes from the desk's webhook address.
func forward(t *testing.T, d *adapter.Desk, method, path, body string) (int, string) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	rec := httptest.NewRecorder()
	d.ServeHTTP(rec, req)
	text, err := io.ReadAll(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	return rec.Code, string(text)
}
