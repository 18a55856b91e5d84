// Package plugintest has the test binary of a plugin be the plugin's program,
// so that the conformance suite tests what the test was built of.
//
// It owns nothing but that. It must not know any plugin. Tests of the plugins
// here call it: [Main] in TestMain, [File] where the suite wants a program.
package plugintest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/deskhost/deskhost/sdk"
)

// prefix begins the name of every plugin file.
const prefix = "deskhost-plugin-"

// Main runs the tests, or, where the suite has started this program by the name
// that [File] gave it, the plugin. It does not return.
func Main(m *testing.M, plugin sdk.Plugin) {
	if filepath.Base(os.Args[0]) == prefix+plugin.Name {
		sdk.Serve(plugin)
	}
	os.Exit(m.Run())
}

// File returns a plugin's program: this one, under the plugin's name.
func File(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), prefix+name)
	if err := os.Symlink(self, file); err != nil {
		t.Fatal(err)
	}
	return file
}
