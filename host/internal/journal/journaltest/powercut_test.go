package journaltest_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/journal/journaltest"
	"github.com/deskhost/deskhost/host/internal/journal/memory"
)

// memoryDisk is a disk in memory; what is committed is synced.
type memoryDisk struct {
	store *memory.Store
	// through is the store that is written to.
	through func(*memory.Store) journal.Store
}

func (d memoryDisk) Open() (journal.Store, error) { return d.through(d.store), nil }

func (d memoryDisk) Cut(*rand.Rand) journaltest.Disk {
	return memoryDisk{d.store.Reopen(), d.through}
}

// outcome is what a commit returns that is over.
func outcome(err error) <-chan error {
	c := make(chan error, 1)
	c <- err
	return c
}

// eager acknowledges before the disk has the batch.
type eager struct {
	*memory.Store
	mu      sync.Mutex
	pending [][]journal.Op
}

func (s *eager) Commit(ops []journal.Op) <-chan error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending = append(s.pending, ops); len(s.pending) < 5 {
		return outcome(nil)
	}
	return outcome(s.flush())
}

func (s *eager) flush() error {
	for _, ops := range s.pending {
		if err := <-s.Store.Commit(ops); err != nil {
			return err
		}
	}
	s.pending = nil
	return nil
}

func (s *eager) Close() error { return s.flush() }

// torn writes a batch key by key.
type torn struct{ *memory.Store }

func (s torn) Commit(ops []journal.Op) <-chan error {
	for _, op := range ops {
		if err := <-s.Store.Commit([]journal.Op{op}); err != nil {
			return outcome(err)
		}
	}
	return outcome(nil)
}

// forgetful loses one batch in a hundred.
type forgetful struct {
	*memory.Store
	mu sync.Mutex
	n  int
}

func (s *forgetful) Commit(ops []journal.Op) <-chan error {
	s.mu.Lock()
	s.n++
	lose := s.n%100 == 0
	s.mu.Unlock()
	if lose {
		return outcome(nil)
	}
	return s.Store.Commit(ops)
}

// refusing takes a hundred batches and no more.
type refusing struct {
	*memory.Store
	n atomic.Int32
}

func (s *refusing) Commit(ops []journal.Op) <-chan error {
	if s.n.Add(1) > 100 {
		return outcome(errors.New("no more room"))
	}
	return s.Store.Commit(ops)
}

// backwards writes every second batch of a writer before the one ahead of it.
type backwards struct {
	*memory.Store
	mu   sync.Mutex
	held map[byte][]journal.Op
}

func (s *backwards) Commit(ops []journal.Op) <-chan error {
	s.mu.Lock()
	before, held := s.held[ops[0].Key[0]]
	if held {
		delete(s.held, ops[0].Key[0])
	} else {
		s.held[ops[0].Key[0]] = slices.Clone(ops)
	}
	s.mu.Unlock()
	if !held {
		return outcome(nil)
	}
	if err := <-s.Store.Commit(ops); err != nil {
		return outcome(err)
	}
	return s.Store.Commit(before)
}

// TestPowerCutsFindsBrokenStores tests the test.
func TestPowerCutsFindsBrokenStores(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		through func(*memory.Store) journal.Store
		want    string
	}{
		"good":                         {func(s *memory.Store) journal.Store { return s }, ""},
		"acknowledges before it syncs": {func(s *memory.Store) journal.Store { return &eager{Store: s} }, "were acknowledged"},
		"writes halves":                {func(s *memory.Store) journal.Store { return torn{s} }, "by half"},
		"refuses":                      {func(s *memory.Store) journal.Store { return &refusing{Store: s} }, "no more room"},
		"loses":                        {func(s *memory.Store) journal.Store { return &forgetful{Store: s} }, "batch"},
		"out of order":                 {func(s *memory.Store) journal.Store { return &backwards{Store: s, held: map[byte][]journal.Op{}} }, "batch"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := journaltest.PowerCuts(memoryDisk{new(memory.Store), c.through}, 200, 1)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want an error that tells %q", err, c.want)
			default:
				t.Log(err)
			}
		})
	}
}
