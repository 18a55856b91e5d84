// Package process runs one plugin process: its environment, its process group,
// its standard streams, the handshake, the connection, and its end.
//
// It owns the operating-system process and everything that is left of it when
// it is gone. It must not know desks, chats or the plugin folder: it is given a
// path to run. The desk package calls it, one [Process] for each generation.
//
// The protocol is that of hashicorp/go-plugin, whose client does the handshake
// and the certificates. The process itself is ours, because that client waits
// without limit for a stopped process, for a grandchild that holds a pipe and
// for a line without an end; so is the connection, because its own cannot be
// closed when a start fails.
//
// A plugin does not outlive its host: the host holds the only write end of the
// plugin's standard input, which ends when the host does, however it ends. On
// Linux the kernel kills the process as well; that signal is bound to the
// thread that forked, which therefore stays with the process. What even so is
// left of a process group is found by its record in the run folder when the
// next host starts.
package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// Config says what to run.
type Config struct {
	// Path is the program, absolute. Name is what the process is called in logs,
	// in errors and as its argument zero.
	Path, Name string
	// RunDir is the folder from [PrepareRunDir]. The process gets one of its own
	// in it, for its sockets and temporary files, removed when it has ended.
	RunDir string
	// User is the system user to run it as, by name or number; empty: the host's.
	User   string
	Limits Limits
	// StartTimeout bounds the time until the handshake.
	StartTimeout time.Duration
	// Log takes what the process writes.
	Log hclog.Logger
}

// killWait bounds the wait for a process that was sent SIGKILL. Only one that
// hangs in the kernel takes longer.
const killWait = 5 * time.Second

// Process is a plugin process that has completed the handshake. It is safe for
// concurrent use. Whoever started it must call Stop or Kill.
type Process struct {
	run   *program
	conn  *grpc.ClientConn
	stdio chan struct{} // closed when the copying of its output has ended
}

// Start runs the program and waits for its handshake. The ctx bounds the start
// only. An error names the cause as far as the process told it.
func Start(ctx context.Context, cfg Config) (*Process, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.StartTimeout)
	defer cancel()
	var run *program
	clientCfg := &goplugin.ClientConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion:  deskv1.ProtocolVersion,
			MagicCookieKey:   deskv1.MagicCookieKey,
			MagicCookieValue: deskv1.MagicCookieValue,
		},
		// Calls are made on the connection itself, so there is no plugin to name.
		Plugins:          goplugin.PluginSet{},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     cfg.StartTimeout,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: cfg.RunDir},
		Logger:           hclog.NewNullLogger(),
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, dir string) (runner.Runner, error) {
			run = newProgram(ctx, cfg, spec.Env, dir)
			return run, nil
		},
	}
	// Of the client only Start is used. What it leaves running ends with the
	// process.
	addr, err := goplugin.NewClient(clientCfg).Start()
	if err != nil {
		if run == nil {
			return nil, fmt.Errorf("preparing to run %s: %w", cfg.Name, err)
		}
		return nil, run.abandon(err)
	}
	conn, err := dial(addr, clientCfg)
	if err != nil {
		return nil, run.abandon(err)
	}
	p := &Process{run: run, conn: conn, stdio: make(chan struct{})}
	go func() { //nolint:contextcheck // ctx bounds the start, and Stop and Kill end this
		defer close(p.stdio)
		copyStdio(conn, run.out)
	}()
	return p, nil
}

// dial makes the connection. It is not waited for: the first call does that,
// within its own deadline.
func dial(addr net.Addr, cfg *goplugin.ClientConfig) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///plugin",
		grpc.WithTransportCredentials(credentials.NewTLS(cfg.TLSConfig)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, addr.Network(), addr.String())
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(deskv1.MaxMessageBytes),
			grpc.MaxCallSendMsgSize(deskv1.MaxMessageBytes)),
		// What a plugin publishes through the resolver, and retries behind the
		// back of who counts attempts, have no place here.
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0),
		// Without windows that are set, gRPC measures the connection by a ping with
		// what it receives, which wakes both sides once more.
		grpc.WithStaticStreamWindowSize(deskv1.MaxMessageBytes),
		grpc.WithStaticConnWindowSize(deskv1.MaxMessageBytes),
	)
}

// Conn is the connection for calls. None of its calls is bounded unless its ctx
// is. After Stop all calls fail.
func (p *Process) Conn() grpc.ClientConnInterface { return p.conn }

// Pid is the process id.
func (p *Process) Pid() int { return p.run.pid() }

// Usage is what the process and its children had in use when it was looked at
// last; zero on systems that do not tell.
func (p *Process) Usage() Usage {
	if u := p.run.usage.Load(); u != nil {
		return *u
	}
	return Usage{}
}

// Exited is closed when the process has ended and its output has been read.
func (p *Process) Exited() <-chan struct{} { return p.run.exited }

// Exit says how the process ended. It may be called after Exited was closed.
func (p *Process) Exit() *ExitError { return p.run.exit }

// Stop asks the process and everything in its process group to end, waits for as
// long as ctx allows, and then kills. It returns when nothing is left, or with an
// error if the kernel does not let the process go.
func (p *Process) Stop(ctx context.Context) error { return p.release(p.run.stop(ctx)) }

// Kill is Stop without the asking and the waiting. It may follow Stop.
func (p *Process) Kill() error { return p.release(p.run.kill()) }

// release lets go of the connection to a process that has been ended.
func (p *Process) release(err error) error {
	_ = p.conn.Close() // fails only if it is closed already
	<-p.stdio
	return err
}

// ExitError is how a process ended.
type ExitError struct {
	Name string
	Pid  int
	// Status is "exit status 1" or "signal: killed", in the words of os/exec.
	Status string
	// Verdict is why the host killed it by itself; empty if it did not.
	Verdict string
	// Output is the last lines that the process wrote on standard error.
	Output []string
}

// Error tells all of it.
func (e *ExitError) Error() string {
	if e.Verdict != "" {
		return fmt.Sprintf("process %d of %s was killed by the host: %s%s", e.Pid, e.Name, e.Verdict, quote(e.Output))
	}
	return fmt.Sprintf("process %d of %s ended: %s%s", e.Pid, e.Name, e.Status, quote(e.Output))
}

// quote renders the last lines of a process for the end of an error.
func quote(lines []string) string {
	if len(lines) == 0 {
		return "; it wrote nothing on standard error"
	}
	return "; its last lines on standard error:\n  | " + strings.Join(lines, "\n  | ")
}

var errUnkillable = errors.New("did not end within " + killWait.String() + " of SIGKILL; it hangs in the kernel")
