package adapter

import (
	"context"
	"sync"
	"time"

	"github.com/deskhost/deskhost/sdk"
)

const (
	// onlineFor is how long an answer about agents is good for.
	onlineFor = 5 * time.Second
	// availabilityTimeout bounds the question. An answer has about three seconds.
	availabilityTimeout = 2500 * time.Millisecond
)

// availability keeps the latest answer about agents. Whoever asks while the
// question is under way waits for that answer.
type availability struct {
	mu      sync.Mutex
	current *answer
}

// answer is one answer, once done is closed.
type answer struct {
	done   chan struct{}
	at     time.Time
	online sdk.Online
	err    error
}

// get returns the latest answer, from ask if there is none that is new enough.
func (a *availability) get(ctx context.Context, ask func(context.Context) (sdk.Online, error)) (sdk.Online, error) {
	a.mu.Lock()
	now := a.current
	mine := now == nil || now.stale()
	if mine {
		now = &answer{done: make(chan struct{})}
		a.current = now
	}
	a.mu.Unlock()
	if mine {
		ctx, cancel := context.WithTimeout(ctx, availabilityTimeout)
		defer cancel()
		now.online, now.err = ask(ctx)
		now.at = time.Now()
		close(now.done)
	}
	select {
	case <-now.done:
		return now.online, now.err
	case <-ctx.Done():
		return sdk.OnlineUnknown, sdk.Fail(sdk.Retry, "TaskRouter did not answer in time: %w", ctx.Err())
	}
}

// stale tells whether to ask again: an error is not kept.
func (a *answer) stale() bool {
	select {
	case <-a.done:
		return a.err != nil || time.Since(a.at) >= onlineFor
	default:
		return false
	}
}
