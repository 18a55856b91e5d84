// Package wirelog tells whoever writes a plugin what goes over the wire: one line
// of the log for each call of the host and each event of the plugin, with its
// chat, how long it took and what came of it.
//
// It wraps the connection to a plugin's process and changes nothing of what goes
// through. It knows the contract, and no desk, session or process. No line holds
// what users and agents write, a configuration, a token or a resume state: only
// how long they are. The host package puts it into desks when it runs for
// development, and nobody else does.
package wirelog

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// Wrap returns a connection that logs what goes through it.
func Wrap(to grpc.ClientConnInterface, log hclog.Logger) grpc.ClientConnInterface {
	return &conn{to, log}
}

type conn struct {
	grpc.ClientConnInterface

	log hclog.Logger
}

// Invoke makes a call, and logs it when it has returned.
func (c *conn) Invoke(ctx context.Context, method string, req, resp any, opts ...grpc.CallOption) error {
	began := time.Now()
	err := c.ClientConnInterface.Invoke(ctx, method, req, resp, opts...)
	method = method[strings.LastIndexByte(method, '/')+1:]
	level := hclog.Info
	if method == "Health" {
		level = hclog.Trace // It is asked all the time.
	}
	line := about(req)
	if err != nil {
		level = hclog.Warn
		line = append(line, failure(err)...)
	} else {
		line = append(line, answered(resp)...)
	}
	c.log.Log(level, "→ "+method, append(line, "took", since(began))...)
	return err
}

// NewStream opens the event stream.
func (c *conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &stream{ClientStream: s, log: c.log, waiting: map[uint64]event{}}, nil
}

// stream logs each event when it is settled. One goroutine receives and another
// sends.
type stream struct {
	grpc.ClientStream

	log hclog.Logger

	mu      sync.Mutex
	settled uint64
	waiting map[uint64]event // for their acknowledgement, by seq
}

// event is what is known of an event that waits.
type event struct {
	came time.Time
	name string
	line []any
}

// RecvMsg receives a batch of events.
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		for _, e := range s.waiting {
			s.tell(hclog.Warn, e, "outcome", "not acknowledged")
		}
		clear(s.waiting)
		return err
	}
	if batch, ok := m.(*deskv1.EventsResponse); ok {
		for _, e := range batch.GetEvents() {
			s.waiting[e.GetSeq()] = event{time.Now(), payload(e), aboutEvent(e)}
		}
	}
	return nil
}

// SendMsg sends an acknowledgement.
func (s *stream) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	req, ok := m.(*deskv1.EventsRequest)
	if err != nil || !ok || req.GetAck() == nil {
		return err
	}
	refusals := map[uint64]*deskv1.Refusal{}
	for _, r := range req.GetAck().GetRefusals() {
		refusals[r.GetSeq()] = r
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; s.settled < req.GetAck().GetSeq(); s.settled++ {
		seq := s.settled + 1
		e, ok := s.waiting[seq]
		if !ok {
			continue
		}
		delete(s.waiting, seq)
		if r := refusals[seq]; r != nil {
			s.tell(hclog.Warn, e, "outcome", "refused: "+word(r.GetCode().String(), "REFUSAL_CODE_"), "reason", r.GetReason())
		} else {
			s.tell(hclog.Info, e, "outcome", "acknowledged")
		}
	}
	return nil
}

func (s *stream) tell(level hclog.Level, e event, outcome ...any) {
	s.log.Log(level, "← "+e.name, append(append(e.line, outcome...), "took", since(e.came))...)
}

// about is what may be told of a request.
func about(req any) (line []any) {
	if r, ok := req.(interface{ GetChatId() string }); ok {
		line = append(line, "chat", r.GetChatId())
	}
	if r, ok := req.(interface{ GetMessageId() string }); ok {
		line = append(line, "message", r.GetMessageId())
	}
	if r, ok := req.(interface{ GetAttempt() uint32 }); ok && r.GetAttempt() > 1 {
		line = append(line, "attempt", r.GetAttempt())
	}
	if r, ok := req.(interface{ GetText() string }); ok {
		line = append(line, "text", size(len(r.GetText())))
	}
	if r, ok := req.(interface{ GetTyping() bool }); ok {
		line = append(line, "typing", r.GetTyping())
	}
	if r, ok := req.(interface{ GetState() *deskv1.ResumeState }); ok && r.GetState() != nil {
		line = append(line, "state", state(r.GetState()))
	}
	if r, ok := req.(*deskv1.HandleHTTPRequest); ok {
		// The path may hold a secret of the vendor's.
		line = append(line, "method", r.GetMethod(), "body", size(len(r.GetBody())))
	}
	return line
}

// answered is what may be told of the answer to a call that went well.
func answered(resp any) []any {
	line := []any{"outcome", "ok"}
	if r, ok := resp.(interface{ GetState() *deskv1.ResumeState }); ok && r.GetState() != nil {
		line = append(line, "saved", state(r.GetState()))
	}
	if r, ok := resp.(*deskv1.HandleHTTPResponse); ok {
		line = append(line, "status", r.GetStatus())
	}
	return line
}

// aboutEvent is what may be told of an event.
func aboutEvent(e *deskv1.Event) []any {
	line := []any{"chat", e.GetChatId()}
	if e.GetEventId() != "" {
		line = append(line, "event", e.GetEventId())
	}
	if m := e.GetMessageToUser(); m != nil {
		parts := make([]string, len(m.GetParts()))
		for i, p := range m.GetParts() {
			parts[i] = part(p)
		}
		line = append(line, "parts", strings.Join(parts, ", "))
	}
	if t := e.GetAgentTyping(); t != nil {
		line = append(line, "typing", t.GetTyping())
	}
	if e.GetState() != nil {
		line = append(line, "state", state(e.GetState()))
	}
	return line
}

// payload names what happened, such as MessageToUser.
func payload(e *deskv1.Event) string {
	m := e.ProtoReflect()
	if field := m.WhichOneof(m.Descriptor().Oneofs().ByName("payload")); field != nil {
		return string(field.Message().Name())
	}
	return "an event that this host does not know"
}

// part is the kind of a part of a message, and its size.
func part(p *deskv1.MessagePart) string {
	if text, ok := p.GetKind().(*deskv1.MessagePart_Text); ok {
		return "text " + size(len(text.Text.GetText()))
	}
	m := p.ProtoReflect()
	if field := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind")); field != nil {
		return string(field.Name()) + " " + size(proto.Size(p))
	}
	return "unknown"
}

// failure is why a call failed. A status without a Failure leaves open what the
// call did.
func failure(err error) []any {
	st, _ := status.FromError(err)
	for _, detail := range st.Details() {
		if f, ok := detail.(*deskv1.Failure); ok {
			return []any{"outcome", word(f.GetKind().String(), "FAILURE_KIND_"), "problem", oneLine(f.GetMessage())}
		}
	}
	return []any{"outcome", "unknown", "problem", oneLine(fmt.Sprintf("%s: %s", st.Code(), st.Message()))}
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func state(s *deskv1.ResumeState) string {
	return size(len(s.GetData()))
}

func size(bytes int) string { return fmt.Sprintf("%dB", bytes) }

func since(began time.Time) string {
	return fmt.Sprintf("%.1fms", float64(time.Since(began).Microseconds())/1000)
}

func word(enum, prefix string) string { return strings.ToLower(strings.TrimPrefix(enum, prefix)) }
