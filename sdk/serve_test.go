package sdk_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
	"github.com/deskhost/deskhost/sdk"
)

// TestMain runs the tests, or, where a test has started this program as a
// plugin, a desk that prints.
func TestMain(m *testing.M) {
	if os.Getenv(deskv1.MagicCookieKey) != "" {
		sdk.Serve(sdk.Plugin{Name: "noisy", Version: "1.0.0", New: newNoisyDesk})
	}
	os.Exit(m.Run())
}

// noisyDesk prints more than a pipe holds, then a line.
type noisyDesk struct{ sdk.Desk }

func newNoisyDesk(sdk.Host) sdk.Desk {
	fmt.Println("printed by New")
	return noisyDesk{}
}

func (noisyDesk) StartChat(context.Context, *sdk.StartChatRequest) (*sdk.StartChatResponse, error) {
	fmt.Print(strings.Repeat("x", 1<<20))
	fmt.Println("\nprinted by StartChat")
	fmt.Fprintln(os.Stderr, "printed to standard error")
	return nil, nil
}

func buildEcho(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), deskv1.FilePrefix+"echo")
	out, err := exec.Command("go", "build", "-o", file, "../examples/echo").CombinedOutput()
	if err != nil {
		t.Fatalf("build the echo example: %v\n%s", err, out)
	}
	return file
}

// deskClient is the host's side of go-plugin.
type deskClient struct{}

func (deskClient) Server(*goplugin.MuxBroker) (any, error) { return nil, errors.ErrUnsupported }
func (deskClient) Client(*goplugin.MuxBroker, *rpc.Client) (any, error) {
	return nil, errors.ErrUnsupported
}
func (deskClient) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error { return errors.ErrUnsupported }
func (deskClient) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return deskv1.NewDeskServiceClient(conn), nil
}

// process is an echo plugin that go-plugin has started.
type process struct {
	deskv1.DeskServiceClient

	client *goplugin.Client
	// stdin is the host's end of the lifeline.
	stdin *os.File
	// alive is at its end when the process is.
	alive *os.File
}

func startEcho(t *testing.T) *process {
	t.Helper()
	stdin, lifeline, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	alive, inherited, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// go-plugin hands the process its own standard input.
	own := os.Stdin
	os.Stdin = stdin
	defer func() { os.Stdin = own }()
	cmd := exec.Command(buildEcho(t))
	cmd.Env = []string{"TMPDIR=" + t.TempDir()}
	cmd.ExtraFiles = []*os.File{inherited}
	p := &process{stdin: lifeline, alive: alive}
	p.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			MagicCookieKey: deskv1.MagicCookieKey, MagicCookieValue: deskv1.MagicCookieValue,
		},
		VersionedPlugins: map[int]goplugin.PluginSet{deskv1.ProtocolVersion: {"desk": deskClient{}}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		Cmd:              cmd,
		Logger:           hclog.NewNullLogger(),
	})
	t.Cleanup(func() {
		_ = lifeline.Close()
		p.client.Kill()
		_ = alive.Close()
	})
	conn, err := p.client.Client()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stdin.Close(), inherited.Close()); err != nil {
		t.Fatal(err)
	}
	raw, err := conn.Dispense("desk")
	if err != nil {
		t.Fatal(err)
	}
	p.DeskServiceClient = raw.(deskv1.DeskServiceClient)
	return p
}

func TestAChatWithARealProcess(t *testing.T) {
	p := startEcho(t)
	ctx := t.Context()
	d, err := p.Describe(ctx, &deskv1.DescribeRequest{})
	if err != nil || d.GetName() != "echo" {
		t.Fatalf("Describe = %v, %v", d, err)
	}
	if _, err := p.Configure(ctx, &deskv1.ConfigureRequest{DeskName: "support", ConfigJson: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	stream, err := p.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	send := func(r *deskv1.EventsRequest) {
		t.Helper()
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	// settle takes the next event and acknowledges it.
	settle := func() *deskv1.Event {
		t.Helper()
		batch, err := stream.Recv()
		if err != nil || len(batch.GetEvents()) != 1 {
			t.Fatalf("got %v, %v, want one event", batch, err)
		}
		e := batch.GetEvents()[0]
		send(&deskv1.EventsRequest{Kind: &deskv1.EventsRequest_Ack{Ack: &deskv1.EventsAck{Seq: e.GetSeq()}}})
		return e
	}
	send(&deskv1.EventsRequest{Kind: &deskv1.EventsRequest_Open{Open: &deskv1.EventsOpen{Window: 16, ChatWindow: 4}}})

	called := make(chan error, 1)
	go func() {
		_, err := p.StartChat(ctx, &deskv1.StartChatRequest{ChatId: "c", Attempt: 1})
		called <- err
	}()
	if e := settle(); e.GetChatId() != "c" || e.GetAgentJoined().GetAgent().GetNickname() != "Echo" {
		t.Errorf("first event %v, want Echo to join", e)
	}
	if err := <-called; err != nil {
		t.Error(err)
	}
	go func() {
		_, err := p.SendMessageToAgent(ctx, &deskv1.SendMessageToAgentRequest{ChatId: "c", MessageId: "m1", Attempt: 1, Text: "hello"})
		called <- err
	}()
	if e := settle(); e.GetMessageToUser().GetParts()[0].GetText().GetText() != "hello" {
		t.Errorf("answer %v, want hello", e)
	}
	if err := <-called; err != nil {
		t.Error(err)
	}
	if _, err := p.EndChat(ctx, &deskv1.EndChatRequest{ChatId: "c"}); err != nil {
		t.Error(err)
	}

	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(p.alive); err != nil { // returns when the process has ended
		t.Error(err)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream outlived the process")
	}
}

// started is this program as a plugin, at the end of its handshake.
type started struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *bufio.Reader
	stderr *bufio.Reader
	socket string
	tmp    string
}

func startNoisy(t *testing.T) *started {
	t.Helper()
	file, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &started{cmd: exec.Command(file), tmp: t.TempDir()}
	s.cmd.Env = []string{
		"TMPDIR=" + s.tmp, "PLUGIN_PROTOCOL_VERSIONS=1", deskv1.MagicCookieKey + "=" + deskv1.MagicCookieValue,
		"GORACE=atexit_sleep_ms=0", // the race detector's second at exit would look like a plugin that hangs
	}
	stdin, err1 := s.cmd.StdinPipe()
	stdout, err2 := s.cmd.StdoutPipe()
	stderr, err3 := s.cmd.StderrPipe()
	if err := errors.Join(err1, err2, err3, s.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	s.stdin, s.stdout, s.stderr = stdin, bufio.NewReader(stdout), bufio.NewReader(stderr)
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	line, err := s.stdout.ReadString('\n')
	handshake := strings.Split(line, "|")
	if err != nil || len(handshake) < 5 || strings.Join(handshake[:3], "|") != "1|1|unix" {
		t.Fatalf("handshake %q, %v", line, err)
	}
	s.socket = handshake[3]
	return s
}

// said reads standard error up to a line with the text, and returns it.
func (s *started) said(t *testing.T, text string) string {
	t.Helper()
	for {
		line, err := s.stderr.ReadString('\n')
		if err != nil {
			t.Fatalf("standard error ended before %q: %v", text, err)
		}
		if strings.Contains(line, text) {
			return line
		}
	}
}

// endsCleanly waits for the process.
func (s *started) endsCleanly(t *testing.T) {
	t.Helper()
	if _, err := io.Copy(io.Discard, s.stderr); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(s.stdout); err != nil || len(rest) != 0 {
		t.Errorf("after the handshake, standard output had %d bytes: %v", len(rest), err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("the process ended with %v, want 0", err)
	}
	left, err := os.ReadDir(s.tmp)
	if err != nil || len(left) != 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
}

func TestTheProcessEndsWithItsStandardInput(t *testing.T) {
	s := startNoisy(t)
	if err := s.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if line := s.said(t, "standard input has ended"); !strings.HasPrefix(line, `{"@level":"info",`) {
		t.Errorf("the line is not in go-plugin's format: %s", line)
	}
	s.endsCleanly(t)
}

func TestSIGINTIsTheHostsAffairAndSIGTERMDrains(t *testing.T) {
	s := startNoisy(t)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if err := s.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	s.said(t, "SIGTERM")
	s.endsCleanly(t)
}

func TestWhatAPluginPrintsGoesToStandardErrorAndBlocksNothing(t *testing.T) {
	s := startNoisy(t)
	conn, err := grpc.NewClient("unix:"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	called := make(chan error, 1)
	go func() {
		_, err := deskv1.NewDeskServiceClient(conn).StartChat(t.Context(), &deskv1.StartChatRequest{})
		called <- err
	}()
	for _, want := range []string{"printed by New", "printed by StartChat", "printed to standard error"} {
		s.said(t, want)
	}
	if err := <-called; err != nil {
		t.Error(err)
	}
	if err := errors.Join(conn.Close(), s.stdin.Close()); err != nil {
		t.Fatal(err)
	}
	s.endsCleanly(t)
}

func TestAPluginRunByHandSaysWhatItIs(t *testing.T) {
	file := buildEcho(t)
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(file)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("run by hand: %v, want exit code 1", err)
	}
	for _, want := range []string{"echo 1.0.0 is a plugin of deskhost", "plugin folder as deskhost-plugin-echo"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("standard error %q, want it to say %q", stderr.String(), want)
		}
	}
	if stdout.Len() != 0 {
		t.Errorf("standard output %q", stdout.String())
	}
	out, err := exec.Command(file, "--version").Output()
	if err != nil || string(out) != "echo 1.0.0\n" {
		t.Errorf("--version: %q, %v", out, err)
	}
}
