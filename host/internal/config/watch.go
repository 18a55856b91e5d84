package config

import (
	"bytes"
	"context"
	"os"
	"time"
)

// watchEvery is how often a watched file is read.
const watchEvery = time.Second

// Watch calls changed whenever the content of a file has changed and has then
// stayed the same for one more look: an editor may write it in parts. Only this
// file is watched, and none that it refers to. Watch returns when ctx ends.
func Watch(ctx context.Context, file string, changed func()) {
	taken, _ := os.ReadFile(file) // One that cannot be read may become readable.
	last := taken
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now, err := os.ReadFile(file)
		if err != nil {
			continue // It is being replaced, or gone: what holds goes on.
		}
		if bytes.Equal(now, last) && !bytes.Equal(now, taken) {
			taken = now
			changed()
		}
		last = now
	}
}
