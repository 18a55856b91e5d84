//go:build !linux

package process

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/deskhost/deskhost/host/internal/process/launcher"
)

// Lacking lists what this system does not offer, in words for an operator.
func Lacking() []string {
	return []string{
		"limits of memory and open files, and the nice value, of plugins",
		"plugins as other system users",
		"the sweep of processes that outlive a killed host",
	}
}

// start starts the process.
func (p *program) start(stdin, stdout, stderr *os.File) error {
	if p.cfg.User != "" {
		return fmt.Errorf("a plugin cannot run as another user (%q) on %s; remove the desk's user", p.cfg.User, runtime.GOOS)
	}
	p.cmd = &exec.Cmd{
		Path:  p.cfg.Path,
		Args:  []string{p.cfg.Name},
		Env:   append(environ(p.cfg, p.dir, ""), p.env...),
		Dir:   p.dir,
		Stdin: stdin, Stdout: stdout, Stderr: stderr,
		SysProcAttr: ownGroup(),
	}
	return launcher.ExecError(p.cmd.Start())
}

func forgetRecord(string, int) {}

func sweepProcesses(string) error { return nil }

func usage(int) (Usage, bool) { return Usage{}, false }

func demand(int) time.Duration { return 0 }
