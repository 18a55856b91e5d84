package desktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/emptypb"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

const (
	// startTime bounds the time until the handshake.
	startTime = 15 * time.Second
	// pipeWait is how long the output of an ended process is waited for, which
	// a grandchild may hold open.
	pipeWait = time.Second
	// maxOutput bounds what is kept of a process's output.
	maxOutput = 1 << 20
)

// passedOn are the variables that a process gets, as from a host.
var passedOn = []string{
	"PATH", "HOME", "LANG", "LC_ALL", "TZ",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
	"http_proxy", "https_proxy", "no_proxy", "all_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR",
	"SystemRoot", "SystemDrive", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PATHEXT",
}

// process is a plugin process whose handshake go-plugin's client has accepted.
// It is the runner of that client as well.
type process struct {
	deskv1.DeskServiceClient

	file, dir string
	cmd       *exec.Cmd
	lifeline  *os.File
	stdout    *os.File
	said      output // on standard output
	logged    output // on standard error
	addr      net.Addr
	conn      *grpc.ClientConn
	exited    chan struct{}
	// killed says that it was ended from here.
	killed bool
}

// launch starts the plugin's file and waits for its handshake. Whoever called it
// must call kill, also after an error.
func launch(ctx context.Context, file string) (*process, error) {
	p := &process{file: file, exited: make(chan struct{})}
	var err error
	// Not in the test's own folder, whose path may be too long for a socket.
	if p.dir, err = os.MkdirTemp("", "desktest"); err != nil {
		close(p.exited)
		return p, err
	}
	cfg := &goplugin.ClientConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: deskv1.ProtocolVersion, MagicCookieKey: deskv1.MagicCookieKey, MagicCookieValue: deskv1.MagicCookieValue,
		},
		Plugins:          goplugin.PluginSet{},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     startTime,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: p.dir},
		Logger:           hclog.NewNullLogger(),
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, _ string) (runner.Runner, error) {
			p.cmd = exec.CommandContext(context.WithoutCancel(ctx), file)
			p.cmd.Env = append(p.cmd.Env, spec.Env...)
			p.cmd.Env = append(p.cmd.Env, "TMPDIR="+p.dir, "TEMP="+p.dir, "TMP="+p.dir)
			return p, nil
		},
	}
	if p.addr, err = goplugin.NewClient(cfg).Start(); err != nil {
		return p, err
	}
	p.conn, err = p.dial(credentials.NewTLS(cfg.TLSConfig))
	if err != nil {
		return p, err
	}
	p.DeskServiceClient = deskv1.NewDeskServiceClient(p.conn)
	go p.readStdio(context.WithoutCancel(ctx))
	return p, nil
}

// dial makes another connection to the process.
func (p *process) dial(creds credentials.TransportCredentials) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///plugin",
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, p.addr.Network(), p.addr.String())
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(deskv1.MaxMessageBytes), grpc.MaxCallSendMsgSize(deskv1.MaxMessageBytes)),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	)
}

// readStdio reads what go-plugin's own service passes on of a Go plugin's output,
// on which the plugin blocks otherwise, until the connection is closed. The
// service's types are internal to go-plugin, so its framing stays in the text.
func (p *process) readStdio(ctx context.Context) {
	stream, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/plugin.GRPCStdio/StreamStdio")
	if err != nil || stream.SendMsg(&emptypb.Empty{}) != nil || stream.CloseSend() != nil {
		return
	}
	for {
		var msg emptypb.Empty
		if stream.RecvMsg(&msg) != nil {
			return
		}
		_, _ = p.logged.Write(msg.ProtoReflect().GetUnknown()) // never fails
	}
}

// Start is called by go-plugin's client, as are the methods down to HostToPlugin.
func (p *process) Start(context.Context) error {
	for _, name := range passedOn {
		if value, ok := os.LookupEnv(name); ok {
			p.cmd.Env = append(p.cmd.Env, name+"="+value)
		}
	}
	stdin, lifeline, err := os.Pipe()
	if err != nil {
		close(p.exited)
		return err
	}
	stdout, stdoutW, err := os.Pipe()
	if err != nil {
		close(p.exited)
		return errors.Join(err, stdin.Close(), lifeline.Close())
	}
	p.lifeline, p.stdout = lifeline, stdout
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, stdoutW, &p.logged
	p.cmd.WaitDelay = pipeWait
	p.cmd.SysProcAttr = ownGroup()
	err = p.cmd.Start()
	_, _ = stdin.Close(), stdoutW.Close() // the process has its own
	if err != nil {
		close(p.exited)
		return err
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the state tells how it ended
	}()
	return nil
}

// Stdout is read by the client for the handshake, and to its end.
func (p *process) Stdout() io.ReadCloser { return io.NopCloser(io.TeeReader(p.stdout, &p.said)) }

// Stderr is empty: this package keeps it for itself.
func (p *process) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Wait waits for the end.
func (p *process) Wait(context.Context) error {
	<-p.exited
	return nil
}

// Kill ends a process that has not become a plugin. One that ends by itself may
// show the end of its output first.
func (p *process) Kill(context.Context) error {
	p.endsWithin(quiet)
	p.end()
	return nil
}

// Name is for the client's errors.
func (p *process) Name() string { return filepath.Base(p.file) }

// ID is the process id.
func (p *process) ID() string { return strconv.Itoa(p.cmd.Process.Pid) }

// Diagnose has nothing to add to what is told with every failure.
func (p *process) Diagnose(context.Context) string { return "" }

// PluginToHost changes nothing: both live on one system.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin changes nothing.
func (p *process) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// end ends the process without warning, as a crash does.
func (p *process) end() {
	if p.cmd != nil && p.cmd.Process != nil && !p.hasEnded() {
		killGroup(p.cmd.Process)
		<-p.exited
		p.killed = wasKilled(p.cmd.ProcessState) // it may have been at its end
	}
}

// kill is end, and leaves nothing behind.
func (p *process) kill() {
	p.end()
	if p.cmd != nil && p.cmd.Process != nil {
		if left, err := groupLives(p.cmd.Process); left && err == nil {
			killGroup(p.cmd.Process)
		}
	}
	if p.conn != nil {
		_ = p.conn.Close()
	}
	for _, f := range []*os.File{p.lifeline, p.stdout} {
		if f != nil {
			_ = f.Close()
		}
	}
	if p.dir != "" {
		_ = os.RemoveAll(p.dir) // in the system's temporary folder
	}
}

// hasEnded tells whether the process lives no longer.
func (p *process) hasEnded() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// endsWithin tells whether the process ends by itself.
func (p *process) endsWithin(limit time.Duration) bool {
	select {
	case <-p.exited:
	case <-time.After(limit):
	}
	return p.hasEnded()
}

var errNoSignals = untested("this system has no such signal")

// signal sends a signal, where the system has them.
func (p *process) signal(s os.Signal) error {
	if runtime.GOOS == "windows" {
		return errNoSignals
	}
	return p.cmd.Process.Signal(s)
}

// firstLine is what the process wrote first on standard output.
func (p *process) firstLine() string {
	line, _, _ := strings.Cut(p.said.String(), "\n")
	return strings.TrimRight(line, "\r")
}

// lastWords are the end of what the process logged, for a failure.
func (p *process) lastWords() string {
	lines := strings.Split(strings.TrimSpace(p.logged.String()), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return ""
	}
	return fmt.Sprintf("\nits last lines on standard error:\n  | %s", strings.Join(lines[max(0, len(lines)-5):], "\n  | "))
}

// output keeps the beginning of what is written to it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write never fails.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(b[:min(len(b), maxOutput-o.buf.Len())])
	return len(b), nil
}

// String returns what is kept.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
