package config

import (
	"bytes"
	"context"
	"os"
	"time"
)

// watchEvery is how often a watched file is read.
const watchEvery = time.Second

// Watcher tells of changes of one file, and of none that it refers to.
type Watcher struct {
	file string
	// taken is the content that was told of last.
	taken []byte
}

// NewWatcher remembers what a file holds now: what it holds later is a change.
func NewWatcher(file string) *Watcher {
	taken, _ := os.ReadFile(file) // One that cannot be read may become readable.
	return &Watcher{file, taken}
}

// Watch calls changed whenever the content of the file has changed and has then
// stayed the same for one more look: an editor may write it in parts. It returns
// when ctx ends, and is called once.
func (w *Watcher) Watch(ctx context.Context, changed func()) {
	last := w.taken
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now, err := os.ReadFile(w.file)
		if err != nil {
			continue // It is being replaced, or gone: what holds goes on.
		}
		if bytes.Equal(now, last) && !bytes.Equal(now, w.taken) {
			w.taken = now
			changed()
		}
		last = now
	}
}
