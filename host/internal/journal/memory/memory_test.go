package memory_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/journal/journaltest"
	"github.com/deskhost/deskhost/host/internal/journal/memory"
)

func TestStore(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, func(*testing.T) (journal.Store, func() journal.Store) {
		s := new(memory.Store)
		return s, func() journal.Store {
			s = s.Reopen()
			return s
		}
	})
}

func TestOnCommitBlocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan error)
		s := &memory.Store{OnCommit: func([]journal.Op) error { return <-release }}
		done := make(chan error)
		go func() { done <- <-s.Commit([]journal.Op{{Key: []byte("a"), Value: []byte("1")}}) }()
		synctest.Wait()
		if _, err := s.Get([]byte("a")); !errors.Is(err, journal.ErrNotFound) {
			t.Fatalf("a commit that has not returned can be read: %v", err)
		}
		crashed := s.Reopen()
		release <- nil
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if v, err := s.Get([]byte("a")); err != nil || string(v) != "1" {
			t.Fatalf("got %q, %v after the commit", v, err)
		}
		if _, err := crashed.Get([]byte("a")); !errors.Is(err, journal.ErrNotFound) {
			t.Fatalf("a commit after the crash can be read behind it: %v", err)
		}
	})
}

func TestOnCommitFails(t *testing.T) {
	t.Parallel()
	errFull := errors.New("disk full")
	s := &memory.Store{OnCommit: func([]journal.Op) error { return errFull }}
	if err := <-s.Commit([]journal.Op{{Key: []byte("a"), Value: []byte("1")}}); !errors.Is(err, errFull) {
		t.Fatalf("got %v", err)
	}
	if _, err := s.Get([]byte("a")); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("a failed commit was written: %v", err)
	}
}
