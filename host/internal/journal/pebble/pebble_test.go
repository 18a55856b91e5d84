package pebble_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/journal/journaltest"
	"github.com/deskhost/deskhost/host/internal/journal/pebble"
)

// childDir names the environment variable that turns the test binary into the
// process that TestKill kills; its value is the store's folder.
const childDir = "DESKHOST_TEST_STORE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func open(t *testing.T, dir string, fsys vfs.FS) *pebble.Store {
	t.Helper()
	s, err := pebble.Open(dir, pebble.Options{FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t *testing.T, s *pebble.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, func(t *testing.T) (journal.Store, func() journal.Store) {
		dir := t.TempDir()
		s := open(t, dir, nil)
		return s, func() journal.Store {
			closeStore(t, s)
			s = open(t, dir, nil)
			return s
		}
	})
}

// TestStorePowerCut runs the suite with the power cut at every reopening.
func TestStorePowerCut(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, func(t *testing.T) (journal.Store, func() journal.Store) {
		disk := vfs.NewCrashableMem()
		s := open(t, "data/journal", disk)
		return s, func() journal.Store {
			after := disk.CrashClone(vfs.CrashCloneCfg{})
			closeStore(t, s)
			disk, s = after, open(t, "data/journal", after)
			return s
		}
	})
}

// A numbered batch puts batchOps keys, so that half a batch shows, and enough
// bytes that memtables fill and files are written while batches come in.
const batchOps = 4

func batch(writer byte, n uint32) []journal.Op {
	var ops []journal.Op
	for part := range byte(batchOps) {
		key := append(binary.BigEndian.AppendUint32([]byte{writer}, n), part)
		value := make([]byte, 1000)
		// Compression must not save the disk its work.
		var seed [32]byte
		copy(seed[:], key)
		if _, err := rand.NewChaCha8(seed).Read(value); err != nil {
			panic(err)
		}
		ops = append(ops, journal.Op{Key: key, Value: value})
	}
	return ops
}

// checkBatches fails unless the store holds whole batches only, without a hole,
// and of each writer all that was acknowledged.
func checkBatches(t *testing.T, s journal.Store, acknowledged []uint32) {
	t.Helper()
	for w, want := range acknowledged {
		var next uint32
		var parts byte
		err := s.Scan([]byte{byte(w)}, []byte{byte(w) + 1}, func(key, value []byte) (bool, error) {
			if n := binary.BigEndian.Uint32(key[1:]); n != next || key[5] != parts || len(value) != 1000 {
				return false, fmt.Errorf("writer %d: found part %d of batch %d, expected part %d of batch %d", w, key[5], n, parts, next)
			}
			if parts++; parts == batchOps {
				next, parts = next+1, 0
			}
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if parts != 0 {
			t.Fatalf("writer %d: batch %d is there by half", w, next)
		}
		if next < want {
			t.Fatalf("writer %d: %d batches are there, %d were acknowledged", w, next, want)
		}
	}
}

// memDisk is a disk in memory whose power can be cut.
type memDisk struct{ fs *vfs.MemFS }

func (d memDisk) Open() (journal.Store, error) {
	return pebble.Open("data/journal", pebble.Options{FS: d.fs})
}

func (d memDisk) Cut(rng *rand.Rand) journaltest.Disk {
	return memDisk{d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})}
}

func TestPowerCuts(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			if err := journaltest.PowerCuts(memDisk{vfs.NewCrashableMem()}, 100, seed); err != nil {
				t.Error(err)
			}
		})
	}
}

// writeUntilKilled commits from several goroutines and prints "writer number"
// behind each commit.
func writeUntilKilled(dir string) error {
	s, err := pebble.Open(dir, pebble.Options{})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range byte(4) {
		go func() {
			for n := uint32(0); ; n++ {
				if err := <-s.Commit(batch(w, n)); err != nil {
					failed <- err
					return
				}
				fmt.Printf("%d %d\n", w, n)
			}
		}()
	}
	return <-failed
}

// TestKill kills a writing process with SIGKILL.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "journal")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), exe)
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := make([]uint32, 4)
	total := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var w, n uint32
		if _, err := fmt.Sscan(lines.Text(), &w, &n); err != nil {
			// The last line may be torn by the kill.
			break
		}
		acknowledged[w] = n + 1
		if total++; total == 2000 {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err == nil || total < 2000 {
		t.Fatalf("the child ended by itself after %d commits: %v", total, err)
	}
	s := open(t, dir, nil)
	defer closeStore(t, s)
	checkBatches(t, s, acknowledged)
}

// faultyDisk fails the operations of a kind on files whose name contains match,
// once it is switched on.
type faultyDisk struct {
	on    atomic.Bool
	kinds []errorfs.OpKind
	match string
	err   error
}

func (d *faultyDisk) String() string { return "faulty disk" }

func (d *faultyDisk) MaybeError(op errorfs.Op) error {
	if !d.on.Load() || !strings.Contains(op.Path, d.match) {
		return nil
	}
	if slices.Contains(d.kinds, op.Kind) {
		return d.err
	}
	return nil
}

// TestFaultyDisk holds that a failed write is an error of every commit from then
// on, and neither an exit nor a success.
func TestFaultyDisk(t *testing.T) {
	t.Parallel()
	for name, disk := range map[string]*faultyDisk{
		"log write":        {match: ".log", kinds: []errorfs.OpKind{errorfs.OpFileWrite}, err: syscall.ENOSPC},
		"log sync":         {match: ".log", kinds: []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData}, err: syscall.EIO},
		"next log file":    {match: ".log", kinds: []errorfs.OpKind{errorfs.OpCreate, errorfs.OpReuseForWrite}, err: syscall.ENOSPC},
		"manifest write":   {match: "MANIFEST", kinds: []errorfs.OpKind{errorfs.OpFileWrite}, err: syscall.EIO},
		"manifest sync":    {match: "MANIFEST", kinds: []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData}, err: syscall.EIO},
		"folder not there": {match: "", kinds: []errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpCreate, errorfs.OpFileSync, errorfs.OpFileSyncData}, err: fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mem := vfs.NewCrashableMem()
			s := open(t, "journal", errorfs.Wrap(mem, disk))
			var acknowledged [4]uint32
			errs := make([]error, len(acknowledged))
			var wg sync.WaitGroup
			for w := range acknowledged {
				wg.Go(func() {
					for n := uint32(0); errs[w] == nil; n++ {
						if w == 0 && n == 10 {
							disk.on.Store(true)
						}
						if errs[w] = <-s.Commit(batch(byte(w), n)); errs[w] == nil {
							acknowledged[w] = n + 1
						}
					}
				})
			}
			wg.Wait()
			for w, err := range errs {
				if !strings.Contains(err.Error(), disk.err.Error()) {
					t.Errorf("writer %d got %q, which does not tell %q", w, err, disk.err)
				}
			}
			if err := <-s.Commit(batch(9, 0)); err == nil {
				t.Error("a commit after the fault succeeded")
			}
			if err := s.Close(); err == nil {
				t.Error("close after the fault succeeded")
			}
			after := open(t, "journal", mem.CrashClone(vfs.CrashCloneCfg{}))
			defer closeStore(t, after)
			checkBatches(t, after, acknowledged[:])
		})
	}
}

// TestOlderFormat holds that an older journal is taken, and is from then on closed
// to older hosts.
func TestOlderFormat(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem()
	s := open(t, "journal", disk)
	if err := <-s.Commit([]journal.Op{{Key: []byte("k"), Value: []byte("v")}}); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	writeFile(t, disk, "journal/FORMAT", "deskhost journal format 1\n")
	s = open(t, "journal", disk)
	defer closeStore(t, s)
	if v, err := s.Get([]byte("k")); err != nil || string(v) != "v" {
		t.Errorf("the key of an older host has %q, %v", v, err)
	}
	f, err := disk.Open("journal/FORMAT")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || string(text) != "deskhost journal format 2\n" {
		t.Errorf("the folder's format is %q, %v", text, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(t *testing.T, disk *vfs.MemFS) vfs.FS
		want    []string
	}{
		"newer format": {
			func(t *testing.T, disk *vfs.MemFS) vfs.FS {
				writeFile(t, disk, "data/journal/FORMAT", "deskhost journal format 3\n")
				return disk
			},
			[]string{"data/journal", "format 3", "newer deskhost", "format 2", "data_dir of its own"},
		},
		"damaged format": {
			func(t *testing.T, disk *vfs.MemFS) vfs.FS {
				writeFile(t, disk, "data/journal/FORMAT", "\x00\x00")
				return disk
			},
			[]string{"data/journal/FORMAT is damaged", "restore"},
		},
		"foreign database": {
			func(t *testing.T, disk *vfs.MemFS) vfs.FS {
				writeFile(t, disk, "data/journal/MANIFEST-000001", "")
				return disk
			},
			[]string{"data/journal", "without deskhost's FORMAT file"},
		},
		"damaged database": {
			func(t *testing.T, disk *vfs.MemFS) vfs.FS {
				closeStore(t, open(t, "data/journal", disk))
				names, err := disk.List("data/journal")
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range names {
					if strings.HasPrefix(name, "MANIFEST") {
						writeFile(t, disk, "data/journal/"+name, strings.Repeat("damaged", 100))
					}
				}
				return disk
			},
			[]string{"the journal in data/journal is damaged", "restore"},
		},
		"folder is a file": {
			func(t *testing.T, disk *vfs.MemFS) vfs.FS {
				writeFile(t, disk, "data/journal", "")
				return disk
			},
			[]string{"data/journal"},
		},
		"not writable": {
			func(_ *testing.T, disk *vfs.MemFS) vfs.FS {
				return errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
					if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
						return &fs.PathError{Op: "write", Path: op.Path, Err: fs.ErrPermission}
					}
					return nil
				}))
			},
			[]string{"data", "permission denied", "make it writable"},
		},
		"full disk": {
			func(_ *testing.T, disk *vfs.MemFS) vfs.FS {
				faulty := &faultyDisk{match: "MANIFEST", kinds: []errorfs.OpKind{errorfs.OpFileWrite}, err: syscall.ENOSPC}
				faulty.on.Store(true)
				return errorfs.Wrap(disk, faulty)
			},
			[]string{"open the journal in data/journal", "no space left"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := vfs.NewMem()
			fsys := c.prepare(t, disk)
			before := disk.String()
			s, err := pebble.Open("data/journal", pebble.Options{FS: fsys})
			if err == nil {
				closeStore(t, s)
				t.Fatal("opened")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not tell %q", err, want)
				}
			}
			if after := disk.String(); name != "damaged database" && name != "full disk" && after != before {
				t.Errorf("the refused folder was written to:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// TestLock holds the lock in another process and in this one.
func TestLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, nil)
	if _, err := pebble.Open(dir, pebble.Options{}); err == nil || !strings.Contains(err.Error(), "is in use") {
		t.Errorf("opened twice in one process: %v", err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), exe)
	child.Env = append(os.Environ(), childDir+"="+dir)
	out, err := child.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		t.Fatalf("the other process: %v", err)
	}
	for _, want := range []string{dir, "is in use", "another deskhost has it open", "data_dir of its own"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the other process says %q, which does not tell %q", out, want)
		}
	}
	closeStore(t, s)
	closeStore(t, open(t, dir, nil))
}

func TestDiskUsage(t *testing.T) {
	t.Parallel()
	s := open(t, "journal", vfs.NewMem())
	defer closeStore(t, s)
	const batches = 2000
	for n := range uint32(batches) {
		if err := <-s.Commit(batch(0, n)); err != nil {
			t.Fatal(err)
		}
	}
	// The log that is being written may not count.
	if used, written := s.DiskUsage(), uint64(batches*batchOps*1000); used < written/2 || used > 3*written {
		t.Errorf("%d bytes in use after writing %d", used, written)
	}
}

// TestDiskIsGivenBack removes two keys of three as the sweeper does, one by one,
// and wants their place back while life goes on, with no further word.
func TestDiskIsGivenBack(t *testing.T) {
	t.Parallel()
	s := open(t, "journal", vfs.NewMem())
	defer closeStore(t, s)
	const batches, bytes = 36000, batchOps * 1000
	commit := func(ops []journal.Op) {
		if err := <-s.Commit(ops); err != nil {
			t.Fatal(err)
		}
	}
	for n := range uint32(batches) {
		commit(batch(0, n))
	}
	full := s.DiskUsage()
	for n := range uint32(batches) {
		if n%3 == 0 {
			continue
		}
		ops := batch(0, n)
		for i := range ops {
			ops[i].Value = nil
		}
		commit(ops)
	}
	// Pebble keeps four logs, to write them again.
	const live, logs = batches / 3 * bytes, 80 << 20
	if full < live+logs+live/2 {
		t.Fatalf("%d bytes in use are too few to tell whether any come back", full)
	}
	// How soon depends on how fast the machine compacts.
	for give, n := time.Now().Add(2*time.Minute), uint32(0); time.Now().Before(give); n++ {
		commit(batch(1, n%100))
		if n%100 == 0 && s.DiskUsage() < live+logs {
			t.Logf("%d bytes before, %d after removing %d", full, s.DiskUsage(), batches*bytes-live)
			return
		}
	}
	t.Errorf("%d bytes are in use, %d before %d were removed", s.DiskUsage(), full, batches*bytes-live)
}

func writeFile(t *testing.T, fsys vfs.FS, path, text string) {
	t.Helper()
	if err := fsys.MkdirAll(fsys.PathDir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
