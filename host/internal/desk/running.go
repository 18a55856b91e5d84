package desk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/process"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// running is a generation with a live process. Its goroutines end with its ctx,
// whose cause says why; finish waits for them.
type running struct {
	desk     string
	number   uint64
	plugin   catalog.Plugin
	describe *deskv1.DescribeResponse
	limits   Limits
	log      hclog.Logger

	proc   live
	client deskv1.DeskServiceClient
	stream deskv1.DeskService_EventsClient
	acks   *acks
	slots  chan struct{} // one for each call in flight
	// refused keeps a plugin that breaks rules from filling the log.
	refused rate.Sometimes

	// recipe is what it was made of. It and the times are for the owner of the
	// desk's life: when it became ready, and when another took its place.
	recipe              recipe
	readyAt, replacedAt time.Time

	ctx  context.Context //nolint:containedctx // it is the generation's life
	end  context.CancelCauseFunc
	work sync.WaitGroup
}

// live is what is needed of a [process.Process] once it has been started.
type live interface {
	Pid() int
	Usage() process.Usage
	Exited() <-chan struct{}
	Exit() *process.ExitError
	Stop(ctx context.Context) error
	Kill() error
}

var _ Generation = (*running)(nil)

func newRunning(opts Options, number uint64, plugin catalog.Plugin, proc *process.Process, describe *deskv1.DescribeResponse, log hclog.Logger) *running {
	conn := proc.Conn()
	if opts.Tap != nil {
		conn = opts.Tap(conn, log)
	}
	g := &running{
		desk: opts.Name, number: number, plugin: plugin, describe: describe,
		limits: opts.Limits, log: log, proc: proc,
		client:  deskv1.NewDeskServiceClient(conn),
		acks:    newAcks(opts.Limits.Window, opts.Limits.chatWindow()),
		slots:   make(chan struct{}, opts.Limits.CallsInFlight),
		refused: rate.Sometimes{First: 10, Interval: time.Second},
	}
	// It outlives the ctx of Run, which it is drained after.
	g.ctx, g.end = context.WithCancelCause(context.Background())
	return g
}

// begin starts the goroutines of a generation that is ready.
func (g *running) begin(handler Handler) {
	g.work.Go(func() { g.receive(handler) })
	g.work.Go(g.acknowledge)
	g.work.Go(g.watchHealth)
}

// receive hands events upwards until the stream breaks.
func (g *running) receive(handler Handler) {
	for {
		batch, err := g.stream.Recv()
		if err != nil {
			g.end(streamError(err))
			return
		}
		events, err := g.admit(batch.GetEvents())
		if err != nil {
			g.end(fmt.Errorf("the plugin broke the rules of the event stream: %w", err))
			return
		}
		if len(events) > 0 {
			handler.Events(g, events)
		}
	}
}

// admit takes account of a batch and returns the events that keep the rules;
// the others are refused here.
func (g *running) admit(batch []*deskv1.Event) ([]*deskv1.Event, error) {
	if len(batch) > deskv1.MaxBatchEvents {
		return nil, fmt.Errorf("a batch has %d events, at most %d are allowed", len(batch), deskv1.MaxBatchEvents)
	}
	kept := batch[:0]
	for _, e := range batch {
		if err := g.acks.arrive(e.GetSeq(), e.GetChatId()); err != nil {
			return nil, err
		}
		if r := checkEvent(e); r != nil {
			g.tellRefused(e.GetSeq(), r)
			g.acks.settle(e.GetSeq(), r)
			continue
		}
		kept = append(kept, e)
	}
	return kept, nil
}

// tellRefused tells the operator of an event that is not taken.
func (g *running) tellRefused(seq uint64, r *Refusal) {
	g.refused.Do(func() { g.log.Warn("event refused", "seq", seq, "code", r.Code, "reason", r.Reason) })
}

// acknowledge tells the plugin what is settled. While one acknowledgement is
// being sent, the next grows.
func (g *running) acknowledge() {
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.acks.due:
		}
		for ack := g.acks.next(); ack != nil; ack = g.acks.next() {
			// Send waits while the plugin does not read.
			patience := g.limits.HealthInterval * time.Duration(g.limits.HealthMisses)
			unread := time.AfterFunc(patience, func() {
				g.end(fmt.Errorf("the plugin does not read its event stream: an acknowledgement has waited for %s", patience))
			})
			err := g.stream.Send(&deskv1.EventsRequest{Kind: &deskv1.EventsRequest_Ack{Ack: ack}})
			unread.Stop()
			if err != nil {
				return // the receiver is told why
			}
		}
	}
}

// Settle records the outcome of an event.
func (g *running) Settle(seq uint64, refusal *Refusal) {
	if refusal != nil {
		g.tellRefused(seq, refusal)
	}
	if !g.acks.settle(seq, refusal) {
		g.log.Error("event settled that does not wait for it: a fault of the host", "seq", seq)
	}
}

// watchHealth ends the generation after some misses in a row, never after one.
func (g *running) watchHealth() {
	ticker := time.NewTicker(g.limits.HealthInterval)
	defer ticker.Stop()
	for misses := 0; ; {
		select {
		case <-g.ctx.Done():
			return
		case <-ticker.C:
		}
		err := g.askHealth()
		if err == nil {
			misses = 0
			continue
		}
		if g.ctx.Err() != nil {
			return
		}
		misses++
		g.log.Warn("plugin not healthy", "error", err, "in_a_row", misses)
		if misses == g.limits.HealthMisses {
			g.end(fmt.Errorf("not healthy %d times in a row, asked every %s: %w", misses, g.limits.HealthInterval, lost(err)))
			return
		}
	}
}

func (g *running) askHealth() error {
	ctx, cancel := context.WithTimeout(g.ctx, g.limits.HealthTimeout)
	defer cancel()
	health, err := g.client.Health(ctx, &deskv1.HealthRequest{})
	if err != nil {
		return err
	}
	if !health.GetHealthy() {
		return fmt.Errorf("the plugin says: %s", health.GetMessage())
	}
	return nil
}

// drain lets the plugin flush and end by itself. Events are acknowledged until
// it has.
func (g *running) drain() {
	ctx, cancel := context.WithTimeout(g.ctx, g.limits.DrainTimeout)
	defer cancel()
	if _, err := g.client.Drain(ctx, &deskv1.DrainRequest{}); err != nil {
		g.log.Warn("plugin not drained", "error", err)
	}
	// Not g.ctx, which ends with the stream, and thus before the process has.
	ctx, cancel = context.WithTimeout(context.Background(), g.limits.StopTimeout)
	defer cancel()
	// finish makes sure of the end, and reports one that fails.
	_ = g.proc.Stop(ctx)
}

// finish ends the process, waits for all that belongs to the generation, and
// returns why it ended: the cause, or what is to be found out if that is nil.
func (g *running) finish(cause error) error {
	if cause == nil {
		cause = context.Cause(g.ctx)
		if cause == nil {
			cause = g.proc.Exit()
		} else if exit := endedBy(g.proc, cause); exit != nil {
			cause = exit
		}
		cause = named(g.plugin, g.describe.GetVersion(), cause)
	}
	g.end(cause)
	if stop := g.proc.Kill(); stop != nil {
		cause = notEnded(cause, stop)
	}
	g.work.Wait()
	return cause
}

// streamError words the end of the event stream.
func streamError(err error) error {
	if errors.Is(err, io.EOF) {
		return lostError{errors.New("the plugin closed the event stream")}
	}
	return lost(fmt.Errorf("the event stream broke: %w", err))
}
