package process

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deskhost/deskhost/host/internal/process/procstat"
)

// groupMembers are the processes of a group that have not ended.
func groupMembers(group int) []procstat.Stat {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	// What was read before an error is as good as any.
	names, _ := proc.Readdirnames(-1)
	var members []procstat.Stat
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if of, err := unix.Getpgid(pid); err != nil || of != group {
			continue
		}
		if s, err := procstat.Read(pid); err == nil {
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
		u.Memory += m.Resident
		u.CPU += m.CPU
	}
	return u, len(members) > 0
}

// demand is for how long the processes of a group have run, or waited for a
// processor to run on.
func demand(group int) (d time.Duration) {
	for _, m := range groupMembers(group) {
		d += max(m.CPU, scheduled(m.PID)) // the latter is 0 where the kernel keeps no account
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
