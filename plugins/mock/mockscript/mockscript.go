// Package mockscript plays the mock desk for sdk/desktest, the conformance suite
// of plugins. It is the example of such a script: an agent at the desk's console,
// and the desk's own account of a conversation. It uses the mock desk's HTTP API
// only; tests of plugins call it.
package mockscript

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/deskapi"
	"github.com/deskhost/deskhost/plugins/mock/mockdesk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// Desk is a mock desk with nobody at its console but the suite.
type Desk struct{ url string }

var _ desktest.Script = (*Desk)(nil)

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
	return &Desk{server.URL}
}

// Config is the configuration of a plugin for this desk.
func (d *Desk) Config() json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"url": %q}`, d.url)) }

// AgentJoins has Ada take the conversation.
func (d *Desk) AgentJoins(ctx context.Context, chatID string) error {
	return d.act(ctx, chatID, `{"join": "ada"}`)
}

// AgentSays has Ada write a text.
func (d *Desk) AgentSays(ctx context.Context, chatID, text string) error {
	said, err := json.Marshal(mockdesk.Step{Say: text})
	if err != nil {
		return err
	}
	return d.act(ctx, chatID, string(said))
}

// AgentEnds has Ada end the conversation.
func (d *Desk) AgentEnds(ctx context.Context, chatID string) error {
	return d.act(ctx, chatID, `{"end": "Goodbye."}`)
}

// act has Ada do a step at the console.
func (d *Desk) act(ctx context.Context, chatID, step string) error {
	return d.call(ctx, http.MethodPost, "/console/api/conversations/"+chatID, `{"agent": "ada", "do": [`+step+`]}`, nil)
}

// Heard reads the conversation as the desk has it.
func (d *Desk) Heard(ctx context.Context, chatID string) (texts []string, err error) {
	for after, more := uint64(0), true; more; {
		var h deskapi.History
		if err := d.call(ctx, http.MethodGet, fmt.Sprintf("/v1/conversations/%s/events?after=%d", chatID, after), "", &h); err != nil {
			return nil, err
		}
		for _, e := range h.Events {
			after = e.Seq
			if e.Type == deskapi.UserMessage {
				texts = append(texts, e.Text)
			}
		}
		more = h.More
	}
	return texts, nil
}

// FailNextCall has the desk be too busy for one call.
func (d *Desk) FailNextCall(ctx context.Context, call desktest.Call) error {
	return d.fault(ctx, fmt.Sprintf(`{"calls": {%q: {"fail": "busy", "first": 1}}}`, call))
}

// StallNextCall has the desk be slow for one call.
func (d *Desk) StallNextCall(ctx context.Context, call desktest.Call, late time.Duration) error {
	return d.fault(ctx, fmt.Sprintf(`{"calls": {%q: {"delay_ms": %d, "first": 1}}}`, call, late.Milliseconds()))
}

func (d *Desk) fault(ctx context.Context, faults string) error {
	return d.call(ctx, http.MethodPut, "/console/api/faults", faults, nil)
}

func (d *Desk) call(ctx context.Context, method, path, body string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, d.url+path, bytes.NewBufferString(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("the mock desk answers %s: %s", resp.Status, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}
