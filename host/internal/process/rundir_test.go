package process

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRunDirIsPrivateAndSwept(t *testing.T) {
	data, err := os.MkdirTemp("", "d") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(data)
	dir, err := PrepareRunDir(data)
	if err != nil {
		t.Fatal(err)
	}
	if dir != filepath.Join(data, "run") {
		t.Errorf("folder %s", dir)
	}
	if err := os.WriteFile(filepath.Join(dir, "left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := PrepareRunDir(data)
	if err != nil || again != dir {
		t.Fatalf("%s, %v", again, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestRunDirOfADeepDataFolderIsElsewhere(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep/", 30))
	dir, err := PrepareRunDir(deep)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if strings.HasPrefix(dir, deep) || len(dir)+socketName > maxSocketPath() {
		t.Errorf("folder %s", dir)
	}
	if again, err := PrepareRunDir(deep); err != nil || again != dir {
		t.Errorf("another folder for the same data: %s, %v", again, err)
	}
	t.Setenv("TMPDIR", deep)
	if _, err := PrepareRunDir(deep); err == nil || !strings.Contains(err.Error(), "set data_dir or TMPDIR to a shorter path") {
		t.Errorf("error %v", err)
	}
}
