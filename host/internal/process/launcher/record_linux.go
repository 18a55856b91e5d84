package launcher

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"

	"github.com/deskhost/deskhost/host/internal/process/procstat"
)

// Record is what a file in the run folder says of one process, so that a later
// host can tell it from another that was given its number since.
type Record struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // in clock ticks since the boot
	Boot  string `json:"boot"`  // the boot's id
	Dir   string `json:"dir"`   // the process's folder, its TMPDIR
}

// RecordSuffix ends the name of a record; before it stands the process id.
const RecordSuffix = ".process"

// RecordPath is where the record of a process is.
func RecordPath(runDir string, pid int) string {
	return filepath.Join(runDir, strconv.Itoa(pid)+RecordSuffix)
}

// writeRecord notes the calling process.
func writeRecord(runDir, dir string) error {
	boot, err := procstat.BootID()
	if err != nil {
		return err
	}
	self, err := procstat.Read(os.Getpid())
	if err != nil {
		return err
	}
	text, err := json.Marshal(Record{PID: os.Getpid(), Start: self.Start, Boot: boot, Dir: dir})
	if err != nil {
		return err
	}
	// A host that finds half of it finds a process that never became a plugin.
	return os.WriteFile(RecordPath(runDir, os.Getpid()), text, 0o600)
}

// Forget removes the record of a process whose group is gone.
func Forget(runDir string, pid int) {
	// What cannot be removed matches nothing any more.
	_ = os.Remove(RecordPath(runDir, pid))
}
