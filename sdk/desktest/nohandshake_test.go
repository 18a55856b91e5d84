package desktest_test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/deskhost/deskhost/sdk/desktest"
)

// TestWhatIsNoPlugin has the first check fail on what is no plugin, and say what
// to do about it; no other check is tried.
func TestWhatIsNoPlugin(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	program := func(name string) string {
		file, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, c := range map[string]struct{ file, want string }{
		"true":          {program("true"), "exit status 0) and printed nothing; is it a deskhost plugin?"},
		"cat":           {program("cat"), "printed nothing within 15s; is it a deskhost plugin?"},
		"echo":          {write("echo", []byte("#!/bin/sh\necho hello\n"), 0o700), `the first line was "hello"`},
		"text":          {write("text", []byte("just text\n"), 0o700), "neither a binary for " + runtime.GOOS + "/" + runtime.GOARCH + " nor a script that begins with #!"},
		"no permission": {write("forbidden", []byte("#!/bin/sh\n"), 0o600), "chmod +x"},
		"folder":        {dir, "name the plugin's program"},
		"nothing":       {filepath.Join(dir, "nothing"), "build the plugin first"},
		"macOS":         {write("macos", machO(), 0o700), "a program for darwin/ppc64, and this system is " + runtime.GOOS},
		"other machine": {write("other", otherMachine(t), 0o700), "a program for " + runtime.GOOS + "/riscv64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var results []desktest.Result
			err := desktest.Verify(t.Context(), desktest.Plugin{File: c.file}, func(r desktest.Result) { results = append(results, r) })
			if err != nil || len(results) != 1 {
				t.Fatalf("%d checks were tried, %v", len(results), err)
			}
			if r := results[0]; r.Check != "start/handshake" || r.Outcome != desktest.Fail || !strings.Contains(r.Came, c.want) {
				t.Errorf("%s: %s: %s", r.Check, r.Outcome, r.Came)
			}
		})
	}
}

// machO is the header of a program for macOS, on a machine of the past.
func machO() []byte {
	const magic64, powerPC, execute = 0xfeedfacf, 0x01000012, 2
	var b []byte
	for _, word := range []uint32{magic64, powerPC, 0, execute, 0, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	return b
}

// otherMachine is this program's beginning, with another machine in its header.
func otherMachine(t *testing.T) []byte {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH == "riscv64" {
		t.Skip("made of a Linux program for another machine than RISC-V")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	const machine, riscv = 18, 243
	binary.LittleEndian.PutUint16(b[machine:], riscv)
	return b
}
