package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/deskhost/deskhost/host/internal/process/launcher"
)

// Some things can only be done by the process itself, between fork and exec,
// and Go has no such moment. So the host starts its own program again, as
// launcher, which does them to itself and then becomes the plugin.

// Lacking lists what this system does not offer, in words for an operator.
func Lacking() []string { return nil }

// start starts the process and returns once it runs the plugin's program.
func (p *program) start(stdin, stdout, stderr *os.File) error {
	acc, err := lookUp(p.cfg.User)
	if err != nil {
		return err
	}
	path, err := acc.prepare(p.cfg.Path, p.dir)
	if err != nil {
		return err
	}
	argument, err := json.Marshal(launcher.Launch{
		Host: os.Getpid(), Path: path, Name: p.cfg.Name, Dir: p.dir,
		OpenFiles: p.cfg.Limits.OpenFiles, Nice: p.cfg.Limits.Nice, Account: acc.told(),
	})
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	p.cmd = &exec.Cmd{
		// It is there even if the file has been replaced by a newer one.
		Path:  "/proc/self/exe",
		Args:  []string{launcher.Name, string(argument)},
		Env:   append(environ(p.cfg, p.dir, acc.home()), p.env...),
		Dir:   p.dir,
		Stdin: stdin, Stdout: stdout, Stderr: stderr,
		ExtraFiles:  []*os.File{write},
		SysProcAttr: ownGroup(),
	}
	err = p.cmd.Start()
	_ = write.Close() // The launcher has its own; nothing is lost.
	if err != nil {
		return err
	}
	return p.awaitExec(read)
}

// awaitExec reads the launcher's report, which is empty if it became the plugin.
func (p *program) awaitExec(report *os.File) error {
	// Only a file system that hangs holds the launcher up.
	if deadline, ok := p.ctx.Deadline(); ok {
		_ = report.SetReadDeadline(deadline) // a pipe has deadlines
	}
	text, err := io.ReadAll(io.LimitReader(report, maxQuoted))
	if err == nil && len(text) == 0 {
		return nil
	}
	killGroup(p.cmd.Process)
	_ = p.cmd.Wait() // what matters has been reported
	forgetRecord(filepath.Dir(p.dir), p.pid())
	p.cmd = nil
	if err != nil {
		return fmt.Errorf("its program did not run within %s: the system is overloaded, or the file system of data_dir hangs", p.cfg.StartTimeout)
	}
	return errors.New(string(text))
}
