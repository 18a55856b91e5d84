package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Some things can only be done by the process itself, between fork and exec,
// and Go has no such moment. So the host starts its own program again, as
// launcher, which does them to itself and then becomes the plugin.

// launcher is the launcher's argument zero. Its only argument is the launch as
// JSON; descriptor 3 is the write end of the report.
const launcher = "deskhost-launch"

const reportFd = 3

// busyWait bounds the wait for a program file that a child of the host, just
// between fork and exec, still holds open for writing.
const busyWait = 2 * time.Second

// outOfMemoryFirst has the kernel choose plugins before the host when the whole
// system runs out of memory.
const outOfMemoryFirst = "500"

// launch is what the launcher is told.
type launch struct {
	Host      int      `json:"host"` // the process id that must still be the parent
	Path      string   `json:"path"`
	Name      string   `json:"name"`
	Dir       string   `json:"dir"`
	OpenFiles int      `json:"open_files"`
	Nice      int      `json:"nice"`
	Account   *account `json:"account,omitempty"`
}

// Lacking lists what this system does not offer, in words for an operator.
func Lacking() []string { return nil }

// launches tells that this program calls Become. Started as launcher, one that
// does not would do whatever it does.
var launches bool

// Become turns a process that a host started as launcher into the plugin, and
// does not return. In any other process it does nothing. It is the first thing
// that a program with a host in it calls.
func Become() {
	if os.Args[0] != launcher || len(os.Args) != 2 {
		launches = true
		return
	}
	// What belongs to a thread has to be that of the thread that execs.
	runtime.LockOSThread()
	report := os.NewFile(reportFd, "report")
	if err := become(os.Args[1]); err != nil {
		fmt.Fprint(report, err)
	}
	os.Exit(1)
}

// become returns only if something failed.
func become(argument string) error {
	var l launch
	if err := json.Unmarshal([]byte(argument), &l); err != nil {
		return err
	}
	if err := unix.CloseRange(reportFd, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		if err := closeOnExec(); err != nil {
			return fmt.Errorf("closing the host's files: %w", err)
		}
	}
	if err := l.limit(); err != nil {
		return err
	}
	// From here on a later host knows what to sweep.
	if err := writeRecord(filepath.Dir(l.Dir), l.Dir); err != nil {
		return fmt.Errorf("noting the process in the run folder: %w", err)
	}
	if l.Account != nil {
		if err := l.Account.enter(l.Dir); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	// The second belt beside the lifeline. A change of user clears it, so it
	// comes last.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("asking to end with the host: %w", err)
	}
	if os.Getppid() != l.Host {
		// The next host may have looked for records already.
		forgetRecord(filepath.Dir(l.Dir), os.Getpid())
		return errors.New("the host has ended")
	}
	for give := time.Now().Add(busyWait); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Exec(l.Path, []string{l.Name}, os.Environ())
		if !errors.Is(err, syscall.ETXTBSY) || time.Now().After(give) {
			return execError(&os.PathError{Op: "exec", Path: l.Path, Err: err})
		}
	}
}

// limit sets what only lowers.
func (l *launch) limit() error {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("asking for the limit of open files: %w", err)
	}
	n := min(files.Max, uint64(l.OpenFiles))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
		return fmt.Errorf("limiting open files to %d: %w", n, err)
	}
	// A core would hold the plugin's secrets.
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("switching core dumps off: %w", err)
	}
	// The system call tells 20 less the nice value.
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return fmt.Errorf("asking for the nice value: %w", err)
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, min(19, 20-now+l.Nice)); err != nil {
		return fmt.Errorf("setting the nice value: %w", err)
	}
	// Where the kernel has no such file, or does not allow it, nothing is lost.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(outOfMemoryFirst), 0)
	return nil
}

// closeOnExec marks each descriptor by itself, for kernels before 5.11.
func closeOnExec() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= reportFd {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// start starts the process and returns once it runs the plugin's program.
func (p *program) start(stdin, stdout, stderr *os.File) error {
	if !launches {
		return errors.New("a program that starts plugins has to call process.Become first; this one does not")
	}
	acc, err := lookUp(p.cfg.User)
	if err != nil {
		return err
	}
	path, err := acc.prepare(p.cfg.Path, p.dir)
	if err != nil {
		return err
	}
	argument, err := json.Marshal(launch{
		Host: os.Getpid(), Path: path, Name: p.cfg.Name, Dir: p.dir,
		OpenFiles: p.cfg.Limits.OpenFiles, Nice: p.cfg.Limits.Nice, Account: acc,
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
		Args:  []string{launcher, string(argument)},
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
