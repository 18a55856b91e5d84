package scaffold_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deskhost/deskhost/host/internal/scaffold"
)

// TestWriteForARelease has the SDK come from where Go gets modules. That what is
// written builds and works is a test of the command.
func TestWriteForARelease(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	p := scaffold.Plugin{Name: "3cx-", Module: "git.example.com/desk", Dir: dir, SDKVersion: "v1.2.3"}
	if err := scaffold.Write(p); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "module git.example.com/desk\n\ngo 1.26.0\n\nrequire github.com/deskhost/deskhost v1.2.3\n"; files["go.mod"] != want {
		t.Errorf("go.mod is\n%s\nwant\n%s", files["go.mod"], want)
	}
	if _, ok := files["go.sum"]; ok {
		t.Error("there is a go.sum, of which nobody knows the sums yet")
	}
	for _, name := range []string{".github/workflows/ci.yml", ".gitignore", "Makefile", "README.md"} {
		if files[name] == "" {
			t.Errorf("there is no %s", name)
		}
	}
	for name, text := range files {
		if strings.Contains(text, "<%") || strings.Contains(text, "%>") || strings.HasSuffix(name, ".tmpl") {
			t.Errorf("%s is a template still", name)
		}
	}
	if err := scaffold.Write(p); err == nil || !strings.Contains(err.Error(), dir+" exists") {
		t.Errorf("a second time: %v", err)
	}
}
