package main

import (
	"encoding/json"
	"net/http/httptest"
	"testing"

	"github.com/deskhost/deskhost/plugins/genesys/adapter"
	"github.com/deskhost/deskhost/plugins/genesys/genesystest"
	"github.com/deskhost/deskhost/plugins/internal/plugintest"
	"github.com/deskhost/deskhost/sdk/desktest"
)

func TestMain(m *testing.M) { plugintest.Main(m, adapter.Plugin(version)) }

func TestConformance(t *testing.T) {
	file := plugintest.File(t, "genesys")
	for _, mode := range []string{"webmessaging", "webchat"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			simulator := genesystest.New(genesystest.Options{})
			server := httptest.NewServer(simulator)
			t.Cleanup(func() {
				simulator.Close() // whoever is being stalled, too
				server.Close()
			})
			o := simulator.Options()
			config := map[string]any{
				"mode": mode, "api_url": server.URL, "deployment_id": o.Deployment, "queue_id": o.QueueID,
				"oauth": map[string]string{"client_id": o.ClientID, "client_secret": o.ClientSecret},
			}
			if mode == "webchat" {
				config["organization_id"], config["queue"] = o.OrganizationID, o.Queue
			}
			good := encode(t, config)
			config["oauth"] = map[string]string{"client_id": o.ClientID, "client_secret": "wrong"}
			desktest.Run(t, desktest.Plugin{
				File: file, Config: good, BadConfig: encode(t, config), Script: desktest.ScriptAt(server.URL + "/script"),
			})
		})
	}
}

func encode(t *testing.T, config map[string]any) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
