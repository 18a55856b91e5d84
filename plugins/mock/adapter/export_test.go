package adapter

import "net/http"

// SetTransport has Configure reach the desk at its url another way.
func SetTransport(d *Desk, t http.RoundTripper) { d.transport = t }
