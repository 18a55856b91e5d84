// Package usage tells what processes take of the machine, as Linux shows it in
// /proc. The bench reads it; it owns nothing.
package usage

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Family are a process and its children.
func Family(pid int) []int {
	all := []int{pid}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
	for _, file := range stats {
		fields := statFields(file)
		if len(fields) > statParent && string(fields[statParent]) == strconv.Itoa(pid) {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// The fields of /proc/PID/stat behind the name, see proc_pid_stat(5).
const (
	statParent = 1
	statUser   = 11
	statSystem = 12
)

// clockTick is the unit of times in /proc.
const clockTick = 10 * time.Millisecond

func statFields(file string) [][]byte {
	text, _ := os.ReadFile(file) // a process that has ended has no fields
	return bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
}

// CPU is the processor time that a process has used so far; 0 if that cannot be
// seen, as with one that has ended.
func CPU(pid int) (d time.Duration) {
	fields := statFields(fmt.Sprintf("/proc/%d/stat", pid))
	if len(fields) <= statSystem {
		return 0
	}
	for _, field := range []int{statUser, statSystem} {
		ticks, _ := strconv.ParseInt(string(fields[field]), 10, 64) // the kernel writes numbers
		d += time.Duration(ticks) * clockTick
	}
	return d
}

// Memory is the proportional memory of processes in bytes: a page that several
// share is counted in parts.
func Memory(pids ...int) (sum float64, err error) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, fmt.Errorf("memory is read from Linux's /proc: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				if err != nil {
					return 0, err
				}
				sum += 1024 * kib
			}
		}
	}
	return sum, nil
}

// Written is how many bytes a process has had the system write to disks so far;
// 0 if that cannot be seen.
func Written(pid int) (n int64) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)) // see above
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, _ = strconv.ParseInt(strings.TrimSpace(rest), 10, 64) // the kernel writes numbers
		}
	}
	return n
}
