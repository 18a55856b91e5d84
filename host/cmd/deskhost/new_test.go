//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/deskhost/deskhost/host/internal/e2e"
)

// tool runs a program in the present folder, and expects it to do well. Go finds
// all that a new plugin needs in what deskhost itself was built from.
func tool(t *testing.T, name string, args ...string) (stdout string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOTOOLCHAIN=local", "GOFLAGS=-mod=mod -buildvcs=false", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestNewPlugin holds that what a vendor begins with is right: it builds, here and
// for other systems, it is tidy, it passes its own tests and the conformance suite.
func TestNewPlugin(t *testing.T) {
	t.Chdir(t.TempDir())
	code, stdout, stderr := deskhost(t, "plugin", "new", "acme-cloud", "--sdk", e2e.Root())
	if code != exitOK || !strings.HasPrefix(stdout, "deskhost-plugin-acme-cloud is a plugin that works. Next:\n\n  cd deskhost-plugin-acme-cloud\n") {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	t.Chdir("deskhost-plugin-acme-cloud")
	if untidy := tool(t, "gofmt", "-l", "."); untidy != "" {
		t.Errorf("not formatted: %s", untidy)
	}
	// Vets too, which a cross build does not.
	tool(t, "make", "test")
	tool(t, "make", "build", "release", "VERSION=1.2.3", "SYSTEMS=linux/amd64 darwin/amd64 windows/amd64")
	sums, err := os.ReadFile("dist/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	for _, system := range []string{"linux_amd64", "darwin_amd64", "windows_amd64.exe"} {
		if file := "deskhost-plugin-acme-cloud_1.2.3_" + system; !strings.Contains(string(sums), "  "+file+"\n") {
			t.Errorf("the checksums lack %s:\n%s", file, sums)
		}
	}
	for line := range strings.Lines(tool(t, "go", "list", "-deps", ".")) {
		if strings.Contains(line, "/simulator") || strings.Contains(line, "/desktest") || strings.Contains(line, "deskhost/host") {
			t.Errorf("the plugin links %s", line)
		}
	}

	// The built program beside the simulator, both as a vendor runs them.
	vendor := e2e.Start(t, "bin/simulator", "--listen", "127.0.0.1:0")
	_, url, _ := strings.Cut(vendor.Line("listens at"), "listens at ")
	write(t, "good.json", fmt.Sprintf(`{"url": %q, "api_key": "key-of-the-simulator"}`, url), 0o600)
	write(t, "bad.json", fmt.Sprintf(`{"url": %q, "api_key": "wrong"}`, url), 0o600)
	code, stdout, stderr = deskhost(t, "plugin", "verify", "bin/deskhost-plugin-acme-cloud",
		"--config", "good.json", "--bad-config", "bad.json", "--script", url+"/script")
	if code != exitOK {
		t.Errorf("verify: exit code %d\n%s%s", code, stdout, stderr)
	}
	var untested []string
	for line := range strings.Lines(stdout) {
		if name, ok := strings.CutPrefix(line, "not tested  "); ok {
			name, _, _ = strings.Cut(name, ":")
			untested = append(untested, name)
		}
	}
	if want := []string{"optional/http"}; !slices.Equal(untested, want) {
		t.Errorf("not tested: %q, want %q", untested, want)
	}
}

func TestNewPluginRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "taken", "mine", 0o600)
	for _, test := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"Acme", exitUsage, `deskhost: "Acme" is no name for a plugin; it has 1 to 40 of a-z, 0-9 and -, and does not begin with -; `},
		{"../acme --sdk " + e2e.Root(), exitUsage, `deskhost: "../acme" is no name for a plugin; `},
		{"", exitUsage, "deskhost: accepts 1 arg(s), received 0; "},
		{"acme", exitFailure, "deskhost: this deskhost is a build of its developers, and go.mod needs a released version; name the checkout that it was built from with --sdk DIR\n"},
		{"acme --sdk .", exitFailure, "deskhost: {dir} is no checkout of github.com/deskhost/deskhost: "},
		{"acme --sdk " + e2e.Root() + " --dir taken", exitFailure, "deskhost: {dir}/taken exists; name another folder with --dir, or remove it\n"},
		{"acme --sdk " + e2e.Root() + " --dir no/such/folder", exitFailure, "deskhost: "},
		{"acme --sdk " + e2e.Root() + " --module a/../b", exitFailure, `deskhost: "a/../b" is no path for a Go module; `},
	} {
		t.Run(test.args, func(t *testing.T) {
			dir, err := os.Getwd()
			if err != nil {
				t.Fatal(err)
			}
			code, _, stderr := deskhost(t, append([]string{"plugin", "new"}, strings.Fields(test.args)...)...)
			if want := strings.ReplaceAll(test.stderr, "{dir}", dir); code != test.code || !strings.HasPrefix(stderr, want) {
				t.Errorf("exit code %d, said\n%swant %d and\n%s", code, stderr, test.code, want)
			}
			left, err := filepath.Glob("*")
			hidden, _ := filepath.Glob(".*")
			if content, _ := os.ReadFile("taken"); err != nil || !slices.Equal(append(left, hidden...), []string{"taken"}) || string(content) != "mine" {
				t.Errorf("left behind: %q %q", left, hidden)
			}
		})
	}
}

func TestReleased(t *testing.T) {
	before := version
	defer func() { version = before }()
	for of, want := range map[string]string{
		"v1.2.3": "v1.2.3", "v1.2.3-rc.1": "v1.2.3-rc.1",
		"dev": "", "91fde30": "", "v1.2.3-4-g91fde30": "", "v1.2.3-dirty": "",
	} {
		version = of
		if got := released(); got != want {
			t.Errorf("%q is released as %q, want %q", of, got, want)
		}
	}
}
