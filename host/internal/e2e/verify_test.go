package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestVerify holds the mock plugin to the contract as its vendor would: the built
// programs, with the desk's own server to play its agents. It tells how long that
// took, and so it runs beside no other test of this package.
func TestVerify(t *testing.T) {
	vendor := StartDesk(t, "--console")
	dir := t.TempDir()
	write := func(name string, config map[string]any) string {
		text, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	began := time.Now()
	verify := Start(t, Binary(), "plugin", "verify", "--json", filepath.Join(PluginDir(), "deskhost-plugin-mock"),
		"--config", write("good.json", map[string]any{"url": vendor.URL}),
		"--bad-config", write("bad.json", map[string]any{"no_such_setting": 1}),
		"--script", vendor.URL+"/script")
	var results []struct {
		Check, Outcome, Came string
	}
	if err := json.Unmarshal([]byte(verify.Stdout()), &results); err != nil {
		t.Fatal(err)
	}
	if code := verify.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, r := range results {
		// The plugin declares every capability.
		if r.Outcome != "pass" && r.Check != "optional/undeclared" {
			t.Errorf("%s: %s: %s", r.Check, r.Outcome, r.Came)
		}
	}
	t.Logf("%d checks in %s", len(results), time.Since(began).Round(time.Second))
	if len(results) < 40 {
		t.Errorf("%d checks", len(results))
	}
}
