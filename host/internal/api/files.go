package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

// serveFiles serves the API's description and the files of each tree at the
// root; an index.html is its folder. All are held in memory, since trees are
// embedded and small.
func (a *API) serveFiles(description []byte, trees ...fs.FS) error {
	files := map[string]file{"/openapi.json": newFile("openapi.json", description)}
	for _, tree := range trees {
		if tree == nil {
			continue
		}
		err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := fs.ReadFile(tree, name)
			if err != nil {
				return err
			}
			at := "/" + name
			if path.Base(name) == "index.html" {
				at = strings.TrimSuffix(at, "index.html") + "{$}"
			}
			if _, taken := files[at]; taken {
				return fmt.Errorf("two files for %s", at)
			}
			files[at] = newFile(name, content)
			return nil
		})
		if err != nil {
			return fmt.Errorf("files for pages: %w", err)
		}
	}
	for at, f := range files {
		a.mux.Handle("GET "+at, f)
	}
	return nil
}

// file is one file, served with a tag by which a browser asks whether it has
// changed.
type file struct {
	content   []byte
	mediaType string
	tag       string
}

// mediaTypes does not come from the system, whose table differs by machine.
var mediaTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".json": "application/json",
	".map":  "application/json",
	".png":  "image/png",
	".svg":  "image/svg+xml",
	".ts":   "text/plain; charset=utf-8",
}

func newFile(name string, content []byte) file {
	mediaType, ok := mediaTypes[path.Ext(name)]
	if !ok {
		mediaType = "application/octet-stream"
	}
	sum := sha256.Sum256(content)
	return file{content, mediaType, `"` + hex.EncodeToString(sum[:12]) + `"`}
}

// ServeHTTP answers with the file, or 304 if the client has it.
func (f file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", f.mediaType)
	w.Header().Set("ETag", f.tag)
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}
