package catalog

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

func openFolder(t *testing.T, dir string) *Folder {
	t.Helper()
	f, err := OpenFolder(dir, filepath.Join(t.TempDir(), "store"), Usual, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// runs returns the content that runs as plugin x, and the problem of its file.
func runs(t *testing.T, f *Folder) (content, problem string) {
	t.Helper()
	taken, err := f.Take("x")
	if p, ok := errors.AsType[*ProblemError](err); ok {
		problem = p.Problem
	} else if err != nil {
		t.Fatal(err)
	}
	if taken.Path == "" {
		return "", problem
	}
	b, err := os.ReadFile(taken.Path)
	if err != nil {
		t.Fatal(err)
	}
	if taken.SHA256 != sum(string(b)) || filepath.Base(taken.Path) != taken.SHA256 {
		t.Errorf("%+v holds %q", taken, b)
	}
	return string(b), problem
}

func wantRuns(t *testing.T, f *Folder, content, problem string) {
	t.Helper()
	gotContent, gotProblem := runs(t, f)
	if gotContent != content || !strings.Contains(gotProblem, problem) || (problem == "") != (gotProblem == "") {
		t.Errorf("%q runs, problem %q; want %q, %q", gotContent, gotProblem, content, problem)
	}
}

// age makes a file look as if it had last changed at a time.
func age(t *testing.T, file string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestFileIsTakenOnceItIsWhole(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir)
	wantRuns(t, f, "", "there is no such file")

	now := time.Now()
	file := drop(t, dir, "x", script, 0o755)
	age(t, file, now)
	f.Look(now)
	wantRuns(t, f, "", "still be written to")
	drop(t, dir, "x", script+"#more\n", 0o755)
	age(t, file, now.Add(1900*time.Millisecond))
	f.Look(now.Add(2 * time.Second))
	wantRuns(t, f, "", "still be written to")
	f.Look(now.Add(3 * time.Second))
	wantRuns(t, f, "", "still be written to")
	f.Look(now.Add(4 * time.Second))
	wantRuns(t, f, script+"#more\n", "")
}

func TestRenamedFileIsTakenAtOnce(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir)
	now := time.Now()
	built := drop(t, t.TempDir(), "new", script, 0o755)
	age(t, built, now.Add(-time.Minute))
	if err := os.Rename(built, filepath.Join(dir, deskv1.FilePrefix+"x")); err != nil {
		t.Fatal(err)
	}
	f.Look(now)
	wantRuns(t, f, script, "")
}

// A clock that runs behind that of the file system delays nothing for long.
func TestFileOfTheFuture(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir)
	now := time.Now()
	age(t, drop(t, dir, "x", script, 0o755), now.Add(time.Hour))
	f.Look(now)
	wantRuns(t, f, "", "still be written to")
	f.Look(now.Add(Usual.Settle))
	wantRuns(t, f, script, "")
}

// Whatever happens to the file, the copy goes on until there is a better one.
func TestCopyOutlivesItsFile(t *testing.T) {
	dir := t.TempDir()
	file := drop(t, dir, "x", script, 0o755)
	f := openFolder(t, dir)
	wantRuns(t, f, script, "") // there when the host started
	now := time.Now().Add(time.Minute)
	next := func() time.Time { now = now.Add(Usual.Settle); return now }

	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	f.Look(next())
	wantRuns(t, f, script, "not executable")

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	f.Look(next())
	wantRuns(t, f, script, "the file is missing")

	drop(t, dir, "x", "no program", 0o755)
	f.Look(next())
	f.Look(next())
	wantRuns(t, f, script, "not a program")

	drop(t, dir, "x", script+"#2\n", 0o755)
	f.Look(next())
	f.Look(next())
	wantRuns(t, f, script+"#2\n", "")

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	f.Look(next())
	wantRuns(t, f, script+"#2\n", "the file is missing")
}

func TestRefusedFileThatGoesIsForgotten(t *testing.T) {
	dir := t.TempDir()
	file := drop(t, dir, "x", "no program", 0o755)
	f := openFolder(t, dir)
	if len(f.Files()) != 1 {
		t.Fatalf("%+v", f.Files())
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	f.Look(time.Now())
	if len(f.Files()) != 0 {
		t.Errorf("%+v", f.Files())
	}
}

func TestChangedTellsOfNewsOnly(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := openFolder(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			f.Watch(ctx, func() []string { return nil })
		}()
		changed := f.Changed()
		time.Sleep(10 * time.Second)
		select {
		case <-changed:
			t.Fatal("told of a change where there was none")
		default:
		}
		drop(t, dir, "x", script, 0o755)
		began := time.Now()
		for content := ""; content == ""; content, _ = runs(t, f) {
			<-changed
			changed = f.Changed()
		}
		if took := time.Since(began); took < Usual.Settle || took > Usual.Settle+Usual.Look {
			t.Errorf("took %s", took)
		}
		cancel()
		<-watched
	})
}

func TestDoublesAreRefused(t *testing.T) {
	files := []File{
		{Plugin: Plugin{Name: "x", File: "deskhost-plugin-x"}, Copy: Copy{Path: "a"}},
		{Plugin: Plugin{Name: "x", File: "deskhost-plugin-x.exe"}, Copy: Copy{Path: "b"}},
		{Plugin: Plugin{Name: "y", File: "deskhost-plugin-y.exe"}, Copy: Copy{Path: "c"}},
	}
	refuseDoubles(files)
	if files[0].Problem != "" || files[2].Problem != "" || files[1].Copy.Path != "" ||
		files[1].Problem != "deskhost-plugin-x has the same name for a plugin; remove one of the two" {
		t.Errorf("%+v", files)
	}
}

func TestStoreIsSweptWhenTheFolderIsOpened(t *testing.T) {
	dir, storeDir := t.TempDir(), filepath.Join(t.TempDir(), "store")
	for _, content := range []string{script, script + "#2\n"} {
		drop(t, dir, "x", content, 0o755)
		if _, err := OpenFolder(dir, storeDir, Usual, hclog.NewNullLogger()); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(storeDir)
		if err != nil || len(left) != 1 || left[0].Name() != sum(content) {
			t.Errorf("%v, %v", left, err)
		}
	}
}

// A copy goes a minute after nobody has a use for it any more, and not before: that
// of the file as it is, or was before it went missing, may be started at any time.
func TestCopiesOfNoUseAreRemoved(t *testing.T) {
	dir, storeDir := t.TempDir(), filepath.Join(t.TempDir(), "store")
	first, second, third := script+"#1\n", script+"#2\n", script+"#3\n"
	file := drop(t, dir, "x", first, 0o755)
	f, err := OpenFolder(dir, storeDir, Usual, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	var used []string
	f.used = func() []string { return used }
	now := time.Now().Add(time.Hour)
	replace := func(content string) {
		t.Helper()
		drop(t, dir, "x", content, 0o755)
		f.Look(now)
		wantRuns(t, f, content, "")
	}
	wantStored := func(contents ...string) {
		t.Helper()
		f.Look(now)
		var got, want []string
		left, err := os.ReadDir(storeDir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			got = append(got, e.Name())
		}
		for _, content := range contents {
			want = append(want, sum(content))
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("the store holds %v, want %v", got, want)
		}
	}

	used = []string{sum(first)}
	replace(second)
	now = now.Add(24 * time.Hour)
	wantStored(first, second) // a desk runs the first
	replace(third)
	wantStored(first, second, third)
	now = now.Add(keepUnused - time.Nanosecond)
	wantStored(first, second, third) // somebody may just have taken the second
	replace(second)
	now = now.Add(time.Nanosecond)
	wantStored(first, second, third)
	now = now.Add(24 * time.Hour)
	wantStored(first, second) // the second came back in time

	used = nil
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantStored(first, second)
	now = now.Add(24 * time.Hour)
	wantStored(second)
	wantRuns(t, f, second, "the file is missing")
}

// A file that is written to all the time is never told as one that may run: it has
// a copy, or a problem.
func TestFileThatChangesWhileItIsCopied(t *testing.T) {
	dir := t.TempDir()
	file := drop(t, dir, "x", script, 0o755)
	writer, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if _, err := writer.WriteString("# more\n"); err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 20 {
		content, problem := runs(t, openFolder(t, dir))
		if content == "" && problem == "" {
			t.Error("nothing is to run, and there is no problem")
			break
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

// What is wrong for hours, and looked at every second, is told once.
func TestWhatStaysWrongIsToldOnce(t *testing.T) {
	dir, storeDir := filepath.Join(t.TempDir(), "plugins.d"), filepath.Join(t.TempDir(), "store")
	var log bytes.Buffer
	f, err := OpenFolder(dir, storeDir, Usual, hclog.New(&hclog.LoggerOptions{Output: &log}))
	if err != nil {
		t.Fatal(err)
	}
	f.watching = true
	now := time.Now().Add(time.Hour)
	wantOnce := func(what string) {
		t.Helper()
		f.Look(now)
		changed := f.Changed()
		for range 5 {
			f.Look(now)
		}
		select {
		case <-changed:
			t.Errorf("%q: told as news", what)
		default:
		}
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, what) {
			t.Errorf("logged:\n%s", got)
		}
		log.Reset()
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantOnce("folder cannot be read")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	wantOnce("can be read again")

	// A store that is away fails as one does that has no room, at the same place.
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(storeDir); err != nil {
		t.Fatal(err)
	}
	drop(t, dir, "x", script, 0o755)
	wantOnce("not taken")
	if err := os.Mkdir(storeDir, 0o700); err != nil {
		t.Fatal(err)
	}
	wantOnce("file taken")
	wantRuns(t, f, script, "")
}
