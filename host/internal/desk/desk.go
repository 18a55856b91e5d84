// Package desk is one desk: a named, configured use of one plugin. It starts
// the plugin's process, takes it to ready, makes the calls, reads the events,
// and starts it again when it ends.
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
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

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
	Limits         Limits
	Log            hclog.Logger
	Handler        Handler
}

// Source is where a plugin comes from and where it may live.
type Source struct {
	// Plugin is the plugin's name.
	Plugin string
	// PluginDir is the folder of dropped plugins, StoreDir that of the copies,
	// RunDir that of [process.PrepareRunDir].
	PluginDir, StoreDir, RunDir string
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
	// CallTimeout bounds a call whose ctx allows more; CallsInFlight is how many
	// may be open, more wait.
	CallTimeout   time.Duration
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
	// The wait before another start rises from BackoffMin to BackoffMax, and
	// begins again after BackoffReset of being ready.
	BackoffMin, BackoffMax, BackoffReset time.Duration
}

// DefaultLimits returns the limits of the design.
func DefaultLimits() Limits {
	return Limits{
		Process:          process.DefaultLimits(),
		StartTimeout:     30 * time.Second,
		ConfigureTimeout: 30 * time.Second,
		CallTimeout:      time.Minute,
		CallsInFlight:    1024,
		Window:           deskv1.DefaultWindow,
		HealthInterval:   10 * time.Second,
		HealthTimeout:    5 * time.Second,
		HealthMisses:     3,
		DrainTimeout:     10 * time.Second,
		StopTimeout:      5 * time.Second,
		BackoffMin:       time.Second,
		BackoffMax:       2 * time.Minute,
		BackoffReset:     10 * time.Minute,
	}
}

// chatWindow is how many events of one chat may wait.
func (l Limits) chatWindow() uint32 { return max(1, l.Window/4) }

// Desk is one desk. One goroutine, that of Run, owns its state; all else reads
// what that goroutine publishes.
type Desk struct {
	opts Options

	status  atomic.Pointer[Status]
	current atomic.Pointer[running]
	settled chan struct{}
	settle  func()
}

// New makes a desk that does nothing until Run.
func New(opts Options) *Desk {
	d := &Desk{opts: opts, settled: make(chan struct{})}
	d.settle = sync.OnceFunc(func() { close(d.settled) })
	d.status.Store(&Status{
		Name: opts.Name, Plugin: opts.Source.Plugin,
		State: StateStarting, Since: time.Now(),
	})
	return d
}

// Status says how the desk is.
func (d *Desk) Status() Status { return *d.status.Load() }

// Current is the generation that serves the desk, or nil if none is ready.
func (d *Desk) Current() Generation {
	if g := d.current.Load(); g != nil {
		return g
	}
	return nil
}

// Settled is closed when the desk has been ready, or its first start has failed.
func (d *Desk) Settled() <-chan struct{} { return d.settled }

// Run keeps the desk's plugin running until ctx ends, then drains and stops it.
// It returns when no process is left; an error is one that cannot be ended. It
// is called once.
func (d *Desk) Run(ctx context.Context) error {
	wait := backoff{
		min: d.opts.Limits.BackoffMin, max: d.opts.Limits.BackoffMax, reset: d.opts.Limits.BackoffReset,
	}
	for number := uint64(1); ; number++ {
		d.starting(number)
		g, err := start(ctx, d.opts, number)
		var ready time.Duration
		if err == nil {
			began := time.Now()
			err = d.serve(ctx, g)
			ready = time.Since(began)
		}
		// A signal for the whole service may end the plugin first and the host's
		// ctx next: the wait keeps such an end from becoming a restart.
		if ctx.Err() == nil {
			pause := wait.next(ready)
			d.waiting(err, pause)
			select {
			case <-time.After(pause):
				continue
			case <-ctx.Done():
			}
		}
		d.stopped(err)
		if errors.Is(err, errNotEnded) {
			return err
		}
		return nil
	}
}

// serve hands a generation upwards and sees it to its end. It returns why it
// ended.
func (d *Desk) serve(ctx context.Context, g *running) error {
	d.ready(g)
	d.opts.Handler.Ready(g)
	g.begin(d.opts.Handler)
	drained := false
	select {
	case <-g.ctx.Done():
		d.current.Store(nil)
	case <-g.proc.Exited():
		d.current.Store(nil)
	case <-ctx.Done():
		d.draining()
		g.drain() //nolint:contextcheck // ctx has ended; drain has deadlines of its own
		drained = true
	}
	cause := g.finish(drained)
	d.opts.Handler.Down(g, cause)
	return cause
}
