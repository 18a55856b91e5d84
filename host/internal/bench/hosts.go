//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

const pluginName = "bench"

var address = regexp.MustCompile(`http://[^\s,/]+`)

// server is a process that serves at an address: a host, the floor's, or the
// desk that a vendor's simulator plays.
type server struct {
	run     *run
	subject string
	dir     string // of a host
	cmd     *exec.Cmd
	url     string
	admin   string // where a host's operators ask
}

// hosts are the builds of the host that are measured: the one before, if there
// is one, first.
func (r *run) hosts() []string {
	if r.before == "" {
		return []string{hostSubject}
	}
	return []string{beforeSubject, hostSubject}
}

// subjects are the floor and the hosts.
func (r *run) subjects() []string { return append([]string{floorSubject}, r.hosts()...) }

// start starts the floor and the hosts with the bench plugin. Sockets are how
// many connections each has to hold.
func (r *run) start(sockets int) (started []*server, err error) {
	subjects := r.subjects()
	// The clients of all are this process.
	if err := allowFiles(uint64(len(subjects)*sockets + 500)); err != nil {
		return nil, err
	}
	for _, subject := range subjects {
		s, err := r.startOne(subject)
		if err != nil {
			stopAll(started)
			return nil, fmt.Errorf("%s: %w", subject, err)
		}
		started = append(started, s)
	}
	return started, nil
}

// startOne starts one of them, with files of its own.
func (r *run) startOne(subject string) (*server, error) {
	if subject == floorSubject {
		return r.startFloor()
	}
	return r.startHost(subject, r.plugins, benchDesks(1))
}

func stopAll(servers []*server) {
	for _, s := range servers {
		s.stop()
	}
}

// allowFiles raises how many files this process may have open, if need be.
func allowFiles(n uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= n {
		return nil
	}
	limit.Cur = n
	limit.Max = max(limit.Max, n)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("%d files have to be open, and the system does not allow it: raise ulimit -n, or take fewer sockets: %w", n, err)
	}
	return nil
}

// launch runs a program and waits for the line that tells its address, and that
// of a host's operators behind it.
func (r *run) launch(subject, dir, program string, args ...string) (*server, error) {
	s := &server{run: r, subject: subject, dir: dir, cmd: exec.Command(program, args...)}
	var stderr bytes.Buffer
	s.cmd.Stderr = &stderr
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.startProcess(s.cmd); err != nil {
		return nil, err
	}
	late := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() }) // which ends its output
	defer late.Stop()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if urls := address.FindAllString(lines.Text(), -1); len(urls) > 0 {
			s.url, s.admin = urls[0], urls[len(urls)-1]
			go func() { _, _ = io.Copy(io.Discard, stdout) }()
			return s, nil
		}
	}
	_ = s.cmd.Wait() // its words say more than its exit code
	return nil, fmt.Errorf("%s did not start:\n%s", program, stderr.String())
}

// stop asks the process to end, and sees to it that it does.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(30*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	_ = s.cmd.Wait()
}

// kill ends the process as kill -9 does.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// again starts a host that has ended, with the files and at the address that it
// had. On an error the ended server is returned, to be stopped once more without
// harm.
func (s *server) again() (*server, error) {
	next, err := s.run.launch(s.subject, s.dir, s.cmd.Path, s.cmd.Args[1:]...)
	if err != nil {
		return s, err
	}
	return next, nil
}

// command is what the bench plugin takes as a user's message.
type command struct {
	Events int `json:"events"`
	Rate   int `json:"rate"`
	// Padding makes a message as long as users write.
	Padding string `json:"padding,omitempty"`
}

func (c command) text() string {
	text, _ := json.Marshal(c) // numbers and plain text always encode
	return string(text)
}

var padding = strings.Repeat("x", 60)

// buildPlugin puts the bench plugin into a plugin folder.
func buildPlugin(dir string) (folder string, err error) {
	folder = filepath.Join(dir, "plugins.d")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	file := filepath.Join(folder, deskv1.FilePrefix+pluginName)
	if out, err := exec.Command("go", "build", "-o", file, "./sdk/internal/benchplugin").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the bench plugin: %w\n%s", err, out)
	}
	return folder, nil
}

// deskConfig is a desk of a host's configuration.
type deskConfig struct {
	Name   string         `json:"name"`
	Plugin string         `json:"plugin"`
	Config map[string]any `json:"config,omitempty"`
}

// benchDesks are desks of the bench plugin.
func benchDesks(n int) []deskConfig {
	desks := make([]deskConfig, n)
	for i := range desks {
		desks[i] = deskConfig{Name: fmt.Sprintf("desk-%d", i), Plugin: pluginName}
	}
	return desks
}

// startHost runs a build of deskhost with these desks, files of its own, and
// limits that leave room for all that is measured. Webhooks reach it without a
// proxy.
func (r *run) startHost(subject, plugins string, desks []deskConfig) (*server, error) {
	binary := r.binary
	if subject == beforeSubject {
		binary = r.before
	}
	dir, err := r.folder()
	if err != nil {
		return nil, err
	}
	if plugins, err = filepath.Abs(plugins); err != nil { // the configuration's folder is another
		return nil, err
	}
	listen, err := freePort()
	if err != nil {
		return nil, err
	}
	config, err := json.MarshalIndent(map[string]any{ // JSON is YAML
		"listen": listen, "public_url": "http://" + listen, "admin": map[string]any{"listen": "127.0.0.1:0"},
		"data_dir": filepath.Join(dir, "data"), "plugin_dir": plugins,
		"desks": desks, "default_desk": desks[0].Name,
		"limits": map[string]any{
			"requests_per_minute": 100_000_000, "sessions_per_minute": 10_000_000,
			"chats_per_minute": 1_000_000, "messages_per_minute": 100_000_000, "sockets_per_address": 100_000,
			"abandon_waiting": "1h", "abandon_connected": "1h",
			"plugin_memory": "2GiB", "plugin_open_files": 8192,
		},
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "deskhost.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	return r.launch(subject, dir, binary, "run", "--config", file)
}

// freePort finds an address for a host that is stopped and started again: below
// the ports that systems give to clients, one of which might take it meanwhile.
func freePort() (string, error) {
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.N(10_000)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", errors.New("no port is free between 20000 and 30000")
}

// startFloor runs this program as the floor's host.
func (r *run) startFloor() (*server, error) {
	dir, err := r.folder()
	if err != nil {
		return nil, err
	}
	if err := os.Symlink(r.plugins, filepath.Join(dir, "plugins.d")); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return r.launch(floorSubject, dir, self, "-floor", dir)
}

// deskStatus is what operators are told of a desk.
type deskStatus struct {
	Name        string `json:"name"`
	State       string `json:"state"`
	PID         int    `json:"pid"`
	Generation  uint64 `json:"generation"`
	Generations []any  `json:"generations"`
	Chats       int    `json:"chats"`
	ChatsAway   int    `json:"chats_away"`
	LastError   string `json:"last_error"`
}

// desk asks for the state of the host's only desk.
func (s *server) desk() (deskStatus, error) {
	var answer struct {
		Desks []deskStatus `json:"desks"`
	}
	if err := call(httpClient, http.MethodGet, s.admin+"/v1/desks", "", nil, &answer); err != nil {
		return deskStatus{}, err
	}
	if len(answer.Desks) != 1 {
		return deskStatus{}, fmt.Errorf("the host has %d desks", len(answer.Desks))
	}
	return answer.Desks[0], nil
}

// awaitDesk waits until the host's only desk is as wanted, and returns when it
// was seen to be.
func (s *server) awaitDesk(want func(deskStatus) bool) (time.Time, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for last := time.Now().Add(patience); ; <-tick.C {
		d, err := s.desk()
		if err != nil {
			return time.Time{}, err
		}
		if want(d) {
			return time.Now(), nil
		}
		if time.Now().After(last) {
			return time.Time{}, fmt.Errorf("the desk stays %+v", d)
		}
	}
}

// serves is a desk whose chats are all served, by one process of this number or
// a later one.
func serves(chats int, generation uint64) func(deskStatus) bool {
	return func(d deskStatus) bool {
		return d.Generation >= generation && d.State == "ready" && len(d.Generations) == 1 && d.Chats == chats && d.ChatsAway == 0
	}
}

// reload has the host replace the process of its only desk, and returns once the
// new one is ready; then chats are handed over.
func (s *server) reload() error {
	d, err := s.desk()
	if err != nil {
		return err
	}
	control := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, "data", "control.sock"))
		},
	}}
	return call(control, http.MethodPost, "http://deskhost/v1/desks/"+d.Name+"/reload", "", nil, nil)
}
