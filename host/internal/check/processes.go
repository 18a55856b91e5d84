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
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds each wait for a process, and each call of one. What comes near
// it has failed.
const patience = time.Minute

var address = regexp.MustCompile(`http://[^\s,/]+`)

// desks are the desks of the host, each with a process of the mock plugin.
var desks = []string{"a", "b"}

// build makes what a run needs: the host, and for each way of send_dedupe two
// plugins that differ in their version only.
func build(ctx context.Context, dir string) error {
	if err := buildOne(ctx, dir, "deskhost", "./host/cmd/deskhost"); err != nil {
		return err
	}
	for _, dedupe := range []string{"key", "none"} {
		for i := range 2 {
			flags := fmt.Sprintf("-ldflags=-X main.version=1.0.%d -X main.dedupe=%s", i, dedupe)
			if err := buildOne(ctx, dir, mock(dedupe, i), "./plugins/mock", flags); err != nil {
				return err
			}
		}
	}
	return nil
}

// mock is the file name of a build of the mock plugin.
func mock(dedupe string, i int) string { return fmt.Sprintf("mock-%s-%d", dedupe, i) }

func buildOne(ctx context.Context, dir, file, source string, flags ...string) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", filepath.Join(dir, file)}, flags...), source)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", source, err, out)
	}
	return nil
}

func moduleRoot(ctx context.Context) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("go list -m: %w", err)
	}
	return strings.TrimSpace(string(root)), nil
}

// process is a program that the run has started.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// launch starts a program and awaits a line of its standard output with the
// text. What it writes to standard error goes to the end of a file.
func launch(logFile, text, program string, args ...string) (p *process, line string, err error) {
	stderr, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, "", err
	}
	defer stderr.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	p = &process{cmd: exec.CommandContext(context.Background(), program, args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = write, stderr
	err = p.cmd.Start()
	_ = write.Close() // the process has its own
	if err != nil {
		_ = read.Close()
		return nil, "", err
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the state tells
	}()
	found := make(chan string, 1)
	go func() { // ends with the process, which closes its output
		defer read.Close()
		defer close(found)
		lines := bufio.NewScanner(read)
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				found <- lines.Text()
				break
			}
		}
		_, _ = io.Copy(io.Discard, read)
	}()
	late := time.NewTimer(patience)
	defer late.Stop()
	ok := false
	select {
	case line, ok = <-found:
	case <-late.C:
	}
	if !ok {
		p.kill()
		return nil, "", fmt.Errorf("%s did not say %q; see %s", filepath.Base(program), text, logFile)
	}
	return p, line, nil
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}

// terminate asks the process to end.
func (p *process) terminate() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	late := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	<-p.exited
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s was asked to end, and did with %s", filepath.Base(p.cmd.Path), p.cmd.ProcessState)
	}
	return nil
}

// desk is the mock desk, as a process of its own.
type desk struct {
	process *process
	url     string

	mu    sync.Mutex
	fault int // counts the faults
}

func (o options) startDesk() (*desk, error) {
	script := filepath.Join(o.dir, "script.json")
	text := fmt.Sprintf(`{"console": true, "dedupe": %v}`, o.dedupe == "key")
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, line, err := launch(filepath.Join(o.dir, "desk.log"), "http://", filepath.Join(o.bin, mock(o.dedupe, 0)),
		"desk", "--listen", "127.0.0.1:0", "--script", script)
	if err != nil {
		return nil, err
	}
	return &desk{process: p, url: address.FindString(line)}, nil
}

// goWrong has the desk make faults for a while, or until it makes others.
func (d *desk) goWrong(faults map[string]any, long time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault++
	n := d.fault
	time.AfterFunc(long, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.fault == n {
			_ = d.put(map[string]any{}) // recover does it at the latest
		}
	})
	return d.put(faults)
}

// recover has the desk make no faults any more.
func (d *desk) recover() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault++
	return d.put(map[string]any{})
}

func (d *desk) put(faults map[string]any) error {
	return call(context.Background(), http.MethodPut, d.url+"/console/api/faults", faults, nil)
}

// say has the agent of a chat say texts. A chat that is over is left alone.
func (d *desk) say(ctx context.Context, chatID string, texts ...string) error {
	var steps []map[string]string
	for _, text := range texts {
		steps = append(steps, map[string]string{"say": text})
	}
	err := call(ctx, http.MethodPost, d.url+"/console/api/conversations/"+url.PathEscape(chatID),
		map[string]any{"agent": "ada", "do": steps}, nil)
	if p := (*problem)(nil); errors.As(err, &p) && (p.status == http.StatusGone || p.status == http.StatusNotFound) {
		return nil
	}
	return err
}

// history is the desk's account of a chat; nil if it does not know it.
func (d *desk) history(ctx context.Context, chatID string) ([]deskEvent, error) {
	var all []deskEvent
	for {
		after := uint64(len(all))
		var h struct {
			Events []deskEvent `json:"events"`
			More   bool        `json:"more"`
		}
		err := call(ctx, http.MethodGet, fmt.Sprintf("%s/v1/conversations/%s/events?after=%d", d.url, url.PathEscape(chatID), after), nil, &h)
		if p := (*problem)(nil); errors.As(err, &p) && p.status == http.StatusNotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for i := range h.Events {
			h.Events[i].trim()
		}
		all = append(all, h.Events...)
		if !h.More {
			return all, nil
		}
	}
}

// host is the deskhost under test. It is always started again at the same
// address.
type host struct {
	options

	config     string
	url, admin string
	fell       func(string) // is told when it ends by itself

	mu      sync.Mutex
	process *process
	plugin  int // the build that comes next into the plugin folder
	starts  int
}

func (o options) startHost(deskURL string, fell func(string)) (*host, error) {
	h := &host{options: o, config: filepath.Join(o.dir, "deskhost.yaml"), fell: fell}
	var ports [2]string
	for i := range ports {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		ports[i] = port
	}
	h.url, h.admin = "http://"+ports[0], "http://"+ports[1]
	var configs []any
	for _, name := range desks {
		configs = append(configs, map[string]any{"name": name, "plugin": "mock", "config": map[string]any{"url": deskURL}})
	}
	text, err := json.MarshalIndent(map[string]any{ // JSON is YAML
		"listen": ports[0], "admin": map[string]any{"listen": ports[1]},
		"data_dir": filepath.Join(o.dir, "data"), "plugin_dir": filepath.Join(o.dir, "plugins.d"),
		"desks": configs, "default_desk": desks[0],
		"limits": map[string]any{
			"requests_per_minute": 100_000_000, "sessions_per_minute": 1_000_000, "chats_per_minute": 1_000_000,
			"messages_per_minute": 1_000_000, "sockets_per_address": 100_000,
		},
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(h.config, text, 0o600); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(o.dir, "plugins.d"), 0o755); err != nil { //nolint:gosec // as an operator's is
		return nil, err
	}
	if err := h.replacePlugin(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h, h.start()
}

// freePort finds an address for a server that is stopped and started again: below
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

// start starts the host and awaits that it is ready. The caller holds mu.
func (h *host) start() error {
	p, _, err := launch(filepath.Join(h.dir, "host.log"), "ready", h.deskhost, "run", "--config", h.config)
	if err != nil {
		return err
	}
	h.process = p
	h.starts++
	go func() { // ends with the process
		<-p.exited
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.process != p {
			return // it was ended
		}
		h.fell(fmt.Sprintf("the host ended by itself: %s", p.cmd.ProcessState))
		if err := h.start(); err != nil {
			h.fell(fmt.Sprintf("the host does not start again: %v", err))
		}
	}()
	return nil
}

// stop ends the host, by force or not. The caller holds mu.
func (h *host) stop(force bool) error {
	p := h.process
	h.process = nil
	if p == nil {
		return nil
	}
	if force {
		p.kill()
		return nil
	}
	return p.terminate()
}

// restart ends the host, leaves it off for a while, and starts it again.
func (h *host) restart(force bool, off time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.stop(force); err != nil {
		return err
	}
	time.Sleep(off)
	return h.start()
}

// restartTwice kills the host, and the next one before it is ready if that takes
// it longer.
func (h *host) restartTwice(ctx context.Context, after time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.stop(true); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, after)
	defer cancel()
	_ = exec.CommandContext(ctx, h.deskhost, "run", "--config", h.config).Run() // killed by ctx
	return h.start()
}

// close ends the host for good.
func (h *host) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stop(false)
}

// deskStatus is a desk's state, as operators see it.
type deskStatus struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	PID      int    `json:"pid"`
	Restarts int    `json:"restarts"`
}

func (h *host) status(ctx context.Context, name string) (deskStatus, error) {
	var answer struct {
		Desks []deskStatus `json:"desks"`
	}
	if err := call(ctx, http.MethodGet, h.admin+"/v1/desks", nil, &answer); err != nil {
		return deskStatus{}, err
	}
	for _, d := range answer.Desks {
		if d.Name == name {
			return d, nil
		}
	}
	return deskStatus{}, fmt.Errorf("the host has no desk %s", name)
}

// replacePlugin puts the other build of the plugin into the plugin folder.
func (h *host) replacePlugin() error {
	from := filepath.Join(h.bin, mock(h.dedupe, h.plugin))
	next := filepath.Join(h.dir, "next-plugin")
	h.plugin = 1 - h.plugin
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(next, data, 0o755); err != nil { //nolint:gosec // it is a program
		return err
	}
	// Its time is that of the build, so the host need not wait until it is whole.
	built, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.Chtimes(next, time.Time{}, built.ModTime()); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(h.dir, "plugins.d", "deskhost-plugin-mock"))
}

// reload is `deskhost plugin reload`.
func (h *host) reload(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, h.deskhost, "plugin", "reload", name, "--config", h.config).CombinedOutput()
	if err != nil {
		return fmt.Errorf("plugin reload %s: %w: %s", name, err, out)
	}
	return nil
}

// problem is an answer that is no success.
type problem struct {
	status int
	Code   string `json:"code"`
	text   string
}

func (p *problem) Error() string { return fmt.Sprintf("answered with %d %s", p.status, p.text) }

// direct calls what must not be disturbed: the desk, and the host's operators' door.
var direct = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 20 * time.Second}}

// call makes a call that must not be disturbed.
func call(ctx context.Context, method, address string, body, answer any) error {
	return callBy(ctx, direct, method, address, "", body, answer)
}

// callBy makes one call and decodes the answer. One that is no success is a
// [problem].
func callBy(ctx context.Context, client *http.Client, method, address, token string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(content))
	if err != nil {
		return err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		p := &problem{status: response.StatusCode, text: string(text)}
		_ = json.Unmarshal(text, p) // not every problem is JSON
		return p
	}
	if answer == nil || len(text) == 0 {
		return nil
	}
	return json.Unmarshal(text, answer)
}
