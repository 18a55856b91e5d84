package config

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatch(t *testing.T) {
	file := filepath.Join(t.TempDir(), DefaultFile)
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var changes atomic.Int32
		done := make(chan struct{})
		w := NewWatcher(file)
		go func() {
			defer close(done)
			w.Watch(ctx, func() { changes.Add(1) })
		}()
		expect := func(want int32) {
			t.Helper()
			synctest.Wait()
			if got := changes.Load(); got != want {
				t.Errorf("%d changes, want %d", got, want)
			}
		}
		time.Sleep(10*watchEvery + watchEvery/2) // between two looks from here on
		expect(0)
		write("b") // in parts
		time.Sleep(watchEvery)
		expect(0)
		write("bc")
		time.Sleep(watchEvery)
		expect(0)
		time.Sleep(10 * watchEvery)
		expect(1)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * watchEvery)
		expect(1)
		write("bc") // back as it was
		time.Sleep(10 * watchEvery)
		expect(1)
		write("d")
		time.Sleep(10 * watchEvery)
		expect(2)
		cancel()
		<-done
	})
}
