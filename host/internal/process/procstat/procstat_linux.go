package procstat

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Stat is what the kernel tells of a process.
type Stat struct {
	PID int
	// Start is when it was started, in clock ticks since the boot: with the PID and
	// the boot's id it is one process's alone.
	Start uint64
	// CPU is the processor time that it and its children that have ended have used.
	CPU time.Duration
	// Resident is its memory in bytes.
	Resident int64
}

// clockTick is the unit of times in /proc, the same on all of Linux's systems
// that Go runs on.
const clockTick = 10 * time.Millisecond

// The fields of /proc/PID/stat behind the name, see proc_pid_stat(5).
const (
	statState    = 0
	statUser     = 11
	statSystem   = 12
	statReaped   = 13 // of children that have ended, in user mode
	statReapedIn = 14 // and in the system
	statStart    = 19
	statResident = 21
)

// Read reads a process's stat. One that has ended, and only waits to be reaped,
// is an error.
func Read(pid int) (Stat, error) {
	s := Stat{PID: pid}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return s, err
	}
	// The name may hold anything, brackets too.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) <= statResident {
		return s, fmt.Errorf("/proc/%d/stat has only %d fields", pid, len(fields))
	}
	if state := fields[statState][0]; state == 'Z' || state == 'X' {
		return s, fmt.Errorf("process %d has ended", pid)
	}
	number := func(field int) uint64 {
		n, parseErr := strconv.ParseUint(string(fields[field]), 10, 64)
		if parseErr != nil {
			err = parseErr
		}
		return n
	}
	s.Start = number(statStart)
	s.CPU = time.Duration(number(statUser)+number(statSystem)+number(statReaped)+number(statReapedIn)) * clockTick
	s.Resident = int64(number(statResident)) * int64(os.Getpagesize())
	return s, err
}

// BootID tells one boot of the machine from another.
func BootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(id)), err
}
