//go:build unix

package desk

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// sharedCopy is a copy of the test program, in a folder for all tests. Tests
// link to it and share a store beside it: it is large.
var sharedCopy string

// The plugin of these tests is the test program itself, in a plugin folder. Its
// name says how it behaves up to the handshake; its configuration and the text
// of StartChat say what it does later.
func TestMain(m *testing.M) {
	if name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), deskv1.FilePrefix); ok {
		runFakePlugin(name)
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "desk")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		panic(err)
	}
	sharedCopy = filepath.Join(dir, "plugin")
	if err := os.WriteFile(sharedCopy, content, 0o755); err != nil {
		panic(err)
	}
	return m.Run()
}

// fakeSchema is the configuration of the fake plugin.
const fakeSchema = `{
	"type": "object",
	"properties": {
		"fault": {"type": "string", "enum": ["", "invalid", "retry", "crash", "hang", "unhealthy"]},
		"api_key": {"type": "string", "minLength": 8, "description": "the key from the vendor's console"}
	},
	"additionalProperties": false
}`

func runFakePlugin(name string) {
	go func() { // the lifeline: nothing of a test outlives it
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	switch name {
	case "hang":
		select {}
	case "crash":
		fmt.Fprintln(os.Stderr, "no licence found")
		os.Exit(3)
	case "noise":
		for i := range 50 {
			fmt.Printf("loading module %d|2|3|\n", i)
		}
		fmt.Println(strings.Repeat("x", 1<<20))
	case "chatter":
		for {
			fmt.Println("still loading")
		}
	case "newer":
		fmt.Println("1|2|unix|/nowhere|grpc|")
		select {}
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion:  deskv1.ProtocolVersion,
			MagicCookieKey:   deskv1.MagicCookieKey,
			MagicCookieValue: deskv1.MagicCookieValue,
		},
		Plugins: goplugin.PluginSet{"desk": &fakePlugin{name: name}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(deskv1.MaxMessageBytes))...)
		},
	})
}

type fakePlugin struct {
	goplugin.NetRPCUnsupportedPlugin

	name string
}

func (p *fakePlugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	deskv1.RegisterDeskServiceServer(s, &fakeDesk{name: p.name, open: make(chan struct{}), acked: sync.NewCond(new(sync.Mutex))})
	return nil
}

func (p *fakePlugin) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return struct{}{}, nil
}

type fakeDesk struct {
	deskv1.UnimplementedDeskServiceServer

	name  string
	fault string

	open   chan struct{} // closed when the stream is open
	stream deskv1.DeskService_EventsServer
	window uint64

	sending sync.Mutex // guards seq and Send
	seq     uint64

	acked    *sync.Cond // guards what follows
	ackSeq   uint64
	refusals []*deskv1.Refusal
}

func (d *fakeDesk) Describe(context.Context, *deskv1.DescribeRequest) (*deskv1.DescribeResponse, error) {
	name := d.name
	if name == "liar" {
		name = "honest"
	}
	capabilities := []deskv1.Capability{deskv1.Capability_CAPABILITY_USER_TYPING}
	if name == "resumer" {
		capabilities = append(capabilities, deskv1.Capability_CAPABILITY_RESUME)
	}
	return &deskv1.DescribeResponse{
		Name: name, Version: "1.2.3", Title: "Fake Desk", ConfigSchema: fakeSchema,
		Capabilities: capabilities,
		SendDedupe:   deskv1.SendDedupe_SEND_DEDUPE_KEY, Replay: deskv1.Replay_REPLAY_CURSOR,
	}, nil
}

func (d *fakeDesk) Configure(_ context.Context, req *deskv1.ConfigureRequest) (*deskv1.ConfigureResponse, error) {
	var config struct {
		Fault string `json:"fault"`
	}
	if err := json.Unmarshal(req.GetConfigJson(), &config); err != nil {
		return nil, err
	}
	switch d.fault = config.Fault; d.fault {
	case "invalid":
		return nil, failure(&deskv1.Failure{Kind: deskv1.FailureKind_FAILURE_KIND_INVALID, Message: "the vendor does not know this key"})
	case "retry":
		return nil, failure(&deskv1.Failure{Kind: deskv1.FailureKind_FAILURE_KIND_RETRY, Message: "the vendor is down"})
	case "crash":
		panic("nil map")
	case "hang":
		select {}
	}
	return &deskv1.ConfigureResponse{}, nil
}

func (d *fakeDesk) Health(context.Context, *deskv1.HealthRequest) (*deskv1.HealthResponse, error) {
	return &deskv1.HealthResponse{Healthy: d.fault != "unhealthy", Message: "out of connections"}, nil
}

// Drain sends one more event and waits until it is acknowledged.
func (d *fakeDesk) Drain(context.Context, *deskv1.DrainRequest) (*deskv1.DrainResponse, error) {
	d.awaitAck(d.send(message("c1", "last words")))
	return &deskv1.DrainResponse{}, nil
}

func (d *fakeDesk) Events(stream deskv1.DeskService_EventsServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	d.stream, d.window = stream, uint64(first.GetOpen().GetWindow())
	close(d.open)
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		d.acked.L.Lock()
		d.ackSeq = req.GetAck().GetSeq()
		d.refusals = append(d.refusals, req.GetAck().GetRefusals()...)
		d.acked.L.Unlock()
		d.acked.Broadcast()
	}
}

// send numbers events and sends them as one batch.
func (d *fakeDesk) send(events ...*deskv1.Event) uint64 {
	<-d.open
	d.sending.Lock()
	defer d.sending.Unlock()
	for _, e := range events {
		d.seq++
		e.Seq = d.seq
	}
	if err := d.stream.Send(&deskv1.EventsResponse{Events: events}); err != nil {
		fmt.Fprintln(os.Stderr, "send:", err)
	}
	return d.seq
}

func (d *fakeDesk) awaitAck(seq uint64) {
	d.acked.L.Lock()
	defer d.acked.L.Unlock()
	for d.ackSeq < seq {
		d.acked.Wait()
	}
}

// refused lists the refusals so far.
func (d *fakeDesk) refused() string {
	d.acked.L.Lock()
	defer d.acked.L.Unlock()
	var told []string
	for _, r := range d.refusals {
		told = append(told, fmt.Sprint(r.GetSeq(), " ", r.GetCode()))
	}
	return strings.Join(told, ", ")
}

// StartChat does what its text says.
func (d *fakeDesk) StartChat(ctx context.Context, req *deskv1.StartChatRequest) (*deskv1.StartChatResponse, error) {
	verb, arg, _ := strings.Cut(req.GetText(), " ")
	n, _ := strconv.Atoi(arg)
	chat := req.GetChatId()
	answer := func(s string) (*deskv1.StartChatResponse, error) {
		return &deskv1.StartChatResponse{State: &deskv1.ResumeState{Data: []byte(s), Format: 1}}, nil
	}
	switch verb {
	case "say": // one event
		d.send(message(chat, arg))
	case "burst": // n events that keep the windows, then wait for the last
		<-d.open
		var last uint64
		for i := 0; i < n; {
			var batch []*deskv1.Event
			for len(batch) < deskv1.MaxBatchEvents && i < n {
				batch = append(batch, message(fmt.Sprint("c", i%8), fmt.Sprint(i)))
				i++
			}
			if done := uint64(i); done > d.window/2 {
				d.awaitAck(done - d.window/2)
			}
			last = d.send(batch...)
		}
		d.awaitAck(last)
	case "flood": // events of one chat without regard to any window
		for range n {
			d.send(message(chat, "again"))
		}
	case "break": // events that break a rule each, and one that keeps all
		good, large := message(chat, "good"), message(chat, strings.Repeat("x", deskv1.MaxEventBytes))
		script := message(chat, "")
		script.GetMessageToUser().Parts = []*deskv1.MessagePart{{Kind: &deskv1.MessagePart_Link{Link: &deskv1.LinkPart{Url: "javascript:alert(1)"}}}}
		d.awaitAck(d.send(large, script, &deskv1.Event{ChatId: chat}, good))
		return answer(d.refused())
	case "backwards":
		d.send(message(chat, "one"))
		d.sending.Lock()
		d.seq--
		d.sending.Unlock()
		d.send(message(chat, "one again"))
	case "huge": // a batch over the limit of the wire
		d.send(message(chat, strings.Repeat("x", n)))
	case "crash":
		panic(arg)
	case "close":
		os.Exit(0)
	case "hang":
		<-ctx.Done()
		time.Sleep(time.Hour)
	case "grandchild": // leaves the process group and holds the pipes
		cmd := exec.Command("sleep", "600")
		cmd.Stdout, cmd.Stderr = os.NewFile(1, "stdout"), os.NewFile(2, "stderr")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return answer(strconv.Itoa(cmd.Process.Pid))
	case "child": // stays in the process group
		cmd := exec.Command("sleep", "600")
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return answer(strconv.Itoa(cmd.Process.Pid))
	case "print": // a line of n bytes on what is standard output for Go programs
		fmt.Println(strings.Repeat("y", n))
		fmt.Fprintln(os.Stderr, strings.Repeat("z", n))
	case "environ":
		return answer(strings.Join(os.Environ(), "\n"))
	case "refuse":
		return nil, failure(&deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_REFUSED, RetryAfter: durationpb.New(time.Minute),
			Message: "queue full", UserMessage: "Please try later.",
		})
	case "plain":
		return nil, fmt.Errorf("something")
	}
	return &deskv1.StartChatResponse{}, nil
}

func (d *fakeDesk) UserTyping(context.Context, *deskv1.UserTypingRequest) (*deskv1.UserTypingResponse, error) {
	return &deskv1.UserTypingResponse{}, nil
}

func failure(f *deskv1.Failure) error {
	st, err := status.New(codes.FailedPrecondition, f.GetMessage()).WithDetails(f)
	if err != nil {
		return err
	}
	return st.Err()
}
