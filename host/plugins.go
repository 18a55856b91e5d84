package host

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/admin"
	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/config"
	"github.com/deskhost/deskhost/host/internal/desk"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// roster is the plugin folder with what each plugin in it says of itself. Every
// file is started once, for a moment, to be asked.
type roster struct {
	source desk.Source
	limits func() desk.Limits // those that hold
	log    hclog.Logger

	mu      sync.Mutex
	answers map[question]*answer
}

// question is what was asked: a content, run as a user. The name counts, because
// a plugin has to agree with it.
type question struct{ name, sha256, user string }

// answer is there once done is closed.
type answer struct {
	done     chan struct{}
	describe *deskv1.DescribeResponse
	err      error

	// An error came when failed says, and may have been the machine's. From again on
	// the plugin may be asked once more, in the place of an answer that failed as well.
	failed, again time.Time
	wait          time.Duration
	before        *answer
}

// A plugin that did not answer is asked again after askAgainFirst, twice that, and so
// on up to askAgainMost.
const (
	askAgainFirst = 5 * time.Second
	askAgainMost  = 10 * time.Minute
)

// given tells whether there is an answer that holds. An error holds until the plugin
// may be asked again; for whoever says since when it has to be, if it is from then or
// later.
func (a *answer) given(now, since time.Time) bool {
	select {
	case <-a.done:
	default:
		return true // It comes.
	}
	switch {
	case a.err == nil:
		return true
	case since.IsZero():
		return now.Before(a.again)
	default:
		return !a.failed.Before(since)
	}
}

func newRoster(source desk.Source, limits func() desk.Limits, log hclog.Logger) *roster {
	return &roster{source: source, limits: limits, log: log, answers: map[question]*answer{}}
}

// ask returns what a plugin says of itself. With an error it may be that it says
// to be another. Whoever asks for an operator, who may have put right what was wrong,
// gives the time in since; all others zero.
func (r *roster) ask(ctx context.Context, program catalog.Copy, user string, limits desk.Limits, since time.Time) (*deskv1.DescribeResponse, error) {
	q := question{program.Name, program.SHA256, user}
	r.mu.Lock()
	a, asked := r.answers[q]
	if asked && !a.given(time.Now(), since) {
		asked = false
		a.before = nil // One is enough.
	}
	if !asked {
		next := &answer{done: make(chan struct{}), wait: askAgainFirst, before: a}
		if a != nil {
			next.wait = min(2*a.wait, askAgainMost)
		}
		a = next
		r.answers[q] = a
	}
	r.mu.Unlock()
	if !asked {
		source := r.source
		source.User = user
		a.describe, a.err = desk.Inspect(ctx, source, program, limits, r.log)
		a.failed = time.Now()
		a.again = a.failed.Add(a.wait)
		if ctx.Err() != nil {
			r.mu.Lock()
			delete(r.answers, q) // It was not its fault.
			r.mu.Unlock()
		}
		close(a.done)
	}
	select {
	case <-a.done:
		return a.describe, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// known is what a plugin has said last, as whatever user; nil if it was not asked.
func (r *roster) known(p catalog.Plugin) *answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	for q, a := range r.answers {
		if q.name != p.Name || q.sha256 != p.SHA256 {
			continue
		}
		select {
		case <-a.done:
			return a
		default:
		}
		if a.before != nil {
			return a.before
		}
	}
	return nil
}

// watch asks every plugin that comes into the folder, until ctx ends, and again
// those that did not answer. The desks of a plugin say what of it may run, and as
// whom.
func (r *roster) watch(ctx context.Context, desksOf func(plugin string) []config.Desk) {
	tick := time.NewTicker(askAgainFirst)
	defer tick.Stop()
	for {
		changed := r.source.Folder.Changed()
		for _, file := range r.source.Folder.Files() {
			users := desksOf(file.Name)
			mayRun := func(d config.Desk) bool { return catalog.CheckPin(file.Copy.Plugin, d.SHA256) == nil }
			known := r.known(file.Plugin)
			if !slices.Contains(r.source.Folder.Files(), file) {
				continue // It has changed, or goes, while others were asked, and its copy may go too.
			}
			if file.Problem != "" || known != nil && known.given(time.Now(), time.Time{}) || len(users) > 0 && !slices.ContainsFunc(users, mayRun) {
				continue
			}
			user := ""
			if i := slices.IndexFunc(users, mayRun); i >= 0 {
				user = users[i].User
			}
			switch _, err := r.ask(ctx, file.Copy, user, r.limits(), time.Time{}); {
			case ctx.Err() != nil:
			case err != nil && known != nil: // It has been told.
			case err != nil:
				r.log.Warn("plugin refused", "plugin", file.Name, "problem", r.problem(file))
			case known != nil:
				r.log.Info("plugin accepted after all", "plugin", file.Name)
			}
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// problem says what is wrong with a file, as far as is known.
func (r *roster) problem(file catalog.File) string {
	a := r.known(file.Plugin)
	switch {
	case file.Problem != "":
		return file.Problem
	case a == nil || a.err == nil:
		return ""
	}
	if name := a.describe.GetName(); name != file.Name {
		for _, other := range r.source.Folder.Files() {
			if other.Name == name {
				return "it says that its name is \"" + name + "\", and " + other.File + " has that name already; remove one of the two"
			}
		}
	}
	return a.err.Error()
}

// list is the folder for operators.
func (r *roster) list(desksOf func(plugin string) []config.Desk) []admin.Plugin {
	plugins := []admin.Plugin{}
	for _, file := range r.source.Folder.Files() {
		p := adminPlugin(file.Plugin, desksOf(file.Name))
		p.Problem = r.problem(file)
		if a := r.known(file.Plugin); a != nil && a.err == nil {
			p.Title, p.Version = a.describe.GetTitle(), a.describe.GetVersion()
		}
		plugins = append(plugins, p)
	}
	return plugins
}

// info is what a plugin of the folder says of itself.
func (r *roster) info(ctx context.Context, name, user string) (*PluginInfo, error) {
	program, err := r.source.Folder.Take(name)
	if err != nil {
		return nil, err
	}
	describe, err := r.ask(ctx, program, user, r.limits(), time.Now())
	if err != nil {
		return nil, err
	}
	return newPluginInfo(program.Plugin, describe), nil
}

func adminPlugin(p catalog.Plugin, desks []config.Desk) admin.Plugin {
	names := []string{}
	for _, d := range desks {
		names = append(names, d.Name)
	}
	return admin.Plugin{
		Name: p.Name, File: p.File, Size: p.Size, ModTime: p.ModTime.UTC(),
		SHA256: p.SHA256, Problem: p.Problem, Desks: names,
	}
}

// Plugins lists the files of a configuration's plugin folder, while no host
// runs: no plugin is started for it.
func Plugins(c *config.Config) ([]admin.Plugin, error) {
	found, err := catalog.Scan(c.PluginDir)
	if err != nil {
		return nil, err
	}
	plugins := make([]admin.Plugin, len(found))
	for i, p := range found {
		plugins[i] = adminPlugin(p, desksOf(c.Desks, p.Name))
	}
	return plugins, nil
}

func desksOf(desks []config.Desk, plugin string) (users []config.Desk) {
	for _, d := range desks {
		if d.Plugin == plugin {
			users = append(users, d)
		}
	}
	return users
}

// PluginInfo is what a plugin tells of itself.
type PluginInfo struct {
	Name         string   `json:"name"`
	Title        string   `json:"title,omitempty"`
	Version      string   `json:"version"`
	File         string   `json:"file"`
	SHA256       string   `json:"sha256"`
	Capabilities []string `json:"capabilities"`
	SendDedupe   string   `json:"send_dedupe"`
	Replay       string   `json:"replay"`
	StateFormats []uint32 `json:"state_formats"`
	// MaxTextBytes bounds the text of a message; 0: the host's limit.
	MaxTextBytes uint32 `json:"max_text_bytes"`
	// ConfigSchema is empty if any object will do.
	ConfigSchema json.RawMessage `json:"config_schema,omitempty"`
	// Desks are those that use it, if a running host was asked.
	Desks []admin.Desk `json:"desks,omitempty"`
}

func newPluginInfo(plugin catalog.Plugin, d *deskv1.DescribeResponse) *PluginInfo {
	info := &PluginInfo{
		Name: d.GetName(), Title: d.GetTitle(), Version: d.GetVersion(),
		File: plugin.File, SHA256: plugin.SHA256,
		Capabilities: desk.CapabilityNames(d.GetCapabilities()),
		SendDedupe:   desk.SendDedupeName(d.GetSendDedupe()),
		Replay:       desk.ReplayName(d.GetReplay()),
		StateFormats: append([]uint32{}, d.GetStateFormats()...),
		MaxTextBytes: d.GetMaxTextBytes(),
	}
	if schema := json.RawMessage(d.GetConfigSchema()); json.Valid(schema) {
		info.ConfigSchema = schema
	}
	return info
}

// Inspect starts a plugin for a moment to ask what it is. It needs no data
// folder. An error that a [catalog.ProblemError] is in needs the operator.
func Inspect(ctx context.Context, dir, name string, log hclog.Logger) (*PluginInfo, error) {
	var info *PluginInfo
	err := inScratch(dir, log, func(at desk.Source) (err error) {
		info, err = newRoster(at, desk.DefaultLimits, log).info(ctx, name, "")
		return err
	})
	return info, err
}

// InspectFile is Inspect for a file in any folder.
func InspectFile(ctx context.Context, file string, log hclog.Logger) (*PluginInfo, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(file); err != nil {
		return nil, &catalog.ProblemError{Plugin: filepath.Base(file), File: file, Problem: cause(err).Error()}
	}
	name, err := catalog.NameOf(file)
	if err != nil {
		return nil, err
	}
	return Inspect(ctx, filepath.Dir(file), name, log)
}
