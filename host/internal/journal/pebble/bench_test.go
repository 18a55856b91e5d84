package pebble

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/deskhost/deskhost/host/internal/journal"
)

// BenchmarkCommit is a commit of an entry of 200 bytes, a session's head and a
// dedupe key, by 1 to 64 writers at once. "fsync" is the floor: as many bytes
// appended to a bare file and synced, one after the other.
func BenchmarkCommit(b *testing.B) {
	b.Run("fsync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "log"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		data := make([]byte, 400)
		for b.Loop() {
			if _, err := f.Write(data); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := openBench(b)
			benchCommit(b, writers, s.Commit)
		})
	}
}

func openBench(b *testing.B) *Store {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func benchCommit(b *testing.B, writers int, commit func([]journal.Op) <-chan error) {
	var n atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for w := range writers {
		wg.Go(func() {
			value := make([]byte, 200)
			head := fmt.Appendf(nil, "s%026dh", w)
			for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
				err := <-commit([]journal.Op{
					{Key: binary.BigEndian.AppendUint64(fmt.Appendf(nil, "s%026de", w), uint64(i)), Value: value},
					{Key: head, Value: value[:100]},
					{Key: fmt.Appendf(nil, "s%026ddx\x00%d", w, i), Value: []byte{}},
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
