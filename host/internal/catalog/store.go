package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Store holds the copies from which plugins run. A copy's name is the SHA-256
// of its content, so the dropped file may be overwritten or removed at any
// time, and what was checked is what runs. It is safe for concurrent use.
type Store struct{ dir string }

// OpenStore opens the store in a folder of its own, which it makes. Nobody but
// the host's user can enter it.
func OpenStore(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the plugin store: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the plugin store: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Add makes sure that the store holds a plugin, and returns the path to run.
// The plugin comes back with the hash, size and time of what was copied, which
// is not what p says if the file has been replaced since.
func (s *Store) Add(p Plugin) (path string, stored Plugin, err error) {
	path = filepath.Join(s.dir, p.SHA256)
	if sum, err := hashFile(path); err == nil && sum == p.SHA256 {
		return path, p, nil
	}
	stored, err = s.copy(p)
	if err != nil {
		// The path of what was copied to is another each time.
		return "", p, fmt.Errorf("copying plugin %q (%s) into the store %s: %w", p.Name, p.File, s.dir, cause(err))
	}
	return filepath.Join(s.dir, stored.SHA256), stored, nil
}

// copy hashes the file while it copies it, and gives the copy its name only
// when it is whole and on the disk.
func (s *Store) copy(p Plugin) (_ Plugin, err error) {
	src, err := os.Open(p.File)
	if err != nil {
		return p, err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return p, err
	}
	dst, err := os.CreateTemp(s.dir, "copying-")
	if err != nil {
		return p, err
	}
	defer func() {
		if err != nil {
			dst.Close()
			os.Remove(dst.Name())
		}
	}()
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(dst, hash), src)
	if err != nil {
		return p, err
	}
	if err := dst.Chmod(0o500); err != nil {
		return p, err
	}
	if err := dst.Sync(); err != nil {
		return p, err
	}
	if err := dst.Close(); err != nil {
		return p, err
	}
	p.Size, p.ModTime, p.SHA256 = size, info.ModTime(), hex.EncodeToString(hash.Sum(nil))
	return p, os.Rename(dst.Name(), filepath.Join(s.dir, p.SHA256))
}

// sweep removes all but the copies with these hashes.
func (s *Store) sweep(keep []string) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("sweeping the plugin store: %w", err)
	}
	for _, e := range entries {
		if slices.Contains(keep, e.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
			return fmt.Errorf("sweeping the plugin store: %w", err)
		}
	}
	return nil
}

// remove removes one copy. On some systems that fails while it runs.
func (s *Store) remove(sha256 string) error {
	err := os.Remove(filepath.Join(s.dir, sha256))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
