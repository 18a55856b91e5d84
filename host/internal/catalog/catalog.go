// Package catalog is the folder into which operators drop plugins, and the
// private store of copies from which they run.
//
// It owns the names of plugin files, the rule by which a file is whole, the
// reasons for which one is refused, and the store. It must not know what a plugin
// does: it starts none, and knows neither desks nor processes. The desk package
// and the plugin commands call it.
package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// Plugin is one file of the plugin folder.
type Plugin struct {
	// Name is the file's name behind "deskhost-plugin-".
	Name string
	// File is the path of the dropped file, as it stands in the folder.
	File string
	// Size in bytes, time of the last change and SHA-256 (in hex) of the content
	// when the file was looked at.
	Size    int64
	ModTime time.Time
	SHA256  string
	// Problem says why the file cannot be run and what to do about it; empty if
	// nothing speaks against it.
	Problem string
}

// ProblemError is a plugin that cannot be run as it is. An operator has to
// change something; trying again alone does not help.
type ProblemError struct {
	// Plugin is the plugin's name; File is where it is, or was looked for.
	Plugin, File string
	// Problem says what is wrong and what to do.
	Problem string
}

// Error names the plugin, the file and the problem.
func (e *ProblemError) Error() string {
	return fmt.Sprintf("plugin %q (%s): %s", e.Plugin, e.File, e.Problem)
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// ValidName tells whether a plugin can have this name.
func ValidName(name string) bool { return validName.MatchString(name) }

// FileName is the name that the file of a plugin has in the folder.
func FileName(name string) string { return deskv1.FilePrefix + name + programSuffix() }

// NameOf is the name of the plugin that a file anywhere holds. The error, a
// [*ProblemError], says that it is not named like one.
func NameOf(file string) (string, error) {
	base := strings.TrimSuffix(filepath.Base(file), ".exe")
	name, ok := strings.CutPrefix(base, deskv1.FilePrefix)
	if !ok {
		return "", &ProblemError{base, file, "the file of a plugin is named " + deskv1.FilePrefix + "NAME; rename it"}
	}
	return name, nil
}

// Scan looks at every plugin file of a folder, in the order of their names,
// without keeping anything. Files that cannot be run are among them, each with
// its Problem. A folder that does not exist holds no plugins.
func Scan(dir string) ([]Plugin, error) {
	bases, err := pluginFiles(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the plugin folder: %w", err)
	}
	files := make([]File, len(bases))
	for i, base := range bases {
		files[i].Plugin = look(dir, base, pluginName(base))
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	refuseDoubles(files)
	found := make([]Plugin, len(files))
	for i, file := range files {
		found[i] = file.Plugin
	}
	return found, nil
}

// look examines one file. Whatever is wrong ends up in Problem.
func look(dir, base, name string) Plugin {
	p := Plugin{Name: name, File: filepath.Join(dir, base)}
	target, info, problem := resolve(dir, p.File)
	if problem != "" {
		p.Problem = problem
		return p
	}
	p.Size, p.ModTime = info.Size(), info.ModTime()
	p.Problem = checkFile(name, target, info)
	if p.Problem != "" {
		return p
	}
	sum, err := hashFile(target)
	if err != nil {
		p.Problem = "it cannot be read: " + reason(err)
		return p
	}
	p.SHA256 = sum
	return p
}

// resolve follows a link, which may lead to another file of the folder only:
// what lies elsewhere is not under the care of who looks after the folder.
func resolve(dir, file string) (target string, info fs.FileInfo, problem string) {
	if info, err := os.Stat(dir); err != nil {
		return "", nil, fmt.Sprintf("the plugin folder %s cannot be read (%s); set plugin_dir to the folder that holds the plugins", dir, reason(err))
	} else if !info.IsDir() {
		return "", nil, fmt.Sprintf("plugin_dir %s is not a folder", dir)
	}
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Sprintf("there is no such file; put the plugin there, executable and named %s", filepath.Base(file))
	}
	target, err := filepath.EvalSymlinks(file)
	if err != nil {
		return "", nil, "it cannot be read: " + reason(err)
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", nil, "the plugin folder cannot be read: " + reason(err)
	}
	if rel, err := filepath.Rel(root, target); err != nil || !filepath.IsLocal(rel) {
		return "", nil, fmt.Sprintf("it is a link out of the plugin folder, to %s; put the file itself into the folder", target)
	}
	info, err = os.Stat(target)
	if err != nil {
		return "", nil, "it cannot be read: " + reason(err)
	}
	return target, info, ""
}

// checkFile says what can be said against a file without running it.
func checkFile(name, target string, info fs.FileInfo) string {
	if !ValidName(name) {
		return fmt.Sprintf("%q is no name for a plugin; behind %q come 1 to 40 of a-z, 0-9 and -, not - first", name, deskv1.FilePrefix)
	}
	if !info.Mode().IsRegular() {
		return "it is not a regular file; put the plugin's program there"
	}
	if runtime.GOOS != "windows" {
		if info.Mode().Perm()&0o111 == 0 {
			return fmt.Sprintf("it is not executable (mode %04o); run chmod 755 on it", info.Mode().Perm())
		}
		if info.Mode().Perm()&0o002 != 0 {
			return fmt.Sprintf("every user of this machine may write to it (mode %04o); run chmod o-w on it, after a check that it is still the vendor's file", info.Mode().Perm())
		}
	}
	return checkProgram(target)
}

// CheckPin compares a plugin's hash with the one that the configuration allows.
// An empty pin allows any.
func CheckPin(p Plugin, pin string) error {
	if pin == "" || strings.EqualFold(pin, p.SHA256) {
		return nil
	}
	return &ProblemError{p.Name, p.File, fmt.Sprintf(
		"its sha256 is %s, and the configuration allows only %s; put the right file into the folder, or change sha256 of the desk if the new file is to be trusted",
		p.SHA256, strings.ToLower(pin))}
}

// reason is an error without the path, which the caller names already.
func reason(err error) string { return cause(err).Error() }

func cause(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	if linkErr, ok := errors.AsType[*os.LinkError](err); ok {
		return linkErr.Err
	}
	return err
}

func programSuffix() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}
