//go:build unix

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// processes are a server's and those of its plugins.
func (s *server) processes() []int { return family(s.cmd.Process.Pid) }

// family are a process and its children, as far as the system shows them in /proc.
func family(pid int) []int {
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

// cpu is the processor time that a server and its plugins have used so far; 0
// where the system has no /proc.
func (s *server) cpu() (d time.Duration) {
	for _, pid := range s.processes() {
		fields := statFields(fmt.Sprintf("/proc/%d/stat", pid))
		if len(fields) <= statSystem {
			continue
		}
		for _, field := range []int{statUser, statSystem} {
			ticks, _ := strconv.ParseInt(string(fields[field]), 10, 64) // the kernel writes numbers
			d += time.Duration(ticks) * clockTick
		}
	}
	return d
}

// proportional is the memory of processes in bytes, in which a page that several
// share is counted in parts.
func proportional(pids ...int) (sum float64, err error) {
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
