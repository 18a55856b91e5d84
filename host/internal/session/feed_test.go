package session_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

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
	if err := <-b.store.Commit(ops); err != nil {
		b.t.Fatal(err)
	}
}

func TestFeedPagesAreBounded(t *testing.T) {
	run(t, func(b *bench) {
		g := b.generation()
		id := b.chat(g)
		long := strings.Repeat("x", 100<<10)
		for i := range 10 {
			g.emit(says(id, fmt.Sprint("a", i), long))
		}
		f, err := b.svc.Subscribe(b.t.Context(), b.ref, 0, func() {})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for next := uint64(1); next <= 13; {
			news, err := f.Pull(64)
			if err != nil || len(news) == 0 {
				t.Fatalf("got %d news and %v before entry %d", len(news), err, next)
			}
			size := 0
			for _, n := range news {
				if n.Entry.GetSeq() != next {
					t.Fatalf("entry %d came in place of %d", n.Entry.GetSeq(), next)
				}
				next++
				size += proto.Size(n.Entry)
			}
			if size > 400<<10 {
				t.Fatalf("a page has %d bytes", size)
			}
		}
	})
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

func (s *lazyStore) Commit(ops []journal.Op) <-chan error {
	applied := s.Store.Commit(ops)
	durable := make(chan error, 1)
	go func() {
		<-s.synced
		durable <- <-applied
	}()
	return durable
}

// newLazyBench is a service with one session over a store whose commits become
// durable one by one, as sync is called.
func newLazyBench(t *testing.T) (b *bench, sync func()) {
	t.Helper()
	store := &lazyStore{new(memory.Store), make(chan struct{})}
	sync = func() { store.synced <- struct{}{} }
	go sync()
	return newBenchOn(t, store), sync
}

// newBenchOn is a service with one session over a store.
func newBenchOn(t *testing.T, store *lazyStore) *bench {
	t.Helper()
	b := &bench{t: t, limits: session.DefaultLimits(), store: store.Store}
	svc, err := session.New(session.Options{
		Journal: journal.New(store), Desks: []string{deskName}, DefaultDesk: deskName, Limits: b.limits, Log: hclog.NewNullLogger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.svc = svc
	b.ref = b.session()
	return b
}

func TestFeedDoesNotReadAheadOfTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, sync := newLazyBench(t)
		go sync() // the first state_updated
		if err := b.update(t.Context(), b.ref); err != nil {
			t.Fatal(err)
		}
		f := b.attend() // behind: it begins in the journal
		updated := make(chan error)
		go func() { updated <- b.update(t.Context(), b.ref) }()
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
		b.svc.Close()
	})
}

func TestFeedBeginsWhileWhatIsNewIsOnItsWayToTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, sync := newLazyBench(t)
		update := func() {
			go func() { _ = b.update(context.Background(), b.ref) }()
			synctest.Wait()
		}
		update()
		update()
		update()
		const page, late = 0, 3 // after which entry a feed begins
		var feeds [4]session.Feed
		for _, after := range []uint64{page, late} {
			go func() {
				f, err := b.svc.Subscribe(context.Background(), b.ref, after, func() {})
				if err != nil {
					t.Error(err)
				}
				feeds[after] = f
			}()
		}
		for range 3 {
			synctest.Wait()
			if feeds[page] != nil || feeds[late] != nil {
				t.Fatal("a feed began before what it shows was durable")
			}
			sync()
		}
		update()
		sync()
		synctest.Wait()
		for _, after := range []uint64{page, late} {
			f, last := feeds[after], after
			if drain(t, f, &last); last != 4 { // drain wants each once and in order
				t.Fatalf("the feed is at %d, want 4", last)
			}
			f.Close()
		}
		b.svc.Close()
	})
}

func TestCloseWaitsForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, sync := newLazyBench(t)
		go func() { _ = b.update(context.Background(), b.ref) }()
		synctest.Wait()
		closed := make(chan struct{})
		go func() {
			b.svc.Close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("the journal may be closed while a commit is under way")
		default:
		}
		sync()
		<-closed
	})
}

// TestNothingRunsFarAheadOfTheDisk has a message give up each second while the disk
// stands still: a limit is no reason to write more than waits already.
func TestNothingRunsFarAheadOfTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &lazyStore{new(memory.Store), make(chan struct{})}
		run := func() (halt func()) {
			halted := make(chan struct{})
			go func() {
				for {
					select {
					case store.synced <- struct{}{}:
					case <-halted:
						return
					}
				}
			}()
			return func() { close(halted) }
		}
		halt := run()
		b := newBenchOn(t, store)
		g := b.generation()
		b.chat(g)
		f := b.attend()
		g.down()
		const messages = 40
		for i := range messages {
			go func() { _, _ = b.send(fmt.Sprint("m", i), "x") }()
			time.Sleep(time.Second)
		}
		failed := func() (n int) {
			for _, line := range b.log() {
				if strings.HasSuffix(line, "failed (waited_too_long)") {
					n++
				}
			}
			return n
		}
		time.Sleep(b.limits.MessageWait - messages*time.Second - time.Second)
		if n := failed(); n > 0 {
			t.Fatalf("%d messages have failed too early", n)
		}
		halt()
		time.Sleep(time.Minute)
		if n := failed(); n > 16 {
			t.Errorf("%d batches are under way", n)
		}
		halt = run()
		time.Sleep(time.Second)
		if n := failed(); n != messages {
			t.Errorf("%d of %d messages have failed once the disk runs again", n, messages)
		}
		f.Close()
		b.svc.Close()
		halt()
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
