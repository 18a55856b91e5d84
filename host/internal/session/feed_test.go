package session_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/journal/memory"
	"github.com/deskhost/deskhost/host/internal/session"
)

// newStore returns a store that calls before each commit.
func newStore(before func()) *memory.Store {
	return &memory.Store{OnCommit: func([]journal.Op) error {
		if before != nil {
			before()
		}
		return nil
	}}
}

// drain pulls all there is now, and checks that no entry is missing or doubled.
func drain(t *testing.T, f session.Feed, last *uint64) (passing int) {
	t.Helper()
	for {
		news, err := f.Pull(7)
		if err != nil {
			t.Fatal(err)
		}
		if len(news) == 0 {
			return passing
		}
		for _, n := range news {
			if n.Entry == nil {
				passing++
				continue
			}
			if n.Entry.GetSeq() != *last+1 {
				t.Fatalf("entry %d follows %d", n.Entry.GetSeq(), *last)
			}
			*last = n.Entry.GetSeq()
		}
	}
}

func TestFeedReplaysThenGoesOnLive(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		for i := range 50 {
			g.emit(says(id, fmt.Sprint("a", i), "old"))
		}
		wakes := 0
		f, err := b.svc.Subscribe(b.t.Context(), b.ref, 10, func() { wakes++ })
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		last := uint64(10)
		drain(t, f, &last)
		if last != 53 {
			t.Fatalf("replayed up to %d, want 53", last)
		}
		g.emit(says(id, "b1", "new"), typing(id))
		g.emit(says(id, "b2", "new"))
		if wakes != 1 {
			t.Fatalf("woken %d times before the first pull, want once", wakes)
		}
		if passing := drain(t, f, &last); last != 55 || passing != 1 {
			t.Fatalf("live up to %d with %d passing news, want 55 and 1", last, passing)
		}
		g.emit(typing(id))
		if wakes != 2 {
			t.Fatalf("woken %d times, want twice", wakes)
		}
	})
}

func TestFeedThatFallsBehindCatchesUpFromTheJournal(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		slow, fast := b.attend(), b.attend()
		defer slow.Close()
		defer fast.Close()
		var lastSlow, lastFast uint64
		drain(t, slow, &lastSlow)
		for i := range 1000 {
			g.emit(says(id, fmt.Sprint("a", i), "x"))
			drain(t, fast, &lastFast)
		}
		drain(t, slow, &lastSlow)
		if lastSlow != 1003 || lastFast != 1003 {
			t.Fatalf("slow reader at %d, fast reader at %d, want 1003", lastSlow, lastFast)
		}
		g.emit(says(id, "one more", "x"))
		drain(t, slow, &lastSlow)
		if lastSlow != 1004 {
			t.Fatalf("after catching up: %d, want 1004", lastSlow)
		}
	})
}

// prune removes the first entries of the session's log.
func (b *bench) prune(n int) {
	b.t.Helper()
	var ops []journal.Op
	if err := b.store.Scan([]byte("s"+b.ref.ID+"e"), []byte("s"+b.ref.ID+"f"), func(k, _ []byte) (bool, error) {
		ops = append(ops, journal.Op{Key: slices.Clone(k)})
		return len(ops) < n, nil
	}); err != nil {
		b.t.Fatal(err)
	}
	if err := b.store.Commit(ops); err != nil {
		b.t.Fatal(err)
	}
}

func TestFeedTellsWhatIsNoLongerKept(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		for i := range 10 {
			g.emit(says(id, fmt.Sprint("a", i), "x"))
		}
		b.prune(5)
		f := b.attend()
		defer f.Close()
		news, err := f.Pull(3)
		if err != nil || len(news) != 3 || news[0].GapTo != 5 || news[1].Entry.GetSeq() != 6 {
			t.Fatalf("got %+v, %v", news, err)
		}
	})
}

// lazyStore shows a commit before it is durable, as a store on disk may.
type lazyStore struct {
	*memory.Store
	synced chan struct{}
}

func (s *lazyStore) Commit(ops []journal.Op) error {
	err := s.Store.Commit(ops)
	<-s.synced
	return err
}

func TestFeedDoesNotReadAheadOfTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &lazyStore{new(memory.Store), make(chan struct{})}
		b := &bench{t: t, limits: session.DefaultLimits(), store: store.Store}
		svc, err := session.New(session.Options{
			Journal: journal.New(store), Desks: []string{deskName}, DefaultDesk: deskName, Limits: b.limits, Log: hclog.NewNullLogger(),
		})
		if err != nil {
			t.Fatal(err)
		}
		b.svc = svc
		sync := func() { store.synced <- struct{}{} }
		go sync()
		made, err := svc.Create(t.Context(), session.CreateRequest{})
		if err != nil {
			t.Fatal(err)
		}
		b.ref = session.Ref{ID: made.ID, Token: made.Token}
		go sync() // the first state_updated
		name := "en"
		if err := svc.Update(t.Context(), b.ref, session.Update{Locale: &name}); err != nil {
			t.Fatal(err)
		}
		f := b.attend() // behind: it begins in the journal
		updated := make(chan error)
		go func() { updated <- svc.Update(t.Context(), b.ref, session.Update{Locale: &name}) }()
		if n := len(b.log()); n != 2 {
			t.Fatalf("the store shows %d entries, want 2 of which one is not durable", n)
		}
		var last uint64
		if drain(t, f, &last); last != 1 {
			t.Fatalf("the feed went to entry %d while only 1 was durable", last)
		}
		sync()
		if err := <-updated; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if drain(t, f, &last); last != 2 {
			t.Fatalf("the feed is at %d, want 2", last)
		}
		f.Close()
		svc.Close()
	})
}

func TestClosedFeedIsNotWoken(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		closed := false
		f, err := b.svc.Subscribe(b.t.Context(), b.ref, 3, func() {
			if closed {
				t.Error("woken after Close")
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Pull(1); err != nil {
			t.Fatal(err)
		}
		f.Close()
		closed = true
		f.Close()
		b.want(g.emit(says(id, "a1", "x")), "ok")
		synctest.Wait()
	})
}
