// Fault is a plugin that goes wrong in the way that its name says. Its file is
// linked under the name of each fault.
//
// A name of two parts says how and where it stops working: crash, exit, hang or
// stop at start, in the handshake, in configure, in a call or in the stream. The
// other names are those of main and of SendMessageToAgent, which every message
// of a user sets off.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

var (
	name          = strings.TrimPrefix(filepath.Base(os.Args[0]), deskv1.FilePrefix)
	how, where, _ = strings.Cut(name, "-")
	// hung is held for good by what hangs in the stream.
	hung sync.Mutex
)

// at is called at each place and stops working if it is the one.
func at(place string) {
	if place != where {
		return
	}
	switch how {
	case "crash":
		panic("fault")
	case "exit":
		os.Exit(0)
	case "hang":
		select {}
	case "stop":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		select {} // each thread stops by itself, and this one may be the last
	}
}

func main() {
	if name != "deaf" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	}
	at("start")
	switch name {
	case "noise":
		for i := range 50 {
			fmt.Printf("loading module %d|2|3|\n", i)
		}
		fmt.Println(strings.Repeat("x", 10<<20))
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	}
	if where == "handshake" {
		fmt.Print("1|1|uni")
		at("handshake")
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion:  deskv1.ProtocolVersion,
			MagicCookieKey:   deskv1.MagicCookieKey,
			MagicCookieValue: deskv1.MagicCookieValue,
		},
		Plugins: goplugin.PluginSet{"desk": plugin{}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(deskv1.MaxMessageBytes),
				// Windows that do not grow: else all that "unread" leaves unread may fit.
				grpc.InitialWindowSize(1<<16), grpc.InitialConnWindowSize(1<<16))...)
		},
	})
}

type plugin struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (plugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	deskv1.RegisterDeskServiceServer(s, &desk{open: make(chan deskv1.DeskService_EventsServer, 1)})
	return nil
}

func (plugin) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return struct{}{}, nil
}

type desk struct {
	deskv1.UnimplementedDeskServiceServer

	open chan deskv1.DeskService_EventsServer
	seq  uint64
}

func (*desk) Describe(context.Context, *deskv1.DescribeRequest) (*deskv1.DescribeResponse, error) {
	d := &deskv1.DescribeResponse{Name: name, Version: "6.6.6", Title: "Faulty Desk"}
	if name == "poison" {
		d.Capabilities = []deskv1.Capability{deskv1.Capability_CAPABILITY_RESUME}
	}
	return d, nil
}

func (*desk) Configure(context.Context, *deskv1.ConfigureRequest) (*deskv1.ConfigureResponse, error) {
	at("configure")
	if name == "child" { // stays in the process group and outlives its parent
		if err := exec.Command("sleep", "600").Start(); err != nil {
			return nil, err
		}
	}
	return &deskv1.ConfigureResponse{}, nil
}

func (*desk) Health(context.Context, *deskv1.HealthRequest) (*deskv1.HealthResponse, error) {
	hung.Lock()
	defer hung.Unlock()
	return &deskv1.HealthResponse{Healthy: true}, nil
}

func (*desk) Drain(context.Context, *deskv1.DrainRequest) (*deskv1.DrainResponse, error) {
	return &deskv1.DrainResponse{}, nil
}

func (d *desk) Events(stream deskv1.DeskService_EventsServer) error {
	d.open <- stream
	if name == "unread" {
		select {}
	}
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

func (*desk) StartChat(context.Context, *deskv1.StartChatRequest) (*deskv1.StartChatResponse, error) {
	if name == "bigstate" {
		return &deskv1.StartChatResponse{State: state(1 << 20)}, nil
	}
	return &deskv1.StartChatResponse{}, nil
}

func (*desk) EndChat(context.Context, *deskv1.EndChatRequest) (*deskv1.EndChatResponse, error) {
	return &deskv1.EndChatResponse{}, nil
}

// ResumeChat cannot bear the state of a chat in which "poison" was said.
func (*desk) ResumeChat(_ context.Context, req *deskv1.ResumeChatRequest) (*deskv1.ResumeChatResponse, error) {
	if string(req.GetState().GetData()) == "poison" {
		panic("fault")
	}
	return &deskv1.ResumeChatResponse{}, nil
}

// SendMessageToAgent does the fault.
func (d *desk) SendMessageToAgent(_ context.Context, req *deskv1.SendMessageToAgentRequest) (*deskv1.SendMessageToAgentResponse, error) {
	at("call")
	chat := req.GetChatId()
	switch name {
	case "line":
		fmt.Fprintln(stderr, strings.Repeat("z", 10<<20))
	case "types":
		fmt.Fprintln(stderr, `{"@message":{"wrong":5},"@level":"error","@timestamp":7,"@module":[1]}`)
		fmt.Fprintln(stderr, `{"@message":5,"@level":{}}`)
	case "storm":
		for i := range 1_000_000 {
			fmt.Fprintf(stderr, "line %d of a storm\n", i)
		}
	case "grandchild": // leaves the process group and holds the pipes
		cmd := exec.Command("sleep", "600")
		cmd.Stdout, cmd.Stderr = os.NewFile(1, "stdout"), stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		fmt.Fprintf(stderr, "left behind: %d.\n", cmd.Process.Pid)
		os.Exit(7)
	case "answer":
		return &deskv1.SendMessageToAgentResponse{DeskMessageId: strings.Repeat("x", 100<<20)}, nil
	case "memory":
		var all [][]byte
		for {
			all = append(all, bytes.Repeat([]byte{1}, 1<<20))
		}
	case "files":
		var all []*os.File
		for {
			f, err := os.Open(os.DevNull)
			if err != nil {
				panic(err)
			}
			all = append(all, f)
		}
	case "spin":
		for range 4 * runtime.NumCPU() {
			go func() {
				for { //nolint:staticcheck // it is meant to spin
				}
			}()
		}
	case "poison":
		stream := <-d.open // nobody else sends meanwhile
		defer func() { d.open <- stream }()
		d.seq++
		return &deskv1.SendMessageToAgentResponse{}, stream.Send(&deskv1.EventsResponse{Events: []*deskv1.Event{{
			Seq: d.seq, ChatId: chat, State: &deskv1.ResumeState{Format: 1, Data: []byte(req.GetText())},
			Payload: &deskv1.Event_StateSaved{StateSaved: &deskv1.StateSaved{}},
		}}})
	default:
		go d.misbehave(<-d.open, chat)
	}
	return &deskv1.SendMessageToAgentResponse{}, nil
}

// stderr is the real one: go-plugin takes os.Stderr for its own.
var stderr = os.NewFile(2, "stderr")

// misbehave does what is done on the stream.
func (d *desk) misbehave(stream deskv1.DeskService_EventsServer, chat string) {
	send := func(e *deskv1.Event) {
		d.seq++
		e.Seq = d.seq
		if stream.Send(&deskv1.EventsResponse{Events: []*deskv1.Event{e}}) != nil {
			select {} // the host has had enough
		}
	}
	switch name {
	case "crash-stream", "exit-stream", "hang-stream", "stop-stream":
		for range 10 {
			send(message(chat))
		}
		hung.Lock()
		at("stream")
	case "unread":
		// Refused with reasons that nobody reads. The transport takes a message of
		// any size while it has any room, and the host makes one of what has come
		// together: so in bursts, of which the last finds no room. Those that then
		// wait are within all windows.
		for burst := range 5 {
			if burst > 0 {
				time.Sleep(300 * time.Millisecond)
			}
			for i := range 1000 {
				send(&deskv1.Event{ChatId: fmt.Sprint("c", i%8)})
			}
		}
	case "flood":
		for {
			send(message(chat))
		}
	case "strangers":
		send(message("nobody"))
		send(&deskv1.Event{ChatId: chat, Payload: &deskv1.Event_AgentEndedChat{AgentEndedChat: &deskv1.AgentEndedChat{}}})
		send(message(chat))
	case "backwards":
		send(message(chat))
		send(message(chat))
		d.seq -= 2
		send(message(chat))
	case "state":
		e := message(chat)
		e.State = state(10 << 20)
		send(e)
	}
}

func message(chat string) *deskv1.Event {
	text := &deskv1.MessagePart{Kind: &deskv1.MessagePart_Text{Text: &deskv1.TextPart{Text: "again"}}}
	return &deskv1.Event{ChatId: chat, Payload: &deskv1.Event_MessageToUser{MessageToUser: &deskv1.MessageToUser{
		Parts: []*deskv1.MessagePart{text},
	}}}
}

func state(size int) *deskv1.ResumeState {
	return &deskv1.ResumeState{Format: 1, Data: make([]byte, size)}
}
