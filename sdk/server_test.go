package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// scriptDesk does in StartChat what the test says, and nothing else.
type scriptDesk struct {
	start func(ctx context.Context, req *StartChatRequest) (*StartChatResponse, error)
}

func (d scriptDesk) StartChat(ctx context.Context, req *StartChatRequest) (*StartChatResponse, error) {
	if d.start == nil {
		return nil, nil //nolint:nilnil // a nil answer is as good as an empty one
	}
	return d.start(ctx, req)
}
func (scriptDesk) EndChat(context.Context, *EndChatRequest) error { return nil }
func (scriptDesk) SendMessageToAgent(context.Context, *SendMessageRequest) (*SendMessageResponse, error) {
	return nil, nil //nolint:nilnil // a nil answer is as good as an empty one
}

func pluginOf(d Desk) Plugin {
	return Plugin{Name: "test", Version: "1.0.0", New: func(Host) Desk { return d }}
}

func failureOf(t *testing.T, err error) (codes.Code, *deskv1.Failure) {
	t.Helper()
	st, ok := status.FromError(err)
	if err == nil || !ok {
		t.Fatalf("error %v, want a status", err)
	}
	for _, d := range st.Details() {
		if f, ok := d.(*deskv1.Failure); ok {
			return st.Code(), f
		}
	}
	return st.Code(), nil
}

func TestEveryErrorOfADeskCarriesAFailure(t *testing.T) {
	var answer error
	desk := scriptDesk{start: func(context.Context, *StartChatRequest) (*StartChatResponse, error) { return nil, answer }}
	_, client := serveLoopback(t, pluginOf(desk), hclog.NewNullLogger())
	for name, test := range map[string]struct {
		err  error
		code codes.Code
		want *deskv1.Failure
	}{
		"retry": {
			&Failure{Kind: Retry, RetryAfter: 3 * time.Second, UserMessage: "later", Err: errors.New("busy")}, codes.Unavailable,
			&deskv1.Failure{Kind: deskv1.FailureKind_FAILURE_KIND_RETRY, Message: "retry: busy", UserMessage: "later"},
		},
		"chat over": {Fail(ChatOver, "x"), codes.FailedPrecondition, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_CHAT_OVER, Message: "chat_over: x",
		}},
		"chat unknown": {Fail(ChatUnknown, "x"), codes.NotFound, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_CHAT_UNKNOWN, Message: "chat_unknown: x",
		}},
		"invalid": {Fail(Invalid, "x"), codes.InvalidArgument, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_INVALID, Message: "invalid: x",
		}},
		"unsupported": {Fail(Unsupported, "x"), codes.Unimplemented, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED, Message: "unsupported: x",
		}},
		"refused": {Fail(Refused, "x"), codes.FailedPrecondition, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_REFUSED, Message: "refused: x",
		}},
		"outcome unknown": {Fail(OutcomeUnknown, "x"), codes.Unknown, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN, Message: "outcome_unknown: x",
		}},
		"wrapped": {fmt.Errorf("start: %w", Fail(Refused, "x")), codes.FailedPrecondition, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_REFUSED, Message: "start: refused: x",
		}},
		"plain error": {io.ErrUnexpectedEOF, codes.Unknown, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN, Message: "unexpected EOF",
		}},
		"deadline": {fmt.Errorf("vendor: %w", context.DeadlineExceeded), codes.DeadlineExceeded, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN, Message: "vendor: context deadline exceeded",
		}},
		"cancelled": {context.Canceled, codes.Canceled, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN, Message: "context canceled",
		}},
		"a status of the vendor's API": {status.Error(codes.NotFound, "x"), codes.Unknown, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN, Message: "rpc error: code = NotFound desc = x",
		}},
		"not UTF-8": {errors.New("\xff"), codes.Unknown, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN, Message: "\uFFFD",
		}},
		"a whole page": {errors.New(strings.Repeat("x", 1<<20)), codes.Unknown, &deskv1.Failure{
			Kind: deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN, Message: strings.Repeat("x", maxErrorBytes) + " (cut)",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			answer = test.err
			_, err := client.StartChat(t.Context(), &deskv1.StartChatRequest{})
			code, failure := failureOf(t, err)
			if failure.GetKind() == deskv1.FailureKind_FAILURE_KIND_RETRY {
				if got := failure.GetRetryAfter().AsDuration(); got != 3*time.Second {
					t.Errorf("retry after %v", got)
				}
				failure.RetryAfter = nil
			}
			if code != test.code || !proto.Equal(failure, test.want) {
				t.Errorf("got %v with %v, want %v with %v", code, failure, test.code, test.want)
			}
		})
	}
}

func TestAPanicIsLoggedAndTheProcessLives(t *testing.T) {
	var log bytes.Buffer
	desk := scriptDesk{start: func(_ context.Context, req *StartChatRequest) (*StartChatResponse, error) {
		if req.ChatID == "bad" {
			panic("no such pointer")
		}
		return nil, nil //nolint:nilnil // a nil answer is as good as an empty one
	}}
	_, client := serveLoopback(t, pluginOf(desk), hclog.New(&hclog.LoggerOptions{Output: &log}))
	_, err := client.StartChat(t.Context(), &deskv1.StartChatRequest{ChatId: "bad"})
	if code, failure := failureOf(t, err); code != codes.Internal || failure != nil {
		t.Errorf("a panic is answered with %v and %v, want Internal and no Failure", code, failure)
	}
	if got := log.String(); !strings.Contains(got, "no such pointer") || !strings.Contains(got, "server_test.go") {
		t.Errorf("the log has no stack: %s", got)
	}
	if _, err := client.StartChat(t.Context(), &deskv1.StartChatRequest{ChatId: "good"}); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

func TestADeskOfThreeMethods(t *testing.T) {
	_, client := serveLoopback(t, pluginOf(scriptDesk{}), hclog.NewNullLogger())
	ctx := t.Context()

	d, err := client.Describe(ctx, &deskv1.DescribeRequest{})
	if err != nil || d.GetName() != "test" || len(d.GetCapabilities()) != 0 {
		t.Errorf("Describe = %v, %v", d, err)
	}
	if h, err := client.Health(ctx, &deskv1.HealthRequest{}); err != nil || !h.GetHealthy() {
		t.Errorf("Health = %v, %v", h, err)
	}
	if _, err := client.Drain(ctx, &deskv1.DrainRequest{}); err != nil {
		t.Errorf("Drain = %v", err)
	}
	if _, err := client.StartChat(ctx, &deskv1.StartChatRequest{}); err != nil {
		t.Errorf("StartChat with a nil answer = %v", err)
	}
	if _, err := client.SendMessageToAgent(ctx, &deskv1.SendMessageToAgentRequest{}); err != nil {
		t.Errorf("SendMessageToAgent with a nil answer = %v", err)
	}
	if _, err := client.EndChat(ctx, &deskv1.EndChatRequest{}); err != nil {
		t.Errorf("EndChat = %v", err)
	}

	for name, call := range map[string]func() error{
		"AreAnyAgentsOnline": func() error {
			_, err := client.AreAnyAgentsOnline(ctx, &deskv1.AreAnyAgentsOnlineRequest{})
			return err
		},
		"UpdateState":      func() error { _, err := client.UpdateState(ctx, &deskv1.UpdateStateRequest{}); return err },
		"UserTyping":       func() error { _, err := client.UserTyping(ctx, &deskv1.UserTypingRequest{}); return err },
		"UserReadMessages": func() error { _, err := client.UserReadMessages(ctx, &deskv1.UserReadMessagesRequest{}); return err },
		"ResumeChat":       func() error { _, err := client.ResumeChat(ctx, &deskv1.ResumeChatRequest{}); return err },
		"QuiesceChat":      func() error { _, err := client.QuiesceChat(ctx, &deskv1.QuiesceChatRequest{}); return err },
		"HandleHTTP":       func() error { _, err := client.HandleHTTP(ctx, &deskv1.HandleHTTPRequest{}); return err },
	} {
		if _, f := failureOf(t, call()); f.GetKind() != deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED {
			t.Errorf("%s: %v, want UNSUPPORTED", name, f)
		}
	}

	for config, want := range map[string]deskv1.FailureKind{
		"":         deskv1.FailureKind_FAILURE_KIND_UNSPECIFIED,
		"\n{}":     deskv1.FailureKind_FAILURE_KIND_UNSPECIFIED,
		`{"k":1}`:  deskv1.FailureKind_FAILURE_KIND_INVALID,
		`[]`:       deskv1.FailureKind_FAILURE_KIND_INVALID,
		`{"k":1`:   deskv1.FailureKind_FAILURE_KIND_INVALID,
		`"secret"`: deskv1.FailureKind_FAILURE_KIND_INVALID,
	} {
		_, err := client.Configure(ctx, &deskv1.ConfigureRequest{ConfigJson: []byte(config)})
		if want == deskv1.FailureKind_FAILURE_KIND_UNSPECIFIED {
			if err != nil {
				t.Errorf("Configure(%q) = %v", config, err)
			}
			continue
		}
		_, f := failureOf(t, err)
		if f.GetKind() != want || strings.Contains(f.GetMessage(), "secret") {
			t.Errorf("Configure(%q) = %v, want %v", config, f, want)
		}
	}
}

func TestAPluginWithoutADeskSaysSo(t *testing.T) {
	_, client := serveLoopback(t, pluginOf(nil), hclog.NewNullLogger())
	_, err := client.Describe(t.Context(), &deskv1.DescribeRequest{})
	if _, f := failureOf(t, err); f.GetKind() != deskv1.FailureKind_FAILURE_KIND_INVALID || !strings.Contains(f.GetMessage(), "Plugin.New") {
		t.Errorf("Describe = %v", err)
	}
}

// fullDesk notes the optional calls that reach it.
type fullDesk struct {
	scriptDesk

	host   Host
	calls  []string
	drains int
	health error
}

func (d *fullDesk) notef(format string, args ...any) {
	d.calls = append(d.calls, fmt.Sprintf(format, args...))
}

func (d *fullDesk) Configure(_ context.Context, req *ConfigureRequest) error {
	d.notef("configure %s %s", req.DeskName, req.Config)
	return nil
}

func (d *fullDesk) AreAnyAgentsOnline(_ context.Context, req *AvailabilityRequest) (*AvailabilityResponse, error) {
	d.notef("online %s", req.Context.Locale)
	return nil, nil //nolint:nilnil // a nil answer is as good as an empty one
}

func (d *fullDesk) UpdateState(_ context.Context, req *UpdateStateRequest) error {
	d.notef("update %s %s", req.ChatID, req.Context.Locale)
	return nil
}

func (d *fullDesk) UserTyping(_ context.Context, req *UserTypingRequest) error {
	d.notef("typing %s %v", req.ChatID, req.Typing)
	return nil
}

func (d *fullDesk) UserReadMessages(_ context.Context, req *UserReadRequest) error {
	d.notef("read %s", req.ChatID)
	return nil
}

func (d *fullDesk) ResumeChat(_ context.Context, req *ResumeChatRequest) error {
	d.notef("resume %s", req.ChatID)
	return nil
}

func (d *fullDesk) QuiesceChat(_ context.Context, req *QuiesceChatRequest) (*QuiesceChatResponse, error) {
	d.notef("quiesce %s", req.ChatID)
	return nil, nil //nolint:nilnil // a nil answer is as good as an empty one
}

func (d *fullDesk) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusNoContent)
}

func (d *fullDesk) Health(context.Context) error { return d.health }

func (d *fullDesk) Drain(ctx context.Context) error {
	d.drains++
	return d.host.Emit(ctx, &Event{ChatID: "c", ID: "last", Payload: AgentReadMessages{}})
}

func TestADeskOfAllMethods(t *testing.T) {
	d := &fullDesk{}
	_, client := serveLoopback(t, pluginOf(d), hclog.NewNullLogger())
	ctx := t.Context()
	here := &deskv1.UserContext{Locale: "en"}
	var errs []error
	add := func(_ any, err error) { errs = append(errs, err) }
	add(client.Configure(ctx, &deskv1.ConfigureRequest{DeskName: "support", ConfigJson: []byte(`{"k":1}`)}))
	add(client.AreAnyAgentsOnline(ctx, &deskv1.AreAnyAgentsOnlineRequest{Context: here}))
	add(client.UpdateState(ctx, &deskv1.UpdateStateRequest{ChatId: "c", Context: here}))
	add(client.UserTyping(ctx, &deskv1.UserTypingRequest{ChatId: "c", Typing: true}))
	add(client.UserReadMessages(ctx, &deskv1.UserReadMessagesRequest{ChatId: "c"}))
	add(client.ResumeChat(ctx, &deskv1.ResumeChatRequest{ChatId: "c"}))
	add(client.QuiesceChat(ctx, &deskv1.QuiesceChatRequest{ChatId: "c"}))
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	want := `configure support {"k":1}, online en, update c en, typing c true, read c, resume c, quiesce c`
	if got := strings.Join(d.calls, ", "); got != want {
		t.Errorf("calls %s\nwant  %s", got, want)
	}
	if r, err := client.HandleHTTP(ctx, &deskv1.HandleHTTPRequest{Method: "GET"}); err != nil || r.GetStatus() != http.StatusNoContent {
		t.Errorf("HandleHTTP = %v, %v", r, err)
	}
	d.health = errors.New("the vendor's socket is gone")
	if h, err := client.Health(ctx, &deskv1.HealthRequest{}); err != nil || h.GetHealthy() || h.GetMessage() != d.health.Error() {
		t.Errorf("Health = %v, %v", h, err)
	}
}

func TestEmitOverTheStream(t *testing.T) {
	s, client := serveLoopback(t, pluginOf(scriptDesk{}), hclog.NewNullLogger())
	stream := openEvents(t, client)
	h := &host{s}
	emit := func(id string) chan error {
		r := make(chan error, 1)
		go func() { r <- h.Emit(t.Context(), &Event{ChatID: "c", ID: id, Payload: AgentReadMessages{}}) }()
		return r
	}
	recv := func(id string) {
		t.Helper()
		batch, err := stream.Recv()
		if err != nil || len(batch.GetEvents()) != 1 || batch.GetEvents()[0].GetEventId() != id {
			t.Fatalf("got %v, %v, want the event %s", batch, err, id)
		}
	}
	send := func(r *deskv1.EventsRequest) {
		t.Helper()
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
	}

	r := emit("1")
	recv("1")
	send(ack(1))
	if err := <-r; err != nil {
		t.Errorf("Emit = %v", err)
	}

	r = emit("2")
	recv("2")
	send(ack(2, &deskv1.Refusal{Seq: 2, Code: deskv1.RefusalCode_REFUSAL_CODE_CHAT_OVER, Reason: "ended by the user"}))
	var refused *RefusedError
	if err := <-r; !errors.As(err, &refused) || refused.Code != RefusedChatOver {
		t.Errorf("Emit = %v, want chat over", err)
	}

	if err := h.Emit(t.Context(), &Event{}); !errors.As(err, &refused) || refused.Code != RefusedInvalid {
		t.Errorf("Emit without a chat = %v, want invalid", err)
	}
	huge := &Event{ChatID: "c", Payload: MessageToUser{Parts: []Part{Text(strings.Repeat("x", deskv1.MaxEventBytes))}}}
	if err := h.Emit(t.Context(), huge); !errors.As(err, &refused) || refused.Code != RefusedTooLarge {
		t.Errorf("Emit of a huge event = %v, want too large", err)
	}

	second, err := client.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Recv(); err == nil {
		t.Error("a second stream was accepted")
	}

	r = emit("3")
	recv("3")
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := <-r; !errors.Is(err, ErrStreamClosed) {
		t.Errorf("Emit as the stream ends = %v, want ErrStreamClosed", err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ends with %v, want EOF", err)
	}
	if err := <-emit("4"); !errors.Is(err, ErrStreamClosed) {
		t.Errorf("Emit after the end = %v, want ErrStreamClosed", err)
	}
}

func TestDrain(t *testing.T) {
	d := &fullDesk{}
	p := Plugin{Name: "test", New: func(h Host) Desk { d.host = h; return d }}
	_, client := serveLoopback(t, p, hclog.NewNullLogger())
	if _, err := client.Describe(t.Context(), &deskv1.DescribeRequest{}); err != nil {
		t.Fatal(err)
	}
	stream := openEvents(t, client)
	settled := make(chan error, 1)
	go func() {
		settled <- d.host.Emit(t.Context(), &Event{ChatID: "c", ID: "first", Payload: AgentReadMessages{}})
	}()
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	go func() {
		_, err := client.Drain(t.Context(), &deskv1.DrainRequest{})
		drained <- err
	}()
	batch, err := stream.Recv()
	if err != nil || batch.GetEvents()[0].GetEventId() != "last" {
		t.Fatalf("got %v, %v, want the event that Drain emits", batch, err)
	}
	if err := stream.Send(ack(2)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-drained, <-settled); err != nil {
		t.Error(err)
	}
	if _, err := client.Drain(t.Context(), &deskv1.DrainRequest{}); err != nil || d.drains != 1 {
		t.Errorf("a second Drain = %v, the desk was asked %d times", err, d.drains)
	}
}

func TestDrainWaitsForEventsInFlight(t *testing.T) {
	s, client := serveLoopback(t, pluginOf(scriptDesk{}), hclog.NewNullLogger())
	stream := openEvents(t, client)
	settled := make(chan error, 1)
	go func() {
		settled <- (&host{s}).Emit(t.Context(), &Event{ChatID: "c", Payload: AgentReadMessages{}})
	}()
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.drain(over); !errors.Is(err, context.Canceled) {
		t.Errorf("drain with an event not settled = %v, want it to wait for its ctx", err)
	}
	if err := stream.Send(ack(1)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-settled, s.drain(t.Context())); err != nil {
		t.Error(err)
	}
}

// stuckDesk drains for ever.
type stuckDesk struct {
	scriptDesk

	over chan struct{}
}

func (d stuckDesk) Drain(context.Context) error {
	<-d.over
	return nil
}

func TestSIGTERMEndsAPluginThatDoesNotDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pluginOf(stuckDesk{over: make(chan struct{})})
		s := newServer(&p, hclog.NewNullLogger())
		d, err := s.theDesk()
		if err != nil {
			t.Fatal(err)
		}
		defer close(d.(stuckDesk).over)
		begun, stopped := time.Now(), make(chan struct{})
		go s.drainAtSignal(func() { close(stopped) })
		select {
		case <-stopped:
		case <-time.After(time.Hour):
			t.Fatal("the process lives on")
		}
		if took := time.Since(begun); took != drainTime {
			t.Errorf("it ends after %s, want %s", took, drainTime)
		}
	})
}

// brokenDesk cannot be drained.
type brokenDesk struct{ scriptDesk }

func (brokenDesk) Drain(context.Context) error { panic("no such pointer") }

func TestADrainThatPanicsFlushesAllTheSame(t *testing.T) {
	s, client := serveLoopback(t, pluginOf(brokenDesk{}), hclog.NewNullLogger())
	if _, err := client.Describe(t.Context(), &deskv1.DescribeRequest{}); err != nil {
		t.Fatal(err)
	}
	stream := openEvents(t, client)
	settled := make(chan error, 1)
	go func() {
		settled <- (&host{s}).Emit(t.Context(), &Event{ChatID: "c", Payload: AgentReadMessages{}})
	}()
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go s.drainAtSignal(func() { close(stopped) })
	if err := stream.Send(ack(1)); err != nil {
		t.Fatal(err)
	}
	<-stopped
	if err := <-settled; err != nil {
		t.Error(err)
	}
	if _, err := client.Drain(t.Context(), &deskv1.DrainRequest{}); err == nil || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("a Drain after it: %v", err)
	}
}

func TestDrainBeforeAnyCallMakesNoDesk(t *testing.T) {
	p := Plugin{Name: "test", New: func(Host) Desk { t.Error("New was called"); return nil }}
	if err := newServer(&p, hclog.NewNullLogger()).drain(t.Context()); err != nil {
		t.Error(err)
	}
}
