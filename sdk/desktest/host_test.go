package desktest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

func said(chat, id, text string) *sdk.Event {
	return &sdk.Event{ChatID: chat, ID: id, Payload: sdk.MessageToUser{Parts: []sdk.Part{sdk.Text(text)}}}
}

func ids(events []*sdk.Event) string {
	names := make([]string, len(events))
	for i, e := range events {
		names[i] = e.ID
	}
	return strings.Join(names, " ")
}

func TestHostKeepsWhatItTook(t *testing.T) {
	t.Parallel()
	host := desktest.NewHost(t)
	withState := said("c-1", "2", "two")
	withState.State = &sdk.ResumeState{Data: []byte("at 2"), Format: 1}
	again := said("c-1", "1", "one")
	again.State = &sdk.ResumeState{Data: []byte("at 2, with a new token"), Format: 1}
	for _, e := range []*sdk.Event{said("c-1", "1", "one"), withState, again, said("c-2", "1", "other")} {
		if err := host.Emit(t.Context(), e); err != nil {
			t.Errorf("%s of %s: %v", e.ID, e.ChatID, err)
		}
	}
	if got := ids(host.Events("c-1")); got != "1 2" {
		t.Errorf("it has %q, and one came twice", got)
	}
	if s := host.State("c-1"); s == nil || string(s.Data) != "at 2, with a new token" || host.State("c-2") != nil {
		t.Errorf("the states %v, %v", s, host.State("c-2"))
	}
	if a, b, c := host.Await("c-1"), host.Await("c-1"), host.Await("c-1"); a.ID+b.ID+c.ID != "121" {
		t.Errorf("there came %s, %s, %s", a.ID, b.ID, c.ID)
	}
}

func TestHostRefuses(t *testing.T) {
	t.Parallel()
	host := desktest.NewHost(t)
	host.Refuse("c-2", sdk.RefusedMoved)
	for _, c := range []struct {
		what string
		e    *sdk.Event
		want sdk.RefusalCode // 0: taken
	}{
		{"nil", nil, sdk.RefusedInvalid},
		{"a link that is none", &sdk.Event{ChatID: "c-1", Payload: sdk.MessageToUser{Parts: []sdk.Part{sdk.Link{URL: "file:///etc"}}}}, sdk.RefusedInvalid},
		{"a long id", said("c-1", strings.Repeat("i", 129), "x"), sdk.RefusedTooLarge},
		{"a long text", said("c-1", "1", strings.Repeat("x", 256<<10)), sdk.RefusedTooLarge},
		{"what it is told to", said("c-2", "1", "x"), sdk.RefusedMoved},
		{"the end", &sdk.Event{ChatID: "c-1", ID: "e", Payload: sdk.AgentEndedChat{}}, 0},
		{"what comes behind the end", said("c-1", "2", "x"), sdk.RefusedChatOver},
		{"that nobody can be reached", &sdk.Event{ChatID: "c-3", ID: "e", Payload: sdk.ErrorStatus{Kind: sdk.ConnectTrouble}}, 0},
		{"what comes behind that", said("c-3", "2", "x"), sdk.RefusedChatOver},
	} {
		err := host.Emit(t.Context(), c.e)
		var refused *sdk.RefusedError
		if c.want == 0 && err != nil || c.want != 0 && (!errors.As(err, &refused) || refused.Code != c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	host.Refuse("c-2", 0)
	if err := host.Emit(t.Context(), said("c-2", "1", "x")); err != nil || ids(host.Events("c-2")) != "1" {
		t.Errorf("once it is told to take it: %v", err)
	}
}

func TestHostHoldsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		host := desktest.NewHost(t)
		release := host.Hold()
		outcomes := make(chan string, 3)
		emit := func(ctx context.Context, id string) {
			go func() { outcomes <- fmt.Sprintln(id, host.Emit(ctx, said("c-1", id, "x"))) }()
			if e := host.Await("c-1"); e.ID != id {
				t.Errorf("there came %s", e.ID)
			}
		}
		given, giveUp := context.WithCancel(t.Context())
		emit(given, "1")
		emit(t.Context(), "2")
		emit(t.Context(), "3")
		giveUp()
		if got := <-outcomes; got != "1 context canceled\n" {
			t.Errorf("given up: %s", got)
		}
		synctest.Wait()
		if len(outcomes) > 0 || len(host.Events("c-1")) > 0 {
			t.Errorf("held back, %d returned and %d are taken", len(outcomes), len(host.Events("c-1")))
		}
		release()
		if a, b := <-outcomes, <-outcomes; !strings.Contains(a, "<nil>") || !strings.Contains(b, "<nil>") || ids(host.Events("c-1")) != "2 3" {
			t.Errorf("released: %s %s %s", a, b, ids(host.Events("c-1")))
		}

		host.Hold()
		emit(t.Context(), "4")
		host.Close()
		if got := <-outcomes; !strings.Contains(got, sdk.ErrStreamClosed.Error()) {
			t.Errorf("closed: %s", got)
		}
		if err := host.Emit(t.Context(), said("c-1", "5", "x")); !errors.Is(err, sdk.ErrStreamClosed) {
			t.Errorf("after it was closed: %v", err)
		}
	})
}

// failedTest is a test that a host fails.
type failedTest struct {
	testing.TB

	said string
}

func (f *failedTest) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	panic(f)
}

func (f *failedTest) Failed() bool                    { return f.said != "" }
func (f *failedTest) Logf(format string, args ...any) { f.said += fmt.Sprintf(format, args...) }

func TestHostAwaitsNotForEver(t *testing.T) {
	t.Parallel()
	failed := &failedTest{}
	t.Run("inner", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			failed.TB = t
			host := desktest.NewHost(failed)
			if err := host.Emit(t.Context(), said("c-1", "1", "x")); err != nil {
				t.Error(err)
			}
			if err := host.Emit(t.Context(), said("c-1", "2", "")); err != nil {
				t.Error(err)
			}
			host.Logger().Warn("the vendor is slow")
			defer func() {
				if recover() != failed {
					t.Error("it has not failed")
				}
			}()
			host.AwaitAll("c-1", func(events []*sdk.Event) bool { return len(events) > 2 })
		})
	})
	for _, want := range []string{"c-1", "1m0s", "sdk.MessageToUser, sdk.MessageToUser", "the vendor is slow"} {
		if !strings.Contains(failed.said, want) {
			t.Errorf("no %q in %s", want, failed.said)
		}
	}
}
