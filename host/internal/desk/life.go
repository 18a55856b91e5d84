package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

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

	// g serves the desk, nil if none does; good is what it, or the one before it,
	// was made of.
	g    *running
	good recipe
	// older have served before g, and keep their chats until those are handed over
	// or have ended. The oldest is first. What is in neither is being drained, by a
	// goroutine of leaving.
	older   []*running
	leaving errgroup.Group
	// gone delivers generations that ended by themselves; watches are the
	// goroutines that see to it, until over is closed.
	gone    chan *running
	watches sync.WaitGroup
	over    chan struct{}
	// attempt is the start under way, beside g or alone.
	attempt *attempt
	number  uint64
	// renewing says that another generation is to take the place of g.
	renewing bool
	// unfit is set once what is configured and in the folder did not start beside
	// g. Until that changes, good is what is started.
	unfit bool
	// nextStart is when to start again while there is no g.
	nextStart time.Time
	backoff   backoff
	// waiters are told the outcome of the next start to be begun.
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
	// unwanted says that its end, if it came, was our doing.
	unwanted bool
	waiters  []chan<- error // are told its outcome
	cancel   context.CancelFunc
	done     chan outcome
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
	l := &life{
		d: d, ctx: ctx, opts: d.opts, disabled: d.opts.Disabled, timer: time.NewTimer(0),
		gone: make(chan *running), over: make(chan struct{}),
	}
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
		var done <-chan outcome
		if l.attempt != nil {
			done = l.attempt.done
		}
		select {
		case <-l.ctx.Done():
			return l.stop()
		case <-stopping:
			stopping, l.stopping = nil, true
		case g := <-l.gone:
			l.lost(g)
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

// mostOlder bounds the generations that a desk may have beside the one that serves.
const mostOlder = 4

// step does the one thing that is due, and sets the timer for what will be. It
// may be called at any time.
func (l *life) step() {
	now := time.Now()
	var wake time.Time // zero: something else will
	l.tellCopies()     // before one of them is started
	l.release(now)
	switch {
	case l.attempt != nil: // its outcome comes
	case l.stopping:
		l.startsNone(ErrEnded)
	case l.disabled:
		if l.g != nil || len(l.older) > 0 {
			_ = l.end(errDisabled) // has been logged, and is told again by Run
			l.d.disabled()
		}
		l.startsNone(errDisabled)
	case l.g == nil && now.Before(l.nextStart):
		wake = l.nextStart
		// Only Enable of a desk that is on asks for a start and brings none forward.
		l.startsNone(l.whyDown())
	case l.g == nil:
		l.begin()
	case !l.renewing:
		l.startsNone(nil)
	case len(l.older) < mostOlder:
		l.begin()
	default:
		l.d.note(func(s *Status) {
			s.Waiting = fmt.Sprintf("%d processes of the desk still have chats; another starts when one of them has none left", len(l.older)+1)
		})
		l.startsNone(nil)
	}
	if look := now.Add(l.opts.Limits.ChatsInterval); len(l.older) > 0 && (wake.IsZero() || look.Before(wake)) {
		wake = look
	}
	l.timer.Stop()
	if !wake.IsZero() {
		l.timer.Reset(wake.Sub(now))
	}
}

// tellCopies publishes which copies are in use, or may be started.
func (l *life) tellCopies() {
	copies := []string{l.copy.SHA256, l.good.copy.SHA256} // g runs good
	if l.attempt != nil {
		copies = append(copies, l.attempt.recipe.copy.SHA256)
	}
	for _, g := range l.older {
		copies = append(copies, g.recipe.copy.SHA256)
	}
	l.d.copies.Store(&copies)
}

// startsNone tells those who wait for a start that none is to come, and why.
func (l *life) startsNone(err error) {
	answer(l.waiters, err)
	l.waiters = nil
}

// whyDown is the answer to who would wait for a desk that is down.
func (l *life) whyDown() error {
	return fmt.Errorf("the desk is not disabled but down, and is started again by itself; reload it to have that done now. The cause: %s",
		l.d.status.Load().LastError)
}

// release drains the generations that have no chats left, and those that have
// had them for too long.
func (l *life) release(now time.Time) {
	for _, g := range slices.Clone(l.older) {
		since, chats := now.Sub(g.replacedAt), l.opts.Handler.Chats(g.desk, g.number)
		switch {
		case chats == 0:
			g.log.Info("the process has no chats left", "after", since.Round(time.Millisecond))
		case since >= l.opts.Limits.DrainLimit:
			g.log.Warn("the process has had its time, its last chats are taken from it", "after", since.Round(time.Second), "chats", chats)
		default:
			continue
		}
		l.older = slices.DeleteFunc(l.older, func(have *running) bool { return have == g })
		l.d.generations(l.g, l.older) // before anybody hears of its end
		l.leave(g, errReplaced)
	}
}

// begin starts a process.
func (l *life) begin() {
	r := recipe{l.opts, l.copy}
	if l.unfit {
		r = l.good
	}
	l.renewing = false
	l.number++
	l.d.starting(l.number, l.g)
	ctx, cancel := context.WithCancel(l.ctx)
	a := &attempt{recipe: r, beside: l.g != nil, waiters: l.waiters, cancel: cancel, done: make(chan outcome, 1)}
	l.attempt, l.waiters = a, nil
	number, problem := l.number, l.fileProblem
	go func() {
		if r.copy.Path == "" {
			a.done <- outcome{nil, problem}
			return
		}
		g, err := l.d.start(ctx, r, number)
		a.done <- outcome{g, err}
	}()
}

// started takes the outcome of a start.
func (l *life) started(o outcome) {
	a := l.attempt
	l.attempt = nil
	a.cancel()
	switch {
	case a.unwanted && o.g != nil:
		o = outcome{err: o.g.abandon(errDisabled)}
	case a.unwanted:
		o.err = errDisabled
	case o.g != nil:
		if err := l.opts.Handler.Fits(o.g); err != nil {
			o = outcome{err: o.g.abandon(operatorError{err})}
		}
	}
	switch {
	case l.disabled:
		l.d.disabled()
	case a.unwanted: // enabled again meanwhile
	case o.err == nil:
		l.takeOver(o.g, a.recipe)
	case l.g != nil:
		l.unfit = !l.renewing // what has changed since may do better
		l.d.kept(o.err)
	default:
		l.unfit = (l.unfit || a.beside) && !l.renewing
		l.wait(o.err, 0, crashed(o.err))
	}
	answer(a.waiters, o.err)
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

// takeOver has a generation that is ready serve the desk. The one before keeps
// its chats until they have been handed over.
func (l *life) takeOver(g *running, r recipe) {
	if l.g != nil {
		l.g.replacedAt = time.Now()
		l.older = append(l.older, l.g)
	}
	l.g, l.good = g, r
	g.recipe, g.readyAt = r, time.Now()
	l.d.ready(g, l.older)
	l.opts.Handler.Ready(g)
	g.begin(l.opts.Handler)
	l.watches.Go(func() {
		select {
		case <-g.ctx.Done():
		case <-g.proc.Exited():
		}
		select {
		case l.gone <- g:
		case <-l.over:
		}
	})
}

// leave drains and ends a generation behind the life of the desk.
func (l *life) leave(g *running, cause error) {
	handler := l.opts.Handler
	l.leaving.Go(func() error {
		g.drain()
		return down(handler, g, g.finish(cause))
	})
}

// end drains and ends all generations, and waits until they have ended.
func (l *life) end(cause error) error {
	l.d.draining(cause)
	for _, g := range l.older {
		l.leave(g, cause)
	}
	if l.g != nil {
		l.leave(l.g, cause)
	}
	l.g, l.older = nil, nil
	return l.leaving.Wait()
}

// down tells of the end of a generation. The error is of a process that lives on.
func down(handler Handler, g *running, cause error) error {
	handler.Down(g, cause)
	if !errors.Is(cause, errNotEnded) {
		return nil
	}
	g.log.Error("a process of the desk cannot be ended", "error", cause)
	return cause
}

// lost takes leave of a generation that ended by itself.
func (l *life) lost(g *running) {
	if i := slices.Index(l.older, g); i >= 0 {
		// The generation that serves resumes its chats.
		l.older = slices.Delete(l.older, i, i+1)
		cause := g.finish(nil)
		l.d.crashed(cause)
		_ = down(l.opts.Handler, g, cause)
		g.log.Error("a process that was being replaced has ended", "cause", cause)
		l.d.generations(l.g, l.older)
		return
	}
	if g != l.g {
		return // it is being drained
	}
	l.g = nil
	l.d.current.Store(nil)
	l.d.generations(nil, l.older)
	cause, ready := g.finish(nil), time.Since(g.readyAt)
	before := l.before()
	_ = down(l.opts.Handler, g, cause)
	switch {
	case before != nil && ready < l.opts.Limits.BackoffReset:
		l.undo(before, cause)
	case l.attempt != nil:
		// Its successor is on its way already.
		l.d.publish(StateStarting, func(s *Status) { s.Generation, s.Pid = l.number, 0 })
		l.d.crashed(cause)
		l.backoff.next(&l.opts.Limits, time.Now(), ready, true)
	default:
		l.wait(cause, ready, true)
	}
}

// before is the generation that can take all chats back, nil if there is none.
func (l *life) before() *running {
	if len(l.older) == 0 {
		return nil
	}
	g := l.older[len(l.older)-1]
	if !Has(g, deskv1.Capability_CAPABILITY_RESUME) {
		return nil
	}
	if err := l.opts.Handler.Fits(g); err != nil {
		g.log.Warn("the process cannot take the chats back", "cause", err)
		return nil
	}
	return g
}

// undo has the generation before serve the desk again: the one that was taking
// its place has ended, and so has not proved itself.
func (l *life) undo(g *running, cause error) {
	l.older = slices.DeleteFunc(l.older, func(have *running) bool { return have == g })
	l.g, l.good, l.unfit = g, g.recipe, !l.renewing
	l.d.crashed(cause)
	l.d.ready(g, l.older)
	l.d.kept(cause)
	l.opts.Handler.Ready(g)
}

// wait sets the time of the next start.
func (l *life) wait(cause error, ready time.Duration, crash bool) {
	now := time.Now()
	pause, quarantined := l.backoff.next(&l.opts.Limits, now, ready, crash)
	l.nextStart = now.Add(pause)
	if l.renewing {
		// Something has changed since the start that failed was begun.
		l.renewing, l.nextStart = false, now
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
func answer(waiters []chan<- error, err error) {
	for _, w := range waiters {
		w <- err
	}
}

// renew has another generation take over, or start at once if there is none.
func (l *life) renew(why string) {
	l.opts.Log.Info("desk gets a new process", "cause", why)
	now := time.Now()
	l.unfit = false
	l.nextStart = now
	l.renewing = l.g != nil || l.attempt != nil
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
	if same {
		return
	}
	l.backoff = backoff{} // The crashes were another configuration's.
	if !l.disabled {
		l.renew("its configuration has changed")
	}
}

func (l *life) disable() {
	if l.disabled {
		return
	}
	l.disabled = true
	l.renewing = false
	if l.attempt != nil {
		l.attempt.unwanted = true
		l.attempt.cancel() // Its outcome follows.
	} else if l.g == nil {
		l.d.disabled()
	}
}

// stop ends whatever there is.
func (l *life) stop() error {
	var started error
	if l.attempt != nil {
		l.attempt.cancel()
		if o := <-l.attempt.done; o.g != nil {
			started = o.g.abandon(errHostStops)
		} else {
			started = o.err
		}
	}
	err := l.end(errHostStops)
	close(l.over)
	l.watches.Wait()
	l.d.stopped()
	if errors.Is(started, errNotEnded) {
		return started
	}
	return err
}
