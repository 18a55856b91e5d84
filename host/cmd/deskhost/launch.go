package main

import "github.com/deskhost/deskhost/host/internal/process"

// The host starts plugins by way of its own program, which then has no command
// line to read.
func init() { process.Become() }
