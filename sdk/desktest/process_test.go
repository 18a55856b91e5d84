package desktest

import (
	"os/exec"
	"testing"
	"testing/synctest"
)

// TestWhatEndsByItselfWasNotKilled ends a process that has just ended, of which
// nobody has told yet: what it is told of must not depend on who was faster.
func TestWhatEndsByItselfWasNotKilled(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "true")
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		p := &process{cmd: cmd, exited: make(chan struct{})}
		go p.end()
		synctest.Wait()
		close(p.exited)
		synctest.Wait()
		if p.killed {
			t.Error("it counts as killed")
		}
	})
}
