//go:build unix

package desk

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// drop renames a file into the plugin folder, and has the folder take it.
func (f *fixture) drop(t testing.TB, content []byte) {
	t.Helper()
	built := filepath.Join(t.TempDir(), "built")
	if err := os.WriteFile(built, content, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(built, f.file()); err != nil {
		t.Fatal(err)
	}
	f.look()
}

func (f *fixture) file() string {
	return filepath.Join(f.dir, deskv1.FilePrefix+f.opts.Source.Plugin)
}

// nextBuild is the plugin with another content.
func nextBuild(t testing.TB) []byte {
	t.Helper()
	content, err := os.ReadFile(sharedCopy)
	if err != nil {
		t.Fatal(err)
	}
	return append(content, "next build"...)
}

// awaitStatus waits until the desk's status is as wanted.
func (f *fixture) awaitStatus(t testing.TB, want func(Status) bool) Status {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		s := f.desk.Status()
		if want(s) {
			return s
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("status %+v", s)
		}
	}
}

func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (f *fixture) kill(t testing.TB) {
	t.Helper()
	if err := syscall.Kill(f.desk.Status().Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestChangedFileTakesEffect(t *testing.T) {
	l := newListener()
	l.has(1, 7)
	f := newFixture(t, "resumer", l)
	f.run(t)
	old := await(t, l.ready)
	before := f.desk.Status()
	f.drop(t, nextBuild(t))
	g := await(t, l.ready)
	// The one before serves its chats until they have been handed over.
	s := f.desk.Status()
	if g.Number() != 2 || s.Generation != 2 || s.State != StateReady || s.SHA256 == before.SHA256 || s.Crashes != 0 || s.LastError != "" {
		t.Errorf("status %+v", s)
	}
	if gs := s.Generations; len(gs) != 2 || gs[0].Number != 2 || gs[0].State != StateReady || gs[0].Pid != s.Pid ||
		gs[1].Number != 1 || gs[1].State != StateHandingOver || gs[1].Chats != 7 || gs[1].Pid != before.Pid {
		t.Errorf("generations %+v", gs)
	}
	mustStartChat(t, old, "")
	mustStartChat(t, g, "")
	l.has(1, 0)
	if cause := await(t, l.down); !errors.Is(cause, errReplaced) {
		t.Errorf("cause %v", cause)
	}
	// It was drained: what it said last was taken.
	if e := await(t, l.events); e.GetMessageToUser().GetParts()[0].GetText().GetText() != "last words" {
		t.Errorf("event %v", e)
	}
	awaitGone(t, before.Pid)
	if gs := f.desk.Status().Generations; len(gs) != 1 {
		t.Errorf("generations %+v", gs)
	}
	mustStartChat(t, g, "say hello")
}

// A new process that ends while it takes the chats over has not proved itself:
// the one before serves again, and is what starts from then on.
func TestHandOverIsUndone(t *testing.T) {
	l := newListener()
	l.has(1, 3)
	f := newFixture(t, "resumer", l)
	f.run(t)
	old := await(t, l.ready)
	before := f.desk.Status()
	f.drop(t, nextBuild(t))
	next := await(t, l.ready)
	_, _ = startChat(next, "crash again")
	await(t, l.down)
	if again := await(t, l.ready); again != old || f.desk.Current() != old {
		t.Errorf("generation %d serves", again.Number())
	}
	s := f.desk.Status()
	if s.State != StateReady || s.Generation != 1 || s.Pid != before.Pid || s.SHA256 != before.SHA256 || s.Crashes != 1 || len(s.Generations) != 1 {
		t.Errorf("status %+v", s)
	}
	wantText(t, s.LastError, "panic: again")
	f.kill(t)
	await(t, l.down)
	await(t, l.ready)
	if s := f.desk.Status(); s.SHA256 != before.SHA256 {
		t.Errorf("status %+v", s)
	}
}

func TestHandOverIsNotUndoneToWhatCannotReadTheChats(t *testing.T) {
	l := newListener()
	l.has(1, 3)
	f := newFixture(t, "resumer", l)
	f.run(t)
	await(t, l.ready)
	f.drop(t, nextBuild(t))
	next := await(t, l.ready)
	sha := f.desk.Status().SHA256
	l.mu.Lock()
	l.unfits[1] = true
	l.mu.Unlock()
	_, _ = startChat(next, "crash again")
	await(t, l.down)
	if g := await(t, l.ready); g.Number() != 3 || f.desk.Status().SHA256 != sha {
		t.Errorf("generation %d, status %+v", g.Number(), f.desk.Status())
	}
}

func TestProcessBeingReplacedEnds(t *testing.T) {
	l := newListener()
	l.has(1, 3)
	f := newFixture(t, "resumer", l)
	f.run(t)
	await(t, l.ready)
	pid := f.desk.Status().Pid
	f.drop(t, nextBuild(t))
	await(t, l.ready)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, l.down)
	s := f.awaitStatus(t, func(s Status) bool { return len(s.Generations) == 1 })
	if s.State != StateReady || s.Generation != 2 || s.Crashes != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestProcessThatDoesNotFitIsRefused(t *testing.T) {
	l := newListener()
	l.unfits[2] = true
	f := newFixture(t, "resumer", l)
	f.run(t)
	g := await(t, l.ready)
	err := f.desk.Reload(bounded(t))
	if err == nil {
		t.Fatal("no error")
	}
	wantText(t, err.Error(), `plugin "resumer" 1.2.3`, "it cannot read format 7")
	if s := f.desk.Status(); s.State != StateReady || s.Generation != 1 || f.desk.Current() != g || s.Crashes != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestChangedFileThatDoesNotStartHarmsNobody(t *testing.T) {
	l := newListener()
	f := newFixture(t, "resumer", l)
	f.run(t)
	g := await(t, l.ready)
	before := f.desk.Status()
	f.drop(t, []byte("#!/bin/sh\necho no licence >&2\nexit 3\n"))
	s := f.awaitStatus(t, func(s Status) bool { return s.LastError != "" })
	wantText(t, s.LastError, "exit status 3", "no licence", f.file())
	if s.State != StateReady || s.Pid != before.Pid || s.Generation != 1 || s.SHA256 != before.SHA256 || f.desk.Current() != g {
		t.Errorf("status %+v", s)
	}
	// When the process that was kept crashes, it is what starts again.
	f.kill(t)
	await(t, l.down)
	if next := await(t, l.ready); f.desk.Status().SHA256 != before.SHA256 {
		t.Errorf("generation %d, status %+v", next.Number(), f.desk.Status())
	}
	wantText(t, f.logs.String(), "desk keeps its process")
}

func TestPluginThatCannotResumeKeepsItsChats(t *testing.T) {
	l := newListener()
	l.has(1, 2)
	f := newFixture(t, "fake", l)
	f.run(t)
	old := await(t, l.ready)
	f.drop(t, nextBuild(t))
	next := await(t, l.ready)
	if gs := f.desk.Status().Generations; len(gs) != 2 || gs[1].State != StateDraining || gs[1].Chats != 2 {
		t.Errorf("generations %+v", gs)
	}
	mustStartChat(t, old, "")
	// It cannot take the chats of the other: that one starts again.
	_, _ = startChat(next, "crash again")
	await(t, l.down)
	if g := await(t, l.ready); g.Number() != 3 {
		t.Errorf("generation %d", g.Number())
	}
	mustStartChat(t, old, "")
	l.has(1, 0)
	if cause := await(t, l.down); !errors.Is(cause, errReplaced) {
		t.Errorf("cause %v", cause)
	}
}

func TestProcessesWithChatsAreBounded(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	for n := range mostOlder + 1 {
		await(t, l.ready)
		l.has(uint64(n)+1, 1)
		// An operator who asks for more is told so, and does not wait.
		if err := f.desk.Reload(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}
	s := f.desk.Status()
	if len(s.Generations) != mostOlder+1 || s.Generation != mostOlder+1 {
		t.Errorf("status %+v", s)
	}
	wantText(t, s.Waiting, "5 processes of the desk still have chats")
	l.has(2, 0)
	if g := await(t, l.ready); g.Number() != mostOlder+2 || f.desk.Status().Waiting != "" {
		t.Errorf("generation %d, status %+v", g.Number(), f.desk.Status())
	}
}

func TestDrainLimitTakesTheLastChats(t *testing.T) {
	l := newListener()
	l.has(1, 1)
	f := newFixture(t, "fake", l)
	f.opts.Limits.DrainLimit = 20 * time.Millisecond
	f.run(t)
	await(t, l.ready)
	f.drop(t, nextBuild(t))
	await(t, l.ready)
	await(t, l.down)
	wantText(t, f.logs.String(), "its last chats are taken from it")
}

func TestRemovedFileStopsNothing(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	await(t, l.ready)
	if err := os.Remove(f.file()); err != nil {
		t.Fatal(err)
	}
	f.look()
	s := f.awaitStatus(t, func(s Status) bool { return s.PluginProblem != "" })
	wantText(t, s.PluginProblem, "the file is missing", f.file())
	if s.State != StateReady || s.Generation != 1 {
		t.Errorf("status %+v", s)
	}
	f.kill(t)
	await(t, l.down)
	await(t, l.ready)
	if s := f.desk.Status(); s.PluginProblem == "" {
		t.Errorf("status %+v", s)
	}
	// The file comes back: nothing is restarted for it.
	content, err := os.ReadFile(sharedCopy)
	if err != nil {
		t.Fatal(err)
	}
	f.drop(t, content)
	f.awaitStatus(t, func(s Status) bool { return s.PluginProblem == "" })
	if s := f.desk.Status(); s.Generation != 2 || s.State != StateReady {
		t.Errorf("status %+v", s)
	}
}

func TestPinHoldsWhateverIsDropped(t *testing.T) {
	l := newListener()
	f := newFixture(t, "resumer", l)
	f.open(t)
	taken, err := f.opts.Source.Folder.Take("resumer")
	if err != nil {
		t.Fatal(err)
	}
	f.opts.Source.SHA256 = taken.SHA256
	f.run(t)
	await(t, l.ready)
	f.drop(t, nextBuild(t))
	s := f.awaitStatus(t, func(s Status) bool { return s.PluginProblem != "" })
	wantText(t, s.PluginProblem, "the configuration allows only "+taken.SHA256)
	f.kill(t)
	await(t, l.ready)
	if s := f.desk.Status(); s.SHA256 != taken.SHA256 {
		t.Errorf("status %+v", s)
	}
}

func TestMissingPluginStartsOnceItIsThere(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.opts.Limits.BackoffMin, f.opts.Limits.BackoffMax = time.Hour, time.Hour
	if err := os.Remove(f.file()); err != nil {
		t.Fatal(err)
	}
	f.run(t)
	await(t, f.desk.Settled())
	if s := f.desk.Status(); s.State != StateFailed || s.NextStart == nil {
		t.Errorf("status %+v", s)
	}
	f.drop(t, nextBuild(t))
	await(t, l.ready)
}

func TestReload(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	await(t, l.ready)
	if err := f.desk.Reload(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if s := f.desk.Status(); s.Generation != 2 || s.State != StateReady {
		t.Errorf("status %+v", s)
	}
}

func TestReconfigure(t *testing.T) {
	l := newListener()
	f := newFixture(t, "resumer", l)
	f.run(t)
	await(t, l.ready)
	if err := f.desk.Reconfigure(bounded(t), f.opts); err != nil {
		t.Fatal(err)
	}
	changed := f.opts
	changed.Config = json.RawMessage(`{"fault":"invalid"}`)
	if err := f.desk.Reconfigure(bounded(t), changed); err != nil {
		t.Fatal(err)
	}
	s := f.awaitStatus(t, func(s Status) bool { return s.LastError != "" })
	wantText(t, s.LastError, "does not know this key")
	if s.Generation != 1 || s.State != StateReady {
		t.Errorf("status %+v", s)
	}
	changed.Config = json.RawMessage(`{"fault":""}`)
	if err := f.desk.Reconfigure(bounded(t), changed); err != nil {
		t.Fatal(err)
	}
	// The same options before changed nothing: this is the third start.
	if g := await(t, l.ready); g.Number() != 3 {
		t.Errorf("generation %d", g.Number())
	}
}

func TestDisableAndEnable(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.opts.Disabled = true
	f.run(t)
	await(t, f.desk.Settled())
	if s := f.desk.Status(); s.State != StateDisabled || s.Generation != 0 {
		t.Errorf("status %+v", s)
	}
	if err := f.desk.Reload(bounded(t)); err == nil || !strings.Contains(err.Error(), "enable it") {
		t.Errorf("reload: %v", err)
	}
	if err := f.desk.Enable(bounded(t)); err != nil {
		t.Fatal(err)
	}
	await(t, l.ready)
	pid := f.desk.Status().Pid
	if err := f.desk.Disable(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if cause := await(t, l.down); !errors.Is(cause, errDisabled) {
		t.Errorf("cause %v", cause)
	}
	awaitGone(t, pid)
	if s := f.desk.Status(); s.State != StateDisabled || s.Pid != 0 || f.desk.Current() != nil {
		t.Errorf("status %+v", s)
	}
	// What changes meanwhile starts nothing.
	f.drop(t, nextBuild(t))
	if err := f.desk.Disable(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if s := f.desk.Status(); s.State != StateDisabled {
		t.Errorf("status %+v", s)
	}
	// Nor does a start that was under way come to anything.
	if err := f.desk.Enable(bounded(t)); err != nil {
		t.Fatal(err)
	}
	await(t, l.ready)
}

func TestEnableTellsWhyItDoesNotStart(t *testing.T) {
	f := newFixture(t, "crash", newListener())
	f.opts.Disabled = true
	f.opts.Limits.BackoffMin, f.opts.Limits.BackoffMax = time.Hour, time.Hour
	f.run(t)
	err := f.desk.Enable(bounded(t))
	if err == nil {
		t.Fatal("no error")
	}
	wantText(t, err.Error(), "no licence found")
	if err := f.desk.Disable(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if s := f.desk.Status(); s.State != StateDisabled {
		t.Errorf("status %+v", s)
	}
}

func TestDisableGivesUpAStart(t *testing.T) {
	f := newFixture(t, "hang", newListener())
	f.opts.Limits.StartTimeout = time.Hour
	f.run(t)
	f.awaitStatus(t, func(s Status) bool { return s.Generation == 1 })
	if err := f.desk.Disable(bounded(t)); err != nil {
		t.Fatal(err)
	}
	f.awaitStatus(t, func(s Status) bool { return s.State == StateDisabled })
}

func TestCrashLoopEndsInQuarantine(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.opts.Limits.BackoffMin, f.opts.Limits.BackoffMax = time.Millisecond, time.Millisecond
	f.run(t)
	for range f.opts.Limits.QuarantineCrashes {
		_, _ = startChat(await(t, l.ready), "crash again")
		await(t, l.down)
	}
	s := f.awaitStatus(t, func(s Status) bool { return s.State == StateQuarantined })
	if s.Crashes != 5 || s.NextStart == nil || time.Until(*s.NextStart) < 9*time.Minute {
		t.Errorf("status %+v", s)
	}
	wantText(t, s.LastError, "panic: again")
	// An operator need not wait, but one more crash leads back.
	if err := f.desk.Reload(bounded(t)); err != nil {
		t.Fatal(err)
	}
	_, _ = startChat(await(t, l.ready), "crash again")
	f.awaitStatus(t, func(s Status) bool { return s.State == StateQuarantined })
	// Another program has another count.
	f.drop(t, nextBuild(t))
	_, _ = startChat(await(t, l.ready), "crash again")
	f.awaitStatus(t, func(s Status) bool { return s.State == StateBackingOff || s.Generation == 8 })
	wantText(t, f.logs.String(), "state=quarantined")
}

// A process that the end of the whole service hit first is not started again,
// however long the host then takes for what it has under way.
func TestNothingStartsOnceTheHostIsToEnd(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.opts.Limits.BackoffMin, f.opts.Limits.BackoffMax = time.Nanosecond, time.Nanosecond
	f.run(t)
	await(t, l.ready)
	f.desk.StartNoMore()
	f.kill(t)
	await(t, l.down)
	if err := f.desk.Reload(bounded(t)); !errors.Is(err, ErrEnded) {
		t.Errorf("reload: %v", err)
	}
	if s := f.desk.Status(); s.Generation != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestEnableOfADeskThatIsEnabledIsAnswered(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	await(t, l.ready)
	if err := f.desk.Enable(bounded(t)); err != nil {
		t.Error(err)
	}
	if s := f.desk.Status(); s.Generation != 1 {
		t.Errorf("status %+v", s)
	}
}
