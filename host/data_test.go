package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestDataDirIsMadePrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "data")
	d, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode is %v", info.Mode())
	}
}

func TestDataDirIsGivenUpLate(t *testing.T) {
	path := t.TempDir()
	first, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		time.AfterFunc(lockWait/2, func() { _ = first.close() })
		second, err := openDataDir(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := second.close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDataDirHasOneHost(t *testing.T) {
	path := t.TempDir()
	first, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = openDataDir(path)
	want := fmt.Sprintf("data folder %s is in use by another deskhost (process %d); stop that one, or set data_dir to another folder", path, os.Getpid())
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	second, err := openDataDir(path)
	if err != nil {
		t.Fatalf("after the first host: %v", err)
	}
	if err := second.close(); err != nil {
		t.Fatal(err)
	}
}

func TestDataDirThatIsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := openDataDir(path)
	if err == nil || !strings.HasPrefix(err.Error(), "data folder "+path+" cannot be made: ") {
		t.Errorf("got %v", err)
	}
}
