//go:build unix

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

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

const pluginName = "bench"

var address = regexp.MustCompile(`http://[^\s,/]+`)

// server is a host, ours or the floor's, as a process of its own.
type server struct {
	subject string
	cmd     *exec.Cmd
	url     string
	dir     string
}

// start starts the floor, the build before if there is one, and the host.
// Sockets are how many connections each has to hold.
func (r *run) start(sockets int) (subjects []*server, err error) {
	kinds := []string{floorSubject, hostSubject}
	if r.before != "" {
		kinds = []string{floorSubject, beforeSubject, hostSubject}
	}
	// The clients of all are this process.
	if err := allowFiles(uint64(len(kinds)*sockets + 500)); err != nil {
		return nil, err
	}
	for _, kind := range kinds {
		s, err := r.startOne(kind)
		if err != nil {
			stopAll(subjects)
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		subjects = append(subjects, s)
	}
	return subjects, nil
}

// startOne starts one of them, with files of its own.
func (r *run) startOne(subject string) (*server, error) {
	dir, err := r.folder()
	if err != nil {
		return nil, err
	}
	if err := os.Symlink(r.plugins, filepath.Join(dir, "plugins.d")); err != nil {
		return nil, err
	}
	switch subject {
	case floorSubject:
		return startFloor(dir)
	case beforeSubject:
		return startHost(dir, r.before, subject, 1)
	default:
		return startHost(dir, r.binary, subject, 1)
	}
}

func stopAll(subjects []*server) {
	for _, s := range subjects {
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

// start runs a program and waits for the line that tells its address.
func start(subject, dir, program string, args ...string) (*server, error) {
	s := &server{subject: subject, dir: dir, cmd: exec.Command(program, args...)}
	var stderr bytes.Buffer
	s.cmd.Stderr = &stderr
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	late := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() }) // which ends its output
	defer late.Stop()
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

// startHost runs deskhost with limits that leave room for all sockets, and so
// many desks.
func startHost(dir, binary, subject string, desks int) (*server, error) {
	list := make([]any, desks)
	for i := range list {
		list[i] = map[string]any{"name": deskName(i), "plugin": pluginName}
	}
	config, err := json.MarshalIndent(map[string]any{ // JSON is YAML
		"listen": "127.0.0.1:0", "admin": map[string]any{"listen": "127.0.0.1:0"},
		"data_dir": filepath.Join(dir, "data"), "plugin_dir": filepath.Join(dir, "plugins.d"),
		"desks": list, "default_desk": deskName(0),
		"limits": map[string]any{
			"requests_per_minute": 100_000_000, "sessions_per_minute": 10_000_000,
			"chats_per_minute": 1_000_000, "messages_per_minute": 100_000_000, "sockets_per_address": 100_000,
			"abandon_waiting": "1h", "abandon_connected": "1h",
		},
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "deskhost.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	return start(subject, dir, binary, "run", "--config", file)
}

func deskName(i int) string { return fmt.Sprintf("%s-%d", pluginName, i) }

// startFloor runs this program as the floor's host.
func startFloor(dir string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(floorSubject, dir, self, "-floor", dir)
}

// page is a session of the real host.
type page struct{ url, token string }

func (s *server) session() (page, error) {
	var made struct {
		ID    string `json:"session_id"`
		Token string `json:"token"`
	}
	err := post(s.url+"/v1/sessions", "", struct{}{}, &made)
	return page{s.url + "/v1/sessions/" + made.ID, made.Token}, err
}

func (p page) socket() (*websocket.Conn, error) {
	return dial("ws"+strings.TrimPrefix(p.url, "http")+"/events", []string{"deskhost.v1", "bearer." + p.token})
}

// chat opens the page's chat.
func (p page) chat() error { return post(p.url+"/chat", p.token, map[string]any{"id": "c"}, nil) }

// open opens a session, a socket and a chat for each page.
func (s *server) open(sockets int) (*path, error) {
	p := &path{arrivals: make(chan arrival, 1<<16), sockets: sockets}
	if s.subject == floorSubject {
		p.begin = func(c command) error { return post(s.url+"/go", "", c, nil) }
		return p, each(sockets, func(i int) error {
			conn, err := dial(fmt.Sprintf("ws%s/chats/%d", strings.TrimPrefix(s.url, "http"), i), nil)
			if err != nil {
				return err
			}
			if _, _, err := conn.ReadMessage(); err != nil { // that the chat is open
				return fmt.Errorf("the floor's chat %d: %w", i, err)
			}
			p.listen(conn)
			return nil
		})
	}
	pages := make([]page, sockets)
	err := each(sockets, func(i int) (err error) {
		if pages[i], err = s.session(); err != nil {
			return err
		}
		conn, err := pages[i].socket()
		if err != nil {
			return err
		}
		p.listen(conn)
		return pages[i].chat()
	})
	runs := 0
	p.begin = func(c command) error {
		runs++
		return pages[0].say(fmt.Sprint(runs), c.text())
	}
	return p, err
}

// say sends a user's message and awaits that it is taken.
func (p page) say(id, text string) error {
	return post(p.url+"/messages", p.token, floorPost{id, text}, nil)
}

// chats opens chats that no socket follows, and returns how a message is sent
// in each. The bench plugin only takes the message.
func (s *server) chats(n int) ([]sender, error) {
	senders := make([]sender, n)
	return senders, each(n, func(i int) error {
		p := page{url: fmt.Sprintf("%s/chats/%d", s.url, i)}
		if s.subject != floorSubject {
			var err error
			if p, err = s.session(); err != nil {
				return err
			}
			if err := p.chat(); err != nil {
				return err
			}
		}
		sent := 0
		senders[i] = func() error {
			sent++
			return p.say(fmt.Sprint(sent), command{Padding: padding}.text())
		}
		return nil
	})
}

// each does something n times, a few at a time.
func each(n int, do func(i int) error) error {
	var all errgroup.Group
	all.SetLimit(16)
	for i := range n {
		all.Go(func() error { return do(i) })
	}
	return all.Wait()
}

// client keeps a connection for each of many callers.
var client = &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 4096}}

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

// again stops a host and starts it with the files that it had. On an error the
// stopped server is returned, to be stopped once more without harm.
func (s *server) again() (*server, error) {
	s.stop()
	next, err := start(s.subject, s.dir, s.cmd.Path, s.cmd.Args[1:]...)
	if err != nil {
		return s, err
	}
	return next, nil
}
