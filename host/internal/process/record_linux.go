package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deskhost/deskhost/host/internal/process/launcher"
	"github.com/deskhost/deskhost/host/internal/process/procstat"
)

// forgetRecord removes the record of a process whose group is gone.
func forgetRecord(runDir string, pid int) { launcher.Forget(runDir, pid) }

// sweepProcesses kills the process groups that the records of a run folder
// name, and waits for their end.
func sweepProcesses(runDir string) error {
	info, err := os.Lstat(runDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// In the folder for temporary files anybody may have made one of this name.
	var owner unix.Stat_t
	if err := unix.Lstat(runDir, &owner); err != nil {
		return err
	}
	if !info.IsDir() || int(owner.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not a folder of this user alone; remove it", runDir)
	}
	files, err := filepath.Glob(filepath.Join(escapeGlob(runDir), "*"+launcher.RecordSuffix))
	if err != nil {
		return err
	}
	boot, err := procstat.BootID()
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var r launcher.Record
		if json.Unmarshal(text, &r) == nil && r.Boot == boot && r.PID > 1 {
			errs = append(errs, sweep(r))
		}
	}
	return errors.Join(errs...)
}

// escapeGlob has a path match itself only.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// sweepTick is how often a killed group is looked at.
const sweepTick = 5 * time.Millisecond

// sweep kills what is left of the recorded process's group.
func sweep(r launcher.Record) error {
	if !matches(r, groupMembers(r.PID)) {
		return nil
	}
	for give := time.Now().Add(killWait); ; time.Sleep(sweepTick) {
		// Again each time: a process may have been born between look and kill.
		if err := unix.Kill(-r.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("ending the process group %d of an earlier host: %w", r.PID, err)
		}
		if len(groupMembers(r.PID)) == 0 {
			return nil
		}
		if time.Now().After(give) {
			return fmt.Errorf("process group %d of an earlier host %w", r.PID, errUnkillable)
		}
	}
}

// matches tells whether a group is the recorded one. Its number says little; its
// leader is known by its start, and once that has died the others by the folder
// in the environment that they have from it: a number is not given away while
// a group has it.
func matches(r launcher.Record, members []procstat.Stat) bool {
	for _, m := range members {
		if m.PID == r.PID {
			return m.Start == r.Start
		}
	}
	for _, m := range members {
		env, err := os.ReadFile("/proc/" + strconv.Itoa(m.PID) + "/environ")
		if err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00TMPDIR="+r.Dir+"\x00")) {
			return true
		}
	}
	return false
}
