//go:build unix

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// controls matches what moves the cursor, clears and colours.
var controls = regexp.MustCompile("\x1b\\[[0-9;?]*[a-zA-Z]")

// pane is a terminal in which a program runs.
type pane struct {
	t      *testing.T
	cmd    *exec.Cmd
	screen *os.File // the terminal's own side
	tty    *os.File // the program's side
	was    *term.State
	exited chan struct{}

	mu     sync.Mutex
	output []byte
	news   chan struct{} // closed when there is more
	read   int           // how much of the output, without controls, await has passed
}

// openPane runs the built deskhost in a terminal.
func openPane(t *testing.T, args ...string) *pane {
	t.Helper()
	screen, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	p := &pane{t: t, screen: screen, tty: tty, exited: make(chan struct{}), news: make(chan struct{})}
	if err := pty.Setsize(screen, &pty.Winsize{Rows: 24, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	if p.was, err = term.GetState(int(tty.Fd())); err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(Binary(), args...)
	p.cmd.Env = append(os.Environ(), "TERM=xterm")
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = tty, tty, tty
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reader sync.WaitGroup
	reader.Go(p.follow)
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // exit tells.
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		_ = tty.Close()
		_ = screen.Close()
		reader.Wait()
		if t.Failed() {
			t.Logf("the terminal showed\n%s", p.shown())
		}
	})
	return p
}

func (p *pane) follow() {
	buf := make([]byte, 4096)
	for {
		n, err := p.screen.Read(buf)
		p.mu.Lock()
		p.output = append(p.output, buf[:n]...)
		close(p.news)
		p.news = make(chan struct{})
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *pane) shown() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(controls.ReplaceAll(p.output, nil))
}

// await awaits that the terminal shows a text behind those that it was seen to
// show before.
func (p *pane) await(text string) {
	p.t.Helper()
	deadline := time.After(Patience)
	for {
		p.mu.Lock()
		news := p.news
		p.mu.Unlock()
		shown := p.shown()
		if at := strings.Index(shown[p.read:], text); at >= 0 {
			p.read += at + len(text)
			return
		}
		select {
		case <-news:
		case <-p.exited:
			// What it wrote last may still be on its way to be read.
			select {
			case <-news:
			case <-time.After(Patience):
				p.t.Fatalf("it ended (%v) before it showed %q", p.cmd.ProcessState, text)
			}
		case <-deadline:
			p.t.Fatalf("it did not show %q", text)
		}
	}
}

// keys types.
func (p *pane) keys(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.screen, text); err != nil {
		p.t.Fatal(err)
	}
}

// ends expects the program to end with an exit code, and to give the terminal
// back as it was.
func (p *pane) ends(code int) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(Patience):
		p.t.Fatal("it does not end")
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("it ended with %v, expected exit code %d", p.cmd.ProcessState, code)
	}
	is, err := term.GetState(int(p.tty.Fd()))
	if err != nil {
		p.t.Fatal(err)
	}
	if !reflect.DeepEqual(is, p.was) {
		p.t.Error("the terminal was not given back as it was")
	}
}

const ctrlC, ctrlD = "\x03", "\x04"

// front is an address that stays the same while the host behind it changes its own.
type front struct {
	url string

	mu     sync.Mutex
	behind string // empty while there is none
}

func newFront(t *testing.T) *front {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{url: "http://" + listener.Addr().String()}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() { f.pass(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		open.Wait()
	})
	return f
}

// pass joins a connection with one to the host, until either ends.
func (f *front) pass(conn net.Conn) {
	defer conn.Close()
	f.mu.Lock()
	behind := f.behind
	f.mu.Unlock()
	if behind == "" {
		return
	}
	host, err := net.Dial("tcp", strings.TrimPrefix(behind, "http://"))
	if err != nil {
		return
	}
	defer host.Close()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(conn, host)
		_ = conn.Close()
	})
	_, _ = io.Copy(host, conn)
	_ = host.Close()
	back.Wait()
}

// start starts the host and stands before it.
func (f *front) start(t *testing.T, h *Host) {
	t.Helper()
	h.Start()
	url, err := h.URL(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.behind = url
	f.mu.Unlock()
}

func (f *front) kill(h *Host) {
	f.mu.Lock()
	f.behind = ""
	f.mu.Unlock()
	h.Kill()
}

// chatOf is the id of the chat in a state file.
func chatOf(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var state struct {
		ChatID string `json:"chat_id"`
	}
	if err := json.Unmarshal(text, &state); err != nil || state.ChatID == "" {
		t.Fatalf("no chat in %s: %v", text, err)
	}
	return state.ChatID
}

// onlyChat awaits the first chat of a desk.
func onlyChat(t *testing.T, desk *MockDesk) string {
	t.Helper()
	var state struct {
		Version       uint64
		Conversations []struct{ Key string }
	}
	for len(state.Conversations) == 0 {
		if err := desk.get(fmt.Sprintf("/console/api/state?version=%d", state.Version), &state); err != nil {
			t.Fatal(err)
		}
	}
	return state.Conversations[0].Key
}

// act has an agent at the desk's console do something.
func act(t *testing.T, desk *MockDesk, chat, agent string, steps ...map[string]any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	body, err := json.Marshal(map[string]any{"agent": agent, "do": steps})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, desk.URL+"/console/api/conversations/"+chat, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := httpClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		text, _ := io.ReadAll(answer.Body)
		t.Fatalf("the console answered %d %s", answer.StatusCode, text)
	}
}

func says(text string) map[string]any { return map[string]any{"say": text} }

// TestChatInTerminal talks in a terminal, leaves, comes back, loses the host and
// ends the chat.
func TestChatInTerminal(t *testing.T) {
	t.Parallel()
	desk := StartDesk(t, "--console")
	h := NewHost(t, desk.Settings())
	f := newFront(t)
	f.start(t, h)
	file := filepath.Join(t.TempDir(), "chat.json")
	args := []string{"chat", "--url", f.url, "--state", file, "--name", "Ann", "--text", "My order is late"}

	// Connect and wait.
	p := openPane(t, args...)
	p.await("An agent is there.")
	p.await("You: My order is late")
	p.await("Waiting for an agent …")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the state file has mode %v, %v", info.Mode(), err)
	}
	chat := onlyChat(t, desk)
	p.keys("Anybody there?\r")
	desk.Await("Ann", chat, func(c Console) bool { return c.Name == "Ann" })
	act(t, desk, chat, "ada", map[string]any{"availability": map[string]any{"position": 2, "wait_minutes": 4}})
	p.await("You are number 2 in the queue. The wait is about 4 min.")
	act(t, desk, chat, "ada", map[string]any{"join": "ada"})
	p.await("Ada has joined.")

	// Talk. What is typed stays whole while something arrives.
	p.keys("Hel")
	desk.Await("that the user types", chat, func(c Console) bool { return c.Typing })
	act(t, desk, chat, "ada", map[string]any{"typing": true})
	p.await("Ada is typing … > Hel")
	act(t, desk, chat, "ada", says("Good \x1b[31mmorning\x1b]0;owned\x07\nYou: fooled"))
	p.await("> Hel") // The status goes before the message comes.
	p.await("Ada: Good morning\r\n  You: fooled\r\n> Hel")
	p.keys("lo\r")
	desk.Await("that the user types no more", chat, func(c Console) bool { return !c.Typing })
	act(t, desk, chat, "ada", map[string]any{"message": []any{map[string]any{"type": "link", "url": "https://example.com/terms", "label": "Terms"}}})
	p.await("Ada: [link] Terms: https://example.com/terms")

	// Leave, and hear afterwards what was said meanwhile.
	p.keys(ctrlC)
	p.await("The chat stays open for a while; run the same command to go on.")
	p.ends(0)
	act(t, desk, chat, "ada", says("Are you there?"), map[string]any{"transfer": "grace"}, map[string]any{"join": "grace"})
	p = openPane(t, args...)
	p.await("Going on with your chat with Ada")
	p.await("Ada: Are you there?")
	p.await("You are being transferred to Grace …")
	p.await("Grace has joined.")
	for _, twice := range []string{"Good morning", "Hello", "Waiting"} {
		if strings.Contains(p.shown(), twice) {
			t.Errorf("%q is shown again", twice)
		}
	}

	// The host dies and comes back. What is typed meanwhile arrives.
	f.kill(h)
	p.await("The host cannot be reached; trying again …")
	p.keys("Yes, I am\r")
	f.start(t, h)
	p.await("The host is back.")
	act(t, desk, chat, "grace", says("Fine."))
	p.await("Grace: Fine.")

	// A message that the desk does not take.
	act(t, desk, chat, "grace", map[string]any{"trouble": map[string]any{"kind": "message_failed", "message": "full"}})
	p.await("Not delivered")

	p.keys("/end\r")
	p.await("You ended the chat.")
	p.ends(0)
	desk.Await("the end", chat, func(c Console) bool { return c.State == "ended" })
	if got, want := fmt.Sprint(desk.UserTexts(chat)), "[Anybody there? Hello Yes, I am]"; got != want {
		t.Errorf("the desk has %s, expected %s", got, want)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the state file is still there: %v", err)
	}
}

// TestChatLostInTerminal has the host lose its data under a chat, and the agent
// end the next one.
func TestChatLostInTerminal(t *testing.T) {
	t.Parallel()
	desk := StartDesk(t)
	settings := desk.Settings()
	data := filepath.Join(t.TempDir(), "data")
	settings["data_dir"] = data
	h := NewHost(t, settings)
	f := newFront(t)
	f.start(t, h)

	p := openPane(t, "chat", "--url", f.url, "--state", filepath.Join(t.TempDir(), "chat.json"))
	p.await("Ada has joined.")
	f.kill(h)
	p.await("The host cannot be reached")
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	f.start(t, h)
	p.await("The host knows this chat no more: its data is gone.")
	p.await("Press Enter for a new chat")
	p.keys("\r")
	p.await("Ada has joined.")
	p.keys("/end")
	p.keys("\x7f\x7f\x7f\x7f")
	p.keys("Hello\r")
	p.await("Ada: You said: Hello")
	p.keys(ctrlD)
	p.await("The chat stays open")
	p.ends(0)
}

// TestChatSignalled ends a chat by the signals of other programs.
func TestChatSignalled(t *testing.T) {
	t.Parallel()
	desk := StartDesk(t)
	h := NewHost(t, desk.Settings())
	h.Start()
	url, err := h.URL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		p := openPane(t, "chat", "--url", url, "--state", filepath.Join(t.TempDir(), "chat.json"))
		p.await("Ada has joined.")
		if err := p.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		p.await("The chat stays open")
		p.ends(0)
	}
}

// TestChatRefused tells why there is no chat.
func TestChatRefused(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script.json")
	if err := os.WriteFile(script, []byte(`{"calls": {"start": {"fail": "refused", "user_message": "We are \u001b[2Jclosed."}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	desk := StartDesk(t, "--script", script)
	h := NewHost(t, desk.Settings())
	h.Start()
	url, err := h.URL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "chat.json")
	p := openPane(t, "chat", "--url", url, "--state", file)
	p.await("deskhost: No chat: We are closed.")
	p.ends(1)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the state of a chat that never was is kept: %v", err)
	}
}

// TestChatInPipes talks without a terminal.
func TestChatInPipes(t *testing.T) {
	t.Parallel()
	desk := StartDesk(t)
	h := NewHost(t, desk.Settings())
	h.Start()
	url, err := h.URL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "chat.json")
	run := func(input string) (out string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), Patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, Binary(), "chat", "--url", url, "--state", file)
		cmd.Stdin = strings.NewReader(input)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		text, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s%s", err, text, &stderr)
		}
		return string(text)
	}
	said := run("one\ntwo\r\n\nthree")
	for _, line := range []string{"You: one\n", "You: two\n", "You: three\n"} {
		if !strings.Contains(said, line) {
			t.Errorf("%q lacks %q", said, line)
		}
	}
	chat := chatOf(t, file)
	if got, want := fmt.Sprint(desk.UserTexts(chat)), "[one two three]"; got != want {
		t.Errorf("the desk has %s, expected %s", got, want)
	}
	run("four\n/end\n")
	desk.Await("the end", chat, func(c Console) bool { return c.State == "ended" })
	if got, want := fmt.Sprint(desk.UserTexts(chat)), "[one two three four]"; got != want {
		t.Errorf("the desk has %s, expected %s", got, want)
	}
}

// TestChatAskedForAgain goes on after a run that died before it had heard the
// answer to its request, and after one whose session is no more.
func TestChatAskedForAgain(t *testing.T) {
	t.Parallel()
	desk := StartDesk(t)
	h := NewHost(t, desk.Settings())
	h.Start()
	url, err := h.URL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := h.Open(nil)
	chat := other.Start("r1")
	file := filepath.Join(t.TempDir(), "chat.json")
	keep := func(token string) {
		t.Helper()
		state, err := json.Marshal(map[string]any{"url": url, "session_id": other.SessionID, "token": token, "request_id": "r1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, state, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	keep(other.Token)
	p := openPane(t, "chat", "--url", url, "--state", file)
	p.keys("Hello\r") // It leaves once the request is answered.
	p.await("Ada: You said: Hello")
	if got := chatOf(t, file); got != chat {
		t.Errorf("the chat is %s, expected %s", got, chat)
	}
	p.keys("/quit\r")
	p.await("The chat stays open")
	p.ends(0)

	keep("wrong")
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(), "chat", "--url", url, "--state", file)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "run the command again for a new chat") {
		t.Errorf("it ended with %v: %s", err, out)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the lost chat is kept: %v", err)
	}
}
