package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/config"
	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/desk/schema"
	"github.com/deskhost/deskhost/host/internal/process"
)

// checksAtOnce is how many plugins are asked at once what they are.
const checksAtOnce = 4

// Check finds what a configuration asks of its plugins in vain: it starts each
// to ask what it is, and holds the desks' configurations to its schema. The
// error is a [config.Problems]. It needs no data folder.
func Check(ctx context.Context, c *config.Config, log hclog.Logger) error {
	return inScratch(c.PluginDir, log, func(at desk.Source) error {
		limits := func() desk.Limits { return deskLimits(c.Limits) }
		byDesk, err := newRoster(at, limits, log).check(ctx, c.Desks, limits())
		if err != nil {
			return err
		}
		if problems := slices.Concat(byDesk...); len(problems) > 0 {
			return problems
		}
		return nil
	})
}

// inScratch gives fn a plugin folder with a store, and a run folder, for as long
// as it runs.
func inScratch(pluginDir string, log hclog.Logger, fn func(desk.Source) error) (err error) {
	dir, err := os.MkdirTemp("", "deskhost-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	run, err := process.PrepareRunDir(dir)
	if err != nil {
		return err
	}
	// Its place may be outside of dir, if paths are long.
	defer func() { err = errors.Join(err, os.RemoveAll(run)) }()
	folder, err := catalog.OpenFolder(pluginDir, filepath.Join(dir, "plugins"), catalog.Usual, log)
	if err != nil {
		return err
	}
	return fn(desk.Source{Folder: folder, RunDir: run})
}

// check returns the problems of each of these desks, with the limits of their
// configuration.
func (r *roster) check(ctx context.Context, desks []config.Desk, limits desk.Limits) ([]config.Problems, error) {
	began := time.Now()
	var all errgroup.Group
	all.SetLimit(checksAtOnce)
	problems := make([]config.Problems, len(desks))
	for i, d := range desks {
		all.Go(func() error {
			problems[i] = r.checkDesk(ctx, d, limits, began)
			return ctx.Err()
		})
	}
	return problems, all.Wait()
}

func (r *roster) checkDesk(ctx context.Context, d config.Desk, limits desk.Limits, began time.Time) config.Problems {
	program, err := r.source.Folder.Take(d.Plugin)
	if err != nil {
		return config.Problems{{At: d.PluginAt, Key: d.Key + ".plugin", Text: err.Error()}}
	}
	// Before it is started: nothing but what is pinned may run.
	if err := catalog.CheckPin(program.Plugin, d.SHA256); err != nil {
		return config.Problems{{At: d.PinAt, Key: d.Key + ".sha256", Text: err.Error()}}
	}
	describe, err := r.ask(ctx, program, d.User, limits, began)
	if err != nil {
		return config.Problems{{At: d.PluginAt, Key: d.Key + ".plugin", Text: err.Error()}}
	}
	unfit, err := schema.Validate(describe.GetConfigSchema(), d.Config)
	if err != nil {
		return config.Problems{{At: d.PluginAt, Key: d.Key + ".plugin",
			Text: fmt.Sprintf("plugin %q %s has a configuration schema that cannot be used; ask its vendor: %v", d.Plugin, describe.GetVersion(), err)}}
	}
	var problems config.Problems
	for _, u := range unfit {
		problems = append(problems, config.Problem{At: d.Position(u.Pointer), Key: d.KeyOf(u.Pointer), Text: u.Message})
	}
	problems.Sort()
	return problems
}
