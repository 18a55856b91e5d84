package main

import (
	"errors"
	"fmt"
	"regexp"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/scaffold"
)

func pluginNewCommand() *cobra.Command {
	var p scaffold.Plugin
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Begin a plugin: write a Go module that builds, with tests and a simulator",
		Long: `Write the Go module of a plugin into a new folder: an adapter for an API that was
made up, to be replaced by yours, a simulator of that, unit tests, the conformance
suite, a Makefile that builds releases for three systems, and a workflow for CI.

NAME is how deskhost.yaml names the plugin: 1 to 40 of a-z, 0-9 and -.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(1)(cmd, args); err != nil {
				return err
			}
			if !catalog.ValidName(args[0]) {
				return fmt.Errorf("%q is no name for a plugin; it has 1 to 40 of a-z, 0-9 and -, and does not begin with -", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			p.Name = args[0]
			if p.Module == "" {
				p.Module = "example.com/deskhost-plugin-" + p.Name
			}
			if p.Dir == "" {
				p.Dir = "deskhost-plugin-" + p.Name
			}
			p.SDKVersion = released()
			if p.SDKVersion == "" && p.SDK == "" {
				return errors.New("this deskhost is a build of its developers, and go.mod needs a released version; name the checkout that it was built from with --sdk DIR")
			}
			if p.SDKVersion == "" {
				p.SDKVersion = "v0.0.0"
			}
			if err := scaffold.Write(p); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), `%[1]s is a plugin that works. Next:

  cd %[1]s
  git init && go mod tidy
  make test    # unit tests and the conformance suite
  make dev     # chat through it at http://127.0.0.1:8080

Its README.md says what to change, and in which order.
`, p.Dir)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&p.Module, "module", "", "`path` of the Go module (default example.com/deskhost-plugin-NAME)")
	flags.StringVar(&p.Dir, "dir", "", "`folder` to make (default ./deskhost-plugin-NAME)")
	flags.StringVar(&p.SDK, "sdk", "", "build with the SDK in this checkout of deskhost, a `folder`")
	return cmd
}

// releasedForm leaves out what git describes as so many commits behind a release.
var releasedForm = regexp.MustCompile(`^v\d+\.\d+\.\d+(-(alpha|beta|rc)[.0-9]*)?$`)

// released is the version of this program if it is a released one: of a release
// build, or of "go install …@version".
func released() string {
	if releasedForm.MatchString(version) {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && releasedForm.MatchString(info.Main.Version) {
		return info.Main.Version
	}
	return ""
}
