package desktest_test

import "os"

// resumed stands for a signal that this system does not have.
var resumed = os.Interrupt
