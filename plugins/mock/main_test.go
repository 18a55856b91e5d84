package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/deskhost/deskhost/sdk/desktest"
)

func TestTheDeskServer(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script.json")
	if err := os.WriteFile(script, []byte(`{"online": null}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- runDesk(ctx, []string{"--listen", "127.0.0.1:0", "--script", script}, in) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	urls := regexp.MustCompile(`http://\S+[0-9/]`).FindAllString(line, -1)
	if len(urls) != 2 {
		t.Fatalf("it says %q", line)
	}
	for _, page := range []struct{ url, want string }{
		{urls[0] + "/v1/availability", `{"online":null}`},
		{urls[1], "<title>Agent's console</title>"},
		{urls[0] + "/", "<title>Agent's console</title>"},
	} {
		resp, err := http.Get(page.url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), page.want) {
			t.Errorf("%s: %d %.200s %v", page.url, resp.StatusCode, body, err)
		}
	}
	if err := desktest.ScriptAt(urls[0]+"/script").AgentJoins(ctx, "nobody"); err == nil || !strings.Contains(err.Error(), "no such conversation") {
		t.Errorf("its script: %v", err)
	}
	feed, err := http.Get(urls[0] + "/v1/feed")
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Body.Close()
	stop()
	if err := <-ended; err != nil {
		t.Errorf("with a feed open it ended with %v", err)
	}
}

func TestTheDeskServerSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.json")
	if err := os.WriteFile(bad, []byte(`{"calls": {"dance": {}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--script", bad}, []string{bad, "calls.dance"}},
		{[]string{"--script", filepath.Join(dir, "none.json")}, []string{"none.json"}},
		{[]string{"--listen", taken.Addr().String()}, []string{taken.Addr().String(), "in use"}},
		{[]string{"now"}, []string{"now", "-h"}},
	} {
		err := runDesk(t.Context(), c.args, io.Discard)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v does not tell %s", c.args, err, want)
			}
		}
	}
	if err := runDesk(t.Context(), []string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
}
