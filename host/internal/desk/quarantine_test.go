package desk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/process"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// ghost is a process that only its test can end. Nothing of it is real, so that
// hours of its life take no time.
type ghost struct {
	deskv1.DeskServiceClient
	deskv1.DeskService_EventsClient

	exited chan struct{}
	die    func() // closes exited
}

func (g *ghost) Pid() int                { return 1 }
func (g *ghost) Usage() process.Usage    { return process.Usage{} }
func (g *ghost) Exited() <-chan struct{} { return g.exited }
func (g *ghost) Exit() *process.ExitError {
	return &process.ExitError{Name: "ghost", Status: "signal: killed"}
}
func (g *ghost) Stop(context.Context) error { return g.Kill() }

func (g *ghost) Kill() error {
	g.die()
	return nil
}

func (*ghost) Health(context.Context, *deskv1.HealthRequest, ...grpc.CallOption) (*deskv1.HealthResponse, error) {
	return &deskv1.HealthResponse{Healthy: true}, nil
}

func (*ghost) Drain(context.Context, *deskv1.DrainRequest, ...grpc.CallOption) (*deskv1.DrainResponse, error) {
	return &deskv1.DrainResponse{}, nil
}

// Recv returns when the process has ended, as a broken connection has it.
func (g *ghost) Recv() (*deskv1.EventsResponse, error) {
	<-g.exited
	return nil, errors.New("gone")
}

// haunted is a desk with such processes, in a bubble of fake time.
type haunted struct {
	t     *testing.T
	desk  *Desk
	began time.Time

	mu sync.Mutex // guards what follows
	// starts are when processes were started, since the beginning; healthy says
	// whether the next comes to ready.
	starts  []time.Duration
	healthy bool
	ghost   *ghost // the one that is ready
	// first, if set, is what each start does first.
	first func(ctx context.Context, number uint64, config string) error
	// resumes says that the plugin can resume chats.
	resumes bool
}

func haunt(t *testing.T, prepare, fn func(h *haunted)) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, deskv1.FilePrefix+"ghost"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	store := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		folder, err := catalog.OpenFolder(dir, store, catalog.Usual, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		h := &haunted{t: t, began: time.Now()}
		h.desk = New(Options{
			Name: "support", Source: Source{Plugin: "ghost", Folder: folder},
			Limits: DefaultLimits(), Log: hclog.NewNullLogger(), Handler: deaf{},
		})
		h.desk.start = h.start
		prepare(h)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- h.desk.Run(ctx) }()
		fn(h)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func (h *haunted) start(ctx context.Context, r recipe, number uint64) (*running, error) {
	h.mu.Lock()
	first := h.first
	h.mu.Unlock()
	if first != nil {
		if err := first(ctx, number, string(r.opts.Config)); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.starts = append(h.starts, time.Since(h.began))
	if !h.healthy {
		return nil, errors.New("it crashed")
	}
	exited := make(chan struct{})
	proc := &ghost{exited: exited, die: sync.OnceFunc(func() { close(exited) })}
	h.ghost = proc
	g := &running{
		desk: "support", number: number, plugin: r.copy.Plugin, describe: &deskv1.DescribeResponse{},
		limits: r.opts.Limits, log: r.opts.Log, proc: proc, client: proc, stream: proc,
		acks: newAcks(1, 1),
	}
	if h.resumes {
		g.describe.Capabilities = []deskv1.Capability{deskv1.Capability_CAPABILITY_RESUME}
	}
	g.ctx, g.end = context.WithCancelCause(context.Background())
	return g, nil
}

// deaf is a Handler that takes no interest.
type deaf struct{}

func (deaf) Fits(Generation) error              { return nil }
func (deaf) Ready(Generation)                   {}
func (deaf) Events(Generation, []*deskv1.Event) {}
func (deaf) Down(Generation, error)             {}
func (deaf) Chats(string, uint64) int           { return 0 }

// heal has processes come to ready from now on.
func (h *haunted) heal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.healthy = true
}

// after lets time pass, and wants the desk to be in a state then, with so many
// starts so far. It returns when they were.
func (h *haunted) after(d time.Duration, state State, starts int) []time.Duration {
	h.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.desk.Status(); s.State != state || len(h.starts) != starts {
		h.t.Fatalf("%s after the beginning the desk is %s with %d starts (%v), want %s with %d",
			time.Since(h.began), s.State, len(h.starts), h.starts, state, starts)
	}
	return slices.Clone(h.starts)
}

// crash ends the process that is ready.
func (h *haunted) crash() {
	h.mu.Lock()
	h.ghost.die()
	h.mu.Unlock()
	synctest.Wait()
}

// TestQuarantineIsProbedEveryTenMinutes goes by the limits that hold by default.
func TestQuarantineIsProbedEveryTenMinutes(t *testing.T) {
	haunt(t, func(*haunted) {}, func(h *haunted) {
		// Each wait is twice the one before, and up to a quarter more.
		starts := h.after(19*time.Second, StateQuarantined, 5)
		for i, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second} {
			if got := starts[i+1] - starts[i]; got < wait || got > wait+wait/4 {
				t.Errorf("start %d came after %s, want %s to a quarter more", i+1, got, wait)
			}
		}
		for i := range 20 {
			next := h.desk.Status().NextStart
			if next == nil {
				t.Fatal("the desk does not say when it is probed")
			}
			starts = h.after(time.Until(*next), StateQuarantined, 6+i)
			if got := starts[5+i] - starts[4+i]; got < 10*time.Minute || got > 12*time.Minute+30*time.Second {
				t.Errorf("probe %d came after %s", i+1, got)
			}
		}
	})
}

// TestOnlyTenHealthyMinutesMakeUpForCrashes goes by the limits that hold by
// default.
func TestOnlyTenHealthyMinutesMakeUpForCrashes(t *testing.T) {
	haunt(t, func(*haunted) {}, func(h *haunted) {
		h.after(20*time.Second, StateQuarantined, 5)
		h.heal()
		h.after(13*time.Minute, StateReady, 6)
		// Neither does time, nor do nearly ten minutes of health,
		h.after(time.Until(h.desk.Status().Since.Add(10*time.Minute-time.Second)), StateReady, 6)
		h.crash()
		h.after(0, StateQuarantined, 6)
		// nor an operator.
		if err := h.desk.Reload(h.t.Context()); err != nil {
			t.Fatal(err)
		}
		h.after(time.Minute, StateReady, 7)
		h.crash()
		h.after(0, StateQuarantined, 7)
		h.after(13*time.Minute, StateReady, 8)
		h.after(time.Until(h.desk.Status().Since.Add(10*time.Minute)), StateReady, 8)
		h.crash()
		h.after(0, StateBackingOff, 8)
		h.after(1250*time.Millisecond, StateReady, 9)
		// From here on it takes five again.
		for i := range 3 {
			h.crash()
			h.after(0, StateBackingOff, 9+i)
			h.after(20*time.Second, StateReady, 10+i)
		}
		h.crash()
		h.after(0, StateQuarantined, 12)
	})
}

// Crashes count for the configuration that they came of, also if it is corrected
// while the desk is off.
func TestConfigurationChangedWhileDisabledHasItsOwnCount(t *testing.T) {
	haunt(t, func(*haunted) {}, func(h *haunted) {
		h.after(20*time.Second, StateQuarantined, 5)
		if err := h.desk.Disable(h.t.Context()); err != nil {
			t.Fatal(err)
		}
		h.reconfigure("corrected", deaf{})
		h.after(time.Hour, StateDisabled, 5)
		if err := h.desk.Enable(h.t.Context()); err == nil {
			t.Error("enabled")
		}
		h.after(0, StateBackingOff, 6)
	})
}
