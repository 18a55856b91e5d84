package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program under test. It ends with the test.
type Process struct {
	t      testing.TB
	name   string
	cmd    *exec.Cmd
	lines  chan string // of standard output; closed at its end
	stdout *output
	stderr *output
	exited chan struct{}
}

// output gathers what a process writes while others read it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Start runs a program.
func Start(t testing.TB, program string, args ...string) *Process {
	t.Helper()
	p := &Process{
		t: t, name: program,
		cmd:    exec.Command(program, args...),
		lines:  make(chan string, 64),
		stdout: new(output),
		stderr: new(output),
		exited: make(chan struct{}),
	}
	p.cmd.Stderr = p.stderr
	// A pipe of our own: that of exec.Cmd would be closed under the reader.
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = write
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	go p.read(read)
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // ExitCode tells.
	}()
	t.Cleanup(func() {
		p.Kill()
		if strings.Contains(p.Stderr(), "WARNING: DATA RACE") {
			t.Errorf("%s has a data race", p.name)
		}
		if t.Failed() {
			p.tell()
		}
	})
	return p
}

// LogsVariable names the environment variable for the folder into which the
// whole standard error of each process of a failed test goes. The test itself
// shows the end only, lest that be all that is seen of it.
const LogsVariable = "DESKHOST_E2E_LOGS"

// tell shows what a process wrote before its test failed.
func (p *Process) tell() {
	text, name, pid := p.Stderr(), filepath.Base(p.name), p.cmd.Process.Pid
	if dir := os.Getenv(LogsVariable); dir != "" {
		file := filepath.Join(dir, fmt.Sprintf("%s-%s-%d.log", strings.ReplaceAll(p.t.Name(), "/", "-"), name, pid))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			p.t.Error(err)
		}
	}
	p.t.Logf("the end of the standard error of %s (process %d; set %s to a folder for all of it):\n%s", name, pid, LogsVariable, tail(text))
}

// read passes lines on as long as somebody takes them; the rest is dropped.
func (p *Process) read(from io.ReadCloser) {
	defer close(p.lines)
	defer from.Close()
	for scanner := bufio.NewScanner(io.TeeReader(from, p.stdout)); scanner.Scan(); {
		select {
		case p.lines <- scanner.Text():
		default:
		}
	}
}

// Line awaits a line of standard output that contains text.
func (p *Process) Line(text string) string {
	p.t.Helper()
	deadline := time.After(Patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				<-p.exited
				p.t.Fatalf("%s ended (exit code %d) before it said %q", p.name, p.cmd.ProcessState.ExitCode(), text)
			}
			if strings.Contains(line, text) {
				return line
			}
		case <-deadline:
			p.t.Fatalf("%s did not say %q", p.name, text)
		}
	}
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stdout is what the process wrote to standard output. It waits until the
// process has closed that.
func (p *Process) Stdout() string {
	for range p.lines {
		// Line's, if it still wanted any.
	}
	return p.stdout.String()
}

// Stderr is what the process has written to standard error so far.
func (p *Process) Stderr() string { return p.stderr.String() }

// Kill ends the process as kill -9 does, and waits for its end.
func (p *Process) Kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("kill %s: %v", p.name, err)
	}
	p.Wait()
}

// Terminate asks the process to end and returns its exit code.
func (p *Process) Terminate() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("terminate %s: %v", p.name, err)
	}
	return p.Wait()
}

// Wait awaits the end of the process and returns its exit code, -1 after a signal.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(Patience):
		p.t.Fatalf("%s (process %d) does not end", p.name, p.cmd.Process.Pid)
		return 0
	}
}

// tail is the end of a log: at most tailLines, each at most tailWidth bytes long.
func tail(text string) string {
	const tailLines, tailWidth = 60, 500
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	lines = lines[max(0, len(lines)-tailLines):]
	for i, line := range lines {
		if len(line) > tailWidth {
			lines[i] = line[:tailWidth] + "…"
		}
	}
	return strings.Join(lines, "\n")
}
