package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// server is a host, ours or the floor's, as a process of its own.
type server struct {
	cmd  *exec.Cmd
	url  string
	open func(sockets int) (*path, error)
}

// start runs a program and waits for the line that tells its address.
func start(program string, args ...string) (*server, error) {
	s := &server{cmd: exec.Command(program, args...)}
	var stderr bytes.Buffer
	s.cmd.Stderr = &stderr
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if s.url = address.FindString(lines.Text()); s.url != "" {
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

// startHost runs deskhost with limits that leave room for all sockets.
func startHost(dir, binary string) (*server, error) {
	plugins, err := buildPlugin(dir)
	if err != nil {
		return nil, err
	}
	config, err := json.MarshalIndent(map[string]any{ // JSON is YAML
		"listen": "127.0.0.1:0", "admin": map[string]any{"listen": "127.0.0.1:0"},
		"data_dir": filepath.Join(dir, "data"), "plugin_dir": plugins,
		"desks": []any{map[string]any{"name": pluginName, "plugin": pluginName}},
		"limits": map[string]any{
			"requests_per_minute": 10_000_000, "sessions_per_minute": 1_000_000,
			"chats_per_minute": 1_000_000, "messages_per_minute": 1_000_000, "sockets_per_address": 100_000,
		},
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "deskhost.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	s, err := start(binary, "run", "--config", file)
	if err != nil {
		return nil, err
	}
	s.open = s.openHost
	return s, nil
}

// openHost opens a session, a socket and a chat for each page.
func (s *server) openHost(sockets int) (*path, error) {
	p := &path{arrivals: make(chan arrival, 1<<16), sockets: sockets}
	var first struct{ session, token string }
	for i := range sockets {
		var made struct {
			ID    string `json:"session_id"`
			Token string `json:"token"`
		}
		if err := post(s.url+"/v1/sessions", "", map[string]any{"desk": pluginName}, &made); err != nil {
			return nil, err
		}
		base := s.url + "/v1/sessions/" + made.ID
		conn, err := dial("ws"+strings.TrimPrefix(base, "http")+"/events", []string{"deskhost.v1", "bearer." + made.Token})
		if err != nil {
			return nil, err
		}
		p.listen(conn)
		if err := post(base+"/chat", made.Token, map[string]any{"id": "c"}, nil); err != nil {
			return nil, err
		}
		if i == 0 {
			first.session, first.token = base, made.Token
		}
	}
	runs := 0
	p.begin = func(c command) error {
		runs++
		return post(first.session+"/messages", first.token, map[string]any{"id": fmt.Sprint(runs), "text": c.text()}, nil)
	}
	return p, nil
}

// startFloor runs this program as the floor's host.
func startFloor(dir string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s, err := start(self, "-floor", dir)
	if err != nil {
		return nil, err
	}
	s.open = s.openFloor
	return s, nil
}

func (s *server) openFloor(sockets int) (*path, error) {
	p := &path{arrivals: make(chan arrival, 1<<16), sockets: sockets}
	for i := range sockets {
		conn, err := dial(fmt.Sprintf("ws%s/chats/%d", strings.TrimPrefix(s.url, "http"), i), nil)
		if err != nil {
			return nil, err
		}
		if _, _, err := conn.ReadMessage(); err != nil { // that the chat is open
			return nil, fmt.Errorf("the floor's chat %d: %w", i, err)
		}
		p.listen(conn)
	}
	p.begin = func(c command) error { return post(s.url+"/go", "", c, nil) }
	return p, nil
}

// post sends JSON and reads the answer, which must be a success.
func post(url, token string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return errors.New(req.Method + " " + req.URL.Path + ": " + resp.Status + ": " + string(text))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}
