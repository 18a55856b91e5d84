//go:build unix

package desktest_test

import "syscall"

func init() { resumed = syscall.SIGCONT }
