package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/config"
	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/desk/schema"
	"github.com/deskhost/deskhost/host/internal/process"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// Check finds what a configuration asks of its plugins in vain: it starts each
// to ask what it is, and holds the desks' configurations to its schema. The
// error is a [config.Problems]. It needs no data folder.
func Check(ctx context.Context, c *config.Config, log hclog.Logger) error {
	return inScratch(func(at desk.Source) error {
		byDesk, err := checkDesks(ctx, c, at, log)
		if err != nil {
			return err
		}
		if problems := slices.Concat(byDesk...); len(problems) > 0 {
			return problems
		}
		return nil
	})
}

// inScratch gives fn a store and a run folder for as long as it runs.
func inScratch(fn func(desk.Source) error) (err error) {
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
	return fn(desk.Source{StoreDir: filepath.Join(dir, "plugins"), RunDir: run})
}

// checkDesks returns the problems of each desk. Each plugin is started once,
// however many desks of one user use it.
func checkDesks(ctx context.Context, c *config.Config, at desk.Source, log hclog.Logger) ([]config.Problems, error) {
	type answer struct {
		plugin   catalog.Plugin
		describe *deskv1.DescribeResponse
		err      error
	}
	type program struct{ plugin, user string }
	answers := map[program]*answer{}
	var all errgroup.Group
	all.SetLimit(4)
	for _, d := range c.Desks {
		if answers[program{d.Plugin, d.User}] != nil {
			continue
		}
		a := new(answer)
		answers[program{d.Plugin, d.User}] = a
		source := at
		source.PluginDir, source.Plugin, source.User = c.PluginDir, d.Plugin, d.User
		all.Go(func() error {
			a.plugin, a.describe, a.err = desk.Inspect(ctx, source, deskLimits(c.Limits), log)
			return ctx.Err()
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	problems := make([]config.Problems, len(c.Desks))
	for i, d := range c.Desks {
		a := answers[program{d.Plugin, d.User}]
		if a.err != nil {
			problems[i] = config.Problems{{At: d.PluginAt, Key: d.Key + ".plugin", Text: a.err.Error()}}
			continue
		}
		if err := catalog.CheckPin(a.plugin, d.SHA256); err != nil {
			problems[i] = config.Problems{{At: d.PinAt, Key: d.Key + ".sha256", Text: err.Error()}}
			continue
		}
		unfit, err := schema.Validate(a.describe.GetConfigSchema(), d.Config)
		if err != nil {
			problems[i] = config.Problems{{At: d.PluginAt, Key: d.Key + ".plugin",
				Text: fmt.Sprintf("plugin %q %s has a configuration schema that cannot be used; ask its vendor: %v", d.Plugin, a.describe.GetVersion(), err)}}
			continue
		}
		for _, u := range unfit {
			problems[i] = append(problems[i], config.Problem{At: d.Position(u.Pointer), Key: d.KeyOf(u.Pointer), Text: u.Message})
		}
		problems[i].Sort()
	}
	return problems, nil
}
