//go:build unix

package desktest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// ownGroup gives a process a group of its own, as a host does.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// killGroup ends a process and all that it started. It fails only if they have
// ended.
func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

// pause stops a process, unpause has it go on.
func (p *process) pause() error   { return p.signal(syscall.SIGSTOP) }
func (p *process) unpause() error { return p.signal(syscall.SIGCONT) }

// groupLives tells whether anything of a process's group does. What has ended,
// and is only not reaped, does not live; that can be told where there is /proc.
func groupLives(p *os.Process) (bool, error) {
	if errors.Is(syscall.Kill(-p.Pid, 0), syscall.ESRCH) {
		return false, nil
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	if len(stats) == 0 {
		return true, nil
	}
	for _, file := range stats {
		stat, _ := os.ReadFile(file) // empty if it has ended meanwhile
		// pid (name) state parent group …; the name may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 2 && string(fields[2]) == strconv.Itoa(p.Pid) && fields[0][0] != 'Z' && fields[0][0] != 'X' {
			return true, nil
		}
	}
	return false, nil
}
