//go:build linux

package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/config"
	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/process"
)

// TestCheckAsksAnew has a plugin that is of no use, and says how many files it may
// open. A check goes by the limits of the configuration that it is for, and by no
// error from before it: the operator may have put that right.
func TestCheckAsksAnew(t *testing.T) {
	dir, asked := t.TempDir(), filepath.Join(t.TempDir(), "asked")
	script := fmt.Sprintf("#!/bin/sh\necho once >>%s\necho it may open $(ulimit -n) files >&2\n", asked)
	if err := os.WriteFile(filepath.Join(dir, catalog.FileName("x")), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	run, err := process.PrepareRunDir(data)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run) // outside of the folder if that is too long
	folder, err := catalog.OpenFolder(dir, filepath.Join(data, "plugins"), catalog.Usual, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	r := newRoster(desk.Source{Folder: folder, RunDir: run}, desk.DefaultLimits, hclog.NewNullLogger())
	limits := desk.DefaultLimits()
	desks := make([]config.Desk, 2*checksAtOnce)
	for i := range desks {
		desks[i] = config.Desk{Name: fmt.Sprint("desk", i), Plugin: "x"}
	}
	for i, files := range []int{100, 200} {
		limits.Process.OpenFiles = files
		byDesk, err := r.check(context.Background(), desks, limits)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("it may open %d files", files)
		for _, problems := range byDesk {
			if !strings.Contains(problems.Error(), want) {
				t.Errorf("check %d: %s\nlacks %q", i+1, problems, want)
			}
		}
		// All desks have one answer.
		if runs, err := os.ReadFile(asked); err != nil || strings.Count(string(runs), "once") != i+1 {
			t.Errorf("check %d: asked %d times, %v", i+1, strings.Count(string(runs), "once"), err)
		}
	}
	// Whoever asks by itself has it for a while.
	for _, a := range r.answers {
		a.again = time.Now().Add(time.Hour)
	}
	program, err := folder.Take("x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ask(context.Background(), program, "", desk.DefaultLimits(), time.Time{}); err == nil || !strings.Contains(err.Error(), "200 files") {
		t.Errorf("told %v", err)
	}
}
