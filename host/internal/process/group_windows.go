package process

import (
	"os"
	"os/exec"
	"syscall"
)

// Windows lacks process groups that can be ended as a whole: children of a
// plugin are left to the plugin.

// ownGroup keeps the console's Ctrl-C from the process.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// askToEnd does nothing: there is no signal to ask with. A plugin drains when
// its Drain call tells it to.
func askToEnd(*os.Process) {}

// killGroup ends the process alone.
func killGroup(p *os.Process) { _ = p.Kill() }

// awaitExit reaps the process.
func awaitExit(cmd *exec.Cmd) { _ = cmd.Wait() }
