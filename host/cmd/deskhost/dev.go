package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/config"
)

// devListen is where widgets reach the host if nothing else is said.
const devListen = "127.0.0.1:8080"

// devOptions are the flags of run for who writes a plugin.
type devOptions struct {
	on             bool
	plugin, config string
	listen         string
}

func (o *devOptions) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&o.on, "dev", false, "run for who writes a plugin")
	flags.StringVar(&o.plugin, "plugin", "", "with --dev, run this `file` as the only desk, with no configuration file")
	flags.StringVar(&o.config, "plugin-config", "", "the configuration of --plugin, a `file` with a JSON object (default: an empty object)")
	flags.StringVar(&o.listen, "listen", devListen, "the `address` for widgets, with --plugin")
}

// check finds flags that do not go together.
func (o *devOptions) check(configFile string) error {
	switch {
	case o.plugin != "" && !o.on:
		return errors.New("--plugin is for development; add --dev, or name the plugin in a configuration file")
	case o.plugin != "" && configFile != "":
		return errors.New("--plugin and --config exclude each other")
	case o.plugin == "" && (o.config != "" || o.listen != devListen):
		return errors.New("--plugin-config and --listen are for --plugin; a configuration file says it otherwise")
	}
	return nil
}

// configuration is that of a host with the plugin as its only desk.
func (o *devOptions) configuration(dataDir string) (*config.Config, error) {
	file, err := filepath.Abs(o.plugin)
	if err != nil {
		return nil, err
	}
	name, err := catalog.NameOf(file)
	if err != nil {
		return nil, err
	}
	// Without a file this names the place of problems; nothing is there to be watched.
	object, from := []byte("{}"), "--plugin-config"
	if o.config != "" {
		from = o.config
		if object, err = os.ReadFile(o.config); err != nil {
			return nil, err
		}
	}
	// Indented it has the lines of the file, to which problems point, if that is
	// written as usual; and no tabs, which YAML does not know.
	var indented bytes.Buffer
	if err := json.Indent(&indented, object, "", "  "); err != nil {
		return nil, config.Problems{{At: config.Position{File: from}, Text: fmt.Sprintf("it has to hold a JSON object: %v", err)}}
	}
	top, err := json.Marshal(map[string]any{
		"listen": o.listen, "admin": map[string]string{"listen": "127.0.0.1:0"},
		"demo": true, "data_dir": dataDir, "plugin_dir": filepath.Dir(file),
	})
	if err != nil {
		return nil, err
	}
	source := fmt.Sprintf(`%s, "desks": [{"name": %q, "plugin": %q, "config": %s}]}`, bytes.TrimSuffix(top, []byte("}")), name, name, &indented)
	return config.Parse(from, []byte(source))
}

// newDevLogger logs for somebody who looks on, in colours if that is a terminal.
func newDevLogger(to io.Writer, level string) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "deskhost", Output: to, Level: hclog.LevelFromString(level), Color: hclog.AutoColor, TimeFormat: "15:04:05.000",
	})
}
