package process

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// patience bounds every wait of a test; it is only ever used up by a failure.
const patience = time.Minute

// The processes of these tests are the test program itself, told by its
// argument zero how to behave.
func TestMain(m *testing.M) {
	if mode, ok := strings.CutPrefix(filepath.Base(os.Args[0]), "test-"); ok {
		if other := modes[mode]; other != nil {
			other()
			return
		}
		serve(mode)
		return
	}
	os.Exit(m.Run())
}

type noPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (noPlugin) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error { return nil }

func (noPlugin) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return struct{}{}, nil
}

func serve(mode string) {
	lifeline := func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	switch mode {
	case "lifeline": // tells when its standard input ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		fmt.Fprintln(os.Stderr, "end of input")
		os.Exit(7)
	case "deaf": // to the end of its standard input
		lifeline = func() {}
	case "silent":
		os.Stdout.Close()
		lifeline()
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	case "graceful":
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		go func() {
			<-term
			os.Exit(0)
		}()
	case "old":
		os.Unsetenv("PLUGIN_CLIENT_CERT")
	case "padded":
		fmt.Println("1|1|unix|/socket|grpc|" + strings.Repeat("A", 62) + "==")
		lifeline()
	}
	go lifeline()
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion:  deskv1.ProtocolVersion,
			MagicCookieKey:   deskv1.MagicCookieKey,
			MagicCookieValue: deskv1.MagicCookieValue,
		},
		Plugins:    goplugin.PluginSet{"none": noPlugin{}},
		GRPCServer: goplugin.DefaultGRPCServer,
	})
}

func config(t *testing.T, mode string) Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runDir, err := PrepareRunDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(runDir); err != nil || len(left) > 0 {
			t.Errorf("left in the run folder: %v, %v", left, err)
		}
		os.RemoveAll(runDir)
	})
	return Config{Path: self, Name: "test-" + mode, RunDir: runDir, Limits: DefaultLimits(), StartTimeout: patience, Log: hclog.NewNullLogger()}
}

func start(t *testing.T, mode string) *Process {
	t.Helper()
	p, err := Start(context.Background(), config(t, mode))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestStartCallStop(t *testing.T) {
	p := start(t, "graceful")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	health := grpc_health_v1.NewHealthClient(p.Conn())
	if _, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: goplugin.GRPCServiceName}); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	if exit := p.Exit(); exit.Status != "exit status 0" || exit.Pid != p.Pid() {
		t.Errorf("exit %+v", exit)
	}
	if _, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err == nil {
		t.Error("a call works after the end")
	}
	if err := p.Stop(ctx); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

func TestStopKillsWhatIgnoresSIGTERM(t *testing.T) {
	p := start(t, "stubborn")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if exit := p.Exit(); exit.Status != "signal: killed" {
		t.Errorf("exit %+v", exit)
	}
}

func TestStartsThatFail(t *testing.T) {
	tests := []struct{ mode, want string }{
		{"silent", "closed its standard output before the handshake"},
		{"old", "holds no certificate"},
		{"padded", "base64 with padding"},
	}
	for _, test := range tests {
		t.Run(test.mode, func(t *testing.T) {
			_, err := Start(context.Background(), config(t, test.mode))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
	t.Run("no program", func(t *testing.T) {
		cfg := config(t, "x")
		cfg.Path = filepath.Join(t.TempDir(), "nowhere")
		if _, err := Start(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("given up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cfg := config(t, "lifeline")
		cfg.Log = hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: writerFunc(func(p []byte) {
			if strings.Contains(string(p), "process started") {
				cancel()
			}
		})})
		if _, err := Start(ctx, cfg); err == nil || !strings.Contains(err.Error(), "given up") {
			t.Errorf("error %v", err)
		}
	})
}

// When the host's end of standard input is closed, as by its death, the process
// notices.
func TestLifeline(t *testing.T) {
	cfg := config(t, "lifeline")
	dir := filepath.Join(cfg.RunDir, "p")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p := newProgram(ctx, cfg, nil, dir)
	// The log tells of the start from within Start, so nothing races.
	p.cfg.Log = hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: writerFunc(func(line []byte) {
		if strings.Contains(string(line), "process started") {
			p.lifeline.Close()
		}
	})})
	if err := p.Start(ctx); err == nil {
		t.Error("a process without a handshake was started")
	}
	<-p.exited
	if p.exit.Status != "exit status 7" || len(p.exit.Output) != 1 || p.exit.Output[0] != "end of input" {
		t.Errorf("exit %+v", p.exit)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
