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
		now.set(ctx, ask)
	}
	select {
	case <-now.done:
		return now.online, now.err
	case <-ctx.Done():
		return sdk.OnlineUnknown, sdk.Fail(sdk.Retry, "TaskRouter did not answer in time: %w", ctx.Err())
	}
}

// set asks, for everybody who waits: that one of them goes away ends nothing.
func (a *answer) set(ctx context.Context, ask func(context.Context) (sdk.Online, error)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), availabilityTimeout)
	defer cancel()
	defer close(a.done)
	a.online, a.err = ask(ctx)
	a.at = time.Now()
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
