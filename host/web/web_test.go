package web

import (
	"io/fs"
	"testing"
)

// What the host serves is there, whether or not "make carbon" was run.
func TestPagesAreThere(t *testing.T) {
	for name, tree := range map[string]fs.FS{
		"bridge.js":         Bridge(),
		"bridge.d.ts":       Bridge(),
		"index.html":        Demo(),
		"carbon/index.html": Carbon(),
	} {
		if page, err := fs.ReadFile(tree, name); err != nil || len(page) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
