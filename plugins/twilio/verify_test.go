package main

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/deskhost/deskhost/plugins/internal/plugintest"
	"github.com/deskhost/deskhost/plugins/twilio/adapter"
	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
	"github.com/deskhost/deskhost/sdk/desktest"
)

func TestMain(m *testing.M) { plugintest.Main(m, adapter.Plugin(version)) }

func TestConformanceByWebhooks(t *testing.T) {
	conform(t, false, `"address_sid": "`+twiliotest.AddressSid+`"`)
}

func TestConformanceByPolling(t *testing.T) {
	conform(t, true, `"poll_ms": 30, "interaction": {"workflow_sid": "`+twiliotest.WorkflowSid+`"}`)
}

// conform holds the plugin to the contract at a simulated account.
func conform(t *testing.T, noWebhooks bool, settings string) {
	file := plugintest.File(t, "twilio")
	account := twiliotest.New(twiliotest.Options{})
	server := httptest.NewServer(account)
	t.Cleanup(func() {
		account.Close()
		server.Close()
	})
	config := fmt.Sprintf(`{
		"account_sid": %q, "auth_token": %q, "workspace_sid": %q, "queue_sid": %q, %s,
		"urls": {"conversations": "%[6]s/conversations", "flex": "%[6]s/flex", "taskrouter": "%[6]s/taskrouter"}
	}`, twiliotest.AccountSid, twiliotest.AuthToken, twiliotest.WorkspaceSid, twiliotest.TaskQueueSid, settings, server.URL)
	desktest.Run(t, desktest.Plugin{
		File: file, Config: json.RawMessage(config), BadConfig: json.RawMessage(`{"account_sid": "AC"}`), Script: account, NoWebhooks: noWebhooks,
	})
}
