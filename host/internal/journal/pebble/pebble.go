// Package pebble is the journal's store on disk, on cockroachdb/pebble.
//
// It owns one folder: its lock, its format number and everything that Pebble
// keeps in it. It knows no records and no sessions, keys and values are bytes.
// The host opens it; the journal package calls it.
package pebble

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/journal"
)

// Options are what a store needs besides its folder.
type Options struct {
	// Log gets Pebble's own lines: what it does at debug level, trouble that
	// it goes on with as errors. Nil discards them.
	Log hclog.Logger
	// FS replaces the file system in tests.
	FS vfs.FS
}

// Store keeps the keys of one folder. It holds the folder's lock until Close.
type Store struct {
	db   *pebble.DB
	fs   vfs.FS
	dir  string
	lock *pebble.Lock

	// failed is closed by the first fault that Pebble cannot go on from; err
	// is set before.
	failed chan struct{}
	err    error

	mu sync.Mutex
	// waiting has a channel for each commit that is neither durable nor failed.
	waiting map[chan<- error]struct{}
}

var _ journal.Store = (*Store)(nil)

// Open opens the store in dir and makes one if dir is absent or empty. Nothing
// is written before the format is known to be one that this host writes.
func Open(dir string, o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	lock, err := prepareFolder(o.FS, dir)
	if err != nil {
		return nil, err
	}
	s := &Store{fs: o.FS, dir: dir, lock: lock, failed: make(chan struct{}), waiting: make(map[chan<- error]struct{})}
	err = s.write(func() (err error) {
		s.db, err = pebble.Open(dir, &pebble.Options{
			// Most look-ups are for keys that are not there: is this id new? The
			// levels below take over what the first has.
			Levels: [7]pebble.LevelOptions{{FilterPolicy: bloom.FilterPolicy(10)}},
			// A burst of chats writes all over the key space, and what is written out
			// is soon merged with all that lies below it: half of a busy host's work,
			// with Pebble's defaults. It costs 16 MB of memory, and four times as much
			// of log.
			MemTableSize: 16 << 20,
			// A start reads of each open chat in turn, all over the files. Their indexes
			// alone are more than Pebble's default of 8 MB when there are many: a host with
			// 100,000 open chats took six times as long.
			CacheSize:             32 << 20,
			L0CompactionThreshold: 16,
			L0StopWritesThreshold: 48,
			FS:                    logFS{o.FS, s.stop},
			Lock:                  lock,
			FormatMajorVersion:    formatMajorVersion,
			Logger:                logger{o.Log, s.stop},
			EventListener: &pebble.EventListener{
				BackgroundError: func(err error) {
					o.Log.Error("the journal's store has trouble in the background and tries again", "folder", dir, "error", err)
				},
				DataCorruption: func(info pebble.DataCorruptionInfo) {
					s.fail(fmt.Errorf("%s is damaged: %w", info.Path, info.Details))
				},
				WALCreated: func(info pebble.WALCreateInfo) {
					if info.Err != nil {
						s.stop(fmt.Errorf("begin a new log: %w", info.Err))
					}
				},
			},
		})
		return err
	})
	if err != nil {
		// An error of releasing the lock would only hide the one at hand.
		_ = lock.Close()
		if pebble.IsCorruptionError(err) {
			return nil, fmt.Errorf("the journal in %s is damaged: %w; restore the folder from a copy, or move it away to begin with an empty one", dir, err)
		}
		return nil, fmt.Errorf("open the journal in %s: %w", dir, err)
	}
	return s, nil
}

// write runs fn, which makes Pebble write, and returns its error or the fault
// that stopped it: see stop.
func (s *Store) write(fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-s.failed:
		return s.err
	}
}

// fail makes every write fail from now on, and those that wait.
func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	close(s.failed)
	for durable := range s.waiting {
		durable <- err
	}
	clear(s.waiting)
}

// stop makes every write fail from now on, and does not return: the calling
// goroutine, one of write or of Pebble, stays here until the process ends.
//
// Pebble wants a process to exit on the faults that end here. Let go on, it
// would take a failed write for a good one, or continue with files of unknown
// content, or crash with a mutex in the wrong state.
func (s *Store) stop(err error) {
	s.fail(err)
	select {}
}

// Commit applies ops and has them synced. Pebble syncs commits that wait at one
// time together.
func (s *Store) Commit(ops []journal.Op) <-chan error {
	durable := make(chan error, 1)
	batch := s.db.NewBatch()
	for _, op := range ops {
		var err error
		if op.Value == nil {
			err = batch.Delete(op.Key, nil)
		} else {
			err = batch.Set(op.Key, op.Value, nil)
		}
		if err != nil {
			durable <- err
			return durable
		}
	}
	if !s.await(durable) {
		return durable
	}
	applied := make(chan struct{})
	go func() { // Pebble may keep it: see stop
		err := s.db.ApplyNoSyncWait(batch, pebble.Sync)
		close(applied)
		if err == nil {
			err = batch.SyncWait()
		}
		if err == nil { // else Pebble may still hold it
			err = batch.Close()
		}
		s.settle(durable, err)
	}()
	select {
	case <-applied:
	case <-s.failed:
	}
	return durable
}

// await takes note of a commit, or fails it if no more is to be written.
func (s *Store) await(durable chan<- error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		durable <- s.err
		return false
	}
	s.waiting[durable] = struct{}{}
	return true
}

// settle tells the outcome of a commit, unless it has failed with all the others.
func (s *Store) settle(durable chan<- error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.waiting[durable]; ok {
		delete(s.waiting, durable)
		durable <- err
	}
}

// Get returns a copy of the value of key.
func (s *Store) Get(key []byte) (value []byte, err error) {
	v, closer, err := s.db.Get(key)
	if err != nil {
		if errors.Is(err, pebble.ErrNotFound) {
			return nil, journal.ErrNotFound
		}
		return nil, err
	}
	return append([]byte{}, v...), closer.Close()
}

// Scan calls fn for the keys in [lower, upper), as they are now.
func (s *Store) Scan(lower, upper []byte, fn func(key, value []byte) (bool, error)) (err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if more, err := fn(it.Key(), v); !more || err != nil {
			return err
		}
	}
	return it.Error()
}

// Last returns a copy of the greatest key in [lower, upper).
func (s *Store) Last(lower, upper []byte) (key []byte, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Last() {
		return nil, cmp.Or(it.Error(), journal.ErrNotFound)
	}
	return append([]byte{}, it.Key()...), nil
}

// DiskUsage is how many bytes the store takes on disk.
func (s *Store) DiskUsage() uint64 { return s.db.Metrics().DiskSpaceUsage() }

// FreeSpace is how many bytes the disk of the store's folder has left for its user.
func (s *Store) FreeSpace() (uint64, error) {
	u, err := s.fs.GetDiskUsage(s.dir)
	return u.AvailBytes, err
}

// Close writes out what is left to write and releases the folder. After a fault
// it only returns the fault, and the folder stays locked until the process ends.
func (s *Store) Close() error {
	select {
	case <-s.failed:
		return s.err
	default:
	}
	return s.write(func() error { return errors.Join(s.db.Close(), s.lock.Close()) })
}

// logger is Pebble's way to speak.
type logger struct {
	log  hclog.Logger
	stop func(error)
}

// Infof logs what Pebble does.
func (l logger) Infof(format string, args ...any) {
	if l.log.IsDebug() {
		l.log.Debug(fmt.Sprintf(format, args...))
	}
}

// Errorf logs what Pebble can go on from.
func (l logger) Errorf(format string, args ...any) {
	l.log.Error(fmt.Sprintf(format, args...))
}

// Fatalf stops the store.
func (l logger) Fatalf(format string, args ...any) {
	l.stop(fmt.Errorf(format, args...))
}

// logFS stops the store on the first failed write to a write-ahead log.
type logFS struct {
	vfs.FS

	stop func(error)
}

// Create makes a file.
func (l logFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.Create(name, category)
	return l.guard(f, err, category)
}

// ReuseForWrite renames a file and opens it for writing.
func (l logFS) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.ReuseForWrite(from, to, category)
	return l.guard(f, err, category)
}

func (l logFS) guard(f vfs.File, err error, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err != nil || category != walCategory {
		return f, err
	}
	return logFile{f, l.stop}, nil
}

// walCategory is what Pebble names its writes to a write-ahead log.
const walCategory = "pebble-wal"

// logFile is a write-ahead log whose writes either succeed or don't return.
type logFile struct {
	vfs.File

	stop func(error)
}

// Write appends to the log.
func (f logFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.check(err)
}

// Sync makes durable what was written.
func (f logFile) Sync() error { return f.check(f.File.Sync()) }

// SyncData makes durable what was written.
func (f logFile) SyncData() error { return f.check(f.File.SyncData()) }

// SyncTo makes durable the first length bytes.
func (f logFile) SyncTo(length int64) (fullSync bool, err error) {
	fullSync, err = f.File.SyncTo(length)
	return fullSync, f.check(err)
}

// Close closes the log.
func (f logFile) Close() error { return f.check(f.File.Close()) }

func (f logFile) check(err error) error {
	if err != nil {
		f.stop(fmt.Errorf("write the log: %w", err))
	}
	return err
}
