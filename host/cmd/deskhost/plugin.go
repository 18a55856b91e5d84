package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/deskhost/deskhost/host"
	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/config"
)

func pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Look at plugins, and at the desks that use them",
		Long: `Look at plugins, and at the desks that use them.

What concerns a running host goes through the socket control.sock in the data
folder of the configuration, which only the host's user can open.`,
	}
	cmd.AddCommand(pluginListCommand(), pluginInfoCommand(), pluginVerifyCommand(), pluginNewCommand(),
		deskCommand("reload", "Start the newest copy of a desk's plugin in place of the one that runs",
			`Start the newest copy of a desk's plugin beside the process that runs, and
have it take the other's place once it is ready. Open chats go over one by one,
which "plugin list" tells of; those of a plugin that cannot resume chats stay with
their process until they end. If the new process does not become ready, or cannot
read what the chats have saved, the other stays, and the reason is told.`),
		deskCommand("disable", "Turn a desk off, until it is enabled again",
			`Drain and end a desk's process, and start no other until the desk is enabled,
not even after a restart of the host. Its open chats stay for as long as
limits.desk_away_limit; meanwhile the page is told that the desk is away.`),
		deskCommand("enable", "Turn a desk on again", ""))
	return cmd
}

func pluginListCommand() *cobra.Command {
	var (
		file   string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the plugin folder, with what keeps files from running, and the desks",
		Long: `List the plugin folder, with what keeps files from running. A running host also
tells how its desks are. Without one the files are only looked at.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := load(file)
			if err != nil {
				return err
			}
			plugins, desks, err := list(cmd.Context(), c)
			if err != nil {
				return err
			}
			if asJSON {
				out := map[string]any{"plugins": plugins}
				if desks != nil {
					out["desks"] = desks
				}
				return printJSON(cmd.OutOrStdout(), out)
			}
			if len(plugins) == 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "There are no plugins in %s; put files there that are named %sNAME.\n", c.PluginDir, catalog.FileName(""))
			} else if err := printPlugins(cmd.OutOrStdout(), plugins); err != nil {
				return err
			}
			if len(desks) > 0 {
				fmt.Fprintln(cmd.OutOrStdout())
			}
			return printDesks(cmd.OutOrStdout(), desks)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// list asks the running host, or looks for itself if there is none.
func list(ctx context.Context, c *config.Config) (plugins []host.PluginFile, desks []host.DeskState, err error) {
	control, err := host.OpenControl(ctx, c.DataDir)
	if errors.Is(err, host.ErrNoHost) {
		plugins, err = host.Plugins(c)
		return plugins, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	defer control.Close()
	if plugins, err = control.Plugins(ctx); err == nil {
		desks, err = control.Desks(ctx)
	}
	return plugins, desks, err
}

func printPlugins(to io.Writer, plugins []host.PluginFile) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tVERSION\tSHA256\tDESKS\tPROBLEM")
	for _, p := range plugins {
		fmt.Fprintf(table, "%s\t%s\t%.12s\t%s\t%s\n", p.Name, orDash(p.Version), orDash(p.SHA256), orDash(strings.Join(p.Desks, ",")), orDash(p.Problem))
	}
	return table.Flush()
}

// printDesks prints a table, and below it what does not fit into one.
func printDesks(to io.Writer, desks []host.DeskState) error {
	if len(desks) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DESK\tSTATE\tSINCE\tPLUGIN\tVERSION\tGENERATION\tPID\tMEMORY\tCHATS\tCRASHES")
	for _, d := range desks {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%d\t%d\n", d.Name, d.State, d.Since.UTC().Format(time.RFC3339),
			d.Plugin, orDash(d.Version), d.Generation, orDash(strings.TrimPrefix(fmt.Sprint(d.Pid), "0")), orDash(d.Memory()), d.Chats, d.Crashes)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, d := range desks {
		for _, note := range d.Notes() {
			if _, err := fmt.Fprintf(to, "\n%s: %s\n", d.Name, note); err != nil {
				return err
			}
		}
	}
	return nil
}

// deskCommand is a command that has the running host do something to a desk.
func deskCommand(verb, short, long string) *cobra.Command {
	var (
		file   string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   verb + " DESK",
		Short: short,
		Long:  long,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := load(file)
			if err != nil {
				return err
			}
			control, err := host.OpenControl(cmd.Context(), c.DataDir)
			if errors.Is(err, host.ErrNoHost) {
				return fmt.Errorf("no deskhost runs in the data folder %s; start one, or name its configuration with --config FILE", c.DataDir)
			}
			if err != nil {
				return err
			}
			defer control.Close()
			desk, err := control.Desk(cmd.Context(), args[0], verb)
			if err != nil {
				return fmt.Errorf("desk %q: %w", args[0], err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), desk)
			}
			return printDesks(cmd.OutOrStdout(), []host.DeskState{*desk})
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
configuration included. A FILE has a slash in it, or is in this folder and named
deskhost-plugin-NAME; no configuration is needed for it. A NAME is looked for in
the plugin folder of the configuration, and a running host tells which desks use
it.`,
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
	_, unnamed := catalog.NameOf(argument)
	if unnamed == nil || strings.ContainsRune(argument, filepath.Separator) {
		return host.InspectFile(ctx, argument, log)
	}
	c, err := load(configFile)
	if err != nil {
		return nil, err
	}
	control, err := host.OpenControl(ctx, c.DataDir)
	if errors.Is(err, host.ErrNoHost) {
		return host.Inspect(ctx, c.PluginDir, argument, log)
	}
	if err != nil {
		return nil, err
	}
	defer control.Close()
	return control.Plugin(ctx, argument)
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
	longest := "the host's limit"
	if i.MaxTextBytes > 0 {
		longest = fmt.Sprintf("%d bytes", i.MaxTextBytes)
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
	fmt.Fprintf(table, "longest text\t%s\n", longest)
	if err := table.Flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(to, "configuration: %s\n", schema); err != nil {
		return err
	}
	if len(i.Desks) > 0 {
		fmt.Fprintln(to)
	}
	return printDesks(to, i.Desks)
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
