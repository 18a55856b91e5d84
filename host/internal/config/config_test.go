package config

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// load writes a file and loads it under the short name that diagnostics show.
func load(t *testing.T, source string) (*Config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("d.yaml", []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load("d.yaml")
}

const oneDesk = "desks: [{name: support, plugin: mock}]\n"

func TestDefaults(t *testing.T) {
	c, err := load(t, oneDesk)
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := os.Getwd()
	if c.Listen != "127.0.0.1:8080" || c.Admin.Listen != "127.0.0.1:8081" || c.DataDir != filepath.Join(dir, "data") ||
		c.PluginDir != filepath.Join(dir, "plugins.d") || c.Demo || c.DefaultDesk != "support" ||
		c.Limits != DefaultLimits() || c.Retention.ClosedSessions != 30*24*time.Hour || string(c.Desks[0].Config) != "{}" {
		t.Errorf("got %+v", c)
	}
}

func TestEveryKey(t *testing.T) {
	t.Setenv("VENDOR_SECRET", "s3cret")
	source := `
listen: 127.0.0.1:0
public_url: https://chat.example.com/
origins: [https://WWW.example.com, "http://localhost:3000"]
admin: { listen: 0.0.0.0:8081, token: "0123456789abcdef" }
data_dir: /var/lib/deskhost
plugin_dir: plugins
demo: true
identity: { jwks_file: keys.json, required: true }
limits:
  session_ttl: 7d
  start_timeout: 1s
  send_wait: 100ms
  message_wait: 2m
  abandon_waiting: 3m
  abandon_connected: 4m
  join_timeout: 5m
  desk_away_limit: 6m
  end_retry: 7m
  drain_limit: 8h
  text_bytes: 1KiB
  body_bytes: 4096
  queued_messages: 9
  disk_reserve: 1GiB
  requests_per_minute: 15
  sessions_per_minute: 10
  chats_per_minute: 11
  messages_per_minute: 12
  sockets_per_session: 13
  sockets_per_address: 14
  plugin_memory: 1GiB
  plugin_open_files: 16
  plugin_nice: 0
  plugin_log_lines: 17
  plugin_log_bytes: 18KiB
  plugin_calls: 19
  plugin_events: 20
  plugin_start_timeout: 21s
  plugin_health_interval: 22s
retention: { closed_sessions: 12h }
desks:
  - name: support
    plugin: mock
    sha256: ` + strings.Repeat("Ab", 32) + `
    user: desk-1
    config:
      url: http://127.0.0.1:9000
      header: "Bearer ${env:VENDOR_SECRET}"
      literal: $${not a reference}
      deep: { list: [1, 2.5, true, null, "x"] }
  - { name: sales, plugin: mock }
default_desk: sales
`
	c, err := load(t, source)
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := os.Getwd()
	want := Limits{
		SessionTTL: 7 * 24 * time.Hour, StartTimeout: time.Second, SendWait: 100 * time.Millisecond, MessageWait: 2 * time.Minute,
		AbandonWaiting: 3 * time.Minute, AbandonConnected: 4 * time.Minute, JoinTimeout: 5 * time.Minute,
		DeskAwayLimit: 6 * time.Minute, EndRetry: 7 * time.Minute, DrainLimit: 8 * time.Hour, TextBytes: 1024, BodyBytes: 4096,
		QueuedMessages: 9, DiskReserve: 1 << 30, RequestsPerMinute: 15, SessionsPerMinute: 10, ChatsPerMinute: 11, MessagesPerMinute: 12,
		SocketsPerSession: 13, SocketsPerAddress: 14,
		PluginMemory: 1 << 30, PluginOpenFiles: 16, PluginNice: 0, PluginLogLines: 17, PluginLogBytes: 18 << 10,
		PluginCalls: 19, PluginEvents: 20, PluginStartTimeout: 21 * time.Second, PluginHealthInterval: 22 * time.Second,
	}
	if c.Limits != want {
		t.Errorf("limits are %+v", c.Limits)
	}
	if c.PublicURL != "https://chat.example.com" || c.Origins[0] != "https://www.example.com" || c.Origins[1] != "http://localhost:3000" ||
		c.Admin.Token != "0123456789abcdef" || c.DataDir != "/var/lib/deskhost" || c.PluginDir != filepath.Join(dir, "plugins") ||
		c.Identity.JWKSFile != filepath.Join(dir, "keys.json") || !c.Identity.Required || !c.Demo || c.DefaultDesk != "sales" ||
		c.Retention.ClosedSessions != 12*time.Hour {
		t.Errorf("got %+v", c)
	}
	d := c.Desks[0]
	const config = `{"deep":{"list":[1,2.5,true,null,"x"]},"header":"Bearer s3cret","literal":"${not a reference}","url":"http://127.0.0.1:9000"}`
	if string(d.Config) != config {
		t.Errorf("config is %s", d.Config)
	}
	if d.SHA256 != strings.Repeat("ab", 32) || d.User != "desk-1" {
		t.Errorf("sha256 is %s, user is %s", d.SHA256, d.User)
	}
	for pointer, want := range map[string]string{
		"":                   "d.yaml:47:7",
		"/url":               "d.yaml:47:7",
		"/header":            "d.yaml:48:7",
		"/deep/list/1":       "d.yaml:50:25",
		"/deep/list/1/gone":  "d.yaml:50:25",
		"/missing":           "d.yaml:47:7",
		"/deep/missing/deep": "d.yaml:50:7",
	} {
		if got := d.Position(pointer).String(); got != want {
			t.Errorf("%q stands at %s, want %s", pointer, got, want)
		}
	}
}

func TestFileReference(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("from the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "deskhost.yaml")
	if err := os.WriteFile(file, []byte("desks: [{name: a, plugin: mock, config: {key: \"${file:secret}\"}}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(c.Desks[0].Config) != `{"key":"from the file"}` {
		t.Errorf("config is %s", c.Desks[0].Config)
	}
}

func TestProblems(t *testing.T) {
	t.Setenv("SECRET", "hunter2")
	for name, test := range map[string]struct {
		source string
		want   string
	}{
		"empty file": {"", `d.yaml: desks: missing; a host needs at least one desk: {name: …, plugin: …, config: {…}}`},
		"no mapping": {"- x\n", "d.yaml:1:1: found a list where the keys of the configuration belong, such as `desks:`"},
		"not YAML":   {"listen: [\n", "d.yaml:1:9: not valid YAML: sequence end token ']' not found"},
		"two documents": {oneDesk + "---\nlisten: x\n",
			"d.yaml:3:1: a second document begins here; the file must hold one"},
		"all at once, by line": {`
listen: 8080
limits:
  session_tll: 1h
  send_wait: soon
  queued_messages: 0
  text_bytes: 9MiB
desks:
  - name: Support
    plugin: mock
  - name: sales
    plugins: mock
default_desk: nobody
`, `d.yaml:2:9: listen: found 8080, expected a text; put it in quotes
d.yaml:4:3: limits.session_tll: there is no such key; did you mean session_ttl?
d.yaml:5:14: limits.send_wait: found "soon", expected a duration above zero, such as 30s, 10m, 24h or 7d
d.yaml:6:20: limits.queued_messages: found "0", expected a whole number above zero
d.yaml:7:15: limits.text_bytes: found "9MiB", expected a size of at most 3MiB, such as 32KiB or 1MiB
d.yaml:9:11: desks[0].name: found "Support", expected a name of at most 40 letters a-z, digits and hyphens that does not begin with a hyphen
d.yaml:11:5: desks[1].plugin: missing
d.yaml:12:5: desks[1].plugins: there is no such key; did you mean plugin?`},
		"key like no other": {"zzz: 1\n" + oneDesk,
			"d.yaml:1:1: zzz: there is no such key; the keys here are admin, data_dir, default_desk, demo, desks, identity, limits, listen, origins, plugin_dir, public_url, retention"},
		"key given twice": {"listen: 127.0.0.1:1\nlisten: 127.0.0.1:2\n" + oneDesk,
			"d.yaml:2:1: listen: given twice, the first time on line 1; remove one"},
		"key given twice, deep": {"desks: [{name: a, plugin: b, config: {x: {y: 1, y: 2}}}]",
			"d.yaml:1:49: desks[0].config.x.y: given twice, the first time on line 1; remove one"},
		"desk named twice": {"desks:\n- {name: a, plugin: mock}\n- {name: a, plugin: mock}\n",
			`d.yaml:3:3: desks[1].name: desk "a" is named twice, first as desks[0]; names must differ`},
		"no desks":         {"desks: []\n", "d.yaml:1:8: desks: the list is empty; a host needs at least one desk"},
		"desks not a list": {"desks: {name: a}\n", "d.yaml:1:8: desks: found a mapping, expected a list"},
		"default desk": {oneDesk + "default_desk: suport\n",
			"d.yaml:2:15: default_desk: there is no desk of this name; did you mean support?"},
		"user": {"desks: [{name: a, plugin: b, user: a b}]",
			`d.yaml:1:36: desks[0].user: found "a b", expected the name or number of a system user`},
		"nice": {"limits: {plugin_nice: 20}\n" + oneDesk,
			`d.yaml:1:23: limits.plugin_nice: found "20", expected a whole number from 0 to 19`},
		"events": {"limits: {plugin_events: 4294967296}\n" + oneDesk,
			`d.yaml:1:25: limits.plugin_events: found "4294967296", expected a whole number from 1 to 1048576`},
		"no events": {"limits: {plugin_events: 0}\n" + oneDesk,
			`d.yaml:1:25: limits.plugin_events: found "0", expected a whole number from 1 to 1048576`},
		"health": {"limits: {plugin_health_interval: 999ms}\n" + oneDesk,
			`d.yaml:1:34: limits.plugin_health_interval: found "999ms", expected a duration of at least 1s, such as 30s or 10m`},
		"pin": {"desks: [{name: a, plugin: b, sha256: abc}]",
			"d.yaml:1:38: desks[0].sha256: found \"abc\", expected the 64 hexadecimal digits that `deskhost plugin info` prints"},
		"config not a mapping": {"desks: [{name: a, plugin: b, config: [1]}]",
			"d.yaml:1:38: desks[0].config: found a list, expected a mapping: the keys that the plugin knows"},
		"infinity": {"desks: [{name: a, plugin: b, config: {x: .inf}}]",
			"d.yaml:1:42: desks[0].config.x: found infinity, which cannot be used here"},
		"alias": {"desks: [{name: a, plugin: b, config: {x: &x 1, y: *x}}]",
			"d.yaml:1:42: desks[0].config.x: anchors and aliases (& and *) are not supported; write the value out, in quotes if it is a text\n" +
				"d.yaml:1:51: desks[0].config.y: anchors and aliases (& and *) are not supported; write the value out, in quotes if it is a text"},
		"tag": {"listen: !!str 1\n" + oneDesk,
			"d.yaml:1:9: listen: tags (!) are not supported; write the value without, in quotes if it is a text"},
		"variable not set": {"listen: ${env:DESKHOST_TEST_NOT_SET}\n" + oneDesk,
			"d.yaml:1:9: listen: the environment variable DESKHOST_TEST_NOT_SET is not set"},
		"file missing": {"admin: {token: \"${file:gone}\"}\n" + oneDesk,
			"d.yaml:1:16: admin.token: the file gone cannot be read: no such file or directory"},
		"unknown reference": {"public_url: ${vault:x}\n" + oneDesk,
			"d.yaml:1:13: public_url: only ${env:NAME} and ${file:PATH} are known; write $${ where the text itself is meant"},
		"reference not closed": {"public_url: ${env:X\n" + oneDesk,
			"d.yaml:1:13: public_url: a reference that begins with ${ has no }; write $${ where the text itself is meant"},
		"secret not shown": {"listen: ${env:SECRET}\nadmin: {token: short}\n" + oneDesk,
			"d.yaml:1:9: listen: found something else (not shown, it is a secret), expected an address and port, such as 127.0.0.1:8080\n" +
				"d.yaml:2:16: admin.token: found something else (not shown, it is a secret), expected a secret of at least 16 bytes, such as the output of `openssl rand -base64 24`"},
		"origins": {"origins: [\"*\", https://a.example/path]\n" + oneDesk,
			`d.yaml:1:11: origins[0]: found "*", expected an origin: scheme, host and port only, no path and no *, such as https://www.example.com
d.yaml:1:16: origins[1]: found "https://a.example/path", expected an origin: scheme, host and port only, no path and no *, such as https://www.example.com`},
		"public URL": {"public_url: chat.example.com\n" + oneDesk,
			`d.yaml:1:13: public_url: found "chat.example.com", expected an http or https address without a query, such as https://chat.example.com`},
		"demo for everyone": {"listen: 0.0.0.0:80\ndemo: true\n" + oneDesk,
			"d.yaml:2:7: demo: the demo pages are served on a loopback address only; set listen to 127.0.0.1:8080 or demo to false"},
		"admin for everyone": {"admin: {listen: \":8081\"}\n" + oneDesk,
			"d.yaml:1:17: admin.listen: not a loopback address, which needs admin.token; set one, such as ${env:DESKHOST_ADMIN_TOKEN}"},
		"identity without keys": {"identity: {required: true}\n" + oneDesk,
			"d.yaml:1:22: identity.required: tokens cannot be required without keys to check them; set identity.jwks_file"},
		"text over body": {"limits: {text_bytes: 1MiB}\n" + oneDesk,
			"d.yaml:1:9: limits.text_bytes: larger than limits.body_bytes (256KiB), so that no such text can arrive; raise that too"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.source)
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("error is %v, not Problems", err)
			}
			if problems.Error() != test.want {
				t.Errorf("got\n%s\nwant\n%s", problems.Error(), test.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("a secret is shown")
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	_, err := Load(filepath.Join("nowhere", "d.yaml"))
	const want = "nowhere/d.yaml: there is no such file; name one with --config FILE"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// FuzzLoad holds that no file makes the reader panic.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(oneDesk))
	f.Add([]byte("a: &x [*x, !!t ${, {? [1]: 2}]\n<<: *x\n"))
	f.Fuzz(func(_ *testing.T, source []byte) {
		r := &reader{file: "d.yaml", dir: "/"}
		if root := r.parse(source); root != nil {
			r.config(root)
		}
	})
}

func TestKeyOf(t *testing.T) {
	d := Desk{Key: "desks[2]"}
	for pointer, want := range map[string]string{
		"":              "desks[2].config",
		"/url":          "desks[2].config.url",
		"/agents/0/a~1": "desks[2].config.agents[0].a/",
	} {
		if got := d.KeyOf(pointer); got != want {
			t.Errorf("KeyOf(%q) is %s, want %s", pointer, got, want)
		}
	}
}

// TestDemoFile holds that the demo's file loads, and that the defaults in its
// comments are the defaults.
func TestDemoFile(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "..", "..", "examples", "demo", DefaultFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, string(source)); err != nil {
		t.Error(err)
	}
	commentedOut := regexp.MustCompile(`(?m)^# ( *[a-z_]+:( .*)?)$`)
	c, err := load(t, commentedOut.ReplaceAllString(string(source), "$1"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Limits != DefaultLimits() || c.Retention.ClosedSessions != 30*24*time.Hour || c.PublicURL == "" || c.Identity.JWKSFile == "" {
		t.Errorf("got %+v", c)
	}
	for key := range new(Limits).keys() {
		if !strings.Contains(string(source), "#   "+key+": ") {
			t.Errorf("the file does not tell limits.%s", key)
		}
	}
}
