//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// The subjects of measurements.
const (
	floorSubject  = "floor"
	beforeSubject = "before"
	hostSubject   = "deskhost"
)

// row is a line of the table: what is measured, and at what point.
type row struct {
	// Part is the measurement's name; note sets it.
	Part string `json:"part"`
	What string `json:"what"`
	// At is a number of what Of says, as in 64 callers. 0: there is only one.
	At   int    `json:"at,omitempty"`
	Of   string `json:"of,omitempty"`
	Unit string `json:"unit"`
	Aim  string `json:"aim,omitempty"`
}

func (r row) name() string {
	if r.At == 0 {
		return r.What
	}
	return fmt.Sprintf("%s, %d %s", r.What, r.At, r.Of)
}

// sample is a figure of one subject in one round. Table and plots are made of
// samples, and the data file has them all.
type sample struct {
	row
	Subject string  `json:"subject"`
	Round   int     `json:"round"`
	Value   float64 `json:"value"`
}

// machine is the first line of the data file: where and when the samples were
// taken.
type machine struct {
	Date       string `json:"date"`
	Commit     string `json:"commit"`
	Go         string `json:"go"`
	System     string `json:"system"`
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`
	// Load is the system's load average when the run began: with more than a
	// little, absolute figures tell of the machine's other work.
	Load string `json:"load"`
}

// run is one run of the bench.
type run struct {
	rounds int
	binary string
	before string // "" without one

	part    string
	dir     string // for the files of processes; removed at the end
	plugins string // a folder with the bench plugin
	out     string
	machine machine
	data    *os.File
	samples []sample

	mu        sync.Mutex
	processes []*os.Process // all that were started
}

func newRun(binary, before, out string, rounds int) (*run, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "deskhost-bench-")
	if err != nil {
		return nil, err
	}
	r := &run{rounds: rounds, binary: binary, before: before, dir: dir, out: out, machine: thisMachine()}
	if r.plugins, err = buildPlugin(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if r.data, err = os.Create(filepath.Join(out, "samples.jsonl")); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return r, json.NewEncoder(r.data).Encode(r.machine)
}

func thisMachine() machine {
	m := machine{
		Date: time.Now().UTC().Format(time.RFC3339), Go: runtime.Version(),
		System: runtime.GOOS + "/" + runtime.GOARCH, Processors: runtime.NumCPU(),
	}
	// What is not to be had here is left out.
	commit, _ := exec.Command("git", "describe", "--always", "--dirty").Output()
	m.Commit = strings.TrimSpace(string(commit))
	load, _ := os.ReadFile("/proc/loadavg")
	m.Load, _, _ = strings.Cut(string(load), " ")
	processors, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(processors)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			m.Processor = strings.TrimSpace(value)
			break
		}
	}
	return m
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %s, %d x %s, load %s when it began", m.Date[:min(10, len(m.Date))], m.Commit, m.Processors, m.Processor, m.Load)
}

// folder makes a new folder for the files of a process.
func (r *run) folder() (string, error) { return os.MkdirTemp(r.dir, "process-") }

// startProcess starts a process that abandon ends.
func (r *run) startProcess(cmd *exec.Cmd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	r.processes = append(r.processes, cmd.Process)
	return nil
}

// abandon ends all processes and removes their files, for a bench that has to
// end now. No process is started after it.
func (r *run) abandon() {
	r.mu.Lock() // for good
	for _, p := range r.processes {
		_ = p.Kill() // most have ended
	}
	_ = os.RemoveAll(r.dir)
}

// note takes a sample. One that is lost on its way to the disk fails the run at
// its end.
func (r *run) note(at row, subject string, round int, value float64) {
	at.Part = r.part
	s := sample{at, subject, round, value}
	r.samples = append(r.samples, s)
	if r.data != nil {
		if err := json.NewEncoder(r.data).Encode(s); err != nil {
			fmt.Fprintln(os.Stderr, "bench: a sample is not kept:", err)
			r.data = nil
		}
	}
}

// close writes the table and draws the plots of what was measured.
func (r *run) close() error {
	err := errors.Join(r.writeTable(), r.plot(), os.RemoveAll(r.dir))
	if r.data == nil {
		return errors.Join(err, errors.New("not all samples are in the data file"))
	}
	fmt.Fprintf(os.Stderr, "Samples, table and plots are in %s.\n", r.out)
	return errors.Join(err, r.data.Close())
}

// rows are those that have samples, in the order in which they came.
func (r *run) rows() (rows []row) {
	seen := make(map[row]bool)
	for _, s := range r.samples {
		if !seen[s.row] {
			seen[s.row] = true
			rows = append(rows, s.row)
		}
	}
	return rows
}

// median is that of a subject's samples, and false if it has none.
func (r *run) median(at row, subject string) (float64, bool) {
	var values []float64
	for _, s := range r.samples {
		if s.row == at && s.Subject == subject {
			values = append(values, s.Value)
		}
	}
	if len(values) == 0 {
		return 0, false
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2, true
}
