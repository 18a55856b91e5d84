package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/deskhost/deskhost/host/internal/e2e"
)

func TestMain(m *testing.M) { os.Exit(e2e.Main(m)) }

// folder makes a folder with a configuration and a plugin folder, and goes there.
func folder(t *testing.T, config string) {
	t.Helper()
	t.Chdir(t.TempDir())
	write(t, "deskhost.yaml", config, 0o600)
	if err := os.Mkdir("plugins.d", 0o755); err != nil {
		t.Fatal(err)
	}
	mock, err := os.ReadFile(filepath.Join(e2e.PluginDir(), "deskhost-plugin-mock"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, "plugins.d/deskhost-plugin-mock", string(mock), 0o755)
}

func write(t *testing.T, name, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// deskhost runs the real program to its end.
func deskhost(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := e2e.Start(t, e2e.Binary(), args...)
	code = p.Wait()
	return code, p.Stdout(), p.Stderr()
}

const anyPort = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n"

const goodConfig = anyPort + "desks:\n  - name: support\n    plugin: mock\n"

// TestStartFails holds what an operator reads when a host cannot start.
func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, test := range map[string]struct {
		config  string
		prepare func(t *testing.T)
		code    int
		// line is how standard error begins; {dir} is the folder.
		line string
	}{
		"unknown key": {
			config: "lisen: x\n" + goodConfig,
			code:   exitUsage, line: "deskhost.yaml:1:1: lisen: there is no such key; did you mean listen?\n",
		},
		"plugin missing": {
			config: anyPort + "desks:\n  - name: support\n    plugin: gone\n",
			code:   exitUsage, line: `deskhost.yaml:5:13: desks[0].plugin: plugin "gone" ({dir}/plugins.d/deskhost-plugin-gone): there is no such file`,
		},
		"plugin not executable": {
			config:  goodConfig,
			prepare: func(t *testing.T) { chmod(t, "plugins.d/deskhost-plugin-mock", 0o644) },
			code:    exitUsage, line: `deskhost.yaml:5:13: desks[0].plugin: plugin "mock" ({dir}/plugins.d/deskhost-plugin-mock): it is not executable (mode 0644); run chmod 755 on it`,
		},
		"not a plugin": {
			config: goodConfig,
			prepare: func(t *testing.T) {
				write(t, "plugins.d/deskhost-plugin-mock", "#!/bin/sh\necho hello\n", 0o755)
			},
			code: exitUsage, line: `deskhost.yaml:5:13: desks[0].plugin: plugin "mock" ({dir}/plugins.d/deskhost-plugin-mock): `,
		},
		"other content than pinned": {
			config: goodConfig + "    sha256: " + strings.Repeat("ab", 32) + "\n",
			code:   exitUsage, line: `deskhost.yaml:6:13: desks[0].sha256: plugin "mock" ({dir}/plugins.d/deskhost-plugin-mock): its sha256 is `,
		},
		"configuration against the schema": {
			config: goodConfig + "    config:\n      url: 7\n      colour: red\n",
			code:   exitUsage, line: "deskhost.yaml:7:7: desks[0].config.url: has to be of type string, and is of type number",
		},
		"no JWKS file": {
			config: goodConfig + "identity: {jwks_file: keys.json}\n",
			code:   exitFailure, line: "deskhost: JWKS file {dir}/keys.json cannot be read: no such file or directory\n",
		},
		"port in use": {
			config: strings.Replace(goodConfig, "127.0.0.1:0", taken.Addr().String(), 1),
			code:   exitFailure, line: fmt.Sprintf("deskhost: listen: address %s is in use by another program; stop that one, or set listen to another address\n", taken.Addr()),
		},
		"operators' port in use": {
			config: strings.Replace(goodConfig, "{listen: 127.0.0.1:0", "{listen: "+taken.Addr().String(), 1),
			code:   exitFailure, line: fmt.Sprintf("deskhost: admin.listen: address %s is in use by another program; ", taken.Addr()),
		},
		"data folder not writable": {
			config: goodConfig, prepare: func(t *testing.T) { write(t, "data", "a file", 0o600) },
			code: exitFailure, line: "deskhost: data folder {dir}/data cannot be made: ",
		},
		"data folder of a newer format": {
			config: goodConfig,
			prepare: func(t *testing.T) {
				if err := os.MkdirAll("data/journal", 0o700); err != nil {
					t.Fatal(err)
				}
				write(t, "data/journal/FORMAT", "deskhost journal format 99\n", 0o600)
			},
			code: exitFailure, line: "deskhost: the journal in {dir}/data/journal has format 99, written by a newer deskhost",
		},
	} {
		t.Run(name, func(t *testing.T) {
			folder(t, test.config)
			if test.prepare != nil {
				test.prepare(t)
			}
			code, stdout, stderr := deskhost(t, "run")
			dir, err := os.Getwd()
			if err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(test.line, "{dir}", dir)
			if code != test.code || !strings.HasPrefix(stderr, want) {
				t.Errorf("exit code %d, said\n%s\nwant %d and\n%s", code, stderr, test.code, want)
			}
			if stdout != "" {
				t.Errorf("standard output is %q", stdout)
			}
			if strings.Contains(test.line, "deskhost.yaml:") {
				if code, _, checked := deskhost(t, "config", "check"); code != exitUsage || !strings.HasPrefix(checked, want) {
					t.Errorf("config check: exit code %d, said\n%s", code, checked)
				}
			}
		})
	}
}

func chmod(t *testing.T, name string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

func TestDataFolderInUse(t *testing.T) {
	folder(t, goodConfig)
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	first := e2e.Start(t, e2e.Binary(), "run")
	first.Line("ready")
	code, _, stderr := deskhost(t, "run")
	want := fmt.Sprintf("deskhost: data folder %s/data is in use by another deskhost (process %d); stop that one, or set data_dir to another folder\n", dir, first.PID())
	if code != exitFailure || stderr != want {
		t.Errorf("exit code %d, said\n%s\nwant\n%s", code, stderr, want)
	}
	if code := first.Terminate(); code != exitOK {
		t.Errorf("the first host ended with %d", code)
	}
}

// TestOneFaultyDesk holds that a desk that cannot be served keeps no other down.
func TestOneFaultyDesk(t *testing.T) {
	folder(t, goodConfig+"  - {name: sales, plugin: gone}\ndefault_desk: support\n")
	p := e2e.Start(t, e2e.Binary(), "run")
	p.Line("ready")
	if code := p.Terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"a desk cannot be served; the others are: desk=sales", "deskhost.yaml:6:27: desks[1].plugin"} {
		if !strings.Contains(p.Stderr(), want) {
			t.Errorf("the log lacks %q:\n%s", want, p.Stderr())
		}
	}
	if code, _, stderr := deskhost(t, "config", "check"); code != exitUsage || !strings.HasPrefix(stderr, "deskhost.yaml:6:27: ") {
		t.Errorf("config check: exit code %d, said\n%s", code, stderr)
	}
}

func TestCommands(t *testing.T) {
	folder(t, goodConfig)
	write(t, "plugins.d/deskhost-plugin-plain", "no program", 0o644)
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   string
		code   int
		stdout string // begins so
		stderr string // begins so
	}{
		{"version", exitOK, "dev\n", ""},
		{"config check", exitOK, "deskhost.yaml is good: desks 1\n", ""},
		{"config check nowhere.yaml", exitUsage, "", "nowhere.yaml: there is no such file; name one with --config FILE\n"},
		{"run --config nowhere.yaml", exitUsage, "", "nowhere.yaml: there is no such file; name one with --config FILE\n"},
		{"plugin list", exitOK, "NAME", ""},
		{"plugin info mock", exitOK, "name           mock\n", ""},
		{"plugin info plugins.d/deskhost-plugin-mock", exitOK, "name           mock\n", ""},
		{"plugin info deskhost-plugin-gone", exitUsage, "", `deskhost: plugin "deskhost-plugin-gone" (` + dir + `/deskhost-plugin-gone): no such file or directory` + "\n"},
		{"plugin info gone", exitUsage, "", `deskhost: plugin "gone" (` + dir + `/plugins.d/deskhost-plugin-gone): there is no such file`},
		{"plugin info plugins.d/gone", exitUsage, "", `deskhost: plugin "gone" (` + dir + `/plugins.d/gone): no such file or directory` + "\n"},
		{"plugin info ./deskhost.yaml", exitUsage, "", `deskhost: plugin "deskhost.yaml" (` + dir + "/deskhost.yaml): the file of a plugin is named deskhost-plugin-NAME; rename it\n"},
		{"plugin info", exitUsage, "", "deskhost: accepts 1 arg(s), received 0; `deskhost help` lists what there is\n"},
		{"run --colour", exitUsage, "", "deskhost: unknown flag: --colour; `deskhost help` lists what there is\n"},
		{"run --log-level verbose --config nowhere.yaml", exitUsage, "", "deskhost: --log-level is trace, debug, info, warn or error, not \"verbose\"; `deskhost help` lists what there is\n"},
		{"run --log-level debug --config nowhere.yaml", exitUsage, "", "nowhere.yaml: there is no such file; name one with --config FILE\n"},
		{"frobnicate", exitUsage, "", "deskhost: unknown command \"frobnicate\" for \"deskhost\"; `deskhost help` lists what there is\n"},
	} {
		t.Run(test.args, func(t *testing.T) {
			code, stdout, stderr := deskhost(t, strings.Fields(test.args)...)
			if code != test.code || !strings.HasPrefix(stdout, test.stdout) || !strings.HasPrefix(stderr, test.stderr) ||
				(test.stderr == "") != (stderr == "") || (test.stdout == "") != (stdout == "") {
				t.Errorf("exit code %d, standard output\n%s\nstandard error\n%s", code, stdout, stderr)
			}
		})
	}
}

func TestNoConfiguration(t *testing.T) {
	t.Chdir(t.TempDir())
	code, _, stderr := deskhost(t, "run")
	if code != exitUsage || !strings.HasPrefix(stderr, "deskhost.yaml: there is no such file here; name one with --config FILE, or begin with a copy of ") {
		t.Errorf("exit code %d, said %s", code, stderr)
	}
}

func TestJSON(t *testing.T) {
	folder(t, goodConfig)
	write(t, "plugins.d/deskhost-plugin-plain", "no program", 0o644)

	var list struct {
		Plugins []struct {
			Name, SHA256, Problem string
			Desks                 []string
		}
	}
	_, stdout, _ := deskhost(t, "plugin", "list", "--json")
	if err := json.Unmarshal([]byte(stdout), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Plugins) != 2 || list.Plugins[0].Name != "mock" || list.Plugins[0].Problem != "" || list.Plugins[0].Desks[0] != "support" ||
		!strings.HasPrefix(list.Plugins[1].Problem, "it is not executable") {
		t.Errorf("the list is %+v", list)
	}

	var info struct {
		Name         string
		Version      string
		SHA256       string
		Capabilities []string
		Dedupe       string          `json:"send_dedupe"`
		Replay       string          `json:"replay"`
		Formats      []int           `json:"state_formats"`
		Schema       json.RawMessage `json:"config_schema"`
	}
	_, stdout, _ = deskhost(t, "plugin", "info", "mock", "--json")
	if err := json.Unmarshal([]byte(stdout), &info); err != nil {
		t.Fatal(err)
	}
	if info.Name != "mock" || info.Version == "" || info.SHA256 != list.Plugins[0].SHA256 || len(info.Capabilities) == 0 ||
		info.Dedupe != "key" || info.Replay != "cursor" || len(info.Formats) == 0 || len(info.Schema) == 0 {
		t.Errorf("the plugin is %+v", info)
	}
}

// TestInfoOfAFile holds what is told of a file that no host and no configuration
// knows of.
func TestInfoOfAFile(t *testing.T) {
	folder(t, goodConfig)
	content, err := os.ReadFile("plugins.d/deskhost-plugin-mock")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("plugins.d")
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := deskhost(t, "plugin", "info", "deskhost-plugin-mock", "--json")
	var info map[string]any
	if err := json.Unmarshal([]byte(stdout), &info); err != nil || code != exitOK {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if schema, ok := info["config_schema"].(map[string]any); !ok || schema["title"] != "Mock desk" {
		t.Errorf("the schema is %v", info["config_schema"])
	}
	delete(info, "config_schema")
	want := map[string]any{
		"name": "mock", "title": "Mock desk", "version": "0.1.0",
		"file": filepath.Join(dir, "deskhost-plugin-mock"), "sha256": fmt.Sprintf("%x", sha256.Sum256(content)),
		"capabilities": []any{"availability", "update_state", "user_typing", "user_read", "resume", "http"},
		"send_dedupe":  "key", "replay": "cursor", "state_formats": []any{1.0}, "max_text_bytes": 0.0,
	}
	if !reflect.DeepEqual(info, want) {
		t.Errorf("told\n%v\nwant\n%v", info, want)
	}
	_, stdout, _ = deskhost(t, "plugin", "info", "./deskhost-plugin-mock")
	for _, line := range []string{"send_dedupe    key\n", "replay         cursor\n", "longest text   the host's limit\n", "configuration: \n{\n"} {
		if !strings.Contains(stdout, line) {
			t.Errorf("no line %q in\n%s", line, stdout)
		}
	}
}
