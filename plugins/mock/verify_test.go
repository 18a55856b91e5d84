package main

import (
	"encoding/json"
	"testing"

	"github.com/deskhost/deskhost/plugins/internal/plugintest"
	"github.com/deskhost/deskhost/plugins/mock/adapter"
	"github.com/deskhost/deskhost/plugins/mock/mockscript"
	"github.com/deskhost/deskhost/sdk/desktest"
)

func TestMain(m *testing.M) { plugintest.Main(m, adapter.Plugin(version)) }

func TestConformance(t *testing.T) {
	file := plugintest.File(t, "mock")
	desk := mockscript.Start(t)
	desktest.Run(t, desktest.Plugin{
		File: file, Config: desk.Config(), BadConfig: json.RawMessage(`{"no_such_setting": 1}`), Script: desk,
	})
}
