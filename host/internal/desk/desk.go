// Package desk is one desk: a named, configured use of one plugin. It starts
// the plugin's process, takes it to ready, makes the calls, reads the events,
// starts it again when it ends, and replaces it when its plugin or its
// configuration changes.
//
// It owns the desk's state machine, the generations, and the account of which
// events are acknowledged. It must not know sessions, the journal or HTTP: what
// a desk says goes up through [Handler], which the session package implements.
// The host package makes desks and runs them; the operators' door reads their
// [Status].
package desk

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/process"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// Options say what a desk is.
type Options struct {
	// Name is the desk's name in the configuration.
	Name   string
	Source Source
	// Config is the plugin's configuration, a JSON object with its secrets
	// filled in. Empty is as good as {}.
	Config json.RawMessage
	// WebhookBaseURL is where vendors reach the desk, with a slash at the end;
	// empty if the host has no public address.
	WebhookBaseURL string
	// Disabled keeps the desk from starting until Enable.
	Disabled bool
	Limits   Limits
	Log      hclog.Logger
	Handler  Handler
	// Tap, if set, comes between the desk and the connection to each of its
	// processes.
	Tap func(grpc.ClientConnInterface, hclog.Logger) grpc.ClientConnInterface
}

// Source is where a plugin comes from and where it may live.
type Source struct {
	// Plugin is the plugin's name in Folder.
	Plugin string
	Folder *catalog.Folder
	// RunDir is that of [process.PrepareRunDir].
	RunDir string
	// SHA256 is the only content that may run; empty: any.
	SHA256 string
	// User is the system user to run it as; empty: the host's.
	User string
}

// Limits are the numbers of the design that concern a desk.
type Limits struct {
	// Process is what a process may use.
	Process process.Limits
	// StartTimeout bounds the start of a process up to its handshake, and
	// Describe after it; ConfigureTimeout bounds Configure.
	StartTimeout, ConfigureTimeout time.Duration
	// CallsInFlight is how many calls may be open; more wait.
	CallsInFlight int
	// Window is how many events may wait for their acknowledgement, a quarter of
	// them of one chat.
	Window uint32
	// A process is asked for its health at each HealthInterval, has
	// HealthTimeout to answer, and is ended after HealthMisses in a row.
	HealthInterval, HealthTimeout time.Duration
	HealthMisses                  int
	// DrainTimeout bounds Drain at the end of the host, StopTimeout what a
	// process may take to end after it.
	DrainTimeout, StopTimeout time.Duration
	// The wait before another start rises from BackoffMin to BackoffMax. After
	// QuarantineCrashes within QuarantineWindow there is one start each
	// QuarantineProbe. All of that begins again after BackoffReset of being ready.
	BackoffMin, BackoffMax, BackoffReset time.Duration
	QuarantineCrashes                    int
	QuarantineWindow, QuarantineProbe    time.Duration
	// DrainLimit is how long a process that another has replaced may keep the chats
	// that cannot be handed over; they are counted each ChatsInterval.
	DrainLimit, ChatsInterval time.Duration
}

// DefaultLimits returns the limits of the design.
func DefaultLimits() Limits {
	return Limits{
		Process:           process.DefaultLimits(),
		StartTimeout:      30 * time.Second,
		ConfigureTimeout:  30 * time.Second,
		CallsInFlight:     1024,
		Window:            deskv1.DefaultWindow,
		HealthInterval:    10 * time.Second,
		HealthTimeout:     5 * time.Second,
		HealthMisses:      3,
		DrainTimeout:      10 * time.Second,
		StopTimeout:       5 * time.Second,
		BackoffMin:        time.Second,
		BackoffMax:        2 * time.Minute,
		BackoffReset:      10 * time.Minute,
		QuarantineCrashes: 5,
		QuarantineWindow:  10 * time.Minute,
		QuarantineProbe:   10 * time.Minute,
		DrainLimit:        4 * time.Hour,
		ChatsInterval:     200 * time.Millisecond,
	}
}

// chatWindow is how many events of one chat may wait.
func (l Limits) chatWindow() uint32 { return max(1, l.Window/4) }

// Desk is one desk. One goroutine, that of Run, owns its state; all else reads
// what that goroutine publishes, or asks it to do something.
type Desk struct {
	opts Options
	// start takes a process to ready. Only tests of what takes hours have another
	// than the function start.
	start func(context.Context, recipe, uint64) (*running, error)

	status  atomic.Pointer[Status]
	current atomic.Pointer[running]
	copies  atomic.Pointer[[]string]
	settled chan struct{}
	settle  func()

	asks     chan func(*life)
	stopping chan struct{}
	ended    chan struct{}
}

// New makes a desk that does nothing until Run.
func New(opts Options) *Desk {
	d := &Desk{
		opts: opts, start: start, settled: make(chan struct{}),
		asks: make(chan func(*life)), stopping: make(chan struct{}), ended: make(chan struct{}),
	}
	d.copies.Store(&[]string{})
	d.settle = sync.OnceFunc(func() { close(d.settled) })
	d.status.Store(&Status{
		Name: opts.Name, Plugin: opts.Source.Plugin,
		State: StateStarting, Since: time.Now(),
	})
	return d
}

// Status says how the desk is.
func (d *Desk) Status() Status {
	s := *d.status.Load()
	s.Generations = slices.Clone(s.Generations)
	for i := range s.Generations {
		g := &s.Generations[i]
		g.Chats = d.opts.Handler.Chats(s.Name, g.Number)
		used := g.proc.Usage()
		g.MemoryBytes, g.CPUSeconds = used.Memory, used.CPU.Seconds()
	}
	return s
}

// Current is the generation that serves the desk, or nil if none is ready.
func (d *Desk) Current() Generation {
	if g := d.current.Load(); g != nil {
		return g
	}
	return nil
}

// Copies are the hashes of the copies that the desk runs, or may start without
// taking another from the folder.
func (d *Desk) Copies() []string { return *d.copies.Load() }

// Settled is closed when the desk has been ready, its first start has failed, or
// it is disabled.
func (d *Desk) Settled() <-chan struct{} { return d.settled }

// Run keeps the desk's plugin running until ctx ends, then drains and stops it.
// It returns when no process is left; an error is one that cannot be ended. It
// is called once.
func (d *Desk) Run(ctx context.Context) error {
	defer close(d.ended)
	return newLife(ctx, d).run()
}

// StartNoMore says that Run will be told to end. A process that ends before that,
// by a signal for the whole service, is not started again. It is called once.
func (d *Desk) StartNoMore() { close(d.stopping) }

// ErrEnded is the answer of a desk whose Run has ended.
var ErrEnded = errors.New("the desk has ended")

// Reload starts the newest copy of the plugin beside the process that serves the
// desk, and has it take the other's place. If it does not come to ready, the
// error says why, and the other stays. The chats go over behind it: the desk's
// Status tells how far that is. Where they cannot be resumed, the other process
// keeps them until they end.
func (d *Desk) Reload(ctx context.Context) error {
	return d.renew(ctx, func(l *life) error {
		if l.disabled {
			return errors.New("the desk is disabled; enable it instead")
		}
		l.renew("asked to reload")
		return nil
	})
}

// Reconfigure has the desk go by other options, of which the name is the same.
// What runs is replaced as by Reload, but the outcome is not waited for.
func (d *Desk) Reconfigure(ctx context.Context, opts Options) error {
	return d.ask(ctx, func(l *life) { l.reconfigure(opts) })
}

// Disable drains and ends the desk's process. There is none until Enable.
func (d *Desk) Disable(ctx context.Context) error { return d.ask(ctx, (*life).disable) }

// Enable undoes Disable, and starts the plugin. If it does not come to ready, the
// error says why; the desk tries again by itself. A desk that is on is left as it
// is: of one that is down the error says so.
func (d *Desk) Enable(ctx context.Context) error {
	started, err := d.BeginEnable(ctx)
	if err != nil {
		return err
	}
	return started(ctx)
}

// BeginEnable is the part of Enable until the desk is on; started waits for the rest.
func (d *Desk) BeginEnable(ctx context.Context) (started func(context.Context) error, err error) {
	return d.beginRenew(ctx, func(l *life) error {
		if !l.disabled {
			return nil
		}
		l.disabled = false
		l.renew("enabled")
		return nil
	})
}

// renew asks for something that leads to a start, and waits for its outcome.
func (d *Desk) renew(ctx context.Context, do func(*life) error) error {
	started, err := d.beginRenew(ctx, do)
	if err != nil {
		return err
	}
	return started(ctx)
}

// beginRenew asks for something that leads to a start; started waits for its outcome.
func (d *Desk) beginRenew(ctx context.Context, do func(*life) error) (started func(context.Context) error, err error) {
	outcome := make(chan error, 1)
	if err := d.ask(ctx, func(l *life) {
		if err := do(l); err != nil {
			outcome <- err
			return
		}
		l.waiters = append(l.waiters, outcome)
	}); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		select {
		case err := <-outcome:
			return err
		case <-d.ended:
			return ErrEnded
		case <-ctx.Done():
			return ctx.Err()
		}
	}, nil
}

// ask has the owner do something, and waits until it has.
func (d *Desk) ask(ctx context.Context, do func(*life)) error {
	done := make(chan struct{})
	select {
	case d.asks <- func(l *life) { do(l); l.step(); close(done) }:
	case <-d.ended:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
