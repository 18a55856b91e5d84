package desktest_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// rightName is the plugin behind every wrong one.
const rightName = "mock"

// proxy is a plugin that stands before the mock plugin, and passes on all that
// it is asked and told, but for its fault.
type proxy struct {
	goplugin.NetRPCUnsupportedPlugin
	deskv1.UnimplementedDeskServiceServer

	name  string
	fault fault
	right deskv1.DeskServiceClient
	// stderr is the real one, which go-plugin hides.
	stderr io.Writer
	// sent is closed when the first message of a user has come.
	sent     chan struct{}
	sentOnce sync.Once
	// waiting counts the events that wait for their acknowledgement.
	waiting atomic.Int64
	// jam is held for good by a call that was given up.
	jam sync.Mutex
}

// serveFault is the life of a wrong plugin's process, named after its file.
func serveFault(name string) {
	p := &proxy{name: name, fault: faults()[name], stderr: os.Stderr, sent: make(chan struct{})}
	right, err := desktest.Launch(context.Background(), filepath.Join(filepath.Dir(os.Args[0]), deskv1.FilePrefix+rightName))
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the right plugin:", err)
		os.Exit(2)
	}
	p.right = right
	if !p.fault.ignoresStdin {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	}
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	go func() {
		for range terminate {
			if !p.fault.ignoresSigterm {
				os.Exit(0)
			}
		}
	}()
	if p.fault.endsAtSigint {
		interrupt := make(chan os.Signal, 1)
		signal.Notify(interrupt, os.Interrupt)
		go func() {
			<-interrupt
			os.Exit(1)
		}()
	}
	if p.fault.endsWhenPaused {
		goesOn := make(chan os.Signal, 1)
		signal.Notify(goesOn, resumed)
		go func() {
			<-goesOn
			os.Exit(1)
		}()
	}
	if p.fault.leavesChild != "" {
		if err := exec.Command("sleep", p.fault.leavesChild).Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	fmt.Print(p.fault.prints)
	version := deskv1.ProtocolVersion
	if p.fault.protocol != 0 {
		version = p.fault.protocol
	}
	if p.fault.noCertificate {
		os.Unsetenv("PLUGIN_CLIENT_CERT")
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			MagicCookieKey: deskv1.MagicCookieKey, MagicCookieValue: deskv1.MagicCookieValue,
		},
		VersionedPlugins: map[int]goplugin.PluginSet{version: {"desk": p}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.ChainUnaryInterceptor(p.unary))...)
		},
		Logger: hclog.NewNullLogger(),
	})
	os.Exit(0)
}

func (p *proxy) GRPCServer(_ *goplugin.GRPCBroker, g *grpc.Server) error {
	deskv1.RegisterDeskServiceServer(g, p)
	return nil
}

func (p *proxy) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("a plugin only")
}

func (p *proxy) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if _, ok := req.(*deskv1.SendMessageToAgentRequest); ok {
		p.sentOnce.Do(func() { close(p.sent) })
	}
	right := func() (any, error) { return p.named(handler(ctx, req)) }
	if p.fault.call == nil {
		return right()
	}
	return p.fault.call(p, req, right)
}

// named gives the description the name of this plugin's file.
func (p *proxy) named(resp any, err error) (any, error) {
	if d, ok := resp.(*deskv1.DescribeResponse); ok && err == nil {
		d.Name = p.name
	}
	return resp, err
}

func (p *proxy) Events(up deskv1.DeskService_EventsServer) error {
	down, err := p.right.Events(up.Context())
	if err != nil {
		return err
	}
	go func() {
		settled := int64(0)
		for {
			req, err := up.Recv()
			if err != nil {
				down.CloseSend()
				return
			}
			if p.fault.endsWhenRefused && len(req.GetAck().GetRefusals()) > 0 {
				os.Exit(1)
			}
			if seq := int64(req.GetAck().GetSeq()); seq > 0 {
				p.waiting.Add(settled - seq)
				settled = seq
			}
			// Where the fault sends what it likes, its numbers are its own.
			if p.fault.events == nil || req.GetOpen() != nil {
				down.Send(req)
			}
		}
	}()
	last, seq := uint64(0), p.fault.firstSeq
	for {
		batch, err := down.Recv()
		if err != nil {
			return err
		}
		if p.fault.events != nil {
			out := &deskv1.EventsResponse{}
			for _, e := range batch.GetEvents() {
				last = e.GetSeq()
				for _, e := range p.fault.events(e) {
					seq++
					e.Seq = seq
					out.Events = append(out.Events, e)
				}
			}
			ack := &deskv1.EventsAck{Seq: last}
			if err := down.Send(&deskv1.EventsRequest{Kind: &deskv1.EventsRequest_Ack{Ack: ack}}); err != nil {
				return err
			}
			batch = out
		}
		for _, events := range slices.Collect(slices.Chunk(batch.GetEvents(), deskv1.MaxBatchEvents)) {
			p.waiting.Add(int64(len(events)))
			if err := up.Send(&deskv1.EventsResponse{Events: events}); err != nil {
				return err
			}
		}
	}
}

// The calls are passed on as they are.

func (p *proxy) Describe(ctx context.Context, r *deskv1.DescribeRequest) (*deskv1.DescribeResponse, error) {
	return p.right.Describe(ctx, r)
}

func (p *proxy) Configure(ctx context.Context, r *deskv1.ConfigureRequest) (*deskv1.ConfigureResponse, error) {
	return p.right.Configure(ctx, r)
}

func (p *proxy) Health(ctx context.Context, r *deskv1.HealthRequest) (*deskv1.HealthResponse, error) {
	return p.right.Health(ctx, r)
}

func (p *proxy) Drain(ctx context.Context, r *deskv1.DrainRequest) (*deskv1.DrainResponse, error) {
	return p.right.Drain(ctx, r)
}

func (p *proxy) StartChat(ctx context.Context, r *deskv1.StartChatRequest) (*deskv1.StartChatResponse, error) {
	return p.right.StartChat(ctx, r)
}

func (p *proxy) EndChat(ctx context.Context, r *deskv1.EndChatRequest) (*deskv1.EndChatResponse, error) {
	return p.right.EndChat(ctx, r)
}

func (p *proxy) SendMessageToAgent(ctx context.Context, r *deskv1.SendMessageToAgentRequest) (*deskv1.SendMessageToAgentResponse, error) {
	return p.right.SendMessageToAgent(ctx, r)
}

func (p *proxy) AreAnyAgentsOnline(ctx context.Context, r *deskv1.AreAnyAgentsOnlineRequest) (*deskv1.AreAnyAgentsOnlineResponse, error) {
	return p.right.AreAnyAgentsOnline(ctx, r)
}

func (p *proxy) UpdateState(ctx context.Context, r *deskv1.UpdateStateRequest) (*deskv1.UpdateStateResponse, error) {
	return p.right.UpdateState(ctx, r)
}

func (p *proxy) UserTyping(ctx context.Context, r *deskv1.UserTypingRequest) (*deskv1.UserTypingResponse, error) {
	return p.right.UserTyping(ctx, r)
}

func (p *proxy) UserReadMessages(ctx context.Context, r *deskv1.UserReadMessagesRequest) (*deskv1.UserReadMessagesResponse, error) {
	return p.right.UserReadMessages(ctx, r)
}

func (p *proxy) ResumeChat(ctx context.Context, r *deskv1.ResumeChatRequest) (*deskv1.ResumeChatResponse, error) {
	return p.right.ResumeChat(ctx, r)
}

func (p *proxy) QuiesceChat(ctx context.Context, r *deskv1.QuiesceChatRequest) (*deskv1.QuiesceChatResponse, error) {
	return p.right.QuiesceChat(ctx, r)
}

func (p *proxy) HandleHTTP(ctx context.Context, r *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error) {
	return p.right.HandleHTTP(ctx, r)
}

// pluginName is what this process is started as, or "" if it is a test.
func pluginName() string {
	name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), deskv1.FilePrefix)
	if !ok {
		return ""
	}
	return name
}
