// Package e2e runs deskhost as its users do, for tests: the built binaries as
// processes of their own, driven over HTTP, WebSocket and signals.
//
// It owns the processes that it starts and the checks that hold for every
// page: each entry once, in order, without holes. It knows nothing of the
// host's insides. Tests of the host import it; nothing else does.
package e2e

import (
	"errors"
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
// runs the tests. Call it from TestMain, and exit with what it returns. More
// plugins are the folders of their programs, from [Root]; see [Plugin]. They are
// what a host is tested with, and built without the race detector, which would
// have them take ten times the memory.
func Main(m *testing.M, plugins ...string) int {
	dir, err := os.MkdirTemp("", "deskhost-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	err = errors.Join(
		build(raceEnabled, Binary(), "./host/cmd/deskhost"),
		build(raceEnabled, filepath.Join(PluginDir(), "deskhost-plugin-mock"), "./plugins/mock"))
	for _, folder := range plugins {
		err = errors.Join(err, build(false, Plugin(filepath.Base(folder)), folder))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(race bool, file, source string) error { //nolint:unparam // raceEnabled is the build's
	cmd := exec.Command("go", "build", fmt.Sprintf("-race=%t", race), "-o", file, source)
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

// Plugin is the path of one of the plugins that only Main's caller asked for.
func Plugin(name string) string { return filepath.Join(binaries, "plugin-"+name) }

// PluginDir is the folder of the built plugins.
func PluginDir() string { return filepath.Join(binaries, "plugins.d") }
