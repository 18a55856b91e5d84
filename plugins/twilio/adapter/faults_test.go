package adapter_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/adapter"
	"github.com/deskhost/deskhost/plugins/twilio/client"
	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// answerer may answer a call in the account's place: both nil if it does not.
type answerer func(*http.Request) (*http.Response, error)

// intercept has calls shown to an answerer first, from now on; nil: to none. It
// is for accounts in memory.
func (a *account) intercept(first answerer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.first = first
}

// answer is one that the simulator would not give.
func answer(status int, body string) (*http.Response, error) {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// is tells whether a call has that method and end of its path.
func is(r *http.Request, method, end string) bool {
	return r.Method == method && strings.HasSuffix(r.URL.Path, end)
}

// closes tells whether a call closes a conversation.
func closes(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:], "CH")
}

// liveTasks counts the tasks of a chat's conversation that an agent has or may get.
func (a *account) liveTasks(chat string) (live int) {
	a.t.Helper()
	c, err := client.New(client.Options{
		User: twiliotest.AccountSid, Password: twiliotest.AuthToken, TaskRouterURL: a.url + "/taskrouter", Transport: a.transport,
	})
	a.play(err)
	tasks, err := c.Tasks(a.t.Context(), twiliotest.WorkspaceSid, a.Conversations(chat)[0])
	a.play(err)
	for i := range tasks {
		if tasks[i].Live() {
			live++
		}
	}
	return live
}

// isOpen tells whether a chat's conversation can still be written to.
func (a *account) isOpen(chat string) bool { return a.SystemSays(chat, "Is it open?") == nil }

// Where the interaction cannot be found or closed for good, the conversation is
// closed in its place; what may pass is tried again, and nothing is given up.
func TestEndLeavesNothingOpen(t *testing.T) {
	for name, c := range map[string]struct {
		spoil answerer
		// passing says that the call fails for now and works once the trouble is over.
		passing bool
	}{
		"the workspace is gone": {spoil: func(r *http.Request) (*http.Response, error) {
			if is(r, http.MethodGet, "/Tasks") {
				return answer(404, `{"code": 20404}`)
			}
			return nil, nil
		}},
		"tasks are forbidden": {spoil: func(r *http.Request) (*http.Response, error) {
			if is(r, http.MethodGet, "/Tasks") {
				return answer(403, `{"code": 20403}`)
			}
			return nil, nil
		}},
		"the interaction is gone": {spoil: func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost && strings.Contains(r.URL.Path, "/Interactions/") {
				return answer(404, `{"code": 20404}`)
			}
			return nil, nil
		}},
		"Flex cannot be reached": {passing: true, spoil: func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost && strings.Contains(r.URL.Path, "/Interactions/") {
				return nil, &net.OpError{Op: "dial", Err: errors.New("no route")}
			}
			return nil, nil
		}},
		"others change it all the time": {passing: true, spoil: func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost {
				return answer(412, `{}`)
			}
			return nil, nil
		}},
		"the credentials are refused": {passing: true, spoil: func(*http.Request) (*http.Response, error) {
			return answer(401, `{"code": 20003}`)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
				d := a.connect(h, webChats, byPolling)
				st := begin(t, d, "c1") // which calls an agent: there is an interaction, not known yet
				a.intercept(c.spoil)
				err := d.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "c1", Attempt: 1, ByUser: true})
				a.intercept(nil)
				if c.passing {
					wantKind(t, err, sdk.Retry)
					err = d.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "c1", Attempt: 2, ByUser: true, State: st})
					if n := a.liveTasks("c1"); n != 0 {
						t.Errorf("%d tasks are left to agents", n)
					}
				}
				if err != nil || a.isOpen("c1") {
					t.Errorf("the conversation is open, and the end is answered with %v", err)
				}
				time.Sleep(10 * time.Second)
				if events := h.Events("c1"); len(events) > 0 {
					t.Errorf("the host has ended the chat, and is told %q", told(events))
				}
			})
		})
	}
}

// A message is not given up because others change the conversation all the time.
func TestSendWhileOthersChange(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, webChats, byPolling)
		begin(t, d, "c1")
		a.Fail(twiliotest.Fault{Call: twiliotest.CallSend, Status: 412, Times: 3})
		send(t, d, "c1", "m1", "One.")
		a.Fail(twiliotest.Fault{Call: twiliotest.CallSend, Status: 412, Times: 4})
		_, err := d.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m2", Attempt: 1, Text: "Two."})
		wantKind(t, err, sdk.Retry)
		if got := a.heard("c1"); !slices.Equal(got, []string{"Help!", "One."}) {
			t.Errorf("the agent sees %q", got)
		}
	})
}

// A start that failed and left its conversation open is not one without effect.
func TestHalfMadeIsNotClosed(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, routed, byPolling)
		a.intercept(func(r *http.Request) (*http.Response, error) {
			switch {
			case is(r, http.MethodPost, "/Interactions"):
				return answer(400, `{}`)
			case closes(r):
				return answer(503, `{}`)
			}
			return nil, nil
		})
		_, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c1", Attempt: 1, Text: "Help!"})
		a.intercept(nil)
		wantKind(t, err, sdk.OutcomeUnknown)
		if !a.isOpen("c1") {
			t.Error("the conversation is closed after all")
		}
		if err := d.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "c1", Attempt: 1}); err != nil || a.isOpen("c1") {
			t.Errorf("it cannot be ended: %v", err)
		}
	})
}

// An interaction of which it is not known whether it was made does not leave
// a task behind if the start is given up.
func TestHalfMadeInteractionIsClosed(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, routed, byPolling)
		asked := 0
		a.intercept(func(r *http.Request) (*http.Response, error) {
			switch {
			case is(r, http.MethodPost, "/Interactions"):
				a.ServeHTTP(httptest.NewRecorder(), r)
				return answer(500, `{}`)
			case is(r, http.MethodGet, "/Tasks"):
				if asked++; asked == 1 {
					return answer(403, `{}`)
				}
			}
			return nil, nil
		})
		_, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c1", Attempt: 1, Text: "Help!"})
		if n := a.liveTasks("c1"); err == nil || n != 0 || a.isOpen("c1") {
			t.Errorf("it is %v, and %d tasks are left to agents", err, n)
		}
	})
}

// The end of a process does not wait for the cleaning up of a start.
func TestDrainDuringACleanUp(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, webChats, byPolling)
		cleaning := make(chan struct{})
		a.intercept(func(r *http.Request) (*http.Response, error) {
			switch {
			case is(r, http.MethodPost, "/Messages"):
				return answer(400, `{}`)
			case closes(r):
				close(cleaning)
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return nil, nil
		})
		started := make(chan error, 1)
		go func() {
			_, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c1", Attempt: 1, Text: "Help!"})
			started <- err
		}()
		<-cleaning
		begun := time.Now()
		stop(d)
		if took := time.Since(begun); took > 0 {
			t.Errorf("it took %v", took)
		}
		wantKind(t, <-started, sdk.OutcomeUnknown)
	})
}

// One answer alone ends no chat, whatever it was asked for, and neither do many
// that are not Twilio's.
func TestNotFoundIsNotBelieved(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, webChats, byPolling)
		st := begin(t, d, "c1")
		stop(d)
		once := func() { a.Fail(twiliotest.Fault{Status: 404, Code: 20404}) }

		d = a.connect(h, webChats, byPolling)
		once()
		if err := d.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", State: st}); err != nil {
			t.Fatal(err)
		}
		a.says("c1", "Hello.")
		await(t, h, "c1", "Ada joined", "Ada: Hello.")

		a.Fail(twiliotest.Fault{Call: twiliotest.CallSend, Status: 404, Code: 20404})
		send(t, d, "c1", "m1", "Hi!")

		a.intercept(func(*http.Request) (*http.Response, error) { return answer(404, "<html>default backend</html>") })
		time.Sleep(10 * time.Second)
		_, err := d.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m2", Attempt: 1, Text: "Well?"})
		wantKind(t, err, sdk.Retry)
		a.intercept(nil)
		a.says("c1", "I am here.")
		await(t, h, "c1", "Ada joined", "Ada: Hello.", "Ada: I am here.")

		a.Fail(twiliotest.Fault{Call: twiliotest.CallEnd, Status: 404, Code: 20404, Times: 2}) // the interaction, the conversation
		if err := d.EndChat(t.Context(), &sdk.EndChatRequest{ChatID: "c1", Attempt: 1}); err != nil || a.isOpen("c1") {
			t.Errorf("the conversation is open, and the end is answered with %v", err)
		}
	})
}

// A message of which an earlier try may have arrived is unknown, whatever the
// look for it says.
func TestSendUnclearThenRefused(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 412, 429, 500} {
		inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
			d := a.connect(h, webChats, `"poll_ms": 30000`)
			begin(t, d, "c1")
			time.Sleep(time.Second) // it is read before the message
			a.intercept(func(r *http.Request) (*http.Response, error) {
				if is(r, http.MethodGet, "/Messages") {
					return answer(status, `{}`)
				}
				return nil, nil
			})
			a.Fail(twiliotest.Fault{Call: twiliotest.CallSend, Status: 500, Done: true})
			_, err := d.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m1", Attempt: 1, Text: "Once."})
			a.intercept(nil)
			wantKind(t, err, sdk.OutcomeUnknown)
			_, err = d.SendMessageToAgent(t.Context(), &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m1", Attempt: 2, Text: "Once."})
			if got := a.heard("c1"); err != nil || !slices.Equal(got, []string{"Help!", "Once."}) {
				t.Errorf("after %d: %v, the agent sees %q", status, err, got)
			}
		})
	}
}

// late has the first call with that end of its path arrive a second after it has failed.
func (a *account) late(end string, fails answerer) {
	failed := false
	a.intercept(func(r *http.Request) (*http.Response, error) {
		if !is(r, http.MethodPost, end) || failed {
			return nil, nil
		}
		failed = true
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		resp, err := fails(r)
		late := r.Clone(context.WithoutCancel(r.Context()))
		late.Body = io.NopCloser(bytes.NewReader(body))
		time.AfterFunc(time.Second, func() { a.ServeHTTP(httptest.NewRecorder(), late) })
		return resp, err
	})
}

func gatewayTimeout(*http.Request) (*http.Response, error) { return answer(504, `{}`) }

func silence(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// A message may arrive after the call for it has failed, whether it is the same
// call of the host that looks for it or the next.
func TestSendArrivesLate(t *testing.T) {
	for name, c := range map[string]struct {
		fails answerer
		// again says that the host has to try again.
		again bool
	}{
		"behind an error":  {fails: gatewayTimeout},
		"behind a silence": {again: true, fails: silence},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
				d := a.connect(h, webChats, byPolling)
				begin(t, d, "c1")
				a.late("/Messages", c.fails)
				req := &sdk.SendMessageRequest{ChatID: "c1", MessageID: "m1", Attempt: 1, Text: "Once."}
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				_, err := d.SendMessageToAgent(ctx, req)
				if c.again {
					wantKind(t, err, sdk.OutcomeUnknown)
					req.Attempt++
					_, err = d.SendMessageToAgent(t.Context(), req)
				}
				time.Sleep(time.Minute)
				if got := a.heard("c1"); err != nil || !slices.Equal(got, []string{"Help!", "Once."}) {
					t.Errorf("%v, the agent sees %q", err, got)
				}
			})
		})
	}
}

// So may the conversation of a start, whether the start that looks for it is the
// same call, the next, or the chat has ended meanwhile.
func TestStartArrivesLate(t *testing.T) {
	again := func(ctx context.Context, d *adapter.Desk) error {
		_, err := d.StartChat(ctx, &sdk.StartChatRequest{ChatID: "c1", Attempt: 2, Text: "Help!"})
		return err
	}
	for name, c := range map[string]struct {
		fails answerer
		// next is what the host calls when the start has failed; nil if it does not.
		next func(context.Context, *adapter.Desk) error
		open bool
	}{
		"behind an error":  {fails: gatewayTimeout, open: true},
		"behind a silence": {fails: silence, next: again, open: true},
		"behind a silence, and ended": {fails: silence, next: func(ctx context.Context, d *adapter.Desk) error {
			return d.EndChat(ctx, &sdk.EndChatRequest{ChatID: "c1", Attempt: 1})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
				d := a.connect(h, webChats, byPolling)
				a.late("/WebChats", c.fails)
				_, err := d.StartChat(t.Context(), &sdk.StartChatRequest{ChatID: "c1", Attempt: 1, Text: "Help!"})
				if c.next != nil {
					wantKind(t, err, sdk.OutcomeUnknown)
					err = c.next(t.Context(), d)
				}
				time.Sleep(time.Minute)
				if n, open := len(a.Conversations("c1")), a.isOpen("c1"); err != nil || n != 1 || open != c.open {
					t.Errorf("%d conversations, open: %v, %v", n, open, err)
				}
			})
		})
	}
}

// A user who writes all the time does not keep the conversation from being read.
func TestLooksWhileTheUserWrites(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		a.webhooks = "http://host.test/webhooks/support/"
		a.SetWebhooks(twiliotest.Webhooks{Lose: 1})
		d := a.connect(h, webChats)
		begin(t, d, "c1")
		a.says("c1", "Hello.")
		time.Sleep(time.Minute)
		a.play(a.AgentLeaves("c1"))
		for i := range 10 {
			send(t, d, "c1", fmt.Sprint("m", i), "Are you still there?")
			time.Sleep(5 * time.Second)
		}
		await(t, h, "c1", "Ada joined", "Ada: Hello.", "Ada left")
	})
}

// What the user writes does not make a look that failed come earlier than Twilio
// asks for; a hand-over that comes back does.
func TestLooksWaitAsLongAsTwilioAsks(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, webChats, byPolling)
		st := begin(t, d, "c1")
		time.Sleep(time.Second)
		looks := 0
		a.intercept(func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodGet {
				return nil, nil
			}
			looks++
			resp, err := answer(429, `{"code": 20429}`)
			resp.Header.Set("Retry-After", "30")
			return resp, err
		})
		for i := range 20 {
			send(t, d, "c1", fmt.Sprint("m", i), "Are you there?")
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if looks != 1 {
			t.Errorf("%d looks in 20 s", looks)
		}
		a.intercept(nil)
		a.says("c1", "I am.")
		if err := d.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", State: st}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if got := told(h.Events("c1")); !slices.Equal(got, []string{"Ada joined", "Ada: I am."}) {
			t.Errorf("told %q", got)
		}
	})
}

// A webhook that cannot be moved, because the call for it hangs, does not keep the
// conversation from being read.
func TestMovingAWebhookHangs(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, webChats, byPolling)
		st := begin(t, d, "c1")
		stop(d)
		a.webhooks = "http://host.test/webhooks/support/"
		d = a.connect(h, webChats)
		tries := 0
		a.intercept(func(r *http.Request) (*http.Response, error) {
			if !strings.Contains(r.URL.Path, "/Webhooks") {
				return nil, nil
			}
			tries++
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		a.says("c1", "Hello.")
		if err := d.ResumeChat(t.Context(), &sdk.ResumeChatRequest{ChatID: "c1", State: st}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		await(t, h, "c1", "Ada joined", "Ada: Hello.")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if tries < 3 || tries > 10 {
			t.Errorf("%d tries in ten minutes", tries)
		}
	})
}

// A message that a webhook brings and Twilio does not list yet is not with the
// host, and the webhook is not answered as if it were.
func TestWebhookBeforeTheList(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		a.webhooks = "http://host.test/webhooks/support/"
		a.SetWebhooks(twiliotest.Webhooks{Lose: 1})
		d := a.connect(h, webChats)
		begin(t, d, "c1")
		time.Sleep(time.Second)
		form := url.Values{
			"EventType": {"onMessageAdded"}, "ConversationSid": {a.Conversations("c1")[0]}, "MessageSid": {"IM1"}, "Index": {"1"},
			"Author": {"system"}, "Body": {"You are next."},
		}
		deliver := func() int {
			return post(d, "/conversations", twiliotest.Sign(twiliotest.AuthToken, a.webhooks+"conversations", form), urlencoded, form.Encode())
		}
		if got := deliver(); got != http.StatusServiceUnavailable {
			t.Errorf("answered %d", got)
		}
		a.play(a.SystemSays("c1", "You are next.")) // the list has it
		time.Sleep(time.Second)
		await(t, h, "c1", "desk: You are next.") // from a look that did not wait for the timer
		if got := deliver(); got != http.StatusOK {
			t.Errorf("delivered again: answered %d", got)
		}
	})
}

// A hand-over does not wait for the looks of other chats.
func TestQuiesceBeforeALook(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, webChats, byPolling)
		const n = 40 // more than are read at once
		for i := range n {
			begin(t, d, fmt.Sprint("c", i))
		}
		var read sync.Map // the conversations that are being read
		a.intercept(func(r *http.Request) (*http.Response, error) {
			read.Store(path.Base(r.URL.Path), true)
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		time.Sleep(5 * time.Second)
		waits := 0
		begun := time.Now()
		for i := range n {
			id := fmt.Sprint("c", i)
			if _, is := read.Load(a.Conversations(id)[0]); is {
				continue
			}
			waits++
			if _, err := d.QuiesceChat(t.Context(), &sdk.QuiesceChatRequest{ChatID: id}); err != nil {
				t.Error(err)
			}
		}
		if waits == 0 {
			t.Error("no look waits")
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("it took %v", took)
		}
	})
}

// Whoever asks first and goes away does not spoil the answer for others.
func TestAvailabilityOutlivesWhoAskedFirst(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, webChats, byPolling)
		a.intercept(func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(time.Second):
				return nil, nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		go func() { _, _ = d.AreAnyAgentsOnline(ctx, &sdk.AvailabilityRequest{}) }()
		synctest.Wait()
		resp, err := d.AreAnyAgentsOnline(t.Context(), &sdk.AvailabilityRequest{})
		if err != nil || resp.Online != sdk.OnlineYes {
			t.Errorf("%v, %v", resp, err)
		}
	})
}

// An address that is not Twilio's is named, and not the setting that was asked for.
func TestAddressOfSomebodyElse(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		a.intercept(func(*http.Request) (*http.Response, error) { return answer(404, "<html>default backend</html>") })
		d := adapter.New(h)
		adapter.SetTransport(d, a.transport)
		err := d.Configure(t.Context(), &sdk.ConfigureRequest{DeskName: "support", Config: a.config(webChats)})
		wantKind(t, err, sdk.Invalid)
		if err == nil || !strings.Contains(err.Error(), "urls.conversations") {
			t.Errorf("it does not say what to do: %v", err)
		}
	})
}

// An agent whom Twilio lists late joins with the first words, leaves if that goes
// on, and can come again.
func TestPeopleAreListedLate(t *testing.T) {
	inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
		d := a.connect(h, webChats, byPolling)
		begin(t, d, "c1")
		nobody := func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.URL.Path, "/Conversations/") && is(r, http.MethodGet, "/Participants") {
				return answer(200, `{"participants": []}`)
			}
			return nil, nil
		}
		want := []string{}
		for range 2 {
			a.intercept(nobody)
			a.says("c1", "Hello.")
			time.Sleep(10 * time.Second)
			a.intercept(nil)
			want = append(want, "Ada joined", "Ada: Hello.", "Ada left")
		}
		a.says("c1", "I am here.")
		time.Sleep(10 * time.Second)
		await(t, h, "c1", append(want, "Ada joined", "Ada: I am here.")...)
		ids := map[string]bool{}
		for _, e := range h.Events("c1") {
			if ids[e.ID] {
				t.Errorf("%s is told twice", e.ID)
			}
			ids[e.ID] = true
		}
	})
}

// Who is known as a supervisor remains one, whatever the interaction does not say.
func TestSupervisorsRemain(t *testing.T) {
	for name, reply := range map[string]struct {
		status int
		body   string
	}{
		"has none":     {200, `{"participants": [{"type": "agent"}, {"type": "customer"}]}`},
		"is not found": {404, `{"code": 20404}`},
		"is forbidden": {403, `{"code": 20403}`},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, a *account, h *desktest.Host) {
				d := a.connect(h, webChats, byPolling)
				begin(t, d, "c1")
				a.says("c1", "Hello.")
				time.Sleep(time.Second)
				a.play(a.SupervisorJoins("c1"))
				time.Sleep(time.Second)
				a.intercept(func(r *http.Request) (*http.Response, error) {
					if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/Interactions/") {
						return answer(reply.status, reply.body)
					}
					return nil, nil
				})
				time.Sleep(30 * time.Second)
				a.play(a.LastWords("c1", "Goodbye."))
				await(t, h, "c1", "Ada joined", "Ada: Hello.", "Ada: Goodbye.", "ended")
			})
		})
	}
}
