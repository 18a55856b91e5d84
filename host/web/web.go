// Package web holds what the host serves to browsers: the built module for
// pages and the demo page, embedded in the binary. The TypeScript sources lie
// beside it in src, built into dist by "npm run build"; the built files are
// checked in, so no Node is needed to build the host.
//
// The pages at /carbon/ are not checked in, as they hold a whole widget: "make
// carbon" builds them with npm. A binary built without them has a page that says
// so in their place.
//
// It knows no HTTP: the api package serves these files. docs/http-api.md
// describes what the module speaks.
package web

import (
	"embed"
	"io/fs"
)

//go:embed dist/bridge.js dist/bridge.d.ts
var dist embed.FS

//go:embed demo
var demo embed.FS

// The folder dist has a .gitignore, so that it is there before anything is
// built; what is served lies in dist/root.
//
//go:embed all:carbon/dist carbon/unbuilt
var carbon embed.FS

// Bridge returns bridge.js, the module that pages import, and its types,
// bridge.d.ts.
func Bridge() fs.FS { return sub(dist, "dist") }

// Demo returns the demo page, index.html, and what it loads. The page imports
// "./bridge.js", which has to be served beside it.
func Demo() fs.FS { return sub(demo, "demo") }

// Carbon returns the pages with IBM's widget, carbon/index.html and what they
// load. They import "../bridge.js".
func Carbon() fs.FS {
	if _, err := fs.Stat(carbon, "carbon/dist/root/carbon/index.html"); err != nil {
		return sub(carbon, "carbon/unbuilt")
	}
	return sub(carbon, "carbon/dist/root")
}

func sub(files embed.FS, dir string) fs.FS {
	s, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // The folder's name is a constant: it cannot be invalid.
	}
	return s
}
