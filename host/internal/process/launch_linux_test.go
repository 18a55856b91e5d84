package process

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/process/launcher"
	"github.com/deskhost/deskhost/host/internal/process/procstat"
)

// modes are those beside serve's.
var modes = map[string]func(){"tell": tell, "host": serveHost}

// serveHost starts a plugin, tells its process id, and waits to be killed.
func serveHost() {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	runDir, err := PrepareRunDir(os.Args[1])
	if err != nil {
		panic(err)
	}
	p, err := Start(context.Background(), Config{
		Path: self, Name: "test-deaf", RunDir: runDir, Limits: DefaultLimits(), StartTimeout: patience, Log: hclog.NewNullLogger(),
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(p.Pid())
	select {}
}

// describe starts a process that tells what it is and has, and ends; it returns
// what it told.
func describe(t *testing.T, cfg Config) (string, error) {
	t.Helper()
	_, err := Start(context.Background(), cfg)
	if err == nil {
		t.Fatal("a process that only tells was taken for a plugin")
	}
	told := ""
	for line := range strings.Lines(err.Error()) {
		told += strings.TrimPrefix(strings.TrimSpace(line), "| ") + "\n"
	}
	return told, err
}

// tell is the process.
func tell() {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		for _, key := range []string{"NoNewPrivs:", "Uid:", "Gid:", "Groups:"} {
			if strings.HasPrefix(line, key) {
				fmt.Fprint(os.Stderr, strings.Join(strings.Fields(line), " "), "\n")
			}
		}
	}
	limits, _ := os.ReadFile("/proc/self/limits")
	for line := range strings.Lines(string(limits)) {
		if strings.HasPrefix(line, "Max open files") || strings.HasPrefix(line, "Max core file size") {
			fmt.Fprint(os.Stderr, strings.Join(strings.Fields(line), " "), "\n")
		}
	}
	nice, _ := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	fmt.Fprintln(os.Stderr, "nice", 20-nice)
	for fd := 3; fd < 64; fd++ {
		if to, err := os.Readlink(fmt.Sprint("/proc/self/fd/", fd)); err == nil && to == os.DevNull {
			fmt.Fprintln(os.Stderr, "inherited", fd, to)
		}
	}
	fmt.Fprintln(os.Stderr, "GOMEMLIMIT", os.Getenv("GOMEMLIMIT"))
	fmt.Fprintln(os.Stderr, "home", os.Getenv("HOME"))
	if err := os.WriteFile(filepath.Join(os.TempDir(), "mine"), nil, 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func wantLines(t *testing.T, told string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains("\n"+told, "\n"+w+"\n") {
			t.Errorf("lacks %q:\n%s", w, told)
		}
	}
}

func TestLaunchLimits(t *testing.T) {
	// A descriptor that whoever started the host left open.
	left, err := syscall.Open(os.DevNull, syscall.O_RDONLY, 0) // not closed on exec
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(left)
	own, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, "tell")
	cfg.Limits.OpenFiles, cfg.Limits.Nice, cfg.Limits.Memory = 77, 3, 1000<<20
	told, _ := describe(t, cfg)
	wantLines(t, told, "NoNewPrivs: 1", "Max open files 77 77 files", "Max core file size 0 0 bytes",
		fmt.Sprint("nice ", min(19, 20-own+3)), fmt.Sprint("GOMEMLIMIT ", 900<<20))
	if strings.Contains(told, "inherited") {
		t.Errorf("descriptors were inherited:\n%s", told)
	}
}

func TestLaunchAsAnotherUser(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("the system has no user nobody: ", err)
	}
	cfg := config(t, "tell")
	cfg.User = "nobody"
	data, err := os.MkdirTemp("", "d") //nolint:usetesting // t.TempDir is too long for a socket, and shut
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(data)
	if cfg.RunDir, err = PrepareRunDir(data); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if _, err := Start(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), `only root can run a plugin as another user ("nobody")`) {
			t.Errorf("error %v", err)
		}
		return
	}
	_, err = describe(t, cfg)
	if want := fmt.Sprintf(`user "nobody" cannot enter %s, which is on the way to the run folder; run chmod o+x on it`, data); !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
	chmod(t, data, 0o711)
	told, _ := describe(t, cfg)
	ids := func(key, id string) string { return key + strings.Repeat(" "+id, 4) }
	wantLines(t, told, ids("Uid:", nobody.Uid), ids("Gid:", nobody.Gid), "Groups:", "NoNewPrivs: 1", "home "+nobody.HomeDir)
	if strings.Contains(told, "denied") {
		t.Errorf("the run folder is not the user's:\n%s", told)
	}
	// With its socket and all.
	cfg.Name = "test-graceful"
	p, err := Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	cfg.User = "no such user"
	if _, err := Start(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), `the system has no user "no such user"`) {
		t.Errorf("error %v", err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryIsLimited(t *testing.T) {
	cfg := config(t, "graceful")
	cfg.Limits.Memory = 1 << 20
	p, err := Start(context.Background(), cfg)
	if err != nil {
		// It was found out before its handshake.
		if !strings.Contains(err.Error(), "limits.plugin_memory allows 1 MiB") {
			t.Fatal(err)
		}
		return
	}
	defer p.Kill()
	select {
	case <-p.Exited():
	case <-time.After(patience):
		t.Fatal("it lives on")
	}
	if got := p.Exit().Error(); !strings.Contains(got, "was killed by the host: it has ") || !strings.Contains(got, "limits.plugin_memory allows 1 MiB") {
		t.Errorf("exit %s", got)
	}
	if p.Usage().Memory <= 1<<20 {
		t.Errorf("usage %+v", p.Usage())
	}
}

// orphans starts a process group as a plugin's, with a record of it, and returns
// the record and the processes: the leader and a child.
func orphans(t *testing.T, runDir string) (launcher.Record, []*exec.Cmd) {
	t.Helper()
	dir := filepath.Join(runDir, "plugin-dir1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var group []*exec.Cmd
	for range 2 {
		cmd := exec.Command("sleep", "600")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if len(group) > 0 {
			cmd.SysProcAttr.Pgid = group[0].Process.Pid
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		group = append(group, cmd)
	}
	leader := group[0].Process.Pid
	s, err := procstat.Read(leader)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := procstat.BootID()
	if err != nil {
		t.Fatal(err)
	}
	return launcher.Record{PID: leader, Start: s.Start, Boot: boot, Dir: dir}, group
}

func TestSweepKillsWhatIsRecorded(t *testing.T) {
	for name, test := range map[string]struct {
		change     func(r *launcher.Record)
		leaderGone bool
		swept      bool
	}{
		"match":                          {func(*launcher.Record) {}, false, true},
		"leader gone":                    {func(*launcher.Record) {}, true, true},
		"another start":                  {func(r *launcher.Record) { r.Start++ }, false, false},
		"another boot":                   {func(r *launcher.Record) { r.Boot = "another" }, false, false},
		"leader gone, another's folder":  {func(r *launcher.Record) { r.Dir += "0" }, true, false},
		"leader gone, with another boot": {func(r *launcher.Record) { r.Boot = "another" }, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			runDir, err := PrepareRunDir(data)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(runDir) })
			r, group := orphans(t, runDir)
			if test.leaderGone {
				_ = group[0].Process.Kill()
				_ = group[0].Wait()
				group = group[1:]
			}
			test.change(&r)
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(launcher.RecordPath(runDir, r.PID), text, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := PrepareRunDir(data); err != nil {
				t.Fatal(err)
			}
			for _, cmd := range group {
				if _, err := procstat.Read(cmd.Process.Pid); (err != nil) != test.swept {
					t.Errorf("process %d: %v, want swept %v", cmd.Process.Pid, err, test.swept)
				}
			}
			if left, err := os.ReadDir(runDir); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

func TestRecordOfARunningProcess(t *testing.T) {
	p := start(t, "graceful")
	runDir := filepath.Dir(p.run.dir)
	text, err := os.ReadFile(launcher.RecordPath(runDir, p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	var r launcher.Record
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if !matches(r, groupMembers(p.Pid())) || r.Dir != p.run.dir {
		t.Errorf("record %+v", r)
	}
	// The environment would tell as well.
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.Pid()))
	if err != nil || !bytes.Contains(env, []byte("TMPDIR="+r.Dir+"\x00")) {
		t.Errorf("environment %q, %v", env, err)
	}
}

func TestForeignRunDirIsNotSwept(t *testing.T) {
	data := t.TempDir()
	runDir, err := PrepareRunDir(data)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(runDir)
	chmod(t, runDir, 0o777)
	if _, err := PrepareRunDir(data); err == nil || !strings.Contains(err.Error(), "is not a folder of this user alone") {
		t.Errorf("error %v", err)
	}
}

// A plugin that does not heed its standard input dies with the host as well.
func TestDeathOfTheHost(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	host := exec.Command(self)
	host.Args = []string{"test-host", t.TempDir()}
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	host.Stderr = os.Stderr
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, scanErr := fmt.Fscan(out, &pid)
	if err := host.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = host.Wait()
	if scanErr != nil {
		t.Fatal(scanErr)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for give := time.After(patience); ; {
		if _, err := procstat.Read(pid); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-give:
			t.Fatalf("process %d outlives its host", pid)
		}
	}
}
