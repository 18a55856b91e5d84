package e2e

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var kills = flag.Int("kills", 10, "how often TestHostKilledAtAnyMoment kills the host")

// TestHostKilledAtAnyMoment kills the host while users talk, before it is ready
// and after, and looks each time the next is ready for what the killed one left.
// One of the plugins does not heed the end of its standard input, and one has a
// child.
func TestHostKilledAtAnyMoment(t *testing.T) {
	good := StartDesk(t)
	h := faultyHost(t, good, map[string]string{"deaf": "", "child": ""}, Patience/2)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	data := filepath.Join(filepath.Dir(h.File), "data")
	moment := func(most time.Duration) { <-time.After(rand.N(most)) }

	h.Start()
	others := talkMeanwhile(t, h, good, 4)
	for i := range *kills {
		if i%2 == 0 {
			moment(700 * time.Millisecond)
			h.Kill()
			continue
		}
		unready := Start(t, Binary(), "run", "--config", h.File)
		moment(1500 * time.Millisecond)
		unready.Kill()
		h.Start()
		checkNothingLeft(t, h, data, tmp)
	}
	if *kills%2 == 1 {
		h.Start()
	}
	checkNothingLeft(t, h, data, tmp)
	close(others.stop)
	others.talking.Wait()
	t.Logf("%d kills, %d answers", *kills, len(others.took))
	h.Stop()
	if left := ofHost(t, data); len(left) > 0 {
		t.Errorf("left after a good end: processes %v", left)
	}
	if left := names(t, filepath.Join(data, "run")); len(left) > 0 {
		t.Errorf("left after a good end: %v", left)
	}
}

// checkNothingLeft holds that all there is belongs to the host that runs now.
func checkNothingLeft(t *testing.T, h *Host, data, tmp string) {
	t.Helper()
	var answer struct{ Desks []Desk }
	h.Admin("/v1/desks", &answer)
	var pids []int
	var want []string
	for _, d := range answer.Desks {
		pids = append(pids, d.PID)
		want = append(want, strconv.Itoa(d.PID)+".process")
	}
	for _, pid := range ofHost(t, data) {
		group, err := syscall.Getpgid(pid)
		if err == nil && !slices.Contains(pids, group) {
			t.Errorf("process %d is left, of group %d; the desks are %+v", pid, group, answer.Desks)
		}
	}
	var records, folders []string
	for _, name := range names(t, filepath.Join(data, "run")) {
		if strings.HasPrefix(name, "plugin-dir") {
			folders = append(folders, name)
		} else {
			records = append(records, name)
		}
	}
	slices.Sort(want)
	if !slices.Equal(records, want) || len(folders) != len(pids) {
		t.Errorf("the run folder has %v and %v, want %v and as many folders", records, folders, want)
	}
	for _, name := range names(t, filepath.Join(data, "plugins")) {
		if len(name) != 64 {
			t.Errorf("the store has %s", name)
		}
	}
	if left := names(t, tmp); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

// ofHost lists the processes that have their folder in a data folder.
func ofHost(t *testing.T, data string) (pids []int) {
	t.Helper()
	for _, name := range names(t, "/proc") {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		// One that has ended in the meantime has none.
		env, _ := os.ReadFile(filepath.Join("/proc", name, "environ"))
		if bytes.Contains(env, []byte("\x00TMPDIR="+data)) || bytes.HasPrefix(env, []byte("TMPDIR="+data)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
