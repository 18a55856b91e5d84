//go:build unix

package desktest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ownGroup gives a process a group of its own, as a host does.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// killGroup ends a process and all that it started. It fails only if they have
// ended.
func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

// wasKilled tells a process that was ended from one that ended by itself.
func wasKilled(s *os.ProcessState) bool { return s != nil && !s.Exited() }

// pause stops a process and returns once it stands still. Each of its threads
// stops by itself, a moment after the signal was sent.
func (p *process) pause() error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for give := time.Now().Add(patience); !stands(p.cmd.Process); time.Sleep(time.Millisecond) {
		if time.Now().After(give) {
			return errors.New("the process does not stop")
		}
	}
	return nil
}

// unpause has a process go on.
func (p *process) unpause() error { return p.signal(syscall.SIGCONT) }

// stands tells whether no thread of a process runs; where there is no /proc nobody
// knows, and it is taken to be so.
func stands(p *os.Process) bool {
	threads, _ := filepath.Glob("/proc/" + strconv.Itoa(p.Pid) + "/task/[0-9]*/stat") // the pattern is well-formed
	for _, file := range threads {
		stat, _ := os.ReadFile(file) // empty if it has ended meanwhile
		if fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]); len(fields) > 0 && fields[0][0] != 'T' {
			return false
		}
	}
	return true
}

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
