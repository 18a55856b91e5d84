package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// dataDir is the folder in which a host keeps everything that outlives it. It
// belongs to one host at a time: what is swept or written in it would be
// another's.
type dataDir struct {
	path string
	lock *os.File
}

// lockWait is how long a host waits for a data folder. One that is killed while it
// forks leaves the lock for a moment with the child, which has not yet become
// another program.
const lockWait = 2 * time.Second

// openDataDir makes the folder if it is not there, and locks it.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data folder %s cannot be made: %w; make it, or set data_dir to a folder that this user can write to", path, cause(err))
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder %s is not writable: %w; change its owner or mode, or set data_dir to a folder that this user can write to", path, cause(err))
	}
	locked, err := tryLock(lock)
	for give := time.Now().Add(lockWait); !locked && err == nil && time.Now().Before(give); {
		time.Sleep(lockWait / 100)
		locked, err = tryLock(lock)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("data folder %s cannot be locked: %w", path, err), lock.Close())
	}
	if !locked {
		defer lock.Close() // Nothing was written through it.
		return nil, fmt.Errorf("data folder %s is in use by another deskhost%s; stop that one, or set data_dir to another folder", path, holder(path))
	}
	err = lock.Truncate(0)
	if err == nil {
		_, err = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("data folder %s is not writable: %w", path, cause(err)), lock.Close())
	}
	return &dataDir{path, lock}, nil
}

// holder names the process that wrote the lock file, if that can be read.
func holder(path string) string {
	text, err := os.ReadFile(filepath.Join(path, "lock"))
	if err != nil {
		return ""
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

// folder is a part of the data folder.
func (d *dataDir) folder(name string) string { return filepath.Join(d.path, name) }

// close gives the folder up. The lock file stays: to remove it would race with
// a host that has just opened it.
func (d *dataDir) close() error { return d.lock.Close() }

// cause is the error without the path, which our text names already.
func cause(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}
