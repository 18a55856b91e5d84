//go:build unix

package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
)

// adapters measures what an open chat takes in the process of each plugin that
// is shipped, against the simulator of its vendor. Both sides have written in
// it; then nothing happens. There is no floor.
type adapters struct{ chats int }

// adapter is a plugin and how its vendor's desk is simulated.
type adapter struct {
	name   string
	plugin string
	// simulator is a program of make build and its arguments; without one the
	// plugin needs no desk, and answers itself.
	simulator []string
	config    func(url string) map[string]any
}

var shipped = []adapter{
	{name: "echo", plugin: "echo", config: func(string) map[string]any { return nil }},
	{
		name: "mock", plugin: "mock", simulator: slices.Concat(mockDesk, []string{"--console"}),
		config: func(url string) map[string]any { return map[string]any{"url": url} },
	},
	{
		name: "genesys, web messaging", plugin: "genesys", simulator: genesysSimulator,
		config: func(url string) map[string]any { return genesysConfig(url, nil) },
	},
	{
		name: "genesys, web chat", plugin: "genesys", simulator: genesysSimulator,
		config: func(url string) map[string]any {
			return genesysConfig(url, map[string]any{"mode": "webchat", "organization_id": "bench-organization", "queue": "Bench"})
		},
	},
	{
		name: "twilio, webhooks", plugin: "twilio", simulator: twilioSimulator,
		config: func(url string) map[string]any {
			return twilioConfig(url, map[string]any{"address_sid": "IG00000000000000000000000000000001"})
		},
	},
	{
		name: "twilio, polling", plugin: "twilio", simulator: twilioSimulator,
		config: func(url string) map[string]any {
			return twilioConfig(url, map[string]any{"interaction": map[string]any{"workflow_sid": "WW00000000000000000000000000000001"}})
		},
	},
}

// What make build leaves, besides the host.
var (
	shippedPlugins   = filepath.Join("bin", "plugins.d")
	mockDesk         = []string{filepath.Join(shippedPlugins, "deskhost-plugin-mock"), "desk"}
	twilioSimulator  = []string{filepath.Join("bin", "simulators", "twilio")}
	genesysSimulator = []string{
		filepath.Join("bin", "simulators", "genesys"),
		"--deployment", "bench-deployment", "--organization", "bench-organization", "--queue", "Bench", "--queue-id", "bench-queue",
	}
)

func genesysConfig(url string, more map[string]any) map[string]any {
	config := map[string]any{
		"api_url": url, "deployment_id": "bench-deployment", "queue_id": "bench-queue",
		"oauth": map[string]any{"client_id": "client", "client_secret": "secret"},
	}
	maps.Copy(config, more)
	return config
}

func twilioConfig(url string, more map[string]any) map[string]any {
	config := map[string]any{
		"account_sid": "AC00000000000000000000000000000001", "auth_token": "12345",
		"workspace_sid": "WS00000000000000000000000000000001", "queue_sid": "WQ00000000000000000000000000000001",
		"urls": map[string]any{"conversations": url + "/conversations", "flex": url + "/flex", "taskrouter": url + "/taskrouter"},
	}
	maps.Copy(config, more)
	return config
}

func (m *adapters) measure(r *run) error {
	for round := range r.rounds {
		for _, a := range shipped {
			grown, err := m.openChats(r, a)
			if err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
			r.note(row{What: "memory of an open chat, " + a.name, At: m.chats, Of: "chats", Unit: "KiB"}, hostSubject, round, grown/1024)
		}
	}
	return nil
}

// openChats tells by how many bytes each open chat makes the plugin grow.
func (m *adapters) openChats(r *run, a adapter) (float64, error) {
	var url string
	if a.simulator != nil {
		simulator, err := r.startSimulator(a.simulator)
		if err != nil {
			return 0, err
		}
		defer simulator.stop()
		url = simulator.url
	}
	s, err := r.startHost(hostSubject, shippedPlugins, []deskConfig{{Name: a.plugin, Plugin: a.plugin, Config: a.config(url)}})
	if err != nil {
		return 0, err
	}
	defer s.stop()
	d, err := s.desk()
	if err != nil {
		return 0, err
	}
	return grows(d.PID, 50, m.chats, func(int) error {
		p, chat, err := s.chat()
		if err != nil {
			return err
		}
		if url != "" {
			if err := post(url+"/script", "", map[string]any{"do": "agent_says", "chat_id": chat, "text": "How can I help?"}, nil); err != nil {
				return err
			}
		}
		return p.say("1", "My order has not arrived.")
	})
}

// startSimulator runs the desk of a vendor, at an address of its own choice.
func (r *run) startSimulator(command []string, more ...string) (*server, error) {
	return r.launch("", "", command[0], slices.Concat(command[1:], []string{"--listen", "127.0.0.1:0"}, more)...)
}
