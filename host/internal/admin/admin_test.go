package admin

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/deskhost/deskhost/host/internal/desk"
)

var (
	since   = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	support = Desk{Status: desk.Status{
		Name: "support", Plugin: "mock", Version: "1.2.3", State: desk.StateReady, Pid: 4711, Generation: 2, Since: since,
		Restarts: 1, Crashes: 1, LastError: "exit status 2 <script>", SendDedupe: "key", Replay: "cursor",
		Generations: []desk.GenerationStatus{{Number: 2, State: desk.StateReady, MemoryBytes: 5 << 20, CPUSeconds: 1.5}},
	}, Chats: 3, Settled: true}
	sales = Desk{Status: desk.Status{Name: "sales", Plugin: "mock", State: desk.StateStarting, Since: since}}
)

func options(desks ...Desk) Options {
	return Options{
		Version: "9.9.9",
		Started: since,
		Desks:   func() []Desk { return desks },
		Plugins: func() []Plugin {
			return []Plugin{{Name: "mock", File: "/p/deskhost-plugin-mock", Size: 5, ModTime: since, SHA256: "ab", Version: "1.2.3", Desks: []string{"support"}}}
		},
		Storage: func() Storage { return Storage{Journal: 5 << 20, Free: 7 << 20, Reserve: 256 << 20, Full: true} },
		Config:  func() Config { return Config{Loaded: since, Problem: "deskhost.yaml:1:1: lisen: there is no such key"} },
		Log:     hclog.NewNullLogger(),
	}
}

func get(t *testing.T, o Options, url string, change ...func(*http.Request)) (status int, header http.Header, body string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, url, nil)
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	New(o).ServeHTTP(w, r)
	data, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, w.Header(), string(data)
}

func TestDesks(t *testing.T) {
	status, _, body := get(t, options(support), "http://127.0.0.1:8081/v1/desks")
	const want = `{"desks":[{"name":"support","state":"ready","since":"2026-01-02T03:04:05Z","plugin":"mock","version":"1.2.3",` +
		`"send_dedupe":"key","replay":"cursor",` +
		`"generations":[{"number":2,"state":"ready","since":"0001-01-01T00:00:00Z","pid":0,"version":"","sha256":"","chats":0,"memory_bytes":5242880,"cpu_seconds":1.5}],` +
		`"pid":4711,"generation":2,"restarts":1,"crashes":1,` +
		`"last_error":"exit status 2 \u003cscript\u003e","chats":3,"chats_away":0,"settled":true}]}`
	if status != http.StatusOK || compact(t, body) != want {
		t.Errorf("got %d %s\nwant %s", status, compact(t, body), want)
	}
}

func compact(t *testing.T, body string) string {
	t.Helper()
	var out strings.Builder
	var v json.RawMessage
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	for line := range strings.SplitSeq(body, "\n") {
		out.WriteString(strings.Replace(strings.TrimSpace(line), `": `, `":`, 1))
	}
	return out.String()
}

func TestPlugins(t *testing.T) {
	status, _, body := get(t, options(support), "http://localhost/v1/plugins")
	const want = `{"plugins":[{"name":"mock","file":"/p/deskhost-plugin-mock","size":5,"modified":"2026-01-02T03:04:05Z","sha256":"ab","version":"1.2.3","desks":["support"]}]}`
	if status != http.StatusOK || compact(t, body) != want {
		t.Errorf("got %d %s\nwant %s", status, compact(t, body), want)
	}
}

func TestReadyz(t *testing.T) {
	for _, test := range []struct {
		name   string
		desks  []Desk
		status int
		body   string
	}{
		{"all settled", []Desk{support}, http.StatusOK, `{"desks":{"support":"ready"},"status":"ready","storage":{"journal_bytes":5242880,"free_bytes":7340032,"reserve_bytes":268435456,"full":true}}`},
		{"one still starting", []Desk{support, sales}, http.StatusServiceUnavailable, `{"desks":{"sales":"starting","support":"ready"},"status":"starting","storage":{"journal_bytes":5242880,"free_bytes":7340032,"reserve_bytes":268435456,"full":true}}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, _, body := get(t, options(test.desks...), "http://127.0.0.1/readyz")
			if status != test.status || compact(t, body) != test.body {
				t.Errorf("got %d %s", status, compact(t, body))
			}
		})
	}
}

func TestMetricsAreNamedAsIsTheCustom(t *testing.T) {
	families, err := newRegistry(options(support, sales)).Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

func TestMetrics(t *testing.T) {
	_, _, body := get(t, options(support, sales), "http://127.0.0.1/metrics")
	for _, want := range []string{
		`deskhost_build_info{version="9.9.9"} 1`,
		`deskhost_desk_state{desk="support",plugin="mock",state="ready",version="1.2.3"} 1`,
		`deskhost_desk_state{desk="support",plugin="mock",state="quarantined",version="1.2.3"} 0`,
		`deskhost_desk_state{desk="sales",plugin="mock",state="starting",version=""} 1`,
		`deskhost_desk_restarts_total{desk="support"} 1`,
		`deskhost_desk_crashes_total{desk="support"} 1`,
		`deskhost_desk_generation{desk="support"} 2`,
		`deskhost_plugin_file_taken{file="/p/deskhost-plugin-mock",plugin="mock",sha256="ab",version="1.2.3"} 1`,
		`deskhost_config_good 0`,
		`deskhost_journal_bytes 5.24288e+06`,
		`deskhost_disk_free_bytes 7.340032e+06`,
		`deskhost_disk_full 1`,
		`deskhost_chats_open{desk="support"} 3`,
		`deskhost_plugin_memory_bytes{desk="support",generation="2"} 5.24288e+06`,
		`deskhost_plugin_cpu_seconds_total{desk="support",generation="2"} 1.5`,
		"go_goroutines",
	} {
		if !strings.Contains(body, want+"\n") && !strings.Contains(body, want+" ") {
			t.Errorf("no line %s", want)
		}
	}
}

// Whoever drops a file into the plugin folder may name it with any bytes.
func TestMetricsOfFilesWithNamesThatAreNoText(t *testing.T) {
	o := options(support)
	o.Plugins = func() []Plugin {
		return []Plugin{
			{Name: "\xfe", File: "/p/deskhost-plugin-\xfe", Problem: "no name"},
			{Name: "\xff", File: "/p/deskhost-plugin-\xff", Problem: "no name"},
		}
	}
	status, _, body := get(t, o, "http://127.0.0.1/metrics")
	if status != http.StatusOK {
		t.Fatalf("got %d %s", status, body)
	}
	for _, want := range []string{
		`deskhost_plugin_file_taken{file="\"/p/deskhost-plugin-\\xfe\"",plugin="\"\\xfe\"",sha256="",version=""} 0`,
		`deskhost_plugin_file_taken{file="\"/p/deskhost-plugin-\\xff\"",plugin="\"\\xff\"",sha256="",version=""} 0`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
}

func TestStatusPage(t *testing.T) {
	status, header, body := get(t, options(support, sales), "http://127.0.0.1/")
	if status != http.StatusOK || !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("got %d %v", status, header)
	}
	for _, want := range []string{"Version 9.9.9", "<td>support</td>", ">ready<small>since 2026-01-02 03:04:05</small>", "4711", "mock 1.2.3", "ready; the last failure was: exit status 2 &lt;script&gt;", "<td>sales</td>", "lisen: there is no such key", "7 MiB are free", "The disk is nearly full"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

// TestStatusPageOfADeskInTrouble: a planned replacement is no trouble, a crash is,
// and so are chats that nobody serves.
func TestStatusPageOfADeskInTrouble(t *testing.T) {
	d := support
	d.State, d.Pid, d.Restarts, d.Crashes = desk.StateBackingOff, 0, 17, 4
	next := since.Add(8 * time.Second)
	d.NextStart = &next
	d.Chats, d.ChatsAway = 3, 2
	d.Generations = []desk.GenerationStatus{
		{Number: 8, State: desk.StateDraining, Version: "1.2.2", Pid: 4700, Chats: 1},
	}
	_, _, body := get(t, options(d), "http://127.0.0.1/")
	for _, want := range []string{
		">backing_off<small>since 2026-01-02 03:04:05<br>next start 03:04:13</small>",
		`<td class="number">4</td>`, `<td class="number">3<small>2 not served now</small></td>`,
		"generation 8 (version 1.2.2, pid 4700) keeps 1 of 3 chats until they end",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Contains(body, ">17<") {
		t.Error("processes that were replaced are counted")
	}
}

func TestWhoMayRead(t *testing.T) {
	const token = "0123456789abcdef"
	bearer := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	password := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth("operator", token) }
	}
	nothing := func(*http.Request) {}
	for _, test := range []struct {
		name, token, url string
		change           func(*http.Request)
		want             int
	}{
		{"address", "", "http://127.0.0.1:8081/v1/desks", nothing, http.StatusOK},
		{"IPv6 address", "", "http://[::1]:8081/v1/desks", nothing, http.StatusOK},
		{"localhost", "", "http://localhost:8081/v1/desks", nothing, http.StatusOK},
		{"rebound name", "", "http://evil.example:8081/v1/desks", nothing, http.StatusMisdirectedRequest},
		{"rebound name, page", "", "http://127.0.0.1.evil.example/", nothing, http.StatusMisdirectedRequest},
		{"no token", token, "http://127.0.0.1/v1/desks", nothing, http.StatusUnauthorized},
		{"wrong token", token, "http://127.0.0.1/metrics", bearer("0123456789abcdeF"), http.StatusUnauthorized},
		{"empty token", token, "http://127.0.0.1/", bearer(""), http.StatusUnauthorized},
		{"token", token, "http://127.0.0.1/v1/desks", bearer(token), http.StatusOK},
		{"token, by name", token, "http://host.example/v1/desks", bearer(token), http.StatusOK},
		{"password", token, "http://host.example/", password(token), http.StatusOK},
		{"wrong password", token, "http://host.example/", password("x"), http.StatusUnauthorized},
		{"health needs none", token, "http://host.example/healthz", nothing, http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := options(support)
			o.Token = test.token
			if status, _, body := get(t, o, test.url, test.change); status != test.want {
				t.Errorf("got %d %s, want %d", status, body, test.want)
			}
		})
	}
}

func TestReadOnly(t *testing.T) {
	w := httptest.NewRecorder()
	New(options(support)).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://127.0.0.1/v1/desks", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("got %d", w.Code)
	}
}
