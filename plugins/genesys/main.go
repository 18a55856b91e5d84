// Command deskhost-plugin-genesys is the plugin for Genesys Cloud.
package main

import (
	"github.com/deskhost/deskhost/plugins/genesys/adapter"
	"github.com/deskhost/deskhost/sdk"
)

// version is that of the plugin; the release build sets it.
var version = "0.1.0"

func main() { sdk.Serve(adapter.Plugin(version)) }
