//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deskhost/deskhost/host/internal/e2e"
)

// operated is a host that a test operates in the folder that it is in.
type operated struct {
	*e2e.Process

	t     *testing.T
	admin string
}

func startHost(t *testing.T) *operated {
	t.Helper()
	p := e2e.Start(t, e2e.Binary(), "run")
	line := p.Line("ready")
	return &operated{Process: p, t: t, admin: line[strings.LastIndex(line, "http://"):]}
}

type deskState struct {
	Name, State, Version, SHA256 string
	PID                          int `json:"pid"`
	Generation                   int
	Waiting                      string
	PluginProblem                string `json:"plugin_problem"`
	LastError                    string `json:"last_error"`
}

type pluginState struct{ Name, Version, Problem string }

// states asks the operators' listener.
func (h *operated) states() (desks map[string]deskState, plugins map[string]pluginState) {
	h.t.Helper()
	var answer struct {
		Desks   []deskState
		Plugins []pluginState
	}
	for _, path := range []string{"/v1/desks", "/v1/plugins"} {
		response, err := http.Get(h.admin + path)
		if err != nil {
			h.t.Fatal(err)
		}
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			h.t.Fatal(err)
		}
		response.Body.Close()
	}
	desks, plugins = map[string]deskState{}, map[string]pluginState{}
	for _, d := range answer.Desks {
		desks[d.Name] = d
	}
	for _, p := range answer.Plugins {
		plugins[p.Name] = p
	}
	return desks, plugins
}

// await asks again until what it hears is as wanted.
func (h *operated) await(what string, want func(map[string]deskState, map[string]pluginState) bool) {
	h.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(e2e.Patience)
	for {
		desks, plugins := h.states()
		if want(desks, plugins) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			h.t.Fatalf("never %s: %+v %+v", what, desks, plugins)
		}
	}
}

func (h *operated) awaitLog(text string) {
	h.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(e2e.Patience)
	for !strings.Contains(h.Stderr(), text) {
		select {
		case <-tick.C:
		case <-deadline:
			h.t.Fatalf("the log lacks %q:\n%s", text, h.Stderr())
		}
	}
}

func (h *operated) signal(s syscall.Signal) {
	h.t.Helper()
	if err := syscall.Kill(h.PID(), s); err != nil {
		h.t.Fatal(err)
	}
}

// replace renames a file into place, as one should.
func replace(t *testing.T, name, content string, mode os.FileMode) {
	t.Helper()
	write(t, "new", content, mode)
	if err := os.Chmod("new", mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename("new", name); err != nil {
		t.Fatal(err)
	}
}

func mock(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(e2e.PluginDir(), "deskhost-plugin-mock"))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

const twoDesks = goodConfig + "  - {name: sales, plugin: mock}\ndefault_desk: support\n"

func TestVerbs(t *testing.T) {
	folder(t, twoDesks)
	h := startHost(t)
	before, _ := h.states()

	code, stdout, stderr := deskhost(t, "plugin", "reload", "support", "--json")
	var reloaded deskState
	if err := json.Unmarshal([]byte(stdout), &reloaded); err != nil || code != exitOK {
		t.Fatalf("reload: exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if reloaded.State != "ready" || reloaded.Generation != 2 || reloaded.PID == before["support"].PID {
		t.Errorf("reloaded: %+v", reloaded)
	}

	if code, stdout, _ := deskhost(t, "plugin", "disable", "support"); code != exitOK || !strings.Contains(stdout, "disabled") {
		t.Errorf("disable: exit code %d\n%s", code, stdout)
	}
	if code, _, stderr := deskhost(t, "plugin", "reload", "support"); code != exitFailure || stderr != "deskhost: desk \"support\": the desk is disabled; enable it instead\n" {
		t.Errorf("reload of a disabled desk: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := deskhost(t, "plugin", "enable", "gone"); code != exitFailure || !strings.Contains(stderr, "there is no desk of this name") {
		t.Errorf("enable: exit code %d, %s", code, stderr)
	}
	// It stays disabled, and the other desk is not touched.
	if code := h.Terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	h = startHost(t)
	if desks, _ := h.states(); desks["support"].State != "disabled" || desks["sales"].State != "ready" {
		t.Errorf("after a restart: %+v", desks)
	}
	if code, stdout, _ := deskhost(t, "plugin", "enable", "support"); code != exitOK || !strings.Contains(stdout, "ready") {
		t.Errorf("enable: exit code %d\n%s", code, stdout)
	}

	code, stdout, _ = deskhost(t, "plugin", "list")
	if code != exitOK || !strings.HasPrefix(stdout, "NAME") || !strings.Contains(stdout, "\nDESK ") || !strings.Contains(stdout, "support,sales") {
		t.Errorf("list: exit code %d\n%s", code, stdout)
	}
	code, stdout, _ = deskhost(t, "plugin", "info", "mock", "--json")
	var info struct {
		Version string
		Desks   []deskState
	}
	if err := json.Unmarshal([]byte(stdout), &info); err != nil || code != exitOK || info.Version == "" || len(info.Desks) != 2 {
		t.Errorf("info: exit code %d, %v\n%s", code, err, stdout)
	}
	if mode, err := os.Stat("data/control.sock"); err != nil || mode.Mode().Perm() != 0o600 {
		t.Errorf("control socket: %v, %v", mode, err)
	}
	h.Terminate()
	if code, _, stderr := deskhost(t, "plugin", "disable", "support"); code != exitFailure || !strings.Contains(stderr, "no deskhost runs in the data folder") {
		t.Errorf("with no host: exit code %d, %s", code, stderr)
	}
}

func TestControlSocketInADeepFolder(t *testing.T) {
	folder(t, "data_dir: ./"+strings.Repeat("deep/", 30)+"data\n"+goodConfig)
	startHost(t)
	if code, stdout, stderr := deskhost(t, "plugin", "reload", "support"); code != exitOK || !strings.Contains(stdout, "ready") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

func TestDroppedFilesTakeEffect(t *testing.T) {
	folder(t, twoDesks)
	h := startHost(t)
	before, _ := h.states()
	replace(t, "plugins.d/deskhost-plugin-mock", mock(t)+"next build", 0o755)
	h.await("replaced", func(desks map[string]deskState, _ map[string]pluginState) bool {
		return desks["support"].SHA256 != before["support"].SHA256 && desks["sales"].SHA256 != before["sales"].SHA256
	})
	// A plugin of no desk is asked what it is, and refused for what it says.
	replace(t, "plugins.d/deskhost-plugin-double", mock(t), 0o755)
	replace(t, "plugins.d/deskhost-plugin-nothing", "#!/bin/sh\necho not today >&2\n", 0o755)
	replace(t, "plugins.d/deskhost-plugin-newer", "#!/bin/sh\necho '1|99|unix|/nowhere|grpc|'\nread line\n", 0o755)
	h.await("refused", func(_ map[string]deskState, plugins map[string]pluginState) bool {
		return strings.Contains(plugins["double"].Problem, `its name is "mock"`) && strings.Contains(plugins["double"].Problem, "remove one of the two") &&
			strings.Contains(plugins["nothing"].Problem, "not today") &&
			strings.Contains(plugins["newer"].Problem, "version 99 of the desk protocol, and this deskhost version 1; install")
	})
	if err := os.Remove("plugins.d/deskhost-plugin-mock"); err != nil {
		t.Fatal(err)
	}
	h.await("missing", func(desks map[string]deskState, _ map[string]pluginState) bool {
		return strings.Contains(desks["support"].PluginProblem, "the file is missing")
	})
	desks, _ := h.states()
	if err := syscall.Kill(desks["support"].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.await("back", func(now map[string]deskState, _ map[string]pluginState) bool {
		return now["support"].State == "ready" && now["support"].Generation > desks["support"].Generation
	})
}

func TestConfigurationIsReloaded(t *testing.T) {
	folder(t, twoDesks)
	h := startHost(t)
	before, _ := h.states()
	one := before["support"]

	write(t, "deskhost.yaml", twoDesks+"lisen: x\n", 0o600)
	h.signal(syscall.SIGHUP)
	h.awaitLog("configuration not taken, the one before holds: cause=SIGHUP")
	h.awaitLog("there is no such key; did you mean listen?")
	// A desk that does not fit its plugin changes nothing either.
	write(t, "deskhost.yaml", goodConfig+"  - {name: orders, plugin: gone}\ndefault_desk: support\n", 0o600)
	h.awaitLog(`plugin \"gone\"`)
	if desks, _ := h.states(); len(desks) != 2 || desks["support"].PID != one.PID || desks["sales"].PID != before["sales"].PID {
		t.Errorf("something has changed: %+v", desks)
	}
	// One desk goes, one comes, and the third is not touched.
	write(t, "deskhost.yaml", "demo: true\n"+goodConfig+"  - {name: orders, plugin: mock}\ndefault_desk: orders\n", 0o600)
	h.signal(syscall.SIGHUP)
	h.await("changed", func(desks map[string]deskState, _ map[string]pluginState) bool {
		_, gone := desks["sales"]
		return !gone && desks["orders"].State == "ready"
	})
	if desks, _ := h.states(); desks["support"].PID != one.PID || desks["support"].Generation != 1 {
		t.Errorf("the desk that did not change: %+v", desks["support"])
	}
	h.awaitLog("some settings are taken at the next start only: keys=demo")
	if code := h.Terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// What is changed while the host starts, which a plugin can draw out, is not lost.
func TestConfigurationIsChangedDuringTheStart(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, h *operated){
		"edited": func(t *testing.T, _ *operated) { write(t, "deskhost.yaml", twoDesks, 0o600) },
		"SIGHUP": func(t *testing.T, h *operated) {
			write(t, "name", "sales", 0o600)
			h.signal(syscall.SIGHUP)
		},
	} {
		t.Run(name, func(t *testing.T) {
			folder(t, anyPort+"desks:\n  - name: ${file:name}\n    plugin: mock\n")
			write(t, "name", "support", 0o600)
			dir, err := os.Getwd()
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo("gate", 0o600); err != nil {
				t.Fatal(err)
			}
			write(t, "mock", mock(t), 0o755)
			replace(t, "plugins.d/deskhost-plugin-mock",
				fmt.Sprintf("#!/bin/bash\ncd %s\n[ -e passed ] || read < gate\nexec -a deskhost-plugin-mock ./mock\n", dir), 0o755)
			h := &operated{Process: e2e.Start(t, e2e.Binary(), "run"), t: t}
			// It can be opened when the plugin waits.
			opened := make(chan *os.File, 1)
			go func() {
				if gate, err := os.OpenFile("gate", os.O_WRONLY, 0); err == nil {
					opened <- gate
				}
			}()
			var gate *os.File
			select {
			case gate = <-opened:
			case <-time.After(e2e.Patience):
				t.Fatal("the plugin was not started")
			}
			change(t, h)
			write(t, "passed", "", 0o600)
			if err := gate.Close(); err != nil {
				t.Fatal(err)
			}
			line := h.Line("ready")
			h.admin = line[strings.LastIndex(line, "http://"):]
			h.await("changed", func(desks map[string]deskState, _ map[string]pluginState) bool {
				return desks["sales"].State == "ready"
			})
			if code := h.Terminate(); code != exitOK {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// lives tells of a process that runs, and is not only waiting to be reaped.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil && strings.Contains(string(stat), ") Z ") {
		return false
	}
	return syscall.Kill(pid, 0) == nil
}

// systemd signals the whole group: host and plugins at once.
func TestSignalForTheWholeGroup(t *testing.T) {
	folder(t, goodConfig)
	h := startHost(t)
	desks, _ := h.states()
	if err := syscall.Kill(desks["support"].PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := h.Terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if starts := strings.Count(h.Stderr(), "desk ready"); starts != 1 {
		t.Errorf("%d starts:\n%s", starts, h.Stderr())
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	folder(t, goodConfig)
	h := startHost(t)
	desks, _ := h.states()
	// A plugin that cannot answer keeps the host draining.
	if err := syscall.Kill(desks["support"].PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h.signal(syscall.SIGTERM)
	h.awaitLog("desk draining")
	h.signal(syscall.SIGTERM)
	if code := h.Wait(); code != -1 {
		t.Errorf("exit code %d", code)
	}
	// The next start sweeps what is left of it.
	next := startHost(t)
	if lives(desks["support"].PID) {
		t.Error("the plugin lives on")
	}
	if code := next.Terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}
