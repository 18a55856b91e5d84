//go:build !linux

package process

// modes are those beside serve's; here there are none.
var modes map[string]func()
