// Package memory is a journal store in memory, for tests.
//
// It starts no goroutine and waits for nothing but its hook, so that it serves
// inside a testing/synctest bubble. It knows no records. Tests make it; the
// journal package calls it.
package memory

import (
	"slices"
	"strings"
	"sync"

	"github.com/deskhost/deskhost/host/internal/journal"
)

// Store keeps keys in memory. The zero value is empty and ready.
type Store struct {
	// OnCommit, if set, is called for every commit before it takes effect. It
	// may block, and Commit with it; an error makes Commit fail with nothing written. Set it before
	// the store is used. It may be called concurrently.
	OnCommit func(ops []journal.Op) error

	mu sync.Mutex
	// pairs is sorted by key. Keys and values are never changed in place.
	pairs []pair
}

var _ journal.Store = (*Store)(nil)

type pair struct {
	key   string
	value []byte
}

// search returns where key is, or would be. The caller holds mu.
func (s *Store) search(key string) (int, bool) {
	return slices.BinarySearchFunc(s.pairs, key, func(p pair, key string) int { return strings.Compare(p.key, key) })
}

// Commit applies ops; what it has applied is durable.
func (s *Store) Commit(ops []journal.Op) <-chan error {
	durable := make(chan error, 1)
	if s.OnCommit != nil {
		if err := s.OnCommit(ops); err != nil {
			durable <- err
			return durable
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, op := range ops {
		p := pair{string(op.Key), append([]byte{}, op.Value...)}
		i, found := s.search(p.key)
		switch {
		case op.Value == nil && found:
			s.pairs = slices.Delete(s.pairs, i, i+1)
		case op.Value == nil:
		case found:
			s.pairs[i] = p
		default:
			s.pairs = slices.Insert(s.pairs, i, p)
		}
	}
	durable <- nil
	return durable
}

// Get returns a copy of the value of key.
func (s *Store) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := s.search(string(key))
	if !found {
		return nil, journal.ErrNotFound
	}
	return append([]byte{}, s.pairs[i].value...), nil
}

// Scan calls fn for the keys in [lower, upper), as they are now. A nil upper is
// behind all keys.
func (s *Store) Scan(lower, upper []byte, fn func(key, value []byte) (bool, error)) error {
	for _, p := range s.between(lower, upper) {
		if more, err := fn([]byte(p.key), p.value); !more || err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) between(lower, upper []byte) []pair {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, _ := s.search(string(lower))
	to := len(s.pairs)
	if upper != nil {
		to, _ = s.search(string(upper))
	}
	return slices.Clone(s.pairs[from:max(from, to)])
}

// Last returns a copy of the greatest key in [lower, upper).
func (s *Store) Last(lower, upper []byte) ([]byte, error) {
	pairs := s.between(lower, upper)
	if len(pairs) == 0 {
		return nil, journal.ErrNotFound
	}
	return []byte(pairs[len(pairs)-1].key), nil
}

// Close does nothing: the content stays for Reopen.
func (s *Store) Close() error { return nil }

// Reopen returns a new store with what has been committed so far, and no hook,
// as a host finds it that starts after a crash. Later commits to s don't reach
// it.
func (s *Store) Reopen() *Store {
	return &Store{pairs: s.between(nil, nil)}
}
