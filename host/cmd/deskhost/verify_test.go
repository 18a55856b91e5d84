package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deskhost/deskhost/sdk/desktest"
)

func TestVerifyOfWhatIsNoPlugin(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "deskhost-plugin-no")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho hello\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := execute(t.Context(), []string{"plugin", "verify", file}, &out, &errs); code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"FAIL        start/handshake", "expected:", "hello", "docs/write-a-plugin.md#starting"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	out.Reset()
	var results []desktest.Result
	if code := execute(t.Context(), []string{"plugin", "verify", "--json", file}, &out, &errs); code != 1 {
		t.Errorf("with --json: exit code %d", code)
	}
	if err := json.Unmarshal(out.Bytes(), &results); err != nil || len(results) != 1 || results[0].Outcome != desktest.Fail {
		t.Errorf("%v in\n%s", err, &out)
	}
	broken := filepath.Join(dir, "config.json")
	if err := os.WriteFile(broken, []byte("url: x"), 0o600); err != nil {
		t.Fatal(err)
	}
	errs.Reset()
	if code := execute(t.Context(), []string{"plugin", "verify", "--config", broken, file}, &out, &errs); code != 1 || !strings.Contains(errs.String(), broken) {
		t.Errorf("of a configuration that is no JSON: %d, %s", code, &errs)
	}
}
