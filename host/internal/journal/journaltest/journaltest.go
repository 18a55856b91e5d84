// Package journaltest is the suite that every journal store must pass.
//
// A store's own tests call Run; what only one kind of store can be put through
// (power loss, a killed process, faulty disks) stays in that store's tests.
package journaltest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/deskhost/deskhost/host/internal/journal"
)

// Run puts stores through the contract of [journal.Store]. Each call of open
// makes a new, empty store and a function that opens again what that store, or
// the one opened again last, has kept: as after a crash, where the kind of store
// can play one. The suite closes only the store that it got last.
func Run(t *testing.T, open func(t *testing.T) (store journal.Store, reopen func() journal.Store)) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *subject){
		"PutGetDelete":      testPutGetDelete,
		"OrderInBatch":      testOrderInBatch,
		"SlicesNotKept":     testSlicesNotKept,
		"GetCopies":         testGetCopies,
		"Bounds":            testBounds,
		"ScanStops":         testScanStops,
		"ScanSnapshot":      testScanSnapshot,
		"ReadsSeeWholes":    testReadsSeeWholes,
		"ConcurrentCommits": testConcurrentCommits,
		"LargeBatch":        testLargeBatch,
		"Model":             testModel,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, reopen := open(t)
			s := &subject{store, reopen}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			test(t, s)
		})
	}
}

// subject is the store under test, which changes as it is opened again.
type subject struct {
	journal.Store

	reopen func() journal.Store
}

func (s *subject) again() { s.Store = s.reopen() }

// tester is what testing.T and rapid.T share.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// put and del make operations of strings.
func put(key, value string) journal.Op {
	return journal.Op{Key: []byte(key), Value: []byte(value)}
}

func del(key string) journal.Op { return journal.Op{Key: []byte(key)} }

func commit(t tester, s journal.Store, ops ...journal.Op) {
	t.Helper()
	if err := <-s.Commit(ops); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

// all reads the keys in [lower, upper) as "key=value".
func all(t tester, s journal.Store, lower, upper []byte) []string {
	t.Helper()
	got := []string{}
	err := s.Scan(lower, upper, func(k, v []byte) (bool, error) {
		got = append(got, string(k)+"="+string(v))
		return true, nil
	})
	if err != nil {
		t.Fatalf("scan [%q, %q): %v", lower, upper, err)
	}
	return got
}

func expect(t tester, s journal.Store, want ...string) {
	t.Helper()
	if got := all(t, s, nil, nil); !slices.Equal(got, want) {
		t.Fatalf("the store holds %q, expected %q", got, want)
	}
}

func testPutGetDelete(t *testing.T, s *subject) {
	expect(t, s)
	if _, err := s.Get([]byte("a")); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("get of what was never put: %v, expected ErrNotFound", err)
	}
	commit(t, s)
	commit(t, s, del("never"))
	commit(t, s, put("a", "1"), journal.Op{Key: []byte("empty"), Value: []byte{}}, put("c", "3"))
	if v, err := s.Get([]byte("empty")); err != nil || len(v) != 0 {
		t.Fatalf("get of an empty value: %q, %v", v, err)
	}
	expect(t, s, "a=1", "c=3", "empty=")
	commit(t, s, put("a", "2"), del("c"))
	if v, err := s.Get([]byte("a")); err != nil || string(v) != "2" {
		t.Fatalf("get of an overwritten value: %q, %v", v, err)
	}
	if _, err := s.Get([]byte("c")); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("get of a deleted key: %v, expected ErrNotFound", err)
	}
	s.again()
	expect(t, s, "a=2", "empty=")
}

func testOrderInBatch(t *testing.T, s *subject) {
	commit(t, s, put("a", "1"), put("a", "2"), put("b", "1"), del("b"), del("c"), put("c", "3"))
	expect(t, s, "a=2", "c=3")
	s.again()
	expect(t, s, "a=2", "c=3")
}

func testSlicesNotKept(t *testing.T, s *subject) {
	op := put("key", "value")
	commit(t, s, op)
	copy(op.Key, "xxx")
	copy(op.Value, "xxxxx")
	expect(t, s, "key=value")
}

func testGetCopies(t *testing.T, s *subject) {
	commit(t, s, put("key", "value"))
	v, err := s.Get([]byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	copy(v, "xxxxx")
	expect(t, s, "key=value")
}

func testBounds(t *testing.T, s *subject) {
	commit(t, s, put("a", ""), put("a\x00", ""), put("a\x00\x00", ""), put("b", ""), put("b\xff", ""), put("b\xff\xff", ""), put("c", ""), put("\xff\xff", ""))
	for _, c := range []struct{ lower, upper, want string }{
		{"a", "b", "a=|a\x00=|a\x00\x00="},
		{"a\x00", "b", "a\x00=|a\x00\x00="},
		{"b", "b\xff", "b="},
		{"b", "c", "b=|b\xff=|b\xff\xff="},
		{"b\xff\xff\x00", "c", ""},
		{"c", "c", ""},
		{"d", "\xff", ""},
		{"d", "\xff\xff\x00", "\xff\xff="},
	} {
		if got := strings.Join(all(t, s, []byte(c.lower), []byte(c.upper)), "|"); got != c.want {
			t.Errorf("scan [%q, %q) gives %q, expected %q", c.lower, c.upper, got, c.want)
		}
		want := c.want[strings.LastIndex(c.want, "|")+1:]
		switch last, err := s.Last([]byte(c.lower), []byte(c.upper)); {
		case want == "" && errors.Is(err, journal.ErrNotFound):
		case err != nil || string(last)+"=" != want:
			t.Errorf("the last key in [%q, %q) is %q, %v, expected %q", c.lower, c.upper, last, err, want)
		}
	}
	if last, err := s.Last([]byte("b"), nil); err != nil || string(last) != "\xff\xff" {
		t.Errorf("the last key from b to the end is %q, %v", last, err)
	}
	if got := all(t, s, []byte("c"), nil); !slices.Equal(got, []string{"c=", "\xff\xff="}) {
		t.Errorf("scan from c to the end gives %q", got)
	}
}

func testScanStops(t *testing.T, s *subject) {
	commit(t, s, put("a", ""), put("b", ""), put("c", ""))
	for _, want := range []error{nil, errors.New("enough")} {
		calls := 0
		err := s.Scan(nil, nil, func(_, _ []byte) (bool, error) {
			calls++
			return calls < 2, map[bool]error{true: want}[calls == 2]
		})
		if calls != 2 || !errors.Is(err, want) {
			t.Errorf("%d calls and error %v, expected 2 and %v", calls, err, want)
		}
	}
}

func testScanSnapshot(t *testing.T, s *subject) {
	commit(t, s, put("a", "1"), put("b", "1"), put("c", "1"))
	var got []string
	err := s.Scan(nil, nil, func(k, v []byte) (bool, error) {
		if string(k) == "a" {
			commit(t, s, put("a", "2"), put("b", "2"), del("c"), put("d", "2"))
		}
		got = append(got, string(k)+"="+string(v))
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a=1", "b=1", "c=1"}; !slices.Equal(got, want) {
		t.Fatalf("a commit during the scan shows in it: %q, expected %q", got, want)
	}
	expect(t, s, "a=2", "b=2", "d=2")
}

// testReadsSeeWholes scans while batches that change both ends of the range are
// committed: every scan must find the ends equal.
func testReadsSeeWholes(t *testing.T, s *subject) {
	const commits = 200
	commit(t, s, put("a", "0"), put("z", "0"))
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range commits {
			v := fmt.Sprint(i)
			if err := <-s.Commit([]journal.Op{put("a", v), put("m"+v, v), put("z", v)}); err != nil {
				t.Errorf("commit: %v", err)
				return
			}
		}
	})
	for scanning := true; scanning; {
		select {
		case <-done:
			scanning = false
		default:
		}
		got := all(t, s, nil, nil)
		if first, last := got[0], got[len(got)-1]; first[1:] != last[1:] {
			t.Errorf("a scan saw half a batch: %q and %q", first, last)
			break
		}
	}
	wg.Wait()
}

func testConcurrentCommits(t *testing.T, s *subject) {
	const writers, commits = 16, 50
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range commits {
				n := binary.BigEndian.AppendUint32(nil, uint32(i))
				err := <-s.Commit([]journal.Op{
					{Key: append([]byte{byte(w), 'e'}, n...), Value: n},
					{Key: []byte{byte(w), 'h'}, Value: n},
				})
				if err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				// What a writer has committed, it can read.
				if v, err := s.Get([]byte{byte(w), 'h'}); err != nil || !bytes.Equal(v, n) {
					t.Errorf("writer %d reads %x, %v behind its commit %d", w, v, err, i)
					return
				}
			}
		})
	}
	wg.Wait()
	s.again()
	for w := range writers {
		if got := all(t, s, []byte{byte(w), 'e'}, []byte{byte(w), 'f'}); len(got) != commits {
			t.Errorf("writer %d has %d of %d commits after opening again", w, len(got), commits)
		}
	}
}

// testLargeBatch commits more at once than a store may keep in one buffer.
func testLargeBatch(t *testing.T, s *subject) {
	value := bytes.Repeat([]byte{'v'}, 64<<10)
	var ops []journal.Op
	for i := range 200 {
		ops = append(ops, journal.Op{Key: fmt.Appendf(nil, "%03d", i), Value: value})
	}
	commit(t, s, ops...)
	s.again()
	if got := all(t, s, nil, nil); len(got) != len(ops) || len(got[199]) != len("199=")+len(value) {
		t.Fatalf("%d of %d keys are there", len(got), len(ops))
	}
}

// testModel compares the store with a plain map over random commits, reads and
// reopenings.
func testModel(t *testing.T, s *subject) {
	rapid.Check(t, func(rt *rapid.T) {
		// One store serves all rounds: each begins by emptying it.
		var ops []journal.Op
		for _, pair := range all(rt, s, nil, nil) {
			key, _, _ := strings.Cut(pair, "=")
			ops = append(ops, del(key))
		}
		commit(rt, s, ops...)

		model := map[string]string{}
		keys := rapid.StringMatching("[ab\\x00\x7f]{1,3}")
		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) {
				var ops []journal.Op
				for range rapid.IntRange(0, 5).Draw(rt, "ops") {
					key := keys.Draw(rt, "key")
					if rapid.Bool().Draw(rt, "delete") {
						ops = append(ops, del(key))
						delete(model, key)
						continue
					}
					value := rapid.String().Draw(rt, "value")
					ops = append(ops, put(key, value))
					model[key] = value
				}
				commit(rt, s, ops...)
			},
			"get": func(rt *rapid.T) {
				key := keys.Draw(rt, "key")
				want, there := model[key]
				got, err := s.Get([]byte(key))
				if there && (err != nil || string(got) != want) || !there && !errors.Is(err, journal.ErrNotFound) {
					rt.Fatalf("get %q: %q, %v; expected %q, there: %t", key, got, err, want, there)
				}
			},
			"scan": func(rt *rapid.T) {
				lower, upper := keys.Draw(rt, "lower"), keys.Draw(rt, "upper")
				var want []string
				for _, key := range slices.Sorted(maps.Keys(model)) {
					if key >= lower && key < upper {
						want = append(want, key+"="+model[key])
					}
				}
				if got := all(rt, s, []byte(lower), []byte(upper)); !slices.Equal(got, want) {
					rt.Fatalf("scan [%q, %q): %q, expected %q", lower, upper, got, want)
				}
			},
			"reopen": func(rt *rapid.T) {
				// Seldom, because it is slow.
				if rapid.IntRange(0, 19).Draw(rt, "reopen if 0") == 0 {
					s.again()
				}
			},
		})
	})
}
