package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestDocs: docs/genesys.md explains every setting.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/genesys.md")
	if err != nil {
		t.Fatal(err)
	}
	_, settings, found := strings.Cut(string(page), "\n## Settings\n")
	settings, _, ended := strings.Cut(settings, "\n## ")
	if !found || !ended {
		t.Fatal("docs/genesys.md has no section on settings")
	}
	text, err := os.ReadFile("adapter/config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type node struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	var explained func(raw json.RawMessage) int
	explained = func(raw json.RawMessage) int {
		var n node
		if err := json.Unmarshal(raw, &n); err != nil {
			t.Fatal(err)
		}
		for key, below := range n.Properties {
			if !strings.Contains(settings, "`"+key+"`") {
				t.Errorf("docs/genesys.md does not explain the setting %s", key)
			}
			explained(below)
		}
		return len(n.Properties)
	}
	if explained(text) == 0 {
		t.Error("the schema has no settings")
	}
}
