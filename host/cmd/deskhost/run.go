package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/deskhost/deskhost/host"
	"github.com/deskhost/deskhost/host/internal/config"
)

// gcPercent is how much garbage there may be for what lives, unless the operator
// says otherwise with GOGC. A host is full of idle sessions more often than it is
// busy: Go's 100 takes more memory for each, and saves no processor time that can
// be measured.
const gcPercent = 75

func runCommand() *cobra.Command {
	var (
		file, level string
		dev         devOptions
	)
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the host until it is told to end",
		Long: `Run the host until SIGINT or SIGTERM, then stop in order: open chats are kept
for the next start. A second signal ends it at once, which loses nothing that
was acknowledged.

SIGHUP, or a change of the configuration file, has the configuration read again:
only what it changes is touched. If anything in it is wrong nothing changes, and
the log says why.

One line on standard output tells the addresses once the host is ready. The log
goes to standard error.

--dev is for who writes a plugin. A plugin file that a build has just written is
taken at once, and the process before it ended within 2 s, also if it has chats
that cannot go over. A desk that is down is started again within 2 s. Each call
and event is one line of the log, without what users and agents write. With
--plugin it takes no configuration file: the plugin's desk is the only one, the
demo page is at "/", and what is said is forgotten at the end.`,
		Args: func(cmd *cobra.Command, args []string) error {
			return errors.Join(cobra.NoArgs(cmd, args), dev.check(file), checkLevel(level))
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			source := func() (*config.Config, error) { return load(file) }
			if dev.plugin != "" {
				data, err := os.MkdirTemp("", "deskhost-dev-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(data)
				source = func() (*config.Config, error) { return dev.configuration(data) }
			}
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
			log := newLogger(cmd.ErrOrStderr(), level)
			if dev.on {
				log = newDevLogger(cmd.ErrOrStderr(), level)
			}
			return run(cmd.Context(), source, dev.on, log, cmd.OutOrStdout())
		},
	}
	configFlag(cmd, &file)
	dev.flags(cmd)
	cmd.Flags().StringVar(&level, "log-level", "info", "what to log: "+logLevels)
	return cmd
}

// run runs a host. The configuration is loaded again when its file changes.
func run(ctx context.Context, load func() (*config.Config, error), dev bool, log hclog.Logger, stdout io.Writer) error {
	signalled, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	// From the first signal on, a second has its usual effect. That is so before
	// anything is done about the first.
	ctx, end := context.WithCancel(ctx)
	defer end()
	context.AfterFunc(signalled, func() {
		stop()
		end()
	})
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	c, err := load()
	if err != nil {
		return err
	}
	// The start takes a while. What is changed, or asked for, meanwhile is taken
	// behind it.
	var reloading sync.WaitGroup
	defer reloading.Wait()
	ctx, ended := context.WithCancel(ctx)
	defer ended()
	watcher, edited := config.NewWatcher(c.File), make(chan struct{}, 1)
	reloading.Go(func() {
		watcher.Watch(ctx, func() {
			select {
			case edited <- struct{}{}:
			default: // It is about to be read anyway.
			}
		})
	})
	h, err := host.New(ctx, host.Options{
		Config:  c,
		Version: version,
		Log:     log,
		Dev:     dev,
		Ready: func(widgets, operators net.Addr) {
			// Nobody can be told of a standard output that is closed.
			_, _ = fmt.Fprintf(stdout, "deskhost %s is ready: widgets at http://%s, operators at http://%s\n", version, widgets, operators)
		},
	})
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil // Told to end before it had begun.
		}
		return err
	}
	reloading.Go(func() { reload(ctx, h, load, hangup, edited, log) })
	return h.Run(ctx)
}

// reload has the host read its configuration again whenever there is cause to,
// until ctx ends.
func reload(ctx context.Context, h *host.Host, load func() (*config.Config, error), hangup <-chan os.Signal, edited <-chan struct{}, log hclog.Logger) {
	for {
		cause := "SIGHUP"
		select {
		case <-hangup:
		case <-edited:
			cause = "the file has changed"
		case <-ctx.Done():
			return
		}
		err := h.Reload(ctx, load)
		if err != nil && ctx.Err() == nil {
			log.Error("configuration not taken, the one before holds", "cause", cause, "problem", err)
		}
	}
}

const logLevels = "trace, debug, info, warn or error"

// checkLevel finds a level that loggers do not know, and would take for info.
func checkLevel(level string) error {
	if hclog.LevelFromString(level) == hclog.NoLevel {
		return fmt.Errorf("--log-level is %s, not %q", logLevels, level)
	}
	return nil
}

func newLogger(to io.Writer, level string) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "deskhost", Output: to, Level: hclog.LevelFromString(level)})
}

// configFlag adds --config; empty stands for the default file.
func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "configuration `file` (default ./"+config.DefaultFile+")")
}

// load reads the configuration file, or the default file if none is named.
func load(file string) (*config.Config, error) {
	if file != "" {
		return config.Load(file)
	}
	if _, err := os.Stat(config.DefaultFile); errors.Is(err, fs.ErrNotExist) {
		return nil, config.Problems{{
			At:   config.Position{File: config.DefaultFile},
			Text: "there is no such file here; name one with --config FILE, or begin with a copy of examples/demo/deskhost.yaml",
		}}
	}
	return config.Load(config.DefaultFile)
}
