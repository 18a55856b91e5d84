//go:build unix

package process

import (
	"os"
	"syscall"
)

// ownGroup gives the process a group of its own, so that it and its children
// can be ended together, and a terminal's Ctrl-C reaches the host alone.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// askToEnd asks the whole group to end.
func askToEnd(p *os.Process) { signalGroup(p, syscall.SIGTERM) }

// killGroup ends the whole group, stopped processes too.
func killGroup(p *os.Process) { signalGroup(p, syscall.SIGKILL) }

// signalGroup fails only if the group is gone, which is what its callers want.
func signalGroup(p *os.Process, sig syscall.Signal) { _ = syscall.Kill(-p.Pid, sig) }
