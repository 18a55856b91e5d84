package journal_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/journal/memory"
	"github.com/deskhost/deskhost/host/internal/journal/pebble"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
)

func TestRecords(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T, journal.Store){
		"RoundTrip": testRoundTrip,
		"OpenIndex": testOpenIndex,
	} {
		t.Run(name+"/memory", func(t *testing.T) {
			t.Parallel()
			test(t, new(memory.Store))
		})
		t.Run(name+"/pebble", func(t *testing.T) {
			t.Parallel()
			s, err := pebble.Open(t.TempDir(), pebble.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			test(t, s)
		})
	}
}

func equal(t *testing.T, what string, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("%s is %v, expected %v", what, got, want)
	}
}

// testRoundTrip writes every kind of record into an empty store and reads it back,
// beside neighbours whose keys are as near as they can be.
func testRoundTrip(t *testing.T, store journal.Store) {
	j := journal.New(store)
	now := timestamppb.New(time.Unix(1700000000, 5))
	// Neighbours in the order of keys.
	sessions := []string{strings.Repeat("s", journal.SessionIDLen-1) + "r", strings.Repeat("s", journal.SessionIDLen), strings.Repeat("s", journal.SessionIDLen-1) + "t"}
	var b journal.Batch
	for i, id := range sessions {
		b.PutSession(&recordv1.Session{Id: id, Desk: fmt.Sprint(i), UsedAt: now, CreatedAt: now})
		for seq := uint64(1); seq <= 300; seq++ {
			event := ""
			if seq == 100 {
				event = "e of an entry " + id
			}
			b.Append(id, &recordv1.Entry{Seq: seq, Time: now, ChatId: id + "-1", EventId: event, Body: &recordv1.Entry_UserMessage{UserMessage: &recordv1.UserMessage{Id: fmt.Sprint(seq), Text: id}}})
		}
		for _, chat := range []string{id + "-1", id + "-11", id + "-2"} {
			b.PutChat(&recordv1.Chat{Id: chat, SessionId: id, Phase: recordv1.ChatPhase_CHAT_PHASE_OPEN})
			b.PutState(chat, &recordv1.ResumeState{Data: []byte(chat), Format: 2})
			b.MarkSeen(chat, "e\x00"+chat)
			b.PutOut(chat, &recordv1.OutMessage{Id: "m1", Seq: 1, Reason: chat})
			b.PutOut(chat, &recordv1.OutMessage{Id: "m2", Seq: 2, Reason: chat})
		}
	}
	if err := <-j.Commit(&b); err != nil {
		t.Fatal(err)
	}

	id, chat := sessions[1], sessions[1]+"-1"
	s, err := j.Session(id)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the session", s, &recordv1.Session{Id: id, Desk: "1", UsedAt: now, CreatedAt: now})
	if last, err := j.LastSeq(id); err != nil || last != 300 {
		t.Fatalf("the last entry is %d, %v", last, err)
	}
	if last, err := j.LastSeq(strings.Repeat("s", journal.SessionIDLen-1) + "q"); err != nil || last != 0 {
		t.Fatalf("the last entry of a session without any is %d, %v", last, err)
	}
	c, err := j.Chat(chat)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the chat", c, &recordv1.Chat{Id: chat, SessionId: id, Phase: recordv1.ChatPhase_CHAT_PHASE_OPEN})
	state, err := j.State(chat)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the state", state, &recordv1.ResumeState{Data: []byte(chat), Format: 2})
	out, err := j.Out(chat, "m2")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the message", out, &recordv1.OutMessage{Id: "m2", Seq: 2, Reason: chat})
	entry, err := j.Entry(id, 256)
	if err != nil {
		t.Fatal(err)
	}
	if entry.GetSeq() != 256 || entry.GetUserMessage().GetText() != id {
		t.Errorf("entry 256 is %v", entry)
	}

	for after, want := range map[uint64]int{0: 300, 1: 299, 255: 45, 256: 44, 299: 1, 300: 0, 1 << 63: 0, ^uint64(0): 0} {
		next, n := after+1, 0
		err := j.Entries(id, after, func(e *recordv1.Entry) bool {
			if e.GetSeq() != next || e.GetUserMessage().GetText() != id {
				t.Errorf("after %d: got entry %d of %s, expected %d", after, e.GetSeq(), e.GetUserMessage().GetText(), next)
			}
			next, n = next+1, n+1
			return true
		})
		if err != nil || n != want {
			t.Errorf("after %d: %d entries, %v; expected %d", after, n, err, want)
		}
	}
	var n int
	if err := j.Entries(id, 0, func(*recordv1.Entry) bool { n++; return n < 7 }); err != nil || n != 7 {
		t.Errorf("stopped at entry %d, %v", n, err)
	}

	var chats, reasons, open []string
	if err := j.Chats(id, func(c *recordv1.Chat) bool { chats = append(chats, c.GetId()); return true }); err != nil {
		t.Error(err)
	}
	if fmt.Sprint(chats) != fmt.Sprint([]string{id + "-1", id + "-11", id + "-2"}) {
		t.Errorf("the session's chats are %q", chats)
	}
	if err := j.Outs(chat, func(m *recordv1.OutMessage) bool { reasons = append(reasons, m.GetReason()); return true }); err != nil {
		t.Error(err)
	}
	if fmt.Sprint(reasons) != fmt.Sprint([]string{chat, chat}) {
		t.Errorf("the chat's messages are of %q", reasons)
	}
	if err := j.OpenChats(func(id string) bool { open = append(open, id); return true }); err != nil || len(open) != 9 {
		t.Errorf("open chats are %q, %v", open, err)
	}

	var seen []string
	if err := j.SeenEvents(chat, func(event string) { seen = append(seen, event) }); err != nil || !slices.Equal(seen, []string{"e\x00" + chat, "e of an entry " + id}) {
		t.Errorf("the chat has had events %q, %v", seen, err)
	}
	if err := j.SeenEvents(id+"-2", func(event string) {
		if event != "e\x00"+id+"-2" {
			t.Errorf("a chat has had event %q, of another", event)
		}
	}); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"session": second(j.Session(strings.Repeat("x", journal.SessionIDLen))),
		"chat":    second(j.Chat(id + "-3")),
		"state":   second(j.State(id + "-3")),
		"message": second(j.Out(chat, "m3")),
		"entry":   second(j.Entry(id, 301)),
	} {
		if !errors.Is(err, journal.ErrNotFound) {
			t.Errorf("%s that was never written: %v", what, err)
		}
	}

	b.Reset()
	b.RemoveState(chat)
	if err := <-j.Commit(&b); err != nil {
		t.Fatal(err)
	}
	if _, err := j.State(chat); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("a removed state: %v", err)
	}
	if _, err := j.State(id + "-11"); err != nil {
		t.Errorf("the state of the chat beside it: %v", err)
	}

	for all := false; !all; {
		// It is found, and marked as it was, until the last of it is gone.
		if s, err := j.NextSession(sessions[0]); err != nil || s.GetId() != id || s.GetUsedAt() == nil {
			t.Fatalf("behind the first session comes %v, %v", s, err)
		}
		b.Reset()
		var err error
		if all, err = j.Forget(&b, id, 100); err != nil {
			t.Fatal(err)
		}
		if n := b.Len(); n > 100 {
			t.Fatalf("%d keys are removed at once", n)
		}
		if err := <-j.Commit(&b); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := j.NextSession(sessions[0]); err != nil || s.GetId() != sessions[2] {
		t.Fatalf("behind a forgotten session comes %v, %v", s, err)
	}
	if s, err := j.NextSession(sessions[2]); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("behind the last session comes %v, %v", s, err)
	}
	for what, err := range map[string]error{
		"session": second(j.Session(id)),
		"chat":    second(j.Chat(id + "-11")),
		"state":   second(j.State(id + "-2")),
		"message": second(j.Out(chat, "m1")),
		"entry":   second(j.Entry(id, 300)),
	} {
		if !errors.Is(err, journal.ErrNotFound) {
			t.Errorf("%s of a forgotten session: %v", what, err)
		}
	}
	if err := j.SeenEvents(chat, func(event string) { t.Errorf("event %q of a forgotten session is kept", event) }); err != nil {
		t.Error(err)
	}
	for _, neighbour := range []string{sessions[0], sessions[2]} {
		n := 0
		if err := j.Entries(neighbour, 0, func(*recordv1.Entry) bool { n++; return true }); err != nil || n != 300 {
			t.Errorf("the session beside a forgotten one has %d entries, %v", n, err)
		}
		if _, err := j.Session(neighbour); err != nil {
			t.Errorf("the session beside a forgotten one: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// testOpenIndex walks a chat through its life and looks for it among the open ones.
func testOpenIndex(t *testing.T, store journal.Store) {
	j := journal.New(store)
	id := strings.Repeat("s", journal.SessionIDLen) + "-1"
	for _, step := range []struct {
		phase           recordv1.ChatPhase
		owed, unsettled bool
		open            bool
	}{
		{recordv1.ChatPhase_CHAT_PHASE_STARTING, false, false, true},
		{recordv1.ChatPhase_CHAT_PHASE_OPEN, false, false, true},
		{recordv1.ChatPhase_CHAT_PHASE_ENDED, true, true, true},
		{recordv1.ChatPhase_CHAT_PHASE_ENDED, false, true, true},
		{recordv1.ChatPhase_CHAT_PHASE_ENDED, true, false, true},
		{recordv1.ChatPhase_CHAT_PHASE_ENDED, false, false, false},
	} {
		var b journal.Batch
		b.PutChat(&recordv1.Chat{Id: id, Phase: step.phase, EndOwed: step.owed, Unsettled: step.unsettled})
		if err := <-j.Commit(&b); err != nil {
			t.Fatal(err)
		}
		open := false
		if err := j.OpenChats(func(got string) bool { open = got == id; return true }); err != nil {
			t.Fatal(err)
		}
		if open != step.open {
			t.Errorf("%v, end owed %t, unsettled %t: open is %t", step.phase, step.owed, step.unsettled, open)
		}
		if c, err := j.Chat(id); err != nil || c.GetPhase() != step.phase {
			t.Errorf("the chat is %v, %v", c, err)
		}
	}
}
