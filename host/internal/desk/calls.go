package desk

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// Desk is the desk's name.
func (g *running) Desk() string { return g.desk }

// Number counts the desk's generations.
func (g *running) Number() uint64 { return g.number }

// Describe is what the plugin said of itself.
func (g *running) Describe() *deskv1.DescribeResponse { return g.describe }

// StartChat asks the desk for an agent.
func (g *running) StartChat(ctx context.Context, req *deskv1.StartChatRequest) (*deskv1.StartChatResponse, error) {
	resp, err := call(ctx, g, "StartChat", g.client.StartChat, req)
	if err == nil {
		resp.State = g.checkState("StartChat", resp.GetState())
	}
	return resp, err
}

// EndChat ends a chat for the user.
func (g *running) EndChat(ctx context.Context, req *deskv1.EndChatRequest) error {
	_, err := call(ctx, g, "EndChat", g.client.EndChat, req)
	return err
}

// SendMessageToAgent hands over one message of the user.
func (g *running) SendMessageToAgent(ctx context.Context, req *deskv1.SendMessageToAgentRequest) (*deskv1.SendMessageToAgentResponse, error) {
	return call(ctx, g, "SendMessageToAgent", g.client.SendMessageToAgent, req)
}

// AreAnyAgentsOnline asks whether anybody is there.
func (g *running) AreAnyAgentsOnline(ctx context.Context, req *deskv1.AreAnyAgentsOnlineRequest) (*deskv1.AreAnyAgentsOnlineResponse, error) {
	return call(ctx, g, "AreAnyAgentsOnline", g.client.AreAnyAgentsOnline, req)
}

// UpdateState tells what is now known of the user.
func (g *running) UpdateState(ctx context.Context, req *deskv1.UpdateStateRequest) error {
	_, err := call(ctx, g, "UpdateState", g.client.UpdateState, req)
	return err
}

// UserTyping passes on that the user types.
func (g *running) UserTyping(ctx context.Context, req *deskv1.UserTypingRequest) error {
	_, err := call(ctx, g, "UserTyping", g.client.UserTyping, req)
	return err
}

// UserReadMessages passes on that the user has seen all messages.
func (g *running) UserReadMessages(ctx context.Context, req *deskv1.UserReadMessagesRequest) error {
	_, err := call(ctx, g, "UserReadMessages", g.client.UserReadMessages, req)
	return err
}

// ResumeChat hands an open chat to the process.
func (g *running) ResumeChat(ctx context.Context, req *deskv1.ResumeChatRequest) error {
	_, err := call(ctx, g, "ResumeChat", g.client.ResumeChat, req)
	return err
}

// QuiesceChat asks the process to let go of a chat.
func (g *running) QuiesceChat(ctx context.Context, req *deskv1.QuiesceChatRequest) (*deskv1.QuiesceChatResponse, error) {
	resp, err := call(ctx, g, "QuiesceChat", g.client.QuiesceChat, req)
	if err == nil {
		resp.State = g.checkState("QuiesceChat", resp.GetState())
	}
	return resp, err
}

// HandleHTTP forwards a vendor's request.
func (g *running) HandleHTTP(ctx context.Context, req *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error) {
	return call(ctx, g, "HandleHTTP", g.client.HandleHTTP, req)
}

// call makes one call. What fails before it was sent had no effect and is
// RETRY; what fails later without a Failure of the plugin is OUTCOME_UNKNOWN.
func call[Req proto.Message, Resp any](
	ctx context.Context, g *running, method string,
	do func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req,
) (Resp, error) {
	var none Resp
	if size := proto.Size(req); size > deskv1.MaxMessageBytes {
		return none, g.unsent(method, deskv1.FailureKind_FAILURE_KIND_INVALID,
			fmt.Errorf("the request has %d bytes, at most %d are allowed", size, deskv1.MaxMessageBytes))
	}
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-g.ctx.Done():
	case <-ctx.Done():
		return none, g.unsent(method, deskv1.FailureKind_FAILURE_KIND_RETRY,
			fmt.Errorf("no place among %d calls in flight: %w", g.limits.CallsInFlight, ctx.Err()))
	}
	if g.ctx.Err() != nil {
		return none, g.unsent(method, deskv1.FailureKind_FAILURE_KIND_RETRY,
			fmt.Errorf("the process has ended: %w", context.Cause(g.ctx)))
	}
	if err := ctx.Err(); err != nil {
		return none, g.unsent(method, deskv1.FailureKind_FAILURE_KIND_RETRY, err)
	}
	growStack()
	resp, err := do(ctx, req)
	if err != nil {
		return none, g.callError(method, err)
	}
	return resp, nil
}

// growStack makes room on the goroutine's stack for what gRPC needs, at once and
// while there is little on it: most calls have a goroutine of their own, whose small
// stack would grow twice in the depth of gRPC, and each frame be copied.
//
//go:noinline
func growStack() {
	var room [5 << 10]byte
	runtime.KeepAlive(&room)
}

// checkState drops a resume state that breaks the rules from an answer. The call
// itself was done.
func (g *running) checkState(method string, state *deskv1.ResumeState) *deskv1.ResumeState {
	if r := checkState(state); r != nil {
		g.log.Warn("resume state not kept", "call", method, "reason", r.Reason)
		return nil
	}
	return state
}

// unsent is the error of a call that the plugin has not seen.
func (g *running) unsent(method string, kind deskv1.FailureKind, err error) *CallError {
	return &CallError{Kind: kind, Err: fmt.Errorf("desk %q: %s not sent: %w", g.desk, method, err)}
}

// callError reads the error of a call that was sent.
func (g *running) callError(method string, err error) *CallError {
	e := &CallError{Kind: deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN}
	st, _ := status.FromError(err)
	if st.Code() == codes.Unimplemented {
		e.Kind = deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED
	}
	for _, detail := range st.Details() {
		f, ok := detail.(*deskv1.Failure)
		if !ok {
			continue
		}
		e.Kind = knownKind(f.GetKind())
		e.RetryAfter = max(0, f.GetRetryAfter().AsDuration())
		e.UserMessage = f.GetUserMessage()
		if f.GetMessage() != "" {
			err = errors.New(f.GetMessage())
		}
		break
	}
	e.Err = fmt.Errorf("desk %q: %s of plugin %q %s: %w", g.desk, method, g.plugin.Name, g.describe.GetVersion(), err)
	return e
}

// knownKind makes of a kind that this host does not know the careful one.
func knownKind(k deskv1.FailureKind) deskv1.FailureKind {
	if _, ok := deskv1.FailureKind_name[int32(k)]; !ok || k == deskv1.FailureKind_FAILURE_KIND_UNSPECIFIED {
		return deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN
	}
	return k
}
