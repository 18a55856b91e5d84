package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/deskhost/deskhost/sdk/desktest"
)

func pluginVerifyCommand() *cobra.Command {
	var (
		good, bad string
		script    string
		asJSON    bool
	)
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Hold a plugin to the contract, rule by rule",
		Long: `Start a plugin and hold it to the contract, rule by rule, as docs/write-a-plugin.md
explains them. It is started and killed many times, and opens and ends chats at
the desk that the configuration names: use a test account. Many rules take
somebody who plays the agent: a script at that desk, which --script names.
Without one they are reported as not tested. The exit code is 1 if a rule is
broken.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			plugin := desktest.Plugin{File: args[0]}
			var err error
			if plugin.Config, err = readConfig(good); err != nil {
				return err
			}
			if plugin.BadConfig, err = readConfig(bad); err != nil {
				return err
			}
			if script != "" {
				plugin.Script = desktest.ScriptAt(script)
			}
			results := []desktest.Result{}
			count := map[desktest.Outcome]int{}
			err = desktest.Verify(cmd.Context(), plugin, func(r desktest.Result) {
				count[r.Outcome]++
				results = append(results, r)
				if !asJSON {
					printResult(cmd.OutOrStdout(), r)
				}
			})
			if err == nil && asJSON {
				err = printJSON(cmd.OutOrStdout(), results)
			}
			if err != nil {
				return err
			}
			if n := count[desktest.Fail]; n > 0 {
				return fmt.Errorf("plugin %s breaks the contract: %d failed, %d passed, %d not tested", args[0], n, count[desktest.Pass], count[desktest.NotTested])
			}
			if !asJSON {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %d passed, %d not tested\n", args[0], count[desktest.Pass], count[desktest.NotTested])
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&good, "config", "", "the desk's configuration, a `file` with a JSON object (default: an empty object)")
	cmd.Flags().StringVar(&bad, "bad-config", "", "a configuration that the plugin has to refuse, a `file` likewise")
	cmd.Flags().StringVar(&script, "script", "", "the `URL` of a script that plays the desk, as docs/write-a-plugin.md describes it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// readConfig reads a configuration from a file; of no file it is none.
func readConfig(file string) (json.RawMessage, error) {
	if file == "" {
		return nil, nil
	}
	config, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !json.Valid(config) {
		return nil, fmt.Errorf("%s is not valid JSON; it has to hold what stands under \"config\" of the desk, as a JSON object", file)
	}
	return config, nil
}

// printResult prints a line for what is well, and all that is known of what is not.
func printResult(to io.Writer, r desktest.Result) {
	indented := strings.ReplaceAll(r.Came, "\n", "\n              ")
	switch r.Outcome {
	case desktest.Fail:
		fmt.Fprintf(to, "FAIL        %s\n  expected:   %s\n  came:       %s\n  explained:  %s\n", r.Check, r.Expected, indented, r.Explained)
	case desktest.NotTested:
		fmt.Fprintf(to, "not tested  %s: %s\n", r.Check, indented)
	default:
		fmt.Fprintf(to, "pass        %s\n", r.Check)
	}
}
