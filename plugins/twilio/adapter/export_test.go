package adapter

import "net/http"

// Defaults returns the configuration where nothing is set.
func Defaults() any { return newConfig() }

// SetTransport has Configure reach Twilio another way.
func SetTransport(d *Desk, t http.RoundTripper) { d.transport = t }
