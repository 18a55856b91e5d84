package desk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deskhost/deskhost/host/internal/catalog"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// life is a desk's state while Run runs. All of it belongs to Run's goroutine.
type life struct {
	d   *Desk
	ctx context.Context //nolint:containedctx // it is that of Run

	opts Options
	// copy is what the next start runs. Its Path is empty if there is nothing to
	// run; fileProblem then says why, or why the file in the folder is another.
	copy        catalog.Copy
	fileProblem error
	disabled    bool
	stopping    bool

	// g serves the desk since readyAt, made of good; nil if none does.
	g       *running
	readyAt time.Time
	good    recipe
	// attempt is the start under way, beside g or alone.
	attempt *attempt
	number  uint64
	// renewSince is set while another generation is to take the place of g.
	renewSince time.Time
	// unfit is set once what is configured and in the folder did not start beside
	// g. Until that changes, good is what is started.
	unfit bool
	// nextStart is when to start again while there is no g.
	nextStart time.Time
	backoff   backoff
	// waiters are told the outcome of the next start.
	waiters []chan<- error

	timer *time.Timer
}

// recipe is what a generation is made of.
type recipe struct {
	opts Options
	copy catalog.Copy
}

// attempt is a process on its way to ready.
type attempt struct {
	recipe recipe
	beside bool // g served when it began
	cancel context.CancelFunc
	done   chan outcome
}

type outcome struct {
	g   *running
	err error
}

// Why a generation ended when nothing went wrong.
var (
	errHostStops = errors.New("the host stops")
	errDisabled  = errors.New("the desk was disabled")
	errReplaced  = errors.New("another process takes its place")
)

// Planned tells whether a generation ended because it was to, and not by a fault.
func Planned(cause error) bool {
	return errors.Is(cause, errHostStops) || errors.Is(cause, errDisabled) || errors.Is(cause, errReplaced)
}

func newLife(ctx context.Context, d *Desk) *life {
	l := &life{d: d, ctx: ctx, opts: d.opts, disabled: d.opts.Disabled, timer: time.NewTimer(0)}
	l.refresh()
	return l
}

// run does one thing after the other until ctx ends.
func (l *life) run() error {
	defer l.timer.Stop()
	if l.disabled {
		l.d.disabled()
	}
	stopping := l.d.stopping
	changed := l.opts.Source.Folder.Changed()
	for {
		var ended, exited <-chan struct{}
		if l.g != nil {
			ended, exited = l.g.ctx.Done(), l.g.proc.Exited()
		}
		var done <-chan outcome
		if l.attempt != nil {
			done = l.attempt.done
		}
		select {
		case <-l.ctx.Done():
			return l.stop()
		case <-stopping:
			stopping, l.stopping = nil, true
		case <-ended:
			l.lost()
		case <-exited:
			l.lost()
		case o := <-done:
			l.started(o)
		case <-changed:
			changed = l.opts.Source.Folder.Changed()
			l.folderChanged()
		case do := <-l.d.asks:
			do(l)
		case <-l.timer.C:
		}
		l.step()
	}
}

// step does the one thing that is due, and sets the timer for what will be. It
// may be called at any time.
func (l *life) step() {
	now := time.Now()
	l.timer.Stop()
	switch {
	case l.attempt != nil: // its outcome comes
	case l.stopping:
		l.answer(ErrEnded)
	case l.disabled:
		if l.g != nil {
			l.retire(errDisabled)
			l.d.disabled()
		}
	case l.g == nil && now.Before(l.nextStart):
		l.timer.Reset(l.nextStart.Sub(now))
	case l.g == nil:
		l.begin()
	case l.renewSince.IsZero():
	case l.mayReplace(now):
		l.begin()
	default:
		l.answer(nil)
		l.timer.Reset(l.opts.Limits.ChatsInterval)
	}
}

// mayReplace tells whether another generation may take the place of g. One that
// cannot hand its chats over is left alone until they are gone, within reason.
func (l *life) mayReplace(now time.Time) bool {
	if Has(l.g, deskv1.Capability_CAPABILITY_RESUME) {
		return true
	}
	chats := 0
	if l.opts.Chats != nil {
		chats = l.opts.Chats()
	}
	until := l.renewSince.Add(l.opts.Limits.DrainLimit)
	if chats == 0 || !now.Before(until) {
		return true
	}
	l.d.note(func(s *Status) {
		s.Waiting = fmt.Sprintf("plugin %q cannot resume chats, so its process is replaced when its %d open chats have ended, at the latest at %s",
			l.opts.Source.Plugin, chats, until.UTC().Format(time.RFC3339))
	})
	return false
}

// begin starts a process.
func (l *life) begin() {
	r := recipe{l.opts, l.copy}
	if l.unfit {
		r = l.good
	}
	l.renewSince = time.Time{}
	l.number++
	l.d.starting(l.number, l.g)
	ctx, cancel := context.WithCancel(l.ctx)
	a := &attempt{recipe: r, beside: l.g != nil, cancel: cancel, done: make(chan outcome, 1)}
	l.attempt = a
	number, problem := l.number, l.fileProblem
	go func() {
		if r.copy.Path == "" {
			a.done <- outcome{nil, problem}
			return
		}
		g, err := start(ctx, r, number)
		a.done <- outcome{g, err}
	}()
}

// started takes the outcome of a start.
func (l *life) started(o outcome) {
	a := l.attempt
	l.attempt = nil
	a.cancel()
	switch {
	case l.disabled:
		if o.g != nil {
			o.err = o.g.abandon(errDisabled)
		}
		l.d.disabled()
	case o.err == nil:
		l.takeOver(o.g, a.recipe)
	case l.g != nil:
		l.unfit = true
		l.d.kept(o.err)
	default:
		l.unfit = l.unfit || a.beside
		l.wait(o.err, 0, crashed(o.err))
	}
	l.answer(o.err)
}

// crashed tells whether a start failed by a fault of the process, and not by
// something that the plugin, or we, could say plainly.
func crashed(err error) bool {
	var call *CallError
	if errors.As(err, &call) && call.Kind != deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN {
		return false
	}
	return !needsOperator(err)
}

// takeOver has a generation that is ready serve the desk.
func (l *life) takeOver(g *running, r recipe) {
	if l.g != nil {
		l.retire(errReplaced)
	}
	l.g, l.good, l.readyAt = g, r, time.Now()
	l.d.ready(g)
	l.opts.Handler.Ready(g)
	g.begin(l.opts.Handler)
}

// retire drains and ends the generation that serves the desk.
func (l *life) retire(cause error) {
	g := l.g
	l.g = nil
	l.d.draining(cause)
	g.drain() //nolint:contextcheck // ctx may have ended; drain has deadlines of its own
	l.down(g, g.finish(cause))
}

func (l *life) down(g *running, cause error) {
	l.opts.Handler.Down(g, cause)
	if errors.Is(cause, errNotEnded) {
		l.opts.Log.Error("a process of the desk cannot be ended", "generation", g.number, "error", cause)
	}
}

// lost takes leave of a generation that ended by itself.
func (l *life) lost() {
	g, ready := l.g, time.Since(l.readyAt)
	l.g = nil
	l.d.current.Store(nil)
	cause := g.finish(nil)
	l.down(g, cause)
	if l.attempt != nil {
		// Its successor is on its way already.
		l.d.crashed(cause)
		l.backoff.next(&l.opts.Limits, time.Now(), ready, true)
		return
	}
	l.wait(cause, ready, true)
}

// wait sets the time of the next start.
func (l *life) wait(cause error, ready time.Duration, crash bool) {
	now := time.Now()
	pause, quarantined := l.backoff.next(&l.opts.Limits, now, ready, crash)
	l.nextStart = now.Add(pause)
	if !l.renewSince.IsZero() {
		// Something has changed since the start that failed was begun.
		l.renewSince, l.nextStart = time.Time{}, now
	}
	state := StateBackingOff
	switch {
	case needsOperator(cause):
		state = StateFailed
	case quarantined:
		state = StateQuarantined
	}
	if crash {
		l.d.crashed(cause)
	}
	l.d.waiting(state, cause, l.nextStart)
}

// answer tells those who wait for a start how it went.
func (l *life) answer(err error) {
	for _, w := range l.waiters {
		w <- err
	}
	l.waiters = nil
}

// renew has another generation take over, or start at once if there is none.
func (l *life) renew(why string) {
	l.opts.Log.Info("desk gets a new process", "cause", why)
	now := time.Now()
	l.unfit = false
	l.nextStart = now
	if l.g != nil || l.attempt != nil {
		l.renewSince = now
	}
}

// refresh takes from the folder what is to run. A file that may not run changes
// nothing for a desk that has run another.
func (l *life) refresh() {
	src := l.opts.Source
	newest, problem := src.Folder.Take(src.Plugin)
	if newest.Path != "" {
		if err := catalog.CheckPin(newest.Plugin, src.SHA256); err != nil {
			newest, problem = catalog.Copy{}, err
		}
	}
	if newest.Path == "" && l.copy.Name == src.Plugin && catalog.CheckPin(l.copy.Plugin, src.SHA256) == nil {
		newest = l.copy
	}
	l.copy, l.fileProblem = newest, problem
	l.d.note(func(s *Status) {
		s.PluginProblem = ""
		if problem != nil {
			s.PluginProblem = problem.Error()
		}
	})
}

func (l *life) folderChanged() {
	before := l.copy.Path
	l.refresh()
	if l.copy.Path != before && l.copy.Path != "" {
		l.backoff = backoff{} // The crashes were another program's.
		if !l.disabled {
			l.renew(fmt.Sprintf("the plugin's file has changed, its sha256 is %s", l.copy.SHA256))
		}
	}
}

func (l *life) reconfigure(opts Options) {
	before := l.opts
	l.opts = opts
	l.refresh()
	l.d.note(func(s *Status) { s.Plugin = opts.Source.Plugin })
	before.Limits.DrainLimit = opts.Limits.DrainLimit // It is ours alone.
	same := before.Source == opts.Source && string(before.Config) == string(opts.Config) &&
		before.WebhookBaseURL == opts.WebhookBaseURL && before.Limits == opts.Limits
	if !same && !l.disabled {
		l.backoff = backoff{}
		l.renew("its configuration has changed")
	}
}

func (l *life) disable() {
	if l.disabled {
		return
	}
	l.disabled = true
	l.renewSince = time.Time{}
	if l.attempt != nil {
		l.attempt.cancel() // Its outcome follows.
	} else if l.g == nil {
		l.d.disabled()
	}
}

// stop ends whatever there is.
func (l *life) stop() error {
	var err error
	if l.attempt != nil {
		l.attempt.cancel()
		if o := <-l.attempt.done; o.g != nil {
			err = o.g.abandon(errHostStops)
		} else {
			err = o.err
		}
	}
	if l.g != nil {
		g := l.g
		l.d.draining(errHostStops)
		g.drain()
		err = g.finish(errHostStops)
		l.down(g, err)
	}
	l.d.stopped()
	if errors.Is(err, errNotEnded) {
		return err
	}
	return nil
}
