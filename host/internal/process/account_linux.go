package process

import (
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/deskhost/deskhost/host/internal/process/launcher"
)

// account is the system user that a process runs as; nil: the host's own.
type account struct {
	launcher.Account

	folder string // the user's home
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
	return &account{launcher.Account{Name: name, UID: uid, GID: gid}, u.HomeDir}, nil
}

// home is the user's home folder, empty for the host's own user.
func (a *account) home() string {
	if a == nil {
		return ""
	}
	return a.folder
}

// told is what the launcher is told of it.
func (a *account) told() *launcher.Account {
	if a == nil {
		return nil
	}
	return &a.Account
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
