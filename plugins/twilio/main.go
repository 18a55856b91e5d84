// Command deskhost-plugin-twilio is the plugin for Twilio Flex.
package main

import (
	"github.com/deskhost/deskhost/plugins/twilio/adapter"
	"github.com/deskhost/deskhost/sdk"
)

// version is that of the plugin; the release build sets it.
var version = "0.1.0"

func main() { sdk.Serve(adapter.Plugin(version)) }
