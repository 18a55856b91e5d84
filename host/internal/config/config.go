// Package config reads deskhost.yaml.
//
// It owns the file's keys, their defaults and their diagnostics: every fault
// of a file is found in one pass and told with file, line, column, key and
// remedy. It knows the form of a desk's `config:` but not its meaning, which is
// the plugin's; [Desk.Position] lets whoever checks it point at the line. It
// opens nothing that the file names except `${file:…}`. The host and the
// command line call it.
//
// Texts may hold `${env:NAME}` and `${file:PATH}`, which are replaced when the
// file is read; `$${` stands for `${`. What came from a reference is a secret:
// no diagnostic repeats it. Relative paths are taken from the file's folder.
package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultFile is the file that is read if none is named.
const DefaultFile = "deskhost.yaml"

// Config is a valid configuration. Paths in it are absolute.
type Config struct {
	// File is the path that was read, as it was given.
	File string
	// Listen is the widgets' address. Default 127.0.0.1:8080.
	Listen string
	// PublicURL is what vendors' webhooks call, without a slash at the end;
	// empty if vendors cannot reach this host.
	PublicURL string
	// Origins are the pages that may use the host, such as
	// https://www.example.com.
	Origins []string
	Admin   Admin
	// DataDir holds the journal. Default ./data.
	DataDir string
	// PluginDir holds the plugin files. Default ./plugins.d.
	PluginDir string
	// Demo serves the demo pages; Listen is a loopback address then.
	Demo      bool
	Identity  Identity
	Limits    Limits
	Retention Retention
	// Desks has at least one desk; names are unique.
	Desks []Desk
	// DefaultDesk is the desk of sessions that name none; empty if there are
	// several desks and the file names none of them.
	DefaultDesk string
}

// Admin is the operators' listener.
type Admin struct {
	// Listen is its address. Default 127.0.0.1:8081.
	Listen string
	// Token must be presented wherever Listen is not a loopback address. A secret.
	Token string
}

// Identity says how identity tokens are checked.
type Identity struct {
	// JWKSFile holds the public keys; empty: tokens are not accepted.
	JWKSFile string
	// Required refuses sessions without a token.
	Required bool
}

// Retention says how long finished things are kept.
type Retention struct {
	// ClosedSessions is for how long an expired session's log is kept. Default 30d.
	ClosedSessions time.Duration
}

// Desk is one entry of `desks:`.
type Desk struct {
	// Name is [a-z0-9-], at most 40 bytes.
	Name string
	// Plugin is the plugin's name: its file is deskhost-plugin-<Plugin>.
	Plugin string
	// SHA256 pins the plugin file in lower-case hex; empty: any.
	SHA256 string
	// User is the system user that runs the plugin, a name or a number; empty:
	// the host's own.
	User string
	// Config is the plugin's configuration, a JSON object with secrets filled in.
	Config json.RawMessage
	// Key is the desk's path of keys in the file, such as desks[0]; PluginAt
	// and PinAt are where its plugin and its sha256 stand.
	Key             string
	PluginAt, PinAt Position

	positions map[string]Position
}

// Same tells whether two desks say the same, wherever in a file they stand.
func (d Desk) Same(other Desk) bool {
	d.Key, d.PluginAt, d.PinAt, d.positions = other.Key, other.PluginAt, other.PinAt, other.positions
	return reflect.DeepEqual(d, other)
}

// KeyOf returns the path of keys for a JSON pointer into Config.
func (d *Desk) KeyOf(pointer string) string {
	key := d.Key + ".config"
	for _, part := range strings.Split(pointer, "/")[1:] {
		part = pointerUnescapes.Replace(part)
		if _, err := strconv.Atoi(part); err == nil {
			key += "[" + part + "]"
		} else {
			key = join(key, part)
		}
	}
	return key
}

// Position returns where in the file the value stands that a JSON pointer into
// Config names, or the nearest value around it.
func (d *Desk) Position(pointer string) Position {
	for {
		if at, ok := d.positions[pointer]; ok {
			return at
		}
		cut := strings.LastIndexByte(pointer, '/')
		if cut < 0 {
			return d.positions[""]
		}
		pointer = pointer[:cut]
	}
}

// Position is a place in a configuration file.
type Position struct {
	File string
	// Line and Column count from 1; 0 if the whole file is meant.
	Line, Column int
}

// String returns file:line:column.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is one fault of a file.
type Problem struct {
	At Position
	// Key is the path of keys, such as "desks[0].plugin"; empty for the file.
	Key string
	// Text says what is wrong and what would be right. It holds no secret.
	Text string
}

// String returns the problem on one line.
func (p Problem) String() string {
	if p.Key == "" {
		return p.At.String() + ": " + p.Text
	}
	return p.At.String() + ": " + p.Key + ": " + p.Text
}

// Problems are all faults of a file, in the order of its lines.
type Problems []Problem

// Sort puts the problems in the order of the file's lines.
func (p Problems) Sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.At.Line, b.At.Line), cmp.Compare(a.At.Column, b.At.Column))
	})
}

// Error returns one line a problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// Load reads and checks a file. The error is a [Problems].
func Load(file string) (*Config, error) {
	r := &reader{file: file}
	source, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, r.failf(Position{File: file}, "", "there is no such file; name one with --config FILE")
	case err != nil:
		return nil, r.failf(Position{File: file}, "", "cannot be read: %v", errors.Unwrap(err))
	}
	return Parse(file, source)
}

// Parse is Load of a file whose content is known, or meant.
func Parse(file string, source []byte) (*Config, error) {
	r := &reader{file: file}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, r.failf(Position{File: file}, "", "%v", err)
	}
	r.dir = dir
	root := r.parse(source)
	if root == nil {
		return nil, r.problems
	}
	c := r.config(root)
	if len(r.problems) > 0 {
		r.problems.Sort()
		return nil, r.problems
	}
	return c, nil
}
