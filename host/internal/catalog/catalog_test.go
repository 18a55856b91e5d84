package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

const script = "#!/bin/sh\nexit 0\n"

// drop puts a file into the folder.
func drop(t *testing.T, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(dir, deskv1.FilePrefix+name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	return file
}

func sum(content string) string {
	h := sha256.Sum256([]byte(content))
	return hex.EncodeToString(h[:])
}

// find opens a folder, with a store for this once, and takes a plugin.
func find(t *testing.T, dir, name string) (Plugin, error) {
	t.Helper()
	f, err := OpenFolder(dir, filepath.Join(t.TempDir(), "store"), Usual, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	taken, err := f.Take(name)
	return taken.Plugin, err
}

// foreignProgram is this test program with another processor in its header.
func foreignProgram(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	const machine = 18 // of e_machine in an ELF header
	content[machine], content[machine+1] = 22, 0
	return string(content)
}

func TestScanTellsEachFile(t *testing.T) {
	dir := t.TempDir()
	file := drop(t, dir, "good", script, 0o755)
	drop(t, dir, "Bad_Name", script, 0o755)
	drop(t, dir, "plain", script, 0o644)
	if err := os.WriteFile(filepath.Join(dir, "README"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	found, err := Scan(dir)
	if err != nil || len(found) != 3 {
		t.Fatalf("%+v, %v", found, err)
	}
	good := found[1]
	if good.Name != "good" || good.File != file || good.Size != int64(len(script)) || good.SHA256 != sum(script) || good.Problem != "" || good.ModTime.IsZero() {
		t.Errorf("%+v", good)
	}
	if !strings.Contains(found[0].Problem, "no name for a plugin") || !strings.Contains(found[2].Problem, "chmod 755") {
		t.Errorf("problems %q, %q", found[0].Problem, found[2].Problem)
	}
	if found, err := Scan(filepath.Join(dir, "nowhere")); err != nil || len(found) != 0 {
		t.Errorf("a folder that is not there: %v, %v", found, err)
	}
}

func TestRefusals(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the files of this test are for Linux")
	}
	outside := t.TempDir()
	tests := []struct {
		name string
		make func(t *testing.T, dir string)
		want string
	}{
		{"nothing", func(*testing.T, string) {}, "there is no such file; put the plugin there, executable and named deskhost-plugin-x"},
		{"folder", func(_ *testing.T, dir string) { os.Mkdir(filepath.Join(dir, "deskhost-plugin-x"), 0o755) }, "not a regular file"},
		{"not executable", func(t *testing.T, dir string) { drop(t, dir, "x", script, 0o644) }, "not executable (mode 0644)"},
		{"writable by all", func(t *testing.T, dir string) { drop(t, dir, "x", script, 0o777) }, "chmod o-w"},
		{"link out", func(t *testing.T, dir string) {
			os.Symlink(drop(t, outside, "y", script, 0o755), filepath.Join(dir, "deskhost-plugin-x"))
		}, "link out of the plugin folder"},
		{"link to nothing", func(_ *testing.T, dir string) { os.Symlink("nowhere", filepath.Join(dir, "deskhost-plugin-x")) }, "cannot be read"},
		{"empty", func(t *testing.T, dir string) { drop(t, dir, "x", "", 0o755) }, "too short"},
		{"text", func(t *testing.T, dir string) { drop(t, dir, "x", "hello world", 0o755) }, "not a program that linux can run"},
		{"no interpreter", func(t *testing.T, dir string) { drop(t, dir, "x", "#!/usr/bin/no-such-node\n", 0o755) }, "asks for /usr/bin/no-such-node"},
		{"nameless interpreter", func(t *testing.T, dir string) { drop(t, dir, "x", "#! \n", 0o755) }, "names no interpreter"},
		{"other processor", func(t *testing.T, dir string) { drop(t, dir, "x", foreignProgram(t), 0o755) }, "for s390x, and this machine is linux/"},
		{"cut off", func(t *testing.T, dir string) { drop(t, dir, "x", "\x7fELF\x02\x01\x01", 0o755) }, "header is damaged"},
		{"for macOS", func(t *testing.T, dir string) {
			drop(t, dir, "x", "\xcf\xfa\xed\xfe\x0c\x00\x00\x01\x00\x00\x00\x00\x02\x00\x00\x00"+strings.Repeat("\x00", 16), 0o755)
		}, "in macOS format for arm64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.make(t, dir)
			_, err := find(t, dir, "x")
			var problem *ProblemError
			if !errors.As(err, &problem) || problem.Plugin != "x" || problem.File != filepath.Join(dir, "deskhost-plugin-x") {
				t.Fatalf("error %v", err)
			}
			if !strings.Contains(problem.Problem, test.want) {
				t.Errorf("problem %q, want %q", problem.Problem, test.want)
			}
		})
	}
}

func TestFindTellsOfTheFolder(t *testing.T) {
	if _, err := find(t, filepath.Join(t.TempDir(), "nowhere"), "x"); err == nil || !strings.Contains(err.Error(), "set plugin_dir") {
		t.Errorf("error %v", err)
	}
	if _, err := find(t, t.TempDir(), "../x"); err == nil || !strings.Contains(err.Error(), "no name for a plugin") {
		t.Errorf("error %v", err)
	}
}

func TestThisProgramAndLinksInsideAreTaken(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	drop(t, dir, "versioned-1", string(content), 0o755)
	if err := os.Symlink("deskhost-plugin-versioned-1", filepath.Join(dir, "deskhost-plugin-x")); err != nil {
		t.Fatal(err)
	}
	if _, err := find(t, dir, "x"); err != nil {
		t.Error(err)
	}
}

func TestPin(t *testing.T) {
	p := Plugin{Name: "x", File: "f", SHA256: sum("a")}
	for _, pin := range []string{"", sum("a"), strings.ToUpper(sum("a"))} {
		if err := CheckPin(p, pin); err != nil {
			t.Errorf("pin %q: %v", pin, err)
		}
	}
	err := CheckPin(p, sum("b"))
	if err == nil || !strings.Contains(err.Error(), sum("a")) || !strings.Contains(err.Error(), sum("b")) {
		t.Errorf("error %v does not show both", err)
	}
}

// What was hashed is what runs, whatever happens to the dropped file.
func TestStoreKeepsWhatItHashed(t *testing.T) {
	dir, storeDir := t.TempDir(), filepath.Join(t.TempDir(), "store")
	store, err := OpenStore(storeDir)
	if err != nil {
		t.Fatal(err)
	}
	drop(t, dir, "x", script, 0o755)
	p, err := find(t, dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	// Replaced between the look and the copy.
	drop(t, dir, "x", script+"#2\n", 0o755)
	path, stored, err := store.Add(p)
	if err != nil {
		t.Fatal(err)
	}
	if stored.SHA256 != sum(script+"#2\n") || path != filepath.Join(storeDir, stored.SHA256) {
		t.Errorf("stored %+v at %s", stored, path)
	}
	drop(t, dir, "x", "gone", 0o755)
	if got, err := os.ReadFile(path); err != nil || string(got) != script+"#2\n" {
		t.Errorf("%q, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o500 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(storeDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestStoreMendsADamagedCopy(t *testing.T) {
	dir := t.TempDir()
	store, err := OpenStore(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	drop(t, dir, "x", script, 0o755)
	p, err := find(t, dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "store", p.SHA256), []byte("#!/bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	path, _, err := store.Add(p)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != script {
		t.Errorf("%q, %v", got, err)
	}
}

func TestStoreTakesOnePluginFromMany(t *testing.T) {
	dir := t.TempDir()
	store, err := OpenStore(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	drop(t, dir, "x", script, 0o755)
	p, err := find(t, dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	var adding sync.WaitGroup
	for range 8 {
		adding.Go(func() {
			if _, _, err := store.Add(p); err != nil {
				t.Error(err)
			}
		})
	}
	adding.Wait()
	if left, err := os.ReadDir(filepath.Join(dir, "store")); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
}
