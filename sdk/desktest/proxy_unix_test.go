//go:build unix

package desktest_test

import (
	"os"
	"syscall"
)

// resumed is what a process gets that goes on after it was stopped.
var resumed os.Signal = syscall.SIGCONT
