package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocs holds docs/twilio.md to the settings that there are: each is in its
// table, and no other.
func TestDocs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/twilio.md")
	if err != nil {
		t.Fatal(err)
	}
	schema, err := os.ReadFile("adapter/config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type object struct {
		Properties map[string]json.RawMessage
	}
	known := map[string]bool{}
	var gather func(of json.RawMessage)
	gather = func(of json.RawMessage) {
		var o object
		if err := json.Unmarshal(of, &o); err != nil {
			t.Fatal(err)
		}
		for name, property := range o.Properties {
			known[name] = true
			gather(property)
		}
	}
	gather(schema)
	if len(known) < 10 {
		t.Fatalf("the schema has the settings %v", known)
	}
	_, settings, _ := strings.Cut(string(text), "\n## Settings\n")
	settings, _, _ = strings.Cut(settings, "\n## ")
	for name := range known {
		if !strings.Contains(settings, "`"+name+"`") {
			t.Errorf("docs/twilio.md does not tell of %s", name)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `.*?\\|").FindAllString(settings, -1) {
		for _, name := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(row, -1) {
			if !known[name[1]] {
				t.Errorf("docs/twilio.md tells of %s, which is no setting", name[1])
			}
		}
	}
}
