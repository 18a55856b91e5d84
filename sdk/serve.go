package sdk

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

const (
	// pluginSet is the name under which go-plugin knows the service.
	pluginSet = "desk"
	// drainTime is how long a drain after SIGTERM may take.
	drainTime = 10 * time.Second
	// stopTime is how long the process may take to clean up at its end. It takes no
	// time, but a machine that is busy may not let the process have it at once.
	stopTime = 5 * time.Second
)

// Serve runs the plugin until deskhost ends it, and then ends the process: it
// never returns. It is what the main function of a plugin calls.
//
// Run by hand it says what the file is for, and exits with 1; with --version
// it prints name and version. A plugin that is described wrongly says so.
//
// The process ends when its standard input does, of which the host holds the
// other end: a plugin never outlives its host. SIGTERM drains first, SIGINT is
// left to the host. From the call of New on, what the plugin prints to standard
// output or error goes to the host's log; [Host.Logger] does so with a level.
func Serve(p Plugin) {
	os.Exit(run(&p))
}

func run(p *Plugin) (exitCode int) {
	if err := p.check(); err != nil {
		fmt.Fprintf(os.Stderr, "plugin %q cannot be served; correct its sdk.Plugin:\n%v\n", p.Name, err)
		return 1
	}
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Fprintln(os.Stdout, p.Name, p.Version)
		return 0
	}
	if os.Getenv(deskv1.MagicCookieKey) != deskv1.MagicCookieValue {
		fmt.Fprintf(os.Stderr, `%[1]s %[2]s is a plugin of deskhost and does nothing by itself.
Put this file into deskhost's plugin folder as %[3]s%[1]s, name it
under "desks" in deskhost.yaml with "plugin: %[1]s", and start "deskhost run".
`, p.Name, p.Version, deskv1.FilePrefix)
		return 1
	}
	return serve(p)
}

// serve is the life of a process that deskhost has started.
func serve(p *Plugin) (exitCode int) {
	// go-plugin replaces os.Stdout and os.Stderr by pipes whose content is lost
	// when the process dies. The desk prints to the real standard error, which
	// the host reads to the end.
	stderr := os.Stderr
	plugin := *p
	plugin.New = func(h Host) Desk {
		os.Stdout, os.Stderr = stderr, stderr
		return p.New(h)
	}
	// The host decides which levels are of interest.
	log := hclog.New(&hclog.LoggerOptions{Output: stderr, JSONFormat: true, Level: hclog.Trace})
	s := newServer(&plugin, log)

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	context.AfterFunc(ctx, func() {
		time.AfterFunc(stopTime, func() { os.Exit(1) })
	})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		log.Info("standard input has ended, and with it the host; the plugin ends")
		stop()
	}()
	// From here on, so that no signal comes too early to be caught.
	signal.Ignore(os.Interrupt)
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	go func() {
		<-terminate
		s.drainAtSignal(stop)
	}()

	served := false
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			MagicCookieKey:   deskv1.MagicCookieKey,
			MagicCookieValue: deskv1.MagicCookieValue,
		},
		VersionedPlugins: map[int]goplugin.PluginSet{
			deskv1.ProtocolVersion: {pluginSet: &deskPlugin{s: s}},
		},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			g := grpc.NewServer(append(opts, s.serverOptions()...)...)
			context.AfterFunc(ctx, g.Stop)
			served = true
			return g
		},
		Logger: log,
	})
	if !served {
		return 1
	}
	return 0
}

// drainAtSignal is the drain that no host has asked for. It calls stop at its
// end, or when its time is up: a desk's Drain may not look at its ctx.
func (s *server) drainAtSignal(stop func()) {
	s.log.Info("SIGTERM: the plugin drains and ends")
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	context.AfterFunc(ctx, stop)
	defer cancel()
	if err := s.drain(ctx); err != nil {
		s.log.Warn("drain after SIGTERM", "error", err)
	}
}

// deskPlugin registers the service at go-plugin's server.
type deskPlugin struct {
	goplugin.NetRPCUnsupportedPlugin

	s *server
}

func (p *deskPlugin) GRPCServer(_ *goplugin.GRPCBroker, g *grpc.Server) error {
	deskv1.RegisterDeskServiceServer(g, p.s)
	return nil
}

func (p *deskPlugin) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("package sdk is the plugin's side only")
}
