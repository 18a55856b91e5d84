package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/deskhost/deskhost/plugins/mock/adapter"
	"github.com/deskhost/deskhost/plugins/mock/mockscript"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// TestMain runs the tests, or, where the suite has started this program as a
// plugin, the plugin.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "deskhost-plugin-mock" {
		sdk.Serve(adapter.Plugin(version))
	}
	os.Exit(m.Run())
}

func TestConformance(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "deskhost-plugin-mock")
	if err := os.Symlink(self, file); err != nil {
		t.Fatal(err)
	}
	desk := mockscript.Start(t)
	desktest.Run(t, desktest.Plugin{
		File: file, Config: desk.Config(), BadConfig: json.RawMessage(`{"no_such_setting": 1}`), Script: desk,
	})
}
