package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/deskhost/deskhost/host/internal/admin"
)

const (
	// controlSocket is the socket in the data folder through which operators
	// change things. Nobody but the host's user can open it.
	controlSocket = "control.sock"
	// privateFolder and privateSocket are where it is made. The path is as long as
	// the one that it gets: what is short enough for one is for both.
	privateFolder, privateSocket = "control", "sock"
	// maxSocketPath is what the path of a Unix socket may have on every system.
	maxSocketPath = 103
	// controlTimeout bounds one request: a process that is started, configured,
	// and another that is drained.
	controlTimeout = 2 * time.Minute
)

// DeskState is what operators are told of a desk.
type DeskState = admin.Desk

// PluginFile is what operators are told of a file in the plugin folder.
type PluginFile = admin.Plugin

// listenControl opens the control socket. The data folder is locked, so one that
// is there was left by a host that was killed. What is returned beside the listener
// has to be closed behind it: it removes the socket and lets go of the folder.
func listenControl(dataDir string) (net.Listener, io.Closer, error) {
	path, folder, err := controlPath(dataDir)
	if err != nil {
		return nil, nil, err
	}
	l, err := listenPrivately(path)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("control socket %s: %w", filepath.Join(dataDir, controlSocket), cause(err)), folder.Close())
	}
	return l, controlFolder{path, folder}, nil
}

// listenPrivately listens on a Unix socket that nobody but this user can open, at
// no moment. The system makes it with a mode that others may have a part in, and
// who has opened it keeps it: so it is made in a folder of its own, which nobody
// else can enter, and moved to its place with its right mode.
func listenPrivately(path string) (net.Listener, error) {
	if runtime.GOOS == "windows" { // It has no modes; who may enter the folder may open the socket.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return net.Listen("unix", path)
	}
	private := filepath.Join(filepath.Dir(path), privateFolder)
	if err := os.RemoveAll(private); err != nil { // A host was killed at this point.
		return nil, err
	}
	if err := os.Mkdir(private, 0o700); err != nil {
		return nil, err
	}
	defer os.Remove(private)
	made := filepath.Join(private, privateSocket)
	l, err := net.Listen("unix", made)
	if err != nil {
		return nil, err
	}
	err = os.Chmod(made, 0o600)
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close()) // This removes made.
	}
	return l, nil
}

// controlFolder is the folder that the control socket is in, while it is open.
type controlFolder struct {
	path string // of the socket
	io.Closer
}

// Close removes the socket: its listener has forgotten where it is.
func (f controlFolder) Close() error {
	err := os.Remove(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, f.Closer.Close())
}

// controlPath returns a path to the control socket that is short enough for the
// system, whatever that of the folder is. It holds while the folder is open.
func controlPath(dataDir string) (path string, folder io.Closer, err error) {
	dir, err := os.Open(dataDir)
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dataDir, controlSocket)
	switch {
	case len(path) <= maxSocketPath:
		return path, dir, nil
	case runtime.GOOS == "linux":
		return filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), controlSocket), dir, nil
	}
	return "", nil, errors.Join(fmt.Errorf("the path of the control socket may have %d bytes, and %s has %d; set data_dir to a shorter path",
		maxSocketPath, path, len(path)), dir.Close())
}

// ErrNoHost says that no host runs in a data folder.
var ErrNoHost = errors.New("no deskhost runs here")

// Control talks to the host that runs in a data folder.
type Control struct {
	folder io.Closer
	http   *http.Client
}

// OpenControl connects to the host of a data folder. The error is [ErrNoHost] if
// there is none. The caller closes what it gets.
func OpenControl(ctx context.Context, dataDir string) (*Control, error) {
	path, folder, err := controlPath(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoHost
	}
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) }
	probe, err := dial(ctx, "", "")
	if err != nil {
		err = errors.Join(err, folder.Close())
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, ErrNoHost
		}
		return nil, fmt.Errorf("the running host cannot be asked: %w", err)
	}
	_ = probe.Close() // Nothing was sent.
	return &Control{folder, &http.Client{
		Timeout:   controlTimeout,
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}}, nil
}

// Close lets go of the connection.
func (c *Control) Close() error { return c.folder.Close() }

// Plugins lists the plugin folder.
func (c *Control) Plugins(ctx context.Context) ([]PluginFile, error) {
	var answer struct{ Plugins []PluginFile }
	err := c.call(ctx, http.MethodGet, "/v1/plugins", &answer)
	return answer.Plugins, err
}

// Desks lists the desks.
func (c *Control) Desks(ctx context.Context) ([]DeskState, error) {
	var answer struct{ Desks []DeskState }
	err := c.call(ctx, http.MethodGet, "/v1/desks", &answer)
	return answer.Desks, err
}

// Plugin tells what a plugin says of itself and which desks use it.
func (c *Control) Plugin(ctx context.Context, name string) (*PluginInfo, error) {
	var answer PluginInfo
	if err := c.call(ctx, http.MethodGet, "/v1/plugins/"+url.PathEscape(name), &answer); err != nil {
		return nil, err
	}
	return &answer, nil
}

// Desk does something to a desk: reload, disable or enable. It returns how the
// desk is then.
func (c *Control) Desk(ctx context.Context, name, verb string) (*DeskState, error) {
	var answer DeskState
	if err := c.call(ctx, http.MethodPost, "/v1/desks/"+url.PathEscape(name)+"/"+verb, &answer); err != nil {
		return nil, err
	}
	return &answer, nil
}

func (c *Control) call(ctx context.Context, method, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, "http://deskhost"+path, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("asking the running host: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		var refused struct {
			Error string `json:"error"`
		}
		if err := json.NewDecoder(response.Body).Decode(&refused); err != nil || refused.Error == "" {
			return fmt.Errorf("the running host answers %s; is it of another version?", response.Status)
		}
		return errors.New(refused.Error)
	}
	return json.NewDecoder(response.Body).Decode(into)
}
