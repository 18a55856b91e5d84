//go:build unix && !linux

package process

import "os/exec"

// awaitExit reaps the process: this system cannot wait without. The group's
// number is thus free for the moment until killGroup is called; what is lacking
// is the certainty that it is still this process's.
func awaitExit(cmd *exec.Cmd) { _ = cmd.Wait() }
