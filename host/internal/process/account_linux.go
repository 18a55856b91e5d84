package process

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// account is the system user that a process runs as; nil: the host's own.
type account struct {
	Name string `json:"name"`
	Home string `json:"home"`
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
}

// lookUp finds a user by name or number. It returns nil for the host's own user.
func lookUp(name string) (*account, error) {
	if name == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		byID, idErr := user.LookupId(name)
		if idErr != nil {
			return nil, fmt.Errorf("the system has no user %q; make one, or change the desk's user", name)
		}
		u = byID
	}
	// On Linux both are numbers.
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	if uidErr != nil || gidErr != nil {
		return nil, fmt.Errorf("the ids %s and %s of user %q are no numbers", u.Uid, u.Gid, name)
	}
	switch {
	case uid == os.Geteuid():
		return nil, nil
	case os.Geteuid() != 0:
		return nil, fmt.Errorf("only root can run a plugin as another user (%q), and this host runs as user %d; run it as root, or remove the desk's user", name, os.Geteuid())
	}
	return &account{Name: name, Home: u.HomeDir, UID: uid, GID: gid}, nil
}

// home is the user's home folder, empty for the host's own user.
func (a *account) home() string {
	if a == nil {
		return ""
	}
	return a.Home
}

// programName is the copy of the program in the folder of a process of another
// user, who cannot enter the store.
const programName = "program"

// prepare gives the process's folder to the user, with a copy of the program
// that the user can run and not change, and returns the path to run.
func (a *account) prepare(program, dir string) (string, error) {
	if a == nil {
		return program, nil
	}
	path := filepath.Join(dir, programName)
	if err := copyProgram(program, path); err != nil {
		return "", fmt.Errorf("copying the program for user %q: %w", a.Name, err)
	}
	if err := os.Chown(dir, a.UID, a.GID); err != nil {
		return "", fmt.Errorf("giving the run folder to user %q: %w", a.Name, err)
	}
	return path, nil
}

func copyProgram(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err == nil {
		err = dst.Chmod(0o555)
	}
	if closed := dst.Close(); err == nil {
		err = closed
	}
	return err
}

// enter makes the calling process the user's. The launcher calls it.
func (a *account) enter(dir string) error {
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
func (a *account) reach(dir string) error {
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
