package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/deskhost/deskhost/host"
	"github.com/deskhost/deskhost/host/internal/catalog"
)

func pluginCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "plugin", Short: "Look at plugins"}
	cmd.AddCommand(pluginListCommand(), pluginInfoCommand())
	return cmd
}

func pluginListCommand() *cobra.Command {
	var (
		file   string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the files of the plugin folder, with what keeps them from running",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := load(file)
			if err != nil {
				return err
			}
			plugins, err := host.Plugins(c)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"plugins": plugins})
			}
			if len(plugins) == 0 {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "There are no plugins in %s; put files there that are named %sNAME.\n", c.PluginDir, catalog.FileName(""))
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "NAME\tSHA256\tDESKS\tPROBLEM")
			for _, p := range plugins {
				fmt.Fprintf(table, "%s\t%.12s\t%s\t%s\n", p.Name, orDash(p.SHA256), orDash(strings.Join(p.Desks, ",")), orDash(p.Problem))
			}
			return table.Flush()
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func pluginInfoCommand() *cobra.Command {
	var (
		file   string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "info FILE|NAME",
		Short: "Start a plugin for a moment and tell what it is",
		Long: `Start a plugin for a moment and tell what it is and can do, the schema of its
configuration included. A FILE has a slash in it; a NAME is looked for in the
plugin folder of the configuration.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := inspect(cmd.Context(), args[0], file, newLogger(cmd.ErrOrStderr(), "off"))
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), i)
			}
			return printInfo(cmd.OutOrStdout(), i)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// inspect asks the plugin that an argument means.
func inspect(ctx context.Context, argument, configFile string, log hclog.Logger) (*host.PluginInfo, error) {
	if strings.ContainsRune(argument, filepath.Separator) {
		return host.InspectFile(ctx, argument, log)
	}
	c, err := load(configFile)
	if err != nil {
		return nil, err
	}
	return host.Inspect(ctx, c.PluginDir, argument, log)
}

func printInfo(to io.Writer, i *host.PluginInfo) error {
	schema := "any object"
	if i.ConfigSchema != nil {
		text, err := json.MarshalIndent(i.ConfigSchema, "", "  ")
		if err != nil {
			return err
		}
		schema = "\n" + string(text)
	}
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "name\t%s\n", i.Name)
	fmt.Fprintf(table, "title\t%s\n", orDash(i.Title))
	fmt.Fprintf(table, "version\t%s\n", i.Version)
	fmt.Fprintf(table, "file\t%s\n", i.File)
	fmt.Fprintf(table, "sha256\t%s\n", i.SHA256)
	fmt.Fprintf(table, "capabilities\t%s\n", orDash(strings.Join(i.Capabilities, ", ")))
	fmt.Fprintf(table, "send_dedupe\t%s\n", i.SendDedupe)
	fmt.Fprintf(table, "replay\t%s\n", i.Replay)
	fmt.Fprintf(table, "state formats\t%s\n", orDash(strings.Trim(fmt.Sprint(i.StateFormats), "[]")))
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to, "configuration: %s\n", schema)
	return err
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func printJSON(to io.Writer, v any) error {
	encoder := json.NewEncoder(to)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
