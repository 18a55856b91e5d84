package desktest

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryRuleIsExplained holds the anchors of the checks to the page's headings.
func TestEveryRuleIsExplained(t *testing.T) {
	text, err := os.ReadFile("../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	var anchors []string
	for _, heading := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(string(text), -1) {
		anchors = append(anchors, strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-"))
	}
	names := map[string]bool{}
	for _, c := range checks() {
		if !slices.Contains(anchors, c.anchor) {
			t.Errorf("%s: the page has no #%s", c.name, c.anchor)
		}
		if names[c.name] {
			t.Errorf("two checks are named %s", c.name)
		}
		names[c.name] = true
	}
}
