package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// pipeWait is how long the output of an ended process is waited for. A
	// grandchild that left the group may hold the pipes for good.
	pipeWait = 500 * time.Millisecond
	// busyWait bounds the wait for a program file that a child of the host, just
	// between fork and exec, still holds open for writing.
	busyWait = 2 * time.Second
)

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

	// group guards against signalling a process group that is gone and whose
	// number may be another's.
	group     sync.Mutex
	groupGone bool

	exited chan struct{}
	exit   *ExitError // set before exited is closed
}

func newProgram(ctx context.Context, cfg Config, env []string, dir string) *program {
	return &program{
		ctx: ctx, cfg: cfg, env: env, dir: dir,
		out:    newOutput(cfg.Log),
		exited: make(chan struct{}),
	}
}

// Start starts the process and waits for its handshake. After an error the
// process may still live.
func (p *program) Start(context.Context) error {
	stdout, stderr, err := p.launch()
	if err != nil {
		p.removeDir()
		close(p.exited)
		return err
	}
	p.cfg.Log.Debug("plugin process started", "pid", p.pid(), "path", p.cfg.Path)
	found := make(chan handshake, 1)
	var readers sync.WaitGroup
	readers.Go(func() { readStdout(stdout, p.out, found) })
	readers.Go(func() { readStderr(stderr, p.out) })
	go p.wait(&readers, stdout, stderr)

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

// launch starts the process and returns the read ends of its output.
func (p *program) launch() (stdout, stderr *os.File, err error) {
	var ours, theirs []*os.File
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
		}
		return r, w
	}
	stdin, lifeline := pipe()
	stdout, stdoutW := pipe()
	stderr, stderrW := pipe()
	theirs = []*os.File{stdin, stdoutW, stderrW}
	ours = []*os.File{lifeline, stdout, stderr}
	defer func() {
		closeAll(theirs)
		if err != nil {
			closeAll(ours)
		}
	}()
	if err != nil {
		return nil, nil, err
	}
	for give := time.Now().Add(busyWait); ; {
		p.cmd = &exec.Cmd{
			Path:  p.cfg.Path,
			Args:  []string{p.cfg.Name},
			Env:   append(environ(p.dir), p.env...),
			Dir:   p.dir,
			Stdin: stdin, Stdout: stdoutW, Stderr: stderrW,
			SysProcAttr: ownGroup(),
		}
		err = p.cmd.Start()
		if !errors.Is(err, syscall.ETXTBSY) || time.Now().After(give) {
			break
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-p.ctx.Done():
			return nil, nil, err
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, nil, fmt.Errorf("%w; is the file system of data_dir mounted with noexec?", err)
	}
	if err != nil {
		return nil, nil, err
	}
	p.lifeline = lifeline
	return stdout, stderr, nil
}

// wait is the goroutine that sees the process to its end.
func (p *program) wait(readers *sync.WaitGroup, stdout, stderr *os.File) {
	awaitExit(p.cmd)
	// While its leader is not reaped the group's number cannot become another's.
	p.group.Lock()
	killGroup(p.cmd.Process)
	if p.cmd.ProcessState == nil {
		// The process has ended, and its status tells all that Wait could.
		_ = p.cmd.Wait()
	}
	p.groupGone = true
	p.group.Unlock()

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
	closeAll([]*os.File{stdout, stderr, p.lifeline})
	<-read
	p.removeDir()
	p.out.flush()
	p.exit = &ExitError{
		Name: p.cfg.Name, Pid: p.pid(),
		Status: p.cmd.ProcessState.String(),
		Output: p.out.last(),
	}
	close(p.exited)
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
		return p.kill()
	}
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
