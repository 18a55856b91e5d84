package process

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// socketName is how much longer than the run folder a socket's path can get:
// go-plugin makes <run folder>/plugin-dirN/pluginN, N being up to ten digits.
const socketName = len("/plugin-dir1234567890/plugin1234567890")

// maxSocketPath is the length in bytes that the system allows for the path of a
// Unix socket, less the zero at its end.
func maxSocketPath() int {
	if runtime.GOOS == "linux" {
		return 107
	}
	return 103
}

// PrepareRunDir makes the folder in which processes have theirs, after it has
// ended the processes and removed the files that a host that was killed left
// there. The caller holds the lock of the data folder.
//
// Others than the host's user can go through it, to the folder of a process
// that is theirs, and see nothing on the way.
//
// It is the folder run in the data folder, unless a socket's path in it would
// be longer than the system allows: then it is a folder of the system's
// temporary files, always the same for one data folder.
func PrepareRunDir(dataDir string) (string, error) {
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return "", fmt.Errorf("preparing the run folder: %w", err)
	}
	dir := filepath.Join(dataDir, "run")
	if len(dir)+socketName > maxSocketPath() {
		sum := sha256.Sum256([]byte(dataDir))
		dir = filepath.Join(os.TempDir(), "deskhost-"+hex.EncodeToString(sum[:6]))
	}
	if len(dir)+socketName > maxSocketPath() {
		return "", fmt.Errorf("the path of the run folder is too long for Unix sockets: %s may have %d bytes and has %d; set data_dir or TMPDIR to a shorter path",
			dir, maxSocketPath()-socketName, len(dir))
	}
	if err := sweepProcesses(dir); err != nil {
		return "", fmt.Errorf("sweeping the run folder: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("sweeping the run folder: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", fmt.Errorf("preparing the run folder: %w", err)
	}
	err = os.Mkdir(dir, 0o700)
	if err == nil {
		err = os.Chmod(dir, 0o711) //nolint:gosec // for the processes of other users
	}
	if err != nil {
		return "", fmt.Errorf("preparing the run folder: %w", err)
	}
	return dir, nil
}
