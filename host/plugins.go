package host

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/admin"
	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/config"
	"github.com/deskhost/deskhost/host/internal/desk"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// Plugins lists the files of a configuration's plugin folder.
func Plugins(c *config.Config) ([]admin.Plugin, error) {
	found, err := catalog.Scan(c.PluginDir)
	if err != nil {
		return nil, err
	}
	plugins := make([]admin.Plugin, len(found))
	for i, p := range found {
		users := []string{}
		for _, d := range c.Desks {
			if d.Plugin == p.Name {
				users = append(users, d.Name)
			}
		}
		plugins[i] = admin.Plugin{
			Name: p.Name, File: p.File, Size: p.Size, ModTime: p.ModTime.UTC(),
			SHA256: p.SHA256, Problem: p.Problem, Desks: users,
		}
	}
	return plugins, nil
}

// PluginInfo is what a plugin tells of itself.
type PluginInfo struct {
	Name         string   `json:"name"`
	Title        string   `json:"title,omitempty"`
	Version      string   `json:"version"`
	File         string   `json:"file"`
	SHA256       string   `json:"sha256"`
	Capabilities []string `json:"capabilities"`
	SendDedupe   string   `json:"send_dedupe"`
	Replay       string   `json:"replay"`
	StateFormats []uint32 `json:"state_formats"`
	// MaxTextBytes bounds the text of a message; 0: the host's limit.
	MaxTextBytes uint32 `json:"max_text_bytes,omitempty"`
	// ConfigSchema is empty if any object will do.
	ConfigSchema json.RawMessage `json:"config_schema,omitempty"`
}

// Inspect starts a plugin for a moment to ask what it is. It needs no data
// folder. An error that a [catalog.ProblemError] is in needs the operator.
func Inspect(ctx context.Context, dir, name string, log hclog.Logger) (*PluginInfo, error) {
	var info *PluginInfo
	err := inScratch(func(at desk.Source) error {
		at.PluginDir, at.Plugin = dir, name
		plugin, d, err := desk.Inspect(ctx, at, desk.DefaultLimits(), log)
		if err != nil {
			return err
		}
		info = &PluginInfo{
			Name: d.GetName(), Title: d.GetTitle(), Version: d.GetVersion(),
			File: plugin.File, SHA256: plugin.SHA256,
			Capabilities: desk.CapabilityNames(d.GetCapabilities()),
			SendDedupe:   desk.SendDedupeName(d.GetSendDedupe()),
			Replay:       desk.ReplayName(d.GetReplay()),
			StateFormats: append([]uint32{}, d.GetStateFormats()...),
			MaxTextBytes: d.GetMaxTextBytes(),
		}
		if schema := json.RawMessage(d.GetConfigSchema()); json.Valid(schema) {
			info.ConfigSchema = schema
		}
		return nil
	})
	return info, err
}

// InspectFile is Inspect for a file in any folder.
func InspectFile(ctx context.Context, file string, log hclog.Logger) (*PluginInfo, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	base := strings.TrimSuffix(filepath.Base(file), ".exe")
	name, ok := strings.CutPrefix(base, deskv1.FilePrefix)
	if _, err := os.Stat(file); err != nil {
		return nil, &catalog.ProblemError{Plugin: base, File: file, Problem: cause(err).Error()}
	}
	if !ok {
		return nil, &catalog.ProblemError{Plugin: base, File: file,
			Problem: "the file of a plugin is named " + deskv1.FilePrefix + "NAME; rename it"}
	}
	return Inspect(ctx, filepath.Dir(file), name, log)
}
