package journal

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	// Few different bytes, so that one id is often the beginning of another.
	ids := func(bytes string, minLen, maxLen int) *rapid.Generator[string] {
		return rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte(bytes)), minLen, maxLen), func(b []byte) string { return string(b) })
	}
	session := ids("s\x00\xff-", SessionIDLen, SessionIDLen)
	suffix := ids("\x01-ab\xfe\xff", 1, 4)
	name := ids("\x00\x01a\xff", 0, 4)
	// place is what a key is of; equal places must have equal keys, and
	// different ones different keys.
	type place struct {
		kind            byte
		session, suffix string
		name            string
		seq             uint64
	}
	draw := func(t *rapid.T, label string) place {
		return rapid.Custom(func(t *rapid.T) place {
			p := place{kind: rapid.SampledFrom([]byte{kindOpen, kindHead, kindEntry, kindChat, kindState, kindSeen, kindOut}).Draw(t, "kind")}
			p.session = session.Draw(t, "session")
			switch p.kind {
			case kindHead:
			case kindEntry:
				p.seq = rapid.Uint64().Draw(t, "seq")
			case kindSeen, kindOut:
				p.name = name.Draw(t, "name")
				fallthrough
			default:
				p.suffix = suffix.Draw(t, "suffix")
			}
			return p
		}).Draw(t, label)
	}
	key := func(p place) []byte {
		switch p.kind {
		case kindOpen:
			return openKey(p.session + "-" + p.suffix)
		case kindHead:
			return sessionKey(p.session, kindHead, 0)
		case kindEntry:
			return entryKey(p.session, p.seq)
		}
		return chatKey(p.session+"-"+p.suffix, p.kind, p.name)
	}
	within := func(k, prefix []byte) bool {
		upper := upperBound(prefix)
		return bytes.Compare(k, prefix) >= 0 && (upper == nil || bytes.Compare(k, upper) < 0)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw(t, "a"), draw(t, "b")
		if rapid.Bool().Draw(t, "same session") {
			b.session = a.session
		}
		if rapid.Bool().Draw(t, "same suffix") && a.suffix != "" && b.suffix != "" {
			b.suffix = a.suffix
		}
		if bytes.Equal(key(a), key(b)) != (a == b) {
			t.Fatalf("%+v has the key %q, %+v has %q", a, key(a), b, key(b))
		}
		if a.kind == kindEntry && b.kind == kindEntry && a.session == b.session &&
			bytes.Compare(key(a), key(b)) < 0 != (a.seq < b.seq) {
			t.Fatalf("entries %d and %d are in the wrong order", a.seq, b.seq)
		}
		// What the scans of b's session and chat would find.
		if got, want := within(key(a), []byte{kindOpen}), a.kind == kindOpen; got != want {
			t.Fatalf("%+v is found among the open chats: %t", a, got)
		}
		for _, kind := range []byte{kindEntry, kindChat} {
			if got, want := within(key(a), sessionKey(b.session, kind, 0)), a.kind == kind && a.session == b.session; got != want {
				t.Fatalf("%+v is found under %q of session %q: %t", a, kind, b.session, got)
			}
		}
		if b.suffix != "" {
			prefix := chatKey(b.session+"-"+b.suffix, kindOut, "")
			if got, want := within(key(a), prefix), a.kind == kindOut && a.session == b.session && a.suffix == b.suffix; got != want {
				t.Fatalf("%+v is found among the messages of chat %q: %t", a, b.suffix, got)
			}
		}
	})
}

func TestUpperBound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ prefix, want string }{
		{"a", "b"},
		{"a\xff", "b"},
		{"a\xfe\xff\xff", "a\xff"},
		{"a\x00", "a\x01"},
	} {
		if got := upperBound([]byte(c.prefix)); string(got) != c.want {
			t.Errorf("upper bound of %q is %q, expected %q", c.prefix, got, c.want)
		}
	}
	for _, prefix := range []string{"", "\xff\xff"} {
		if got := upperBound([]byte(prefix)); got != nil {
			t.Errorf("upper bound of %q is %q, expected none", prefix, got)
		}
	}
}

func TestSessionOf(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("s", SessionIDLen)
	for _, c := range []struct {
		chatID string
		ok     bool
	}{
		{id + "-1", true},
		{id + "--", true},
		{id + "-", false},
		{id + "1", false},
		{id, false},
		{"", false},
		{id[1:] + "-11", false},
		{id + "-1\x00a", false},
	} {
		got, ok := SessionOf(c.chatID)
		if ok != c.ok || ok && got != id {
			t.Errorf("SessionOf(%q) is %q, %t", c.chatID, got, ok)
		}
	}
}

// failingStore fails every call.
type failingStore struct{ err error }

func (s failingStore) Commit([]Op) <-chan error {
	failed := make(chan error, 1)
	failed <- s.err
	return failed
}

func (s failingStore) Get([]byte) ([]byte, error)       { return nil, s.err }
func (s failingStore) Close() error                     { return s.err }
func (s failingStore) Last(_, _ []byte) ([]byte, error) { return nil, s.err }
func (s failingStore) Scan(_, _ []byte, _ func(key, value []byte) (bool, error)) error {
	return s.err
}

// damagedStore answers with what is no record.
type damagedStore struct{ failingStore }

func (damagedStore) Get([]byte) ([]byte, error) { return []byte{0xff}, nil }

func (damagedStore) Scan(_, _ []byte, fn func(key, value []byte) (bool, error)) error {
	_, err := fn([]byte("key"), []byte{0xff})
	return err
}

// reads is every read of a journal.
func reads(j *Journal, sessionID, chatID string) map[string]error {
	_, sessionErr := j.Session(sessionID)
	_, chatErr := j.Chat(chatID)
	_, stateErr := j.State(chatID)
	_, outErr := j.Out(chatID, "m")
	_, entryErr := j.Entry(sessionID, 1)
	return map[string]error{
		"Session": sessionErr, "Chat": chatErr, "State": stateErr, "Out": outErr, "Entry": entryErr,
		"Chats":   j.Chats(sessionID, func(*recordv1.Chat) bool { return true }),
		"Outs":    j.Outs(chatID, func(*recordv1.OutMessage) bool { return true }),
		"Entries": j.Entries(sessionID, 0, func(*recordv1.Entry) bool { return true }),
	}
}

func TestStoreErrors(t *testing.T) {
	t.Parallel()
	sessionID := strings.Repeat("s", SessionIDLen)
	errDisk := errors.New("the disk is gone")
	j := New(failingStore{errDisk})
	for call, err := range reads(j, sessionID, sessionID+"-1") {
		if !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", call, err)
		}
	}
	if err := j.SeenEvents(sessionID+"-1", func(string) {}); !errors.Is(err, errDisk) {
		t.Errorf("SeenEvents: %v", err)
	}
	if err := j.OpenChats(func(string) bool { return true }); !errors.Is(err, errDisk) {
		t.Errorf("OpenChats: %v", err)
	}
	if _, err := j.Forget(new(Batch), sessionID, 100); !errors.Is(err, errDisk) {
		t.Errorf("Forget: %v", err)
	}
	if _, err := j.NextSession(""); !errors.Is(err, errDisk) {
		t.Errorf("NextSession: %v", err)
	}
	if _, err := j.LastSeq(sessionID); !errors.Is(err, errDisk) {
		t.Errorf("LastSeq: %v", err)
	}
	if err := <-j.Commit(new(Batch)); !errors.Is(err, errDisk) {
		t.Errorf("Commit: %v", err)
	}
	for call, err := range reads(New(damagedStore{}), sessionID, sessionID+"-1") {
		if err == nil || !strings.Contains(err.Error(), "damaged record") {
			t.Errorf("%s of a damaged record: %v", call, err)
		}
	}
}

// TestMalformedIDs holds that an id of the wrong form is never taken for a part
// of another session's keys.
func TestMalformedIDs(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("s", SessionIDLen)
	for name, put := range map[string]func(*Batch){
		"PutSession":  func(b *Batch) { b.PutSession(&recordv1.Session{Id: good + "h"}) },
		"Append":      func(b *Batch) { b.Append(good[1:], &recordv1.Entry{Seq: 1}) },
		"PutChat":     func(b *Batch) { b.PutChat(&recordv1.Chat{Id: good}) },
		"PutState":    func(b *Batch) { b.PutState("", &recordv1.ResumeState{}) },
		"RemoveState": func(b *Batch) { b.RemoveState(good + "1") },
		"MarkSeen":    func(b *Batch) { b.MarkSeen(good+"-\x00", "e") },
		"Forget": func(b *Batch) {
			if _, err := New(failingStore{errors.New("reached the store")}).Forget(b, "", 100); err == nil || strings.Contains(err.Error(), "reached") {
				t.Errorf("Forget: %v", err)
			}
		},
		"PutOut":    func(b *Batch) { b.PutOut(good+"-", &recordv1.OutMessage{Id: "m"}) },
		"not UTF-8": func(b *Batch) { b.PutSession(&recordv1.Session{Id: good, Desk: "\xff"}) },
	} {
		var b Batch
		put(&b)
		// The store would fail otherwise: it must not be reached.
		if err := <-New(failingStore{errors.New("reached the store")}).Commit(&b); err == nil || strings.Contains(err.Error(), "reached") {
			t.Errorf("%s: %v", name, err)
		}
		b.Reset()
		b.PutSession(&recordv1.Session{Id: good})
		if b.err != nil || b.Len() == 0 {
			t.Errorf("%s: the batch is of no use after Reset: %v", name, b.err)
		}
	}
	j := New(failingStore{errors.New("reached the store")})
	for _, id := range []string{"", good[1:], good + "1"} {
		for call, err := range reads(j, id, id) {
			want := ErrNotFound
			if strings.HasSuffix(call, "s") || call == "Entries" {
				want = nil
			}
			if !errors.Is(err, want) {
				t.Errorf("%s of %q: %v, expected %v", call, id, err, want)
			}
		}
		if err := j.SeenEvents(id, func(event string) { t.Errorf("%q has had event %q", id, event) }); err != nil {
			t.Errorf("SeenEvents of %q: %v", id, err)
		}
	}
}
