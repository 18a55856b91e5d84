//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"
)

// faultKind is one thing that can be made to go wrong.
type faultKind struct {
	name string
	do   func(ctx context.Context, r *run, rng *rand.Rand) error
}

// faultKinds are what can be made to go wrong. Each returns once the fault is
// there, or for those of the host's process, once that is ready again. Some last
// on beside the next ones.
var faultKinds = []faultKind{
	{"plugin killed", func(ctx context.Context, r *run, rng *rand.Rand) error {
		return r.signalPlugin(ctx, rng, syscall.SIGKILL)
	}},
	{"plugin stopped, then killed", func(ctx context.Context, r *run, rng *rand.Rand) error {
		return r.signalPlugin(ctx, rng, syscall.SIGSTOP, syscall.SIGKILL)
	}},
	{"plugin stopped for a while", func(ctx context.Context, r *run, rng *rand.Rand) error {
		return r.signalPlugin(ctx, rng, syscall.SIGSTOP, syscall.SIGCONT)
	}},
	{"plugin replaced", func(_ context.Context, r *run, _ *rand.Rand) error { return r.host.replacePlugin() }},
	{"plugin reloaded", func(ctx context.Context, r *run, rng *rand.Rand) error {
		return r.host.reload(ctx, pick(rng, desks))
	}},
	{"host killed", func(_ context.Context, r *run, rng *rand.Rand) error {
		return r.host.restart(true, between(rng, 0, 500*time.Millisecond))
	}},
	{"host killed, and again while it starts", func(ctx context.Context, r *run, rng *rand.Rand) error {
		return r.host.restartTwice(ctx, between(rng, 20*time.Millisecond, 600*time.Millisecond))
	}},
	{"host stopped", func(_ context.Context, r *run, rng *rand.Rand) error {
		return r.host.restart(false, between(rng, 0, 500*time.Millisecond))
	}},
	{"all connections cut", func(_ context.Context, r *run, rng *rand.Rand) error {
		r.wires.cut(rng, 1, false)
		return nil
	}},
	{"some connections cut", func(_ context.Context, r *run, rng *rand.Rand) error {
		r.wires.cut(rng, 0.1, false)
		return nil
	}},
	{"some connections cut in a message", func(_ context.Context, r *run, rng *rand.Rand) error {
		r.wires.cut(rng, 0.3, true)
		return nil
	}},
	{"slow pages", func(ctx context.Context, r *run, rng *rand.Rand) error { return r.slowDown(ctx, rng) }},
	{"desk answers 500", func(_ context.Context, r *run, rng *rand.Rand) error {
		return r.deskFails(rng, map[string]any{"fail": "unknown", "every": 2})
	}},
	{"desk answers 503", func(_ context.Context, r *run, rng *rand.Rand) error {
		return r.deskFails(rng, map[string]any{"fail": "retry", "every": 2})
	}},
	{"desk answers 429", func(_ context.Context, r *run, rng *rand.Rand) error {
		return r.deskFails(rng, map[string]any{"fail": "busy", "retry_after_ms": 2000, "every": 2})
	}},
	{"desk answers late", func(_ context.Context, r *run, rng *rand.Rand) error {
		late := map[string]any{"delay_ms": between(rng, 100*time.Millisecond, 4*time.Second).Milliseconds(), "every": 2}
		if rng.IntN(4) == 0 { // than the host waits
			late = map[string]any{"delay_ms": 17_000, "every": 50}
		}
		return r.deskFails(rng, late)
	}},
	{"desk tells twice", func(_ context.Context, r *run, rng *rand.Rand) error {
		return r.desk.goWrong(map[string]any{"feed": map[string]any{"duplicate_every": 3}}, between(rng, time.Second, 4*time.Second))
	}},
	{"desk tells out of order", func(_ context.Context, r *run, rng *rand.Rand) error {
		return r.desk.goWrong(map[string]any{"feed": map[string]any{"swap_every": 2}}, between(rng, time.Second, 4*time.Second))
	}},
}

// fault is one fault of a plan. What is random of it comes from its seed, so that
// it is the same however long the others took.
type fault struct {
	kind  int // among faultKinds
	seed  uint64
	pause time.Duration // before the next
}

// plan makes the faults of a seed: all kinds in some order, again and again.
func (o options) plan() []fault {
	rng := rand.New(rand.NewPCG(o.seed, 0))
	var all []fault
	for len(all) < o.faults {
		for _, kind := range rng.Perm(len(faultKinds)) {
			if strings.Contains(faultKinds[kind].name, o.only) {
				all = append(all, fault{kind, rng.Uint64(), between(rng, o.every/5, 2*o.every-o.every/5)})
			}
		}
	}
	return all[:o.faults]
}

func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

// signalPlugin sends signals to the process of one of the desks, some time apart.
// A desk that is starting has a process soon; one that crashed too often is
// reloaded, as an operator would.
func (r *run) signalPlugin(ctx context.Context, rng *rand.Rand, signals ...syscall.Signal) error {
	name := pick(rng, desks)
	gap := between(rng, 200*time.Millisecond, 2*time.Second)
	for range 50 {
		status, err := r.host.status(ctx, name)
		switch {
		case err != nil:
			return err
		case status.State == "quarantined":
			if err := r.host.reload(ctx, name); err != nil {
				return err
			}
		case status.PID != 0:
			for i, signal := range signals {
				if i > 0 && !pause(ctx, gap) {
					return ctx.Err()
				}
				_ = syscall.Kill(status.PID, signal) // it may have ended
			}
			return nil
		}
		if !pause(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
	r.skipped.Add(1)
	return nil
}

// deskFails has the desk serve messages badly, and perhaps other calls too.
func (r *run) deskFails(rng *rand.Rand, fault map[string]any) error {
	calls := map[string]any{}
	for _, call := range []string{"send", "catch_up", "end", "start"}[:1+rng.IntN(4)] {
		calls[call] = fault
	}
	return r.desk.goWrong(map[string]any{"calls": calls}, between(rng, 500*time.Millisecond, 4*time.Second))
}

// slowDown has some pages stop reading for a while, one of them for longer than
// the host bears, and has that one told more than the connection holds.
func (r *run) slowDown(ctx context.Context, rng *rand.Rand) error {
	var pages []*user
	for _, u := range r.users {
		if u.kind == slow {
			pages = append(pages, u)
		}
	}
	for i, p := range rng.Perm(len(pages))[:min(5, len(pages))] {
		long := 2 * time.Second
		if i == 0 {
			long = 13 * time.Second
		}
		u := pages[p]
		u.mu.Lock()
		u.pausedTo = time.Now().Add(long)
		u.mu.Unlock()
		chat := u.chat()
		if i > 0 || chat == nil {
			continue
		}
		for i := range 30 {
			if err := r.desk.say(ctx, chat.chatID, filled(fmt.Sprintf("long%d", i), 200<<10)); err != nil {
				return err
			}
		}
	}
	return nil
}
