package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Name is the launcher's argument zero. Its only argument is a [Launch] as JSON.
const Name = "deskhost-launch"

// reportFd is the write end of the report: the first of the extra files. Nothing
// comes of it if the launcher becomes the plugin.
const reportFd = 3

// busyWait bounds the wait for a program file that a child of the host, just
// between fork and exec, still holds open for writing.
const busyWait = 2 * time.Second

// outOfMemoryFirst has the kernel choose plugins before the host when the whole
// system runs out of memory.
const outOfMemoryFirst = "500"

// Launch is what the launcher is told.
type Launch struct {
	Host      int      `json:"host"` // the process id that must still be the parent
	Path      string   `json:"path"`
	Name      string   `json:"name"` // the program's argument zero
	Dir       string   `json:"dir"`  // the process's folder, in the run folder
	OpenFiles int      `json:"open_files"`
	Nice      int      `json:"nice"`
	Account   *Account `json:"account,omitempty"`
}

func init() { //nolint:gochecknoinits // it is the point, see the package comment
	if os.Args[0] != Name || len(os.Args) != 2 {
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
	var l Launch
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
		Forget(filepath.Dir(l.Dir), os.Getpid())
		return errors.New("the host has ended")
	}
	for give := time.Now().Add(busyWait); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Exec(l.Path, []string{l.Name}, os.Environ())
		if !errors.Is(err, syscall.ETXTBSY) || time.Now().After(give) {
			return ExecError(&os.PathError{Op: "exec", Path: l.Path, Err: err})
		}
	}
}

// limit sets what only lowers.
func (l *Launch) limit() error {
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
