package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
	"github.com/deskhost/deskhost/sdk/internal/eventstream"
)

// server answers the host's calls with the plugin's desk.
type server struct {
	deskv1.UnimplementedDeskServiceServer

	plugin *Plugin
	stream *eventstream.Stream
	log    hclog.Logger

	mu   sync.Mutex
	desk Desk // nil until the first call

	drainOnce sync.Once
	drainErr  error
}

func newServer(p *Plugin, log hclog.Logger) *server {
	return &server{plugin: p, stream: eventstream.New(), log: log}
}

// serverOptions are the limits and the interceptors of every gRPC server of ours.
func (s *server) serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(deskv1.MaxMessageBytes),
		grpc.MaxSendMsgSize(deskv1.MaxMessageBytes),
		// Without windows that are set, gRPC measures the connection by a ping with
		// what it receives, which wakes both sides once more.
		grpc.StaticStreamWindowSize(deskv1.MaxMessageBytes),
		grpc.StaticConnWindowSize(deskv1.MaxMessageBytes),
		grpc.ChainUnaryInterceptor(s.guardCall),
		grpc.ChainStreamInterceptor(s.guardStream),
	}
}

// guardCall gives every error of a desk call its Failure. A panic is logged and
// answered without one, since nobody knows what it left behind; the process
// and its other chats live on.
func (s *server) guardCall(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	if !isDeskCall(info.FullMethod) {
		return handler(ctx, req)
	}
	defer s.recoverCall(info.FullMethod, &err)
	resp, err = handler(ctx, req)
	if err != nil {
		return nil, toStatus(err)
	}
	return resp, nil
}

func (s *server) guardStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	if !isDeskCall(info.FullMethod) {
		return handler(srv, ss)
	}
	defer s.recoverCall(info.FullMethod, &err)
	if err := handler(srv, ss); err != nil {
		return toStatus(err)
	}
	return nil
}

// isDeskCall tells the desk's calls from those of go-plugin's own services.
func isDeskCall(method string) bool {
	return strings.HasPrefix(method, "/"+deskv1.DeskService_ServiceDesc.ServiceName+"/")
}

func (s *server) recoverCall(method string, err *error) {
	if r := recover(); r != nil {
		s.log.Error("panic in a desk call", "method", method, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		*err = status.Errorf(codes.Internal, "plugin %s panicked in %s; its log has the stack", s.plugin.Name, method)
	}
}

// theDesk makes the desk at the first call: not earlier, because until the
// handshake is over what the plugin prints would be taken for it.
func (s *server) theDesk() (Desk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.desk == nil {
		s.desk = s.plugin.New(&host{s})
	}
	if s.desk == nil {
		return nil, Fail(Invalid, "plugin %s: Plugin.New returned no desk", s.plugin.Name)
	}
	return s.desk, nil
}

// optional returns the desk as one of its optional interfaces.
func optional[T any](s *server, method string) (T, error) {
	var none T
	d, err := s.theDesk()
	if err != nil {
		return none, err
	}
	t, ok := d.(T)
	if !ok {
		return none, Fail(Unsupported, "plugin %s has no %s", s.plugin.Name, method)
	}
	return t, nil
}

func (s *server) Describe(context.Context, *deskv1.DescribeRequest) (*deskv1.DescribeResponse, error) {
	d, err := s.theDesk()
	if err != nil {
		return nil, err
	}
	return toDescribe(s.plugin, d), nil
}

func (s *server) Configure(ctx context.Context, req *deskv1.ConfigureRequest) (*deskv1.ConfigureResponse, error) {
	d, err := s.theDesk()
	if err != nil {
		return nil, err
	}
	c, ok := d.(Configurer)
	if !ok {
		return &deskv1.ConfigureResponse{}, s.acceptNoConfig(req.GetConfigJson())
	}
	return &deskv1.ConfigureResponse{}, c.Configure(ctx, fromConfigure(req))
}

func (s *server) acceptNoConfig(config []byte) error {
	if len(bytes.TrimSpace(config)) == 0 {
		return nil
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(config, &keys); err != nil {
		return Fail(Invalid, "the configuration of plugin %s is not a JSON object", s.plugin.Name)
	}
	if len(keys) > 0 {
		return Fail(Invalid, "plugin %s takes no configuration; remove the keys below \"config\"", s.plugin.Name)
	}
	return nil
}

func (s *server) Health(ctx context.Context, _ *deskv1.HealthRequest) (*deskv1.HealthResponse, error) {
	d, err := s.theDesk()
	if err != nil {
		return nil, err
	}
	if h, ok := d.(HealthChecker); ok {
		if err := h.Health(ctx); err != nil {
			return &deskv1.HealthResponse{Message: errorText(err.Error())}, nil
		}
	}
	return &deskv1.HealthResponse{Healthy: true}, nil
}

func (s *server) Drain(ctx context.Context, _ *deskv1.DrainRequest) (*deskv1.DrainResponse, error) {
	return &deskv1.DrainResponse{}, s.drain(ctx)
}

// drain has the desk flush what it has read, once however often it is asked,
// and waits until the host has settled all of it.
func (s *server) drain(ctx context.Context) error {
	s.mu.Lock()
	d := s.desk
	s.mu.Unlock()
	s.drainOnce.Do(func() {
		if d, ok := d.(Drainer); ok {
			s.drainErr = s.drainDesk(ctx, d)
		}
	})
	return errors.Join(s.drainErr, s.stream.Flush(ctx))
}

// drainDesk recovers by itself: no call need be behind it, and what the desk has
// emitted is waited for all the same.
func (s *server) drainDesk(ctx context.Context, d Drainer) (err error) {
	defer s.recoverCall(deskv1.DeskService_Drain_FullMethodName, &err)
	return d.Drain(ctx)
}

func (s *server) Events(stream deskv1.DeskService_EventsServer) error {
	return s.stream.Run(stream)
}

func (s *server) StartChat(ctx context.Context, req *deskv1.StartChatRequest) (*deskv1.StartChatResponse, error) {
	d, err := s.theDesk()
	if err != nil {
		return nil, err
	}
	resp, err := d.StartChat(ctx, fromStartChat(req))
	if err != nil {
		return nil, err
	}
	return toStartChat(resp)
}

func (s *server) EndChat(ctx context.Context, req *deskv1.EndChatRequest) (*deskv1.EndChatResponse, error) {
	d, err := s.theDesk()
	if err != nil {
		return nil, err
	}
	return &deskv1.EndChatResponse{}, d.EndChat(ctx, fromEndChat(req))
}

func (s *server) SendMessageToAgent(ctx context.Context, req *deskv1.SendMessageToAgentRequest) (*deskv1.SendMessageToAgentResponse, error) {
	d, err := s.theDesk()
	if err != nil {
		return nil, err
	}
	resp, err := d.SendMessageToAgent(ctx, fromSendMessage(req))
	return toSendMessage(resp), err
}

func (s *server) AreAnyAgentsOnline(ctx context.Context, req *deskv1.AreAnyAgentsOnlineRequest) (*deskv1.AreAnyAgentsOnlineResponse, error) {
	d, err := optional[AvailabilityReporter](s, "AreAnyAgentsOnline")
	if err != nil {
		return nil, err
	}
	resp, err := d.AreAnyAgentsOnline(ctx, &AvailabilityRequest{Context: fromContext(req.GetContext())})
	if err != nil {
		return nil, err
	}
	return toAvailability(resp)
}

func (s *server) UpdateState(ctx context.Context, req *deskv1.UpdateStateRequest) (*deskv1.UpdateStateResponse, error) {
	d, err := optional[StateUpdater](s, "UpdateState")
	if err != nil {
		return nil, err
	}
	return &deskv1.UpdateStateResponse{}, d.UpdateState(ctx, &UpdateStateRequest{
		ChatID: req.GetChatId(), Context: fromContext(req.GetContext()),
	})
}

func (s *server) UserTyping(ctx context.Context, req *deskv1.UserTypingRequest) (*deskv1.UserTypingResponse, error) {
	d, err := optional[TypingReceiver](s, "UserTyping")
	if err != nil {
		return nil, err
	}
	return &deskv1.UserTypingResponse{}, d.UserTyping(ctx, &UserTypingRequest{ChatID: req.GetChatId(), Typing: req.GetTyping()})
}

func (s *server) UserReadMessages(ctx context.Context, req *deskv1.UserReadMessagesRequest) (*deskv1.UserReadMessagesResponse, error) {
	d, err := optional[ReadReceiver](s, "UserReadMessages")
	if err != nil {
		return nil, err
	}
	return &deskv1.UserReadMessagesResponse{}, d.UserReadMessages(ctx, &UserReadRequest{ChatID: req.GetChatId()})
}

func (s *server) ResumeChat(ctx context.Context, req *deskv1.ResumeChatRequest) (*deskv1.ResumeChatResponse, error) {
	d, err := optional[Resumer](s, "ResumeChat")
	if err != nil {
		return nil, err
	}
	return &deskv1.ResumeChatResponse{}, d.ResumeChat(ctx, fromResumeChat(req))
}

func (s *server) QuiesceChat(ctx context.Context, req *deskv1.QuiesceChatRequest) (*deskv1.QuiesceChatResponse, error) {
	d, err := optional[Resumer](s, "QuiesceChat")
	if err != nil {
		return nil, err
	}
	resp, err := d.QuiesceChat(ctx, &QuiesceChatRequest{ChatID: req.GetChatId()})
	if err != nil {
		return nil, err
	}
	return toQuiesceChat(resp)
}

func (s *server) HandleHTTP(ctx context.Context, req *deskv1.HandleHTTPRequest) (*deskv1.HandleHTTPResponse, error) {
	h, err := optional[HTTPHandler](s, "HTTP handler")
	if err != nil {
		return nil, err
	}
	return serveHTTP(ctx, h, req), nil
}

// host is the plugin's Host.
type host struct{ s *server }

func (h *host) Logger() hclog.Logger { return h.s.log }

func (h *host) Emit(ctx context.Context, ev *Event) error {
	event, refused := toEvent(ev)
	if refused != nil {
		return refused
	}
	refusal, err := h.s.stream.Emit(ctx, event)
	switch {
	case errors.Is(err, eventstream.ErrClosed):
		return ErrStreamClosed
	case err != nil:
		return err
	case refusal != nil:
		return fromRefusal(refusal)
	}
	return nil
}
