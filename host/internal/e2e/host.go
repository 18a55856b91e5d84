package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

var urlForm = regexp.MustCompile(`http://[^\s,/]+`)

// Host is a deskhost that a test starts, kills and starts again in one data
// folder. Its ports change with each start.
type Host struct {
	t    testing.TB
	File string
	// settings are what is written in File.
	settings map[string]any

	mu      sync.Mutex
	process *Process
	url     string
	admin   string
	up      chan struct{} // closed while the host is up
}

// NewHost writes a configuration and does not start it yet. The settings are
// those of deskhost.yaml; what a test needs and they lack is added: free ports,
// folders, and rates that one machine full of users stays under.
func NewHost(t testing.TB, settings map[string]any) *Host {
	t.Helper()
	dir := t.TempDir()
	all := map[string]any{
		"listen":     "127.0.0.1:0",
		"admin":      map[string]any{"listen": "127.0.0.1:0"},
		"data_dir":   filepath.Join(dir, "data"),
		"plugin_dir": PluginDir(),
		"limits":     Unlimited(nil),
	}
	h := &Host{t: t, File: filepath.Join(dir, "deskhost.yaml"), settings: all, up: make(chan struct{})}
	h.Configure(settings)
	return h
}

// Configure changes some settings in the configuration file.
func (h *Host) Configure(changes map[string]any) {
	h.t.Helper()
	maps.Copy(h.settings, changes)
	// JSON is YAML.
	text, err := json.MarshalIndent(h.settings, "", "  ")
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.File, text, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// Unlimited returns limits that leave room for thousands of users at one
// address, with some of them changed.
func Unlimited(changes map[string]any) map[string]any {
	limits := map[string]any{
		"requests_per_minute": 100_000_000,
		"sessions_per_minute": 1_000_000,
		"chats_per_minute":    1_000_000,
		"messages_per_minute": 1_000_000,
		"sockets_per_address": 100_000,
		// On a machine that has much else to do a desk may take its time for a thousand
		// chats at once.
		"start_timeout": "50s",
		// The race detector takes several times a program's own memory.
		"plugin_memory": "2GiB",
	}
	maps.Copy(limits, changes)
	return limits
}

// Start runs the host and returns once it is ready.
func (h *Host) Start() {
	h.t.Helper()
	p := Start(h.t, Binary(), "run", "--config", h.File)
	urls := urlForm.FindAllString(p.Line("ready"), -1)
	if len(urls) < 2 {
		h.t.Fatal("the ready line does not tell both addresses")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.process, h.url, h.admin = p, urls[0], urls[1]
	close(h.up)
	// Before the end of the process, which pages may outlive for a moment.
	h.t.Cleanup(func() { h.down() })
}

// down notes that the host's addresses are of no use any more.
func (h *Host) down() *Process {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isUp() {
		h.up = make(chan struct{})
	}
	return h.process
}

// isUp tells whether the test means the host to be up. The caller holds mu.
func (h *Host) isUp() bool {
	select {
	case <-h.up:
		return true
	default:
		return false
	}
}

// Kill ends the host as kill -9 does.
func (h *Host) Kill() {
	h.t.Helper()
	h.down().Kill()
}

// Stop ends the host by SIGTERM, and fails the test unless it ends well.
func (h *Host) Stop() {
	h.t.Helper()
	p := h.down()
	if code := p.Terminate(); code != 0 {
		h.t.Errorf("the host ended with exit code %d", code)
	}
}

// URL is where widgets reach the host. It waits while the host is down.
func (h *Host) URL(ctx context.Context) (string, error) {
	for {
		h.mu.Lock()
		up, url := h.up, h.url
		h.mu.Unlock()
		select {
		case <-up:
			return url, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// CLI runs the command line for this host, and expects it to do well.
func (h *Host) CLI(args ...string) (stdout string) {
	h.t.Helper()
	var problem strings.Builder
	cmd := exec.Command(Binary(), append(args, "--config", h.File)...)
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("deskhost %q: %v: %s", args, err, problem.String())
	}
	return string(out)
}

// Desk is a desk's state, as operators see it.
type Desk struct {
	Name       string `json:"name"`
	State      string `json:"state"`
	PID        int    `json:"pid"`
	Generation uint64 `json:"generation"`
	Restarts   int    `json:"restarts"`
	Chats      int    `json:"chats"`
	ChatsAway  int    `json:"chats_away"`
	LastError  string `json:"last_error"`
	// Generations are its processes, the one that serves first.
	Generations []struct {
		Number uint64 `json:"number"`
		State  string `json:"state"`
		Chats  int    `json:"chats"`
	} `json:"generations"`
}

// Desk asks the operators' listener for the state of a desk.
func (h *Host) Desk(name string) Desk {
	h.t.Helper()
	var answer struct{ Desks []Desk }
	h.Admin("/v1/desks", &answer)
	for _, d := range answer.Desks {
		if d.Name == name {
			return d
		}
	}
	h.t.Fatalf("there is no desk %s", name)
	return Desk{}
}

// Admin reads a JSON answer of the operators' listener.
func (h *Host) Admin(path string, into any) {
	h.t.Helper()
	h.mu.Lock()
	url := h.admin
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		h.t.Fatal(fmt.Errorf("%s: %w", path, err))
	}
}

// Log is what the host, as it was started last, has logged so far.
func (h *Host) Log() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.process.Stderr()
}

// KillPlugin ends a desk's plugin as kill -9 does.
func (h *Host) KillPlugin(desk string) {
	h.t.Helper()
	plugin, err := os.FindProcess(h.Desk(desk).PID)
	if err == nil {
		err = plugin.Kill()
	}
	if err != nil {
		h.t.Fatal(err)
	}
}
