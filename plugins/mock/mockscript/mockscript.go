// Package mockscript starts mock desks for sdk/desktest, the conformance suite
// of plugins, which plays them by their /script. Tests of plugins call it.
package mockscript

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/deskhost/deskhost/plugins/mock/mockdesk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// Desk is a mock desk with nobody at its console but the suite.
type Desk struct {
	desktest.Script

	url string
}

// Start starts a mock desk for as long as the test runs.
func Start(t *testing.T) *Desk {
	t.Helper()
	script, err := mockdesk.ParseScript([]byte(`{"console": true}`))
	if err != nil {
		t.Fatal(err)
	}
	desk := mockdesk.New(script, "")
	server := httptest.NewServer(desk)
	t.Cleanup(func() {
		desk.Close() // ends the feeds, for which the server would wait
		server.Close()
	})
	return &Desk{desktest.ScriptAt(server.URL + "/script"), server.URL}
}

// Config is the configuration of a plugin for this desk.
func (d *Desk) Config() json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"url": %q}`, d.url)) }
