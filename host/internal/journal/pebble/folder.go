package pebble

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// format counts the ways in which the folder's content was ever written:
	// it grows with formatMajorVersion, and with any change of keys or records
	// that an older host would misread. Format 2: a head no longer has the seq of
	// the last entry, and an entry has the id of the event that it came of.
	format = 2
	// formatMajorVersion is Pebble's own format, which an older Pebble refuses.
	formatMajorVersion = pebble.FormatValueSeparation

	formatFile   = "FORMAT"
	formatPrefix = "deskhost journal format "
)

// prepareFolder checks dir, makes it if need be, and locks it.
func prepareFolder(fsys vfs.FS, dir string) (*pebble.Lock, error) {
	have, err := readFormat(fsys, dir)
	if err != nil {
		return nil, err
	}
	if err := makeFolder(fsys, dir); err != nil {
		return nil, fmt.Errorf("cannot make the journal's folder %s: %w; make it writable for the user that deskhost runs as", dir, err)
	}
	lock, err := pebble.LockDirectory(dir, fsys)
	if err != nil {
		// Making the lock file fails with a PathError; taking the lock with the
		// bare error of the system call.
		if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
			return nil, fmt.Errorf("cannot write to the journal's folder %s: %w; make it writable for the user that deskhost runs as", dir, err)
		}
		return nil, fmt.Errorf("the journal's folder %s is in use (%w): another deskhost has it open; end that one, or give this one a data_dir of its own", dir, err)
	}
	if have < format { // what is written from now on is not for older hosts
		if err := writeFormat(fsys, dir); err != nil {
			_ = lock.Close()
			return nil, fmt.Errorf("cannot write to the journal's folder %s: %w", dir, err)
		}
	}
	return lock, nil
}

// readFormat returns the format of the journal in dir, 0 if there is none, and
// fails if it is one that this host cannot use.
func readFormat(fsys vfs.FS, dir string) (have uint64, err error) {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read the journal's folder %s: %w", dir, err)
	}
	path := fsys.PathJoin(dir, formatFile)
	f, err := fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		for _, name := range names {
			if strings.HasPrefix(name, "marker.") || strings.HasPrefix(name, "MANIFEST") {
				return 0, fmt.Errorf("the folder %s holds a database without deskhost's %s file: it is no journal of deskhost, or has lost the file", dir, formatFile)
			}
		}
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read %s: %w", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("cannot read %s: %w", path, err)
	}
	digits, ok := strings.CutPrefix(strings.TrimSpace(string(text)), formatPrefix)
	have, err = strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil {
		return 0, fmt.Errorf("%s is damaged: expected %q and a number; if the folder is deskhost's, restore the file", path, formatPrefix)
	}
	if have > format {
		return 0, fmt.Errorf("the journal in %s has format %d, written by a newer deskhost; this one (format %d) cannot use it: run the newer deskhost, or give this one a data_dir of its own", dir, have, format)
	}
	return have, nil
}

// writeFormat writes the format file so that a power loss leaves all of it or
// none.
func writeFormat(fsys vfs.FS, dir string) error {
	path := fsys.PathJoin(dir, formatFile)
	f, err := fsys.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(formatPrefix + strconv.Itoa(format) + "\n"))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(path+".new", path); err != nil {
		return err
	}
	return syncFolder(fsys, dir)
}

// makeFolder makes dir and whatever is missing above it, safe from a power loss.
func makeFolder(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := fsys.PathDir(dir)
	if err := makeFolder(fsys, parent); err != nil {
		return err
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncFolder(fsys, parent)
}

func syncFolder(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
