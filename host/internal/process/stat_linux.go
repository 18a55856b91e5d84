package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// stat is what the kernel tells of a process.
type stat struct {
	pid   int
	start uint64 // in clock ticks since the boot
	cpu   time.Duration
	// resident is in bytes.
	resident int64
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

// readStat reads a process's stat. One that has ended, and only waits to be
// reaped, is an error.
func readStat(pid int) (stat, error) {
	s := stat{pid: pid}
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
	s.start = number(statStart)
	s.cpu = time.Duration(number(statUser)+number(statSystem)+number(statReaped)+number(statReapedIn)) * clockTick
	s.resident = int64(number(statResident)) * int64(os.Getpagesize())
	return s, err
}

// groupMembers are the processes of a group that have not ended.
func groupMembers(group int) []stat {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	// What was read before an error is as good as any.
	names, _ := proc.Readdirnames(-1)
	var members []stat
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if of, err := unix.Getpgid(pid); err != nil || of != group {
			continue
		}
		if s, err := readStat(pid); err == nil {
			members = append(members, s)
		}
	}
	return members
}

// usage is what a process group has in use, and false if there is none.
func usage(group int) (Usage, bool) {
	members := groupMembers(group)
	var u Usage
	for _, m := range members {
		u.Memory += m.resident
		u.CPU += m.cpu
	}
	return u, len(members) > 0
}

// demand is for how long the processes of a group have run, or waited for a
// processor to run on.
func demand(group int) (d time.Duration) {
	for _, m := range groupMembers(group) {
		d += max(m.cpu, scheduled(m.pid)) // the latter is 0 where the kernel keeps no account
	}
	return d
}

// scheduled is demand of one process, by the account of its threads.
func scheduled(pid int) (d time.Duration) {
	folder := "/proc/" + strconv.Itoa(pid) + "/task/"
	threads, err := os.ReadDir(folder)
	if err != nil {
		return 0
	}
	for _, t := range threads {
		text, err := os.ReadFile(folder + t.Name() + "/schedstat")
		if err != nil {
			continue
		}
		var ran, waited int64 // in nanoseconds
		if _, err := fmt.Sscan(string(text), &ran, &waited); err == nil {
			d += time.Duration(ran + waited)
		}
	}
	return d
}
