package desktest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/sdk"
)

// Host is a deskhost for unit tests of a desk, in the test's own process. Like
// the real one it refuses what breaks a rule, what comes behind the end of a
// chat, and what it is told to; it drops an event with an ID that the chat has
// had, but for its state; and it keeps the latest state of each chat. A test may
// have it hold back its acknowledgements, or close the stream. It works in a
// testing/synctest bubble, and is safe for concurrent use.
//
// It is no process, so what [Run] tests it does not: the suite comes on top.
type Host struct {
	t   testing.TB
	log hclog.Logger

	mu      sync.Mutex
	chats   map[string]*hostChat
	changed chan struct{} // closed when something has happened
	holding bool
	held    []*heldEvent
	closed  bool
}

// hostChat is what the host knows of a chat.
type hostChat struct {
	came    []*sdk.Event
	awaited int // so many of those that came
	events  []*sdk.Event
	state   *sdk.ResumeState
	over    bool
	refuse  sdk.RefusalCode
}

// heldEvent is one whose Emit waits.
type heldEvent struct {
	event *sdk.Event
	done  chan error // takes one value without waiting
}

// awaitTime bounds a wait for what a desk is to emit. It is only ever used up by a
// failure, and long enough for a test on a machine that has much else to do.
const awaitTime = time.Minute

var _ sdk.Host = (*Host)(nil)

// NewHost returns a host for the life of a test, which gets to see the desk's
// log if it fails.
func NewHost(t testing.TB) *Host {
	t.Helper()
	said := &output{}
	t.Cleanup(func() {
		if text := said.String(); t.Failed() && text != "" {
			t.Logf("the desk logged:\n%s", text)
		}
	})
	h := &Host{
		t: t, log: hclog.New(&hclog.LoggerOptions{Name: "desk", Output: said, Level: hclog.Trace}),
		chats: map[string]*hostChat{}, changed: make(chan struct{}),
	}
	t.Cleanup(h.Close)
	return h
}

// Logger returns a log that the test shows if it fails.
func (h *Host) Logger() hclog.Logger { return h.log }

// Emit takes an event as the real host does, see [sdk.Host].
func (h *Host) Emit(ctx context.Context, ev *sdk.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := ev.Check(); err != nil {
		h.log.Warn("an event breaks a rule", "error", err)
		return err
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return sdk.ErrStreamClosed
	}
	e := *ev
	c := h.chat(e.ChatID)
	c.came = append(c.came, &e)
	h.change()
	if !h.holding {
		err := h.store(&e)
		h.mu.Unlock()
		return err
	}
	held := &heldEvent{event: &e, done: make(chan error, 1)}
	h.held = append(h.held, held)
	h.mu.Unlock()
	select {
	case err := <-held.done:
		return err
	case <-ctx.Done():
		h.mu.Lock()
		defer h.mu.Unlock()
		h.held = slices.DeleteFunc(h.held, func(other *heldEvent) bool { return other == held })
		return ctx.Err()
	}
}

// chat returns a chat, made if there is none yet. The lock is held.
func (h *Host) chat(id string) *hostChat {
	c := h.chats[id]
	if c == nil {
		c = &hostChat{}
		h.chats[id] = c
	}
	return c
}

// change wakes those who wait. The lock is held.
func (h *Host) change() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// store makes an event durable, or refuses it. The lock is held.
func (h *Host) store(e *sdk.Event) error {
	c := h.chat(e.ChatID)
	switch {
	case c.refuse != 0:
		return &sdk.RefusedError{Code: c.refuse, Reason: "the test says so"}
	case c.over:
		return &sdk.RefusedError{Code: sdk.RefusedChatOver, Reason: "the chat has ended"}
	}
	if e.State != nil {
		c.state = e.State // that of a double too: it may have changed since
	}
	if e.ID == "" || !slices.ContainsFunc(c.events, func(had *sdk.Event) bool { return had.ID == e.ID }) {
		c.events = append(c.events, e)
		c.over = endsChat(e)
		h.change()
	}
	return nil
}

// endsChat tells whether the chat is over with an event.
func endsChat(e *sdk.Event) bool {
	switch p := e.Payload.(type) {
	case sdk.AgentEndedChat:
		return true
	case sdk.ErrorStatus:
		return p.Kind == sdk.ConnectTrouble
	}
	return false
}

// Events returns the events of a chat that the host has taken so far.
func (h *Host) Events(chatID string) []*sdk.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.chat(chatID).events)
}

// State returns the latest resume state that an event of the chat brought, as
// the host would hand it to the next process; nil if none has.
func (h *Host) State(chatID string) *sdk.ResumeState {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.chat(chatID).state
}

// Await returns the next event of a chat that the desk emits, each once,
// whatever becomes of it. The test fails if none comes within a minute.
func (h *Host) Await(chatID string) *sdk.Event {
	h.t.Helper()
	var next *sdk.Event
	h.await(chatID, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		c := h.chat(chatID)
		if c.awaited == len(c.came) {
			return false
		}
		next = c.came[c.awaited]
		c.awaited++
		return true
	})
	return next
}

// AwaitAll returns the events of a chat that the host has taken, once they are
// as ok has it. The test fails if they are not within a minute.
func (h *Host) AwaitAll(chatID string, ok func([]*sdk.Event) bool) []*sdk.Event {
	h.t.Helper()
	var events []*sdk.Event
	h.await(chatID, func() bool {
		events = h.Events(chatID)
		return ok(events)
	})
	return events
}

func (h *Host) await(chatID string, ok func() bool) {
	h.t.Helper()
	late := time.NewTimer(awaitTime)
	defer late.Stop()
	for {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-late.C:
			h.t.Fatalf("what is awaited of chat %s did not come within %s; it has had %s", chatID, awaitTime, h.payloads(chatID))
		}
	}
}

// payloads names what came for a chat.
func (h *Host) payloads(chatID string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	came := h.chat(chatID).came
	if len(came) == 0 {
		return "no event"
	}
	names := make([]string, len(came))
	for i, e := range came {
		names[i] = fmt.Sprintf("%T", e.Payload)
	}
	return strings.Join(names, ", ")
}

// Refuse has the host refuse all that comes for a chat, until it is told so
// with the code 0.
func (h *Host) Refuse(chatID string, code sdk.RefusalCode) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.chat(chatID).refuse = code
}

// Hold has Emit wait, as it does while the host is slow to store or its window
// is full, until release is called. What is given up meanwhile is lost.
func (h *Host) Hold() (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holding = true
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.holding = false
		h.settle(h.store)
	}
}

// Close closes the event stream, as at the end of the host: what waits, and what
// comes later, fails with [sdk.ErrStreamClosed] and is lost. The end of the
// test closes it too.
func (h *Host) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.settle(func(*sdk.Event) error { return sdk.ErrStreamClosed })
}

// settle tells those who wait what became of their events. The lock is held.
func (h *Host) settle(outcome func(*sdk.Event) error) {
	for _, held := range h.held {
		held.done <- outcome(held.event)
	}
	h.held = nil
}
