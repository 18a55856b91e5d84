// Command deskhost connects the chat widgets of web pages to contact-centre
// desks, through plugins.
//
// It owns the command line: flags, exit codes, what is printed. Everything else
// is package host's and below.
//
// It exits with 0 if all went well, with 1 on a failure, and with 2 if the
// command line, the configuration or a plugin has to be put right first.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/config"
)

// version is set when a release is built.
var version = "dev"

const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	understood := false
	root := &cobra.Command{
		Use:           "deskhost",
		Short:         "Connects chat widgets on web pages to contact-centre desks, through plugins",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			understood = true
		},
	}
	root.AddCommand(runCommand(), chatCommand(), configCommand(), pluginCommand(), versionCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)

	var (
		problems config.Problems
		plugin   *catalog.ProblemError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &problems):
		// Each line begins with its place in the file, as editors expect it.
		fmt.Fprintln(stderr, problems)
		return exitUsage
	case !understood:
		fmt.Fprintf(stderr, "deskhost: %v; `deskhost help` lists what there is\n", err)
		return exitUsage
	case errors.As(err, &plugin):
		fmt.Fprintf(stderr, "deskhost: %v\n", err)
		return exitUsage
	default:
		fmt.Fprintf(stderr, "deskhost: %v\n", err)
		return exitFailure
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version)
			return err
		},
	}
}
