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
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/deskhost/deskhost/host"
	"github.com/deskhost/deskhost/host/internal/config"
)

func runCommand() *cobra.Command {
	var file, level string
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
goes to standard error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), file, newLogger(cmd.ErrOrStderr(), level), cmd.OutOrStdout())
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().StringVar(&level, "log-level", "info", "what to log: trace, debug, info, warn or error")
	return cmd
}

func run(ctx context.Context, file string, log hclog.Logger, stdout io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	// From the first signal on, a second has its usual effect.
	context.AfterFunc(ctx, stop)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	c, err := load(file)
	if err != nil {
		return err
	}
	h, err := host.New(ctx, host.Options{
		Config:  c,
		Version: version,
		Log:     log,
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
	var reloading sync.WaitGroup
	defer reloading.Wait()
	ctx, ended := context.WithCancel(ctx)
	defer ended()
	edited := make(chan struct{}, 1)
	reloading.Go(func() {
		config.Watch(ctx, c.File, func() {
			select {
			case edited <- struct{}{}:
			default: // It is about to be read anyway.
			}
		})
	})
	reloading.Go(func() { reload(ctx, h, file, hangup, edited, log) })
	return h.Run(ctx)
}

// reload has the host read its configuration again whenever there is cause to,
// until ctx ends.
func reload(ctx context.Context, h *host.Host, file string, hangup <-chan os.Signal, edited <-chan struct{}, log hclog.Logger) {
	for {
		cause := "SIGHUP"
		select {
		case <-hangup:
		case <-edited:
			cause = "the file has changed"
		case <-ctx.Done():
			return
		}
		err := h.Reload(ctx, func() (*config.Config, error) { return load(file) })
		if err != nil && ctx.Err() == nil {
			log.Error("configuration not taken, the one before holds", "cause", cause, "problem", err)
		}
	}
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
