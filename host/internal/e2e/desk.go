package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
)

// MockDesk is the mock desk as a process of its own, as a vendor's desk is.
type MockDesk struct {
	t   testing.TB
	URL string
}

// StartDesk runs a mock desk. More arguments are those of its desk command.
func StartDesk(t testing.TB, args ...string) *MockDesk {
	t.Helper()
	p := Start(t, filepath.Join(PluginDir(), "deskhost-plugin-mock"), append([]string{"desk", "--listen", "127.0.0.1:0"}, args...)...)
	return &MockDesk{t, urlForm.FindString(p.Line("http://"))}
}

// Settings are those of a host with this desk, named support, as its only one.
func (d *MockDesk) Settings() map[string]any {
	return map[string]any{"desks": []any{
		map[string]any{"name": "support", "plugin": "mock", "config": map[string]any{"url": d.URL}},
	}}
}

// DeskEvent is something that happened in a conversation, by the desk's account.
type DeskEvent struct {
	Seq       uint64 `json:"seq"`
	Type      string `json:"type"`
	MessageID string `json:"message_id"`
	Text      string `json:"text"`
	By        string `json:"by"`
}

// History is the desk's account of a chat.
func (d *MockDesk) History(chatID string) []DeskEvent {
	d.t.Helper()
	var all []DeskEvent
	for {
		after := uint64(0)
		if n := len(all); n > 0 {
			after = all[n-1].Seq
		}
		var h struct {
			Events []DeskEvent
			More   bool
		}
		if err := d.get(fmt.Sprintf("/v1/conversations/%s/events?after=%d", url.PathEscape(chatID), after), &h); err != nil {
			d.t.Fatal(err)
		}
		all = append(all, h.Events...)
		if !h.More {
			return all
		}
	}
}

// UserTexts are what the desk has of the user's messages, in its order.
func (d *MockDesk) UserTexts(chatID string) []string {
	d.t.Helper()
	var texts []string
	for _, e := range d.History(chatID) {
		if e.Type == "user_message" {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

// Console is a chat as it stands on the agent's screen.
type Console struct {
	State    string `json:"state"` // "waiting", "connected" or "ended"
	Name     string `json:"name"`
	Typing   bool   `json:"typing"` // the user
	UserRead uint64 `json:"user_read"`
}

// Await awaits that the agent's screen shows something of a chat.
func (d *MockDesk) Await(what, chatID string, shows func(Console) bool) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	var state struct {
		Version uint64
		Open    *Console
	}
	for ctx.Err() == nil {
		// It answers once there is something newer than the version.
		path := fmt.Sprintf("/console/api/state?version=%d&key=%s", state.Version, url.QueryEscape(chatID))
		if err := d.get(path, &state); err != nil {
			d.t.Fatal(err)
		}
		if state.Open != nil && shows(*state.Open) {
			return
		}
	}
	d.t.Fatalf("the desk does not show %s; it shows %+v", what, state.Open)
}

func (d *MockDesk) get(path string, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.URL+path, nil)
	if err != nil {
		return err
	}
	response, err := httpClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: the desk answered %d %s", path, response.StatusCode, text)
	}
	return json.Unmarshal(text, into)
}
