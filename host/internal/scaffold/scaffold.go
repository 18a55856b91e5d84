// Package scaffold writes the Go module with which a vendor begins a plugin.
//
// It owns the templates, each a file of the module under template with .tmpl
// behind its name. It knows what the module needs and runs nothing: neither Go nor
// a plugin. "deskhost plugin new" calls it.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

//go:embed all:template
var templates embed.FS

// goVersion is what go.mod asks for: no less than the SDK does.
const goVersion = "1.26.0"

// sdkModule is the module that the SDK is in.
const sdkModule = "github.com/deskhost/deskhost"

// Plugin says what to write.
type Plugin struct {
	// Name is the plugin's name, a valid one.
	Name string
	// Module is the module's path.
	Module string
	// Dir is the folder to make. There must be nothing of that name.
	Dir string
	// SDKVersion is the version of the SDK to require, like v1.2.3.
	SDKVersion string
	// SDK is a checkout of deskhost to build with in place of that; may be empty.
	SDK string
}

var modulePath = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~-]*(/[A-Za-z0-9][A-Za-z0-9._~-]*)*$`)

// Write writes the module, all of it or nothing.
func Write(p Plugin) (err error) {
	if !modulePath.MatchString(p.Module) {
		return fmt.Errorf("%q is no path for a Go module; one like example.com/deskhost-plugin-%s is", p.Module, p.Name)
	}
	if p.SDK != "" {
		if p.SDK, err = checkout(p.SDK); err != nil {
			return err
		}
	}
	dir, err := filepath.Abs(p.Dir)
	if err != nil {
		return err
	}
	switch _, err := os.Lstat(dir); {
	case err == nil:
		return fmt.Errorf("%s exists; name another folder with --dir, or remove it", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	unfinished, err := os.MkdirTemp(filepath.Dir(dir), ".deskhost-plugin-new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(unfinished))
		}
	}()
	if err := p.write(unfinished); err != nil {
		return err
	}
	return os.Rename(unfinished, dir)
}

// checkout finds out whether a folder holds the SDK's source, and returns its
// full path.
func checkout(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil || !strings.HasPrefix(string(mod), "module "+sdkModule+"\n") {
		return "", fmt.Errorf("%s is no checkout of %s: it has no go.mod of that module", dir, sdkModule)
	}
	return dir, nil
}

func (p Plugin) write(dir string) error {
	data := struct {
		Plugin

		GoVersion, Title string
	}{p, goVersion, title(p.Name)}
	if strings.ContainsAny(data.SDK, " \t'\"`()[]{},;") {
		data.SDK = strconv.Quote(data.SDK)
	}
	const root, suffix = "template", ".tmpl"
	err := fs.WalkDir(templates, root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(strings.TrimSuffix(strings.TrimPrefix(path, root), suffix)))
		if entry.IsDir() {
			// The first is there, for its owner only.
			return errors.Join(os.MkdirAll(to, 0o755), os.Chmod(to, 0o755)) //nolint:gosec // source code is no secret
		}
		text, err := templates.ReadFile(path)
		if err != nil {
			return err
		}
		// Go, make, sh and GitHub have a use for other brackets.
		t, err := template.New(path).Delims("<%", "%>").Option("missingkey=error").Parse(string(text))
		if err != nil {
			return err
		}
		file, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) //nolint:gosec // the same
		if err != nil {
			return err
		}
		return errors.Join(t.Execute(file, data), file.Close())
	})
	if err != nil || p.SDK == "" {
		return err
	}
	// The checkout's sums are those of what it needs.
	sums, err := os.ReadFile(filepath.Join(p.SDK, "go.sum"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o644) //nolint:gosec // the same
}

// title is a name as people write it: acme-cloud is Acme Cloud.
func title(name string) string {
	words := strings.FieldsFunc(name, func(r rune) bool { return r == '-' })
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, " ")
}
