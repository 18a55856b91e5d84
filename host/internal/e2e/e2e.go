// Package e2e runs deskhost as its users do, for tests: the built binaries as
// processes of their own, driven over HTTP, WebSocket and signals.
//
// It owns the processes that it starts and the checks that hold for every
// page: each entry once, in order, without holes. It knows nothing of the
// host's insides. Tests of the host import it; nothing else does.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// Patience bounds each wait. A test that comes near it has failed.
const Patience = time.Minute

// binaries is the folder into which Main has built.
var binaries string

// Main builds the binaries, with the race detector where the tests have it, and
// runs the tests. Call it from TestMain, and exit with what it returns.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "deskhost-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	for _, target := range []struct{ folder, source string }{
		{dir, "./host/cmd/deskhost"},
		{filepath.Join(dir, "plugins.d"), "./plugins/mock/..."},
	} {
		if err := build(target.folder, target.source); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

func build(folder, source string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	args := []string{"build", "-o", folder + string(filepath.Separator)}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, source)...)
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", source, err, out)
	}
	return nil
}

// Root is the repository's folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// Binary is the path of the built deskhost.
func Binary() string { return filepath.Join(binaries, "deskhost") }

// PluginDir is the folder of the built plugins.
func PluginDir() string { return filepath.Join(binaries, "plugins.d") }
