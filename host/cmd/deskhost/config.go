package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/deskhost/deskhost/host"
	"github.com/deskhost/deskhost/host/internal/config"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Work with the configuration"}
	cmd.AddCommand(&cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration without running it",
		Long: `Check a configuration (default ./` + config.DefaultFile + `) and tell every mistake with file, line,
column and key. Each plugin is started for a moment to ask what it is, and each
desk's configuration is held to its plugin's schema.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := ""
			if len(args) > 0 {
				file = args[0]
			}
			c, err := load(file)
			if err != nil {
				return err
			}
			if err := host.Check(cmd.Context(), c, newLogger(cmd.ErrOrStderr(), "off")); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is good: desks %d\n", c.File, len(c.Desks))
			return err
		},
	})
	return cmd
}
