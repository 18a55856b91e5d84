package desktest

import (
	"os"
	"syscall"
)

// This system has neither groups that can be ended as a whole nor signals.

var errNoGroups = untested("this system does not tell which processes belong together")

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

func killGroup(p *os.Process) { _ = p.Kill() }

// wasKilled cannot tell: a process that was ended has an exit code like any other.
func wasKilled(*os.ProcessState) bool { return true }

func (p *process) pause() error   { return errNoSignals }
func (p *process) unpause() error { return errNoSignals }

func groupLives(*os.Process) (bool, error) { return false, errNoGroups }
