package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// Pace is how fast changes of the folder are taken.
type Pace struct {
	// Look is how often the folder is looked at. Asking is right on every system
	// and file system; notices of changes are lost on network mounts and in
	// containers.
	Look time.Duration
	// Settle is how long a file must not have changed to be taken as whole.
	Settle time.Duration
}

// Usual is the pace for operators, who copy files from anywhere. AtOnce is for a
// folder that a build on this machine writes to.
var (
	Usual  = Pace{Look: time.Second, Settle: 2 * time.Second}
	AtOnce = Pace{Look: 100 * time.Millisecond, Settle: 300 * time.Millisecond}
)

// Copy is a plugin in the store, ready to be run.
type Copy struct {
	// Plugin is the dropped file as it was when it was copied.
	Plugin

	// Path is the program to run.
	Path string
}

// File is how one file of the plugin folder stands.
type File struct {
	// Plugin is the file as it was last seen. Its Problem is why it is not taken
	// as it is: refused, still being written, or missing.
	Plugin

	// Copy is what is to run under this name: of this file, or, while that
	// cannot be taken, of the one before. Its Path is empty if there was none.
	Copy Copy
}

// Folder watches a plugin folder, and copies what can be run into its store. A
// file that is removed, damaged or overwritten changes nothing about the copy
// that was made of it. It is safe for concurrent use.
type Folder struct {
	dir   string
	store *Store
	pace  Pace
	log   hclog.Logger

	looking  sync.Mutex // one look at a time; guards what follows
	known    map[string]*watched
	watching bool // changes are told in the log
	// unreadable is why the folder could not be looked at; empty if it could.
	unreadable string
	// used is that of Watch. copies are those in the store, by hash, each with since
	// when it has been of no use: zero while it is.
	used   func() []string
	copies map[string]time.Time

	mu      sync.Mutex
	files   []File // by name
	changed chan struct{}
}

// watched is what is known of a file from the looks so far.
type watched struct {
	File

	info  fs.FileInfo // as last seen; nil if it could not be looked at
	since time.Time   // it has been so
	taken bool        // what info describes has been judged
}

// keepUnused is how long a copy stays that is of no use any more. It may have been
// taken just before that, by who does not say yet that it is used.
const keepUnused = time.Minute

// OpenFolder opens the store in a folder of its own, and looks at the plugin
// folder for the first time. Files are taken as they are then; what turns out
// to have been half a file is replaced by the whole one later. Copies of plugins
// that are no longer there are removed, so nobody else may use the store. Later
// ones are removed by Watch alone.
func OpenFolder(dir, storeDir string, pace Pace, log hclog.Logger) (*Folder, error) {
	store, err := OpenStore(storeDir)
	if err != nil {
		return nil, err
	}
	f := &Folder{dir: dir, store: store, pace: pace, log: log, known: map[string]*watched{}, copies: map[string]time.Time{}, changed: make(chan struct{})}
	f.look(time.Now(), 0)
	var keep []string
	for _, file := range f.Files() {
		keep = append(keep, file.Copy.SHA256)
	}
	if err := store.sweep(keep); err != nil {
		return nil, err
	}
	return f, nil
}

// Watch looks at the folder at its pace until ctx ends. What was there before is
// told in the log first. A copy of a file that has been replaced is removed once
// it is none of those whose hashes used returns: what runs, and what may be started
// without another Take. Who has just taken a copy has a minute to say so there. Watch
// is called once.
func (f *Folder) Watch(ctx context.Context, used func() []string) {
	f.looking.Lock()
	f.watching, f.used = true, used
	for _, file := range f.Files() {
		f.tell(file)
	}
	f.looking.Unlock()
	ticker := time.NewTicker(f.pace.Look)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			f.Look(time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// Look looks at the folder once, as Watch does.
func (f *Folder) Look(now time.Time) { f.look(now, f.pace.Settle) }

// Files tells how each file of the folder stands, by name. Files that are gone
// are among them as long as their copy may run.
func (f *Folder) Files() []File {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.files
}

// Changed returns a channel that is closed when Files tells something new. Ask
// for it before asking Files.
func (f *Folder) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// Take returns the copy to run of a plugin. The error, a [*ProblemError], is why
// the file in the folder is not taken as it is; beside it the copy is that of an
// earlier file, or has no Path.
func (f *Folder) Take(name string) (Copy, error) {
	file := filepath.Join(f.dir, FileName(name))
	if !ValidName(name) {
		return Copy{}, &ProblemError{name, file, "this is no name for a plugin; it has 1 to 40 of a-z, 0-9 and -, and does not begin with -"}
	}
	for _, have := range f.Files() {
		switch {
		case have.Name != name:
		case have.Problem != "":
			return have.Copy, &ProblemError{name, have.File, have.Problem}
		default:
			return have.Copy, nil
		}
	}
	_, _, problem := resolve(f.dir, file)
	if problem == "" {
		problem = "it has been there for a moment only; it is looked at every " + f.pace.Look.String()
	}
	return Copy{}, &ProblemError{name, file, problem}
}

// look brings known up to date, and tells if something has changed. A file must
// have been as it is for settle.
func (f *Folder) look(now time.Time, settle time.Duration) {
	f.looking.Lock()
	defer f.looking.Unlock()
	present, err := pluginFiles(f.dir)
	if err != nil {
		if f.unreadable != err.Error() {
			f.unreadable = err.Error()
			f.log.Warn("plugin folder cannot be read; what runs goes on running", "plugin_dir", f.dir, "error", err)
		}
		return
	}
	if f.unreadable != "" {
		f.unreadable = ""
		f.log.Info("plugin folder can be read again", "plugin_dir", f.dir)
	}
	for _, base := range present {
		w := f.known[base]
		if w == nil {
			w = &watched{File: File{Plugin: Plugin{Name: pluginName(base), File: filepath.Join(f.dir, base)}}}
			f.known[base] = w
		}
		f.examine(w, base, now, settle)
	}
	for base, w := range f.known {
		if slices.Contains(present, base) {
			continue
		}
		if w.Copy.Path == "" {
			delete(f.known, base)
			continue
		}
		w.info, w.taken = nil, false
		w.Problem = "the file is missing; desks go on with the copy that was made of it until the host ends. Put the file back, or take its desks out of the configuration"
	}
	f.publish()
	f.removeUnused(now)
}

// removeUnused removes the copies that have been of no use for keepUnused. Without
// it a host that is fed by a build, or for development, fills its disk.
func (f *Folder) removeUnused(now time.Time) {
	if f.used == nil {
		return
	}
	used := f.used()
	for _, w := range f.known {
		used = append(used, w.Copy.SHA256)
	}
	for sha256, since := range f.copies {
		switch {
		case slices.Contains(used, sha256):
			f.copies[sha256] = time.Time{}
		case since.IsZero():
			f.copies[sha256] = now
		case now.Sub(since) < keepUnused:
		default:
			if err := f.store.remove(sha256); err != nil {
				f.log.Warn("a copy of a plugin that is of no use any more cannot be removed; it is tried again", "sha256", sha256, "error", err)
				f.copies[sha256] = now
				continue
			}
			delete(f.copies, sha256)
		}
	}
}

// examine looks at one file and takes it if it is whole and can be run.
func (f *Folder) examine(w *watched, base string, now time.Time, settle time.Duration) {
	_, info, problem := resolve(f.dir, w.File.File)
	if problem != "" {
		w.info, w.taken, w.Problem = nil, false, problem
		return
	}
	if w.info == nil || !unchanged(w.info, info) {
		w.info, w.since, w.taken = info, now, false
	}
	if w.taken {
		return
	}
	// A file that was renamed in has been whole for as long as its time says.
	if now.Sub(w.since) < settle && now.Sub(info.ModTime()) < settle {
		f.unsettled(w)
		return
	}
	p := look(f.dir, base, w.Name)
	var made Copy
	if p.Problem == "" {
		path, stored, err := f.store.Add(p)
		if err != nil {
			p.Problem = err.Error()
			w.Plugin = p
			return // The disk may have room at the next look.
		}
		made = Copy{Plugin: stored, Path: path}
		f.copies[stored.SHA256] = time.Time{}
	}
	if _, again, problem := resolve(f.dir, w.File.File); problem != "" || !unchanged(info, again) {
		w.info = nil // It changed under our eyes: begin again.
		f.unsettled(w)
		return
	}
	w.Plugin, w.taken = p, true
	if made.Path != "" {
		w.Plugin, w.Copy = made.Plugin, made
	}
}

// unsettled says that a file is not taken yet, unless the copy before it goes on
// as if nothing were.
func (f *Folder) unsettled(w *watched) {
	if w.Copy.Path == "" || w.Problem != "" {
		w.Problem = fmt.Sprintf("it may still be written to; it is taken once it has not changed for %s", f.pace.Settle)
	}
}

// unchanged tells whether two looks saw one file with the same content and mode.
func unchanged(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && a.Mode() == b.Mode()
}

// publish shows what is known, if it is something new.
func (f *Folder) publish() {
	files := make([]File, 0, len(f.known))
	for _, w := range f.known {
		files = append(files, w.File)
	}
	slices.SortFunc(files, func(a, b File) int {
		return strings.Compare(a.Name+"\x00"+a.File, b.Name+"\x00"+b.File)
	})
	refuseDoubles(files)
	before := f.Files()
	if slices.Equal(before, files) {
		return
	}
	for _, file := range files {
		if i := slices.IndexFunc(before, func(b File) bool { return b.File == file.File }); i < 0 || before[i] != file {
			f.tell(file)
		}
	}
	for _, b := range before {
		if !slices.ContainsFunc(files, func(file File) bool { return b.File == file.File }) {
			f.log.Info("plugin file removed", "plugin", b.Name, "file", b.File)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files = files
	close(f.changed)
	f.changed = make(chan struct{})
}

// tell logs how a file stands now.
func (f *Folder) tell(file File) {
	if !f.watching {
		return
	}
	if file.Problem != "" {
		f.log.Warn("plugin file not taken", "plugin", file.Name, "file", file.File, "problem", file.Problem)
		return
	}
	f.log.Info("plugin file taken", "plugin", file.Name, "file", file.File, "sha256", file.SHA256)
}

// refuseDoubles refuses the second of two files with one name, which differ in
// what the system does not count as part of it. Files are sorted.
func refuseDoubles(files []File) {
	for i := 1; i < len(files); i++ {
		if first := files[i-1]; first.Name == files[i].Name {
			files[i].Problem = fmt.Sprintf("%s has the same name for a plugin; remove one of the two", first.File)
			files[i].Copy = Copy{}
		}
	}
}

// pluginFiles lists what looks like a plugin. A folder that does not exist holds
// none.
func pluginFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var found []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), deskv1.FilePrefix) {
			found = append(found, e.Name())
		}
	}
	return found, err
}

// pluginName is the name that a file of the folder has as a plugin.
func pluginName(base string) string {
	return strings.TrimSuffix(strings.TrimPrefix(base, deskv1.FilePrefix), programSuffix())
}
