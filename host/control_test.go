//go:build linux

package host

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// changes are the masks of what happened to the files of a folder, by name, since
// it has been watched.
func changes(t *testing.T, watch int) map[string]uint32 {
	t.Helper()
	all := map[string]uint32{}
	for buf := make([]byte, 1<<16); ; {
		n, err := unix.Read(watch, buf)
		if errors.Is(err, unix.EAGAIN) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		for b := buf[:n]; len(b) > 0; {
			mask, length := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			b = b[unix.SizeofInotifyEvent:]
			all[string(bytes.TrimRight(b[:length], "\x00"))] |= mask
			b = b[length:]
		}
	}
}

// A user who may enter the data folder never meets a control socket that is open to
// them: it comes there with its mode. What a host that was killed has left is no
// hindrance, and nothing is left in the end.
func TestControlSocketIsNeverOpenToOthers(t *testing.T) {
	deep := t.TempDir()
	for len(deep) <= maxSocketPath {
		deep = filepath.Join(deep, strings.Repeat("d", 40))
	}
	exact := t.TempDir()
	exact = filepath.Join(exact, strings.Repeat("e", maxSocketPath-len(exact)-len("//"+controlSocket)))
	for _, dir := range []string{filepath.Join(t.TempDir(), "data"), exact, deep} {
		left := filepath.Join(dir, privateFolder, privateSocket)
		if err := os.MkdirAll(filepath.Dir(left), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{left, filepath.Join(dir, controlSocket)} {
			if err := os.WriteFile(file, nil, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(watch)
		if _, err := unix.InotifyAddWatch(watch, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
			t.Fatal(err)
		}

		l, folder, err := listenControl(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := changes(t, watch)[controlSocket]; got != unix.IN_MOVED_TO {
			t.Errorf("%s: what happened to the socket is %#x, want that it was only moved there", dir, got)
		}
		info, err := os.Stat(filepath.Join(dir, controlSocket))
		if err != nil || info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("%s: socket %v, %v", dir, info, err)
		}
		path, opened, err := controlPath(dir)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Errorf("%s: %v", dir, err)
		} else {
			_ = conn.Close()
		}
		_ = opened.Close()
		if err := errors.Join(l.Close(), folder.Close()); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", dir, left, err)
		}
	}
}
