package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// pipeWait is how long the output of an ended process is waited for. A
// grandchild that left the group may hold the pipes for good.
const pipeWait = 500 * time.Millisecond

// program is the runner that go-plugin's client asks for a process. It starts
// it, finds the handshake among its output, and ends it, each within a limit.
type program struct {
	ctx context.Context //nolint:containedctx // bounds the start; go-plugin passes none of ours to Start
	cfg Config
	env []string // go-plugin's variables
	dir string   // its own folder, removed at the end
	cmd *exec.Cmd
	out *output

	// lifeline is the write end of the process's standard input.
	lifeline *os.File
	line     string // the handshake line

	usage atomic.Pointer[Usage]

	// group guards against signalling a process group that is gone and whose
	// number may be another's.
	group     sync.Mutex
	groupGone bool
	verdict   string // why the host killed it by itself

	exited chan struct{}
	exit   *ExitError // set before exited is closed
}

func newProgram(ctx context.Context, cfg Config, env []string, dir string) *program {
	return &program{
		ctx: ctx, cfg: cfg, env: env, dir: dir,
		out:    newOutput(cfg.Log, cfg.Limits),
		exited: make(chan struct{}),
	}
}

// Start starts the process and waits for its handshake. After an error the
// process may still live.
func (p *program) Start(context.Context) error {
	found := make(chan handshake, 1)
	started := make(chan error)
	go p.live(started, found)
	if err := <-started; err != nil {
		return err
	}
	select {
	case h := <-found:
		if errors.Is(h.err, io.EOF) {
			return p.closedEarly()
		}
		p.line = h.line
		return h.err
	case <-p.exited:
		return errEndedEarly
	case <-p.ctx.Done():
		if errors.Is(p.ctx.Err(), context.Canceled) {
			return errors.New("its start was given up")
		}
		return fmt.Errorf("no handshake within %s: it is no deskhost plugin, or hangs", p.cfg.StartTimeout)
	}
}

// errEndedEarly is told with how the process ended.
var errEndedEarly = errors.New("it ended before the handshake; is it a deskhost plugin?")

// closedEarly tells apart the two reasons for an end of standard output.
func (p *program) closedEarly() error {
	select {
	case <-p.exited:
		return errEndedEarly
	case <-time.After(2 * pipeWait):
		return errors.New("it closed its standard output before the handshake; is it a deskhost plugin?")
	}
}

// pipes are the host's ends of the process's standard streams.
type pipes struct{ lifeline, stdout, stderr *os.File }

func (p pipes) close() { closeAll([]*os.File{p.lifeline, p.stdout, p.stderr}) }

// launch starts the process.
func (p *program) launch() (ours pipes, err error) {
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
		}
		return r, w
	}
	stdin, lifeline := pipe()
	stdout, stdoutW := pipe()
	stderr, stderrW := pipe()
	ours = pipes{lifeline, stdout, stderr}
	defer closeAll([]*os.File{stdin, stdoutW, stderrW})
	if err == nil {
		err = p.start(stdin, stdoutW, stderrW)
	}
	if err != nil {
		ours.close()
	}
	return ours, err
}

// live is the goroutine that starts the process and sees it to its end. It tells
// once whether the process was started.
func (p *program) live(started chan<- error, found chan<- handshake) {
	// Linux sends the parent-death signal when the thread that forked ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ours, err := p.launch()
	if err != nil {
		p.removeDir()
		close(p.exited)
		started <- err
		return
	}
	p.lifeline = ours.lifeline
	p.cfg.Log.Debug("plugin process started", "pid", p.pid(), "path", p.cfg.Path)
	started <- nil

	var readers, watching sync.WaitGroup
	readers.Go(func() { readStdout(ours.stdout, p.out, found) })
	readers.Go(func() { readStderr(ours.stderr, p.out) })
	watching.Go(func() { p.watch(p.out.ended) })

	awaitExit(p.cmd)
	close(p.out.ended)
	watching.Wait()
	p.endGroup()

	read := make(chan struct{})
	go func() {
		defer close(read)
		readers.Wait()
	}()
	select {
	case <-read:
	case <-time.After(pipeWait):
	}
	// Closing ends the readers, if they have not come to an end.
	ours.close()
	<-read
	p.removeDir()
	p.out.tellDropped(time.Now())
	p.exit = &ExitError{
		Name: p.cfg.Name, Pid: p.pid(),
		Status:  p.cmd.ProcessState.String(),
		Verdict: p.verdict,
		Output:  p.out.last(),
	}
	close(p.exited)
}

// endGroup ends what is left of the group of a process that has ended. While
// its leader is not reaped the group's number cannot become another's.
func (p *program) endGroup() {
	p.group.Lock()
	defer p.group.Unlock()
	killGroup(p.cmd.Process)
	if p.cmd.ProcessState == nil {
		// The process has ended, and its status tells all that Wait could.
		_ = p.cmd.Wait()
	}
	p.groupGone = true
	forgetRecord(p.cfg.RunDir, p.pid())
}

// removeDir removes what the process may have left.
func (p *program) removeDir() {
	if err := os.RemoveAll(p.dir); err != nil {
		p.cfg.Log.Warn("folder of an ended process not removed", "error", err)
	}
}

// stop asks for the end, and forces it when ctx ends.
func (p *program) stop(ctx context.Context) error {
	p.signal(askToEnd)
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		p.cfg.Log.Warn("the plugin does not end when asked to; it is killed", "pid", p.pid())
		return p.kill()
	}
}

// killFor kills because of what the process does.
func (p *program) killFor(verdict string) {
	p.group.Lock()
	p.verdict = verdict
	p.group.Unlock()
	p.cfg.Log.Error("the plugin is killed", "pid", p.pid(), "cause", verdict)
	p.signal(killGroup)
}

// kill forces the end.
func (p *program) kill() error {
	p.signal(killGroup)
	select {
	case <-p.exited:
		return nil
	case <-time.After(killWait):
		return fmt.Errorf("process %d of %s %w", p.pid(), p.cfg.Name, errUnkillable)
	}
}

// signal does something to the process group, unless it is gone.
func (p *program) signal(do func(*os.Process)) {
	p.group.Lock()
	defer p.group.Unlock()
	if p.cmd != nil && p.cmd.Process != nil && !p.groupGone {
		do(p.cmd.Process)
	}
}

// abandon ends a process whose start failed, and words the error.
func (p *program) abandon(err error) error {
	if kill := p.kill(); kill != nil {
		return fmt.Errorf("%w; and then %w", err, kill)
	}
	if errors.Is(err, errEndedEarly) {
		return fmt.Errorf("%w %w", err, p.exit)
	}
	if output := p.out.last(); len(output) > 0 {
		return fmt.Errorf("%w%s", err, quote(output))
	}
	return err
}

func (p *program) pid() int {
	if p.cmd == nil || p.cmd.Process == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// The rest is what go-plugin's client asks of a runner.

// Stdout hands over the handshake line and nothing else.
func (p *program) Stdout() io.ReadCloser { return io.NopCloser(strings.NewReader(p.line + "\n")) }

// Stderr is empty: the client's parser panics on log lines of unexpected types.
func (p *program) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Wait waits for the end of the process.
func (p *program) Wait(context.Context) error {
	<-p.exited
	return nil
}

// Kill kills at once. The client calls it when the handshake did not please it.
func (p *program) Kill(context.Context) error { return p.kill() }

// Name is for the client's errors.
func (p *program) Name() string { return p.cfg.Name }

// ID is the process id.
func (p *program) ID() string { return strconv.Itoa(p.pid()) }

// Diagnose has nothing to add: abandon tells what is known.
func (p *program) Diagnose(context.Context) string { return "" }

// PluginToHost and HostToPlugin change nothing: both live on one system.
func (p *program) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin changes nothing.
func (p *program) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // a pipe's end holds nothing that could be lost
		}
	}
}
