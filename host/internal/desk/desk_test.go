//go:build unix

package desk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/process"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// patience bounds every wait of a test; it is only ever used up by a failure.
const patience = time.Minute

// listener is the Handler of the tests. It settles each event unless hold is
// set.
type listener struct {
	hold    bool
	quiet   bool // count only
	ready   chan Generation
	down    chan error
	events  chan *deskv1.Event
	entered chan struct{} // one for each batch that came
	pause   chan struct{} // if not nil, Events waits for its close

	mu     sync.Mutex
	chats  map[uint64]int // of each generation
	unfits map[uint64]bool
}

// has sets how many chats a generation has.
func (l *listener) has(generation uint64, chats int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.chats[generation] = chats
}

func (l *listener) Chats(_ string, generation uint64) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.chats[generation]
}

func (l *listener) Fits(g Generation) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unfits[g.Number()] {
		return errors.New("it cannot read format 7")
	}
	return nil
}

func newListener() *listener {
	return &listener{
		ready: make(chan Generation, 100), down: make(chan error, 100),
		events: make(chan *deskv1.Event, 10000), entered: make(chan struct{}, 10000),
		chats: map[uint64]int{}, unfits: map[uint64]bool{},
	}
}

func (l *listener) Ready(g Generation) { l.ready <- g }

func (l *listener) Down(_ Generation, cause error) { l.down <- cause }

func (l *listener) Events(g Generation, events []*deskv1.Event) {
	if !l.quiet {
		l.entered <- struct{}{}
	}
	if l.pause != nil {
		<-l.pause
	}
	for _, e := range events {
		if !l.quiet {
			l.events <- e
		}
		if !l.hold {
			g.Settle(e.GetSeq(), nil)
		}
	}
}

// logs collects what is logged.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// fixture is a desk in the making.
type fixture struct {
	opts Options
	dir  string // the plugin folder
	logs *logs
	desk *Desk
	stop func() error // ends Run and waits for it
}

// newFixture puts this test program into a plugin folder.
func newFixture(t testing.TB, plugin string, handler Handler) *fixture {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "plugins"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(sharedCopy, filepath.Join(dir, "plugins", deskv1.FilePrefix+plugin)); err != nil {
		t.Fatal(err)
	}
	runDir, err := process.PrepareRunDir(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // outside of dir if that is too long
		if left, err := os.ReadDir(runDir); err != nil || len(left) > 0 {
			t.Errorf("left in the run folder: %v, %v", left, err)
		}
		os.RemoveAll(runDir)
	})
	limits := DefaultLimits()
	limits.ChatsInterval = 5 * time.Millisecond
	limits.BackoffMin, limits.BackoffMax = 10*time.Millisecond, 50*time.Millisecond
	limits.DrainTimeout, limits.StopTimeout = patience, patience
	limits.Process.Memory = 8 << 30 // the race detector has its own, and a test sends 100 MB
	f := &fixture{dir: filepath.Join(dir, "plugins"), logs: &logs{}}
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: f.logs})
	f.opts = Options{
		Name:   "support",
		Source: Source{Plugin: plugin, RunDir: runDir},
		Limits: limits, Handler: handler, Log: log,
	}
	return f
}

// run starts the desk, and ends it with the test.
func (f *fixture) run(t testing.TB) {
	t.Helper()
	f.open(t)
	before := ours()
	f.desk = New(f.opts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.desk.Run(ctx) }()
	f.stop = sync.OnceValue(func() error {
		cancel()
		return await(t, done)
	})
	t.Cleanup(func() {
		if err := f.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		awaitGoroutines(t, before)
		if t.Failed() {
			t.Logf("log:\n%.8000s", f.logs)
		}
	})
}

// open looks at the plugin folder for the first time.
func (f *fixture) open(t testing.TB) {
	t.Helper()
	folder, err := catalog.OpenFolder(f.dir, filepath.Join(filepath.Dir(sharedCopy), "store"), catalog.Usual, f.opts.Log)
	if err != nil {
		t.Fatal(err)
	}
	f.opts.Source.Folder = folder
}

// look has the folder take what has changed in it.
func (f *fixture) look() { f.opts.Source.Folder.Look(time.Now().Add(time.Hour)) }

// ours counts the goroutines that desks, processes and their connections have.
func ours() int {
	buf := make([]byte, 1<<20)
	n := 0
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		for _, of := range []string{"internal/desk.(*", "internal/process.", "google.golang.org/grpc", "hashicorp/go-plugin"} {
			if strings.Contains(stack, of) {
				n++
				break
			}
		}
	}
	return n
}

// awaitGoroutines waits until no more of them run than before.
func awaitGoroutines(t testing.TB, before int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for ours() > before {
		select {
		case <-tick.C:
		case <-deadline:
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, ours(), buf[:runtime.Stack(buf, true)])
		}
	}
}

func await[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		panic("waited for " + patience.String() + " in vain") // with all stacks
	}
}

// awaitGone waits until there is no process with this id.
func awaitGone(t testing.TB, pid int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for syscall.Kill(pid, 0) == nil && !isZombie(pid) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("process %d lives on", pid)
		}
	}
}

// isZombie tells of a process that nobody above it has reaped yet.
func isZombie(pid int) bool { return isIn(pid, 'Z') }

// isIn tells whether a process is in a state of proc(5).
func isIn(pid int, state byte) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && strings.Contains(string(stat), ") "+string(state)+" ")
}

// awaitProcess waits until a process is in a state, where that can be seen.
func awaitProcess(t testing.TB, pid int, state byte) {
	t.Helper()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !isIn(pid, state) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("process %d is not in state %c", pid, state)
		}
	}
}

func startChat(g Generation, text string) (*deskv1.StartChatResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return g.StartChat(ctx, &deskv1.StartChatRequest{ChatId: "c1", Attempt: 1, Text: text})
}

func mustStartChat(t testing.TB, g Generation, text string) string {
	t.Helper()
	resp, err := startChat(g, text)
	if err != nil {
		t.Fatalf("StartChat %s: %v", text, err)
	}
	return string(resp.GetState().GetData())
}

func wantKind(t *testing.T, err error, want deskv1.FailureKind) *CallError {
	t.Helper()
	var call *CallError
	if !errors.As(err, &call) || call.Kind != want {
		t.Fatalf("error %v, want kind %v", err, want)
	}
	return call
}

func wantText(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%q\nlacks %q", got, w)
		}
	}
}

func TestReadyServesAndStops(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	g := await(t, l.ready)
	await(t, f.desk.Settled())

	s := f.desk.Status()
	if s.State != StateReady || s.Version != "1.2.3" || s.Title != "Fake Desk" || s.Pid == 0 || s.Generation != 1 ||
		s.SendDedupe != "key" || s.Replay != "cursor" || !slices.Equal(s.Capabilities, []string{"user_typing"}) || len(s.SHA256) != 64 {
		t.Errorf("status %+v", s)
	}
	if f.desk.Current() != g || g.Number() != 1 || g.Desk() != "support" || !Has(g, deskv1.Capability_CAPABILITY_USER_TYPING) {
		t.Errorf("the current generation is %v", f.desk.Current())
	}
	mustStartChat(t, g, "say hello")
	if e := await(t, l.events); e.GetMessageToUser().GetParts()[0].GetText().GetText() != "hello" {
		t.Errorf("event %v", e)
	}
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	// What the plugin said in Drain was taken and acknowledged.
	if e := await(t, l.events); e.GetMessageToUser().GetParts()[0].GetText().GetText() != "last words" {
		t.Errorf("event %v", e)
	}
	if cause := await(t, l.down); !errors.Is(cause, errHostStops) {
		t.Errorf("cause %v", cause)
	}
	if s := f.desk.Status(); s.State != StateStopped || s.LastError != "" || s.Pid != 0 || f.desk.Current() != nil {
		t.Errorf("status %+v", s)
	}
	awaitGone(t, s.Pid)
}

func TestCrashIsToldAndRestarted(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	g := await(t, l.ready)
	_, err := startChat(g, "crash it hurts")
	wantKind(t, err, deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN)
	wantText(t, await(t, l.down).Error(), `plugin "fake" 1.2.3`, f.dir, "exit status 2", "panic: it hurts")

	// A call on the generation that is gone was never sent.
	_, err = startChat(g, "say hello")
	wantKind(t, err, deskv1.FailureKind_FAILURE_KIND_RETRY)
	g.Settle(1, nil) // harmless

	next := await(t, l.ready)
	if next.Number() != 2 || f.desk.Status().Restarts != 1 {
		t.Errorf("generation %d, status %+v", next.Number(), f.desk.Status())
	}
	mustStartChat(t, next, "say again")
	await(t, l.events)
}

func TestKilledPluginIsToldAtOnce(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	await(t, l.ready)
	if err := syscall.Kill(f.desk.Status().Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantText(t, await(t, l.down).Error(), "signal: killed")
	await(t, l.ready)
}

func TestPluginThatExitsInPeaceIsRestarted(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	_, err := startChat(await(t, l.ready), "close")
	wantKind(t, err, deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN)
	wantText(t, await(t, l.down).Error(), "exit status 0")
	await(t, l.ready)
}

func TestEndOfWholeServiceRestartsNothing(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.opts.Limits.BackoffMin, f.opts.Limits.BackoffMax = time.Hour, time.Hour
	f.run(t)
	await(t, l.ready)
	// systemd signals plugin and host together; here the plugin is hit first.
	if err := syscall.Kill(f.desk.Status().Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(t, l.down)
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	if s := f.desk.Status(); s.Generation != 1 || s.State != StateStopped {
		t.Errorf("status %+v", s)
	}
}

func TestHandshakeBehindNoise(t *testing.T) {
	l := newListener()
	f := newFixture(t, "noise", l)
	f.run(t)
	await(t, l.ready)
}

func TestFailedStarts(t *testing.T) {
	tests := []struct {
		plugin, config string
		state          State
		want           []string
	}{
		{"hang", ``, StateBackingOff, []string{"no handshake within 2s"}},
		{"crash", ``, StateBackingOff, []string{"before the handshake", "exit status 3", "no licence found"}},
		{"chatter", ``, StateBackingOff, []string{"more than 1000 lines on standard output before the handshake"}},
		{"newer", ``, StateBackingOff, []string{"version 2 of the desk protocol", "version 1", "install"}},
		{"liar", ``, StateFailed, []string{`says that its name is "honest"`, "deskhost-plugin-honest"}},
		{"fake", `{"fault":"invalid"}`, StateFailed, []string{`configuration of desk "support"`, "1.2.3", "does not know this key"}},
		{"fake", `{"fault":"retry"}`, StateBackingOff, []string{"the vendor is down"}},
		{"fake", `{"fault":"crash"}`, StateBackingOff, []string{"exit status 2", "panic: nil map"}},
		{"fake", `{"fault":"hang"}`, StateBackingOff, []string{"Configure", "DeadlineExceeded"}},
		{"fake", `{"api_key":"hunter2","keys":1}`, StateFailed, []string{
			"/api_key: has to be at least 8 characters long (the key from the vendor's console)", "/keys: there is no such setting"}},
	}
	for i, test := range tests {
		t.Run(fmt.Sprint(i, " ", test.plugin), func(t *testing.T) {
			l := newListener()
			f := newFixture(t, test.plugin, l)
			f.opts.Config = json.RawMessage(test.config)
			f.opts.Limits.StartTimeout = 20 * time.Second
			if test.plugin == "hang" {
				f.opts.Limits.StartTimeout = 2 * time.Second
			}
			if strings.Contains(test.config, "hang") {
				f.opts.Limits.ConfigureTimeout = 100 * time.Millisecond
			}
			f.opts.Limits.BackoffMin, f.opts.Limits.BackoffMax = time.Hour, time.Hour
			f.run(t)
			await(t, f.desk.Settled())
			s := f.desk.Status()
			if s.State != test.state {
				t.Errorf("state %s, want %s", s.State, test.state)
			}
			wantText(t, s.LastError, append(test.want, `plugin "`+test.plugin+`"`, f.dir)...)
			if strings.Contains(s.LastError+f.logs.String(), "hunter2") {
				t.Errorf("a secret is told: %s", s.LastError)
			}
			if len(l.ready) > 0 || f.desk.Current() != nil {
				t.Error("a generation is ready")
			}
		})
	}
}

func TestFilesThatCannotRun(t *testing.T) {
	const script = "#!/bin/sh\nexit 0\n"
	tests := []struct {
		name  string
		drop  func(file string) error
		pin   string
		state State
		want  string
	}{
		{"missing", func(string) error { return nil }, "", StateFailed, "there is no such file"},
		{"not executable", func(file string) error { return os.WriteFile(file, []byte(script), 0o644) }, "", StateFailed, "run chmod 755"},
		{"pinned to another", func(file string) error { return os.WriteFile(file, []byte(script), 0o755) }, strings.Repeat("ab", 32), StateFailed, "abab"},
		{"not a plugin", func(file string) error { return os.WriteFile(file, []byte(script), 0o755) }, "", StateBackingOff, "is it a deskhost plugin?"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, "fake", newListener())
			f.opts.Limits.BackoffMin, f.opts.Limits.BackoffMax = time.Hour, time.Hour
			f.opts.Source.SHA256 = test.pin
			file := filepath.Join(f.dir, deskv1.FilePrefix+"fake")
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if err := test.drop(file); err != nil {
				t.Fatal(err)
			}
			f.run(t)
			await(t, f.desk.Settled())
			s := f.desk.Status()
			if s.State != test.state {
				t.Errorf("state %s, want %s", s.State, test.state)
			}
			wantText(t, s.LastError, test.want, "deskhost-plugin-fake")
		})
	}
}

func TestCallFailures(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	g := await(t, l.ready)

	_, err := startChat(g, "refuse")
	call := wantKind(t, err, deskv1.FailureKind_FAILURE_KIND_REFUSED)
	if call.RetryAfter != time.Minute || call.UserMessage != "Please try later." {
		t.Errorf("error %+v", call)
	}
	wantText(t, err.Error(), "queue full", "fake", "1.2.3", "StartChat")

	_, err = startChat(g, "plain")
	wantKind(t, err, deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN)

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	wantKind(t, g.UpdateState(ctx, &deskv1.UpdateStateRequest{}), deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED)
	if err := g.UserTyping(ctx, &deskv1.UserTypingRequest{}); err != nil {
		t.Error(err)
	}
	over := &deskv1.UpdateStateRequest{ChatId: strings.Repeat("x", deskv1.MaxMessageBytes)}
	wantKind(t, g.UpdateState(ctx, over), deskv1.FailureKind_FAILURE_KIND_INVALID)

	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = g.StartChat(short, &deskv1.StartChatRequest{Text: "hang"})
	wantKind(t, err, deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN)
	// One whose time had passed before was not sent. (The plugin's side may have
	// ended the first a moment early.)
	<-short.Done()
	_, err = g.StartChat(short, &deskv1.StartChatRequest{Text: "hang"})
	wantKind(t, err, deskv1.FailureKind_FAILURE_KIND_RETRY)
}

func TestCallsInFlightAreBounded(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.opts.Limits.CallsInFlight = 1
	f.run(t)
	g := await(t, l.ready)
	hung := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, err := g.StartChat(ctx, &deskv1.StartChatRequest{ChatId: "c1", Text: "hang"})
		hung <- err
	}()
	taken := g.(*running).slots
	for len(taken) == 0 {
		runtime.Gosched()
	}
	short, done := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer done()
	_, err := g.StartChat(short, &deskv1.StartChatRequest{ChatId: "c2"})
	wantKind(t, err, deskv1.FailureKind_FAILURE_KIND_RETRY)
	cancel()
	await(t, hung)
	mustStartChat(t, g, "say there is room again")
}

func TestEventsSettledInAnyOrder(t *testing.T) {
	l := newListener()
	l.hold = true
	f := newFixture(t, "fake", l)
	f.opts.Limits.DrainTimeout = 100 * time.Millisecond // nobody settles its event
	f.run(t)
	g := await(t, l.ready)
	done := make(chan error, 1)
	const n = 300
	go func() {
		_, err := startChat(g, "burst "+strconv.Itoa(n))
		done <- err
	}()
	var seqs []uint64
	for i := range n {
		e := await(t, l.events)
		if e.GetSeq() != uint64(i+1) {
			t.Fatalf("event %d came as number %d", e.GetSeq(), i+1)
		}
		seqs = append(seqs, e.GetSeq())
	}
	slices.Reverse(seqs)
	var settling sync.WaitGroup
	for i := range 4 {
		settling.Go(func() {
			for j := i; j < n; j += 4 {
				g.Settle(seqs[j], nil)
			}
		})
	}
	settling.Wait()
	if err := await(t, done); err != nil {
		t.Fatal(err)
	}
}

func TestEventsThatBreakRulesAreRefusedAlone(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	got := mustStartChat(t, await(t, l.ready), "break")
	if want := "1 REFUSAL_CODE_TOO_LARGE, 2 REFUSAL_CODE_INVALID, 3 REFUSAL_CODE_INVALID"; got != want {
		t.Errorf("refusals %q, want %q", got, want)
	}
	if e := await(t, l.events); e.GetSeq() != 4 {
		t.Errorf("event %v", e)
	}
}

func TestStreamsThatBreakRulesEndTheGeneration(t *testing.T) {
	tests := []struct{ command, want string }{
		{"flood 2000", `more than 1024 events of chat "c1" wait`},
		{"backwards", "event 1 came after event 1"},
		{"huge 3000000", "received message larger than max"},
		{"huge 100000000", "received message larger than max"},
	}
	for _, test := range tests {
		t.Run(test.command, func(t *testing.T) {
			l := newListener()
			l.hold = true
			f := newFixture(t, "fake", l)
			f.opts.Limits.DrainTimeout = 100 * time.Millisecond // nobody settles its event
			f.run(t)
			g := await(t, l.ready)
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = startChat(g, test.command) // it may or may not return before the end
			}()
			wantText(t, await(t, l.down).Error(), test.want, `plugin "fake" 1.2.3`)
			await(t, l.ready)
			<-done
		})
	}
}

func TestDownWaitsForEvents(t *testing.T) {
	l := newListener()
	l.pause = make(chan struct{})
	f := newFixture(t, "fake", l)
	f.run(t)
	g := await(t, l.ready)
	mustStartChat(t, g, "say hello")
	await(t, l.entered)
	pid := f.desk.Status().Pid
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, pid)
	select {
	case <-l.down:
		t.Error("Down came while Events was running")
	default:
	}
	close(l.pause)
	await(t, l.down)
}

func TestFrozenPluginIsFoundAndKilled(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.opts.Limits.HealthInterval, f.opts.Limits.HealthTimeout = 20*time.Millisecond, 500*time.Millisecond
	f.run(t)
	g := await(t, l.ready)
	pid := f.desk.Status().Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awaitProcess(t, pid, 'T') // its threads stop a moment later
	short, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := g.StartChat(short, &deskv1.StartChatRequest{ChatId: "c1", Text: "say hello"})
	wantKind(t, err, deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN)
	wantText(t, await(t, l.down).Error(), "not healthy 3 times in a row")
	awaitGone(t, pid)
	await(t, l.ready)
}

func TestFrozenPluginDoesNotHoldUpTheEnd(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.opts.Limits.DrainTimeout, f.opts.Limits.StopTimeout = 100*time.Millisecond, 100*time.Millisecond
	f.run(t)
	await(t, l.ready)
	pid := f.desk.Status().Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, pid)
}

func TestUnhealthyPluginIsRestarted(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.opts.Config = json.RawMessage(`{"fault":"unhealthy"}`)
	f.opts.Limits.HealthInterval = 10 * time.Millisecond
	f.run(t)
	await(t, l.ready)
	wantText(t, await(t, l.down).Error(), "not healthy 3 times in a row", "out of connections")
}

func TestGrandchildren(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	g := await(t, l.ready)
	child, _ := strconv.Atoi(mustStartChat(t, g, "child"))
	grandchild, _ := strconv.Atoi(mustStartChat(t, g, "grandchild"))
	defer syscall.Kill(grandchild, syscall.SIGKILL)
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, child)
	// The one that left the group lives and holds the pipes, and nobody waited.
	if err := syscall.Kill(grandchild, 0); err != nil {
		t.Errorf("grandchild: %v", err)
	}
}

func TestLongLinesBlockNobody(t *testing.T) {
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	g := await(t, l.ready)
	mustStartChat(t, g, "print 10000000")
	mustStartChat(t, g, "say still here")
	await(t, l.events)
	if n := len(f.logs.String()); n > 1<<20 {
		t.Errorf("%d bytes were logged", n)
	}
}

func TestEnvironmentIsExplicit(t *testing.T) {
	t.Setenv("DESKHOST_TEST_SECRET", "hunter2")
	l := newListener()
	f := newFixture(t, "fake", l)
	f.run(t)
	env := mustStartChat(t, await(t, l.ready), "environ")
	if strings.Contains(env, "hunter2") {
		t.Error("a variable of the host came through")
	}
	wantText(t, "\n"+env, "\nPATH="+os.Getenv("PATH"), "\nTMPDIR="+f.opts.Source.RunDir)
}

func TestInspect(t *testing.T) {
	f := newFixture(t, "fake", newListener())
	f.open(t)
	before := ours()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	program, err := f.opts.Source.Folder.Take("fake")
	if err != nil {
		t.Fatal(err)
	}
	describe, err := Inspect(ctx, f.opts.Source, program, f.opts.Limits, f.opts.Log)
	if err != nil || describe.GetTitle() != "Fake Desk" {
		t.Errorf("%v, %v", describe, err)
	}
	awaitGoroutines(t, before)
}
