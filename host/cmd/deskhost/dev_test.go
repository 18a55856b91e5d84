//go:build unix

package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/deskhost/deskhost/host/internal/e2e"
)

// startDev starts a host for development, with the mock plugin of this folder.
func startDev(t *testing.T, args ...string) (host *operated, url string) {
	t.Helper()
	p := e2e.Start(t, e2e.Binary(), append([]string{"run", "--dev", "--plugin", "plugins.d/deskhost-plugin-mock", "--listen", "127.0.0.1:0"}, args...)...)
	_, line, _ := strings.Cut(p.Line("ready"), "widgets at ")
	url, _, _ = strings.Cut(line, ",")
	return &operated{Process: p, t: t, admin: line[strings.LastIndex(line, "http://"):]}, url
}

// say has a user say something in a chat, and leave it open.
func say(t *testing.T, url, text string) {
	t.Helper()
	var problem bytes.Buffer
	cmd := exec.CommandContext(t.Context(), e2e.Binary(), "chat", "--url", url, "--state", "chat-"+text)
	cmd.Stdin, cmd.Stderr = strings.NewReader(text+"\n"), &problem
	if err := cmd.Run(); err != nil {
		t.Fatalf("chat: %v: %s", err, &problem)
	}
}

// TestDev holds what a vendor sees while a plugin is being written.
func TestDev(t *testing.T) {
	folder(t, "")
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	write(t, "config.json", `{"answer": "your-secret-0815"}`, 0o600)
	h, url := startDev(t, "--plugin-config", "config.json")
	say(t, url, "my-secret-4711")
	h.awaitLog("→ StartChat: generation=1 chat=")
	h.awaitLog("text=14B outcome=ok")
	h.awaitLog(`parts="text 16B"`)

	// What a build has written is taken, and a crash is no reason to wait.
	write(t, "next", mock(t)+"next build", 0o755)
	if err := os.Rename("next", "plugins.d/deskhost-plugin-mock"); err != nil {
		t.Fatal(err)
	}
	h.awaitLog("desk ready: plugin=mock version=0.1.0 generation=2")
	say(t, url, "my-secret-4712")
	h.awaitLog("→ StartChat: generation=2 chat=")
	// Its desk lives in the plugin, so the first chat cannot go over.
	h.awaitLog("the process has had its time, its last chats are taken from it")
	desks, _ := h.states()
	if err := syscall.Kill(desks["mock"].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.await("back", func(now map[string]deskState, _ map[string]pluginState) bool {
		return now["mock"].State == "ready" && now["mock"].Generation > 2
	})
	// So is another configuration, and the one before holds if it is wrong.
	write(t, "config.json", "{\n  \"answer\": 7\n}\n", 0o600)
	h.awaitLog("config.json:2:3: desks[0].config.answer: ")

	if code := h.Terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for _, text := range []string{"my-secret", "your-secret"} {
		if strings.Contains(h.Stderr(), text) {
			t.Errorf("the log tells what was said:\n%s", h.Stderr())
		}
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDevFlags(t *testing.T) {
	folder(t, goodConfig)
	for _, test := range []struct{ args, stderr string }{
		{"run --plugin plugins.d/deskhost-plugin-mock", "deskhost: --plugin is for development; add --dev"},
		{"run --dev --plugin plugins.d/deskhost-plugin-mock --config deskhost.yaml", "deskhost: --plugin and --config exclude each other"},
		{"run --dev --listen 127.0.0.1:0", "deskhost: --plugin-config and --listen are for --plugin"},
		{"run --dev --plugin deskhost.yaml", `deskhost: plugin "deskhost.yaml" (`},
		{"run --dev --plugin ./deskhost-plugin-gone --listen 127.0.0.1:0", "--plugin-config:1:"},
		{"run --dev --plugin plugins.d/deskhost-plugin-mock --plugin-config deskhost.yaml", "deskhost.yaml: it has to hold a JSON object: "},
	} {
		t.Run(test.args, func(t *testing.T) {
			if code, _, stderr := deskhost(t, strings.Fields(test.args)...); code != exitUsage || !strings.HasPrefix(stderr, test.stderr) {
				t.Errorf("exit code %d, said\n%s", code, stderr)
			}
		})
	}
}
