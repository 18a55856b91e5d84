package launcher

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Account is the system user that a process becomes.
type Account struct {
	Name string `json:"name"`
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
}

// enter makes the calling process the user's.
func (a *Account) enter(dir string) error {
	if err := syscall.Setgroups([]int{}); err != nil {
		return fmt.Errorf("clearing the groups for user %q: %w", a.Name, err)
	}
	if err := syscall.Setgid(a.GID); err != nil {
		return fmt.Errorf("becoming group %d of user %q: %w", a.GID, a.Name, err)
	}
	if err := syscall.Setuid(a.UID); err != nil {
		return fmt.Errorf("becoming user %q: %w", a.Name, err)
	}
	return a.reach(dir)
}

// reach checks that the user can enter the run folder, and names the folder on
// the way to it that is shut.
func (a *Account) reach(dir string) error {
	for at := dir; ; at = filepath.Dir(at) {
		if unix.Access(at, unix.X_OK) == nil {
			if at == dir {
				return nil
			}
			return fmt.Errorf("user %q cannot enter %s, which is on the way to the run folder; run chmod o+x on it", a.Name, shut(at, dir))
		}
		if at == filepath.Dir(at) {
			return &fs.PathError{Op: "enter", Path: dir, Err: fs.ErrPermission}
		}
	}
}

// shut is the folder directly below reached on the way to dir.
func shut(reached, dir string) string {
	for filepath.Dir(dir) != reached {
		dir = filepath.Dir(dir)
	}
	return dir
}
