package wirelog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/deskhost/deskhost/host/internal/wirelog"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// wire is a connection to a plugin that answers every call with err, and sends
// batches.
type wire struct {
	grpc.ClientStream

	err     error
	batches []*deskv1.EventsResponse
}

func (w *wire) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return w.err }

func (w *wire) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return w, nil
}

func (w *wire) SendMsg(any) error { return nil }

func (w *wire) RecvMsg(m any) error {
	if len(w.batches) == 0 {
		return io.EOF
	}
	m.(*deskv1.EventsResponse).Events = w.batches[0].Events
	w.batches = w.batches[1:]
	return nil
}

// tap returns a client over the wire, and what is logged of it without times.
func tap(w *wire) (deskv1.DeskServiceClient, func() []string) {
	var logged bytes.Buffer
	log := hclog.New(&hclog.LoggerOptions{Name: "desk.support", Output: &logged, DisableTime: true})
	took := regexp.MustCompile(` took=[0-9.]+ms$`)
	return deskv1.NewDeskServiceClient(wirelog.Wrap(w, log)), func() (lines []string) {
		for line := range strings.Lines(logged.String()) {
			line = strings.TrimSuffix(line, "\n")
			if !took.MatchString(line) {
				lines = append(lines, "no time: "+line)
				continue
			}
			lines = append(lines, took.ReplaceAllString(line, ""))
		}
		logged.Reset()
		return lines
	}
}

const secret = "my-secret-4711"

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if strings.Contains(strings.Join(got, "\n"), secret) {
		t.Errorf("a line tells the text: %q", got)
	}
}

func TestCalls(t *testing.T) {
	ctx := t.Context()
	w := &wire{}
	client, logged := tap(w)
	refused := status.New(codes.FailedPrecondition, "no")
	refused, err := refused.WithDetails(&deskv1.Failure{Kind: deskv1.FailureKind_FAILURE_KIND_CHAT_OVER, Message: "conversation 7\n has ended"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		fail error
		call func() error
		line []string
	}{
		{nil, func() error {
			_, err := client.Configure(ctx, &deskv1.ConfigureRequest{ConfigJson: []byte(secret)})
			return err
		}, []string{"[INFO]  desk.support: → Configure: outcome=ok"}},
		{nil, func() error {
			_, err := client.StartChat(ctx, &deskv1.StartChatRequest{
				ChatId: "c1", Attempt: 2, Text: secret, SignInToken: secret, ConnectMessageJson: []byte(secret),
				State: &deskv1.ResumeState{Data: []byte(secret), Format: 1},
			})
			return err
		}, []string{"[INFO]  desk.support: → StartChat: chat=c1 attempt=2 text=14B state=14B outcome=ok"}},
		{nil, func() error {
			_, err := client.SendMessageToAgent(ctx, &deskv1.SendMessageToAgentRequest{ChatId: "c1", MessageId: "m1", Attempt: 1, Text: secret})
			return err
		}, []string{"[INFO]  desk.support: → SendMessageToAgent: chat=c1 message=m1 text=14B outcome=ok"}},
		{nil, func() error {
			_, err := client.UserTyping(ctx, &deskv1.UserTypingRequest{ChatId: "c1", Typing: true})
			return err
		}, []string{"[INFO]  desk.support: → UserTyping: chat=c1 typing=true outcome=ok"}},
		{nil, func() error {
			_, err := client.HandleHTTP(ctx, &deskv1.HandleHTTPRequest{Method: "POST", Path: secret, Query: secret, Body: []byte(secret)})
			return err
		}, []string{"[INFO]  desk.support: → HandleHTTP: method=POST body=14B outcome=ok status=0"}},
		{nil, func() error {
			_, err := client.Health(ctx, &deskv1.HealthRequest{})
			return err
		}, nil},
		{refused.Err(), func() error {
			_, err := client.EndChat(ctx, &deskv1.EndChatRequest{ChatId: "c1"})
			return err
		}, []string{`[WARN]  desk.support: → EndChat: chat=c1 outcome=chat_over problem="conversation 7 has ended"`}},
		{status.Error(codes.Unavailable, "connection lost"), func() error {
			_, err := client.Health(ctx, &deskv1.HealthRequest{})
			return err
		}, []string{`[WARN]  desk.support: → Health: outcome=unknown problem="Unavailable: connection lost"`}},
	} {
		w.err = test.fail
		if err := test.call(); !errors.Is(err, test.fail) {
			t.Errorf("the call returned %v", err)
		}
		want(t, logged(), test.line...)
	}
}

func TestEvents(t *testing.T) {
	text := &deskv1.MessagePart{Kind: &deskv1.MessagePart_Text{Text: &deskv1.TextPart{Text: secret}}}
	link := &deskv1.MessagePart{Kind: &deskv1.MessagePart_Link{Link: &deskv1.LinkPart{Url: secret}}}
	client, logged := tap(&wire{batches: []*deskv1.EventsResponse{{Events: []*deskv1.Event{
		{Seq: 1, ChatId: "c1", EventId: "e1", Payload: &deskv1.Event_AgentJoined{AgentJoined: &deskv1.AgentJoined{}}},
		{Seq: 2, ChatId: "c1", EventId: "e2", State: &deskv1.ResumeState{Data: []byte(secret)},
			Payload: &deskv1.Event_MessageToUser{MessageToUser: &deskv1.MessageToUser{Parts: []*deskv1.MessagePart{text, link}}}},
		{Seq: 3, ChatId: "c2", Payload: &deskv1.Event_AgentTyping{AgentTyping: &deskv1.AgentTyping{Typing: true}}},
		{Seq: 4, ChatId: "c2", Payload: &deskv1.Event_AgentEndedChat{AgentEndedChat: &deskv1.AgentEndedChat{Reason: secret}}},
	}}}})
	stream, err := client.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	want(t, logged())
	ack := func(seq uint64, refusals ...*deskv1.Refusal) {
		t.Helper()
		if err := stream.Send(&deskv1.EventsRequest{Kind: &deskv1.EventsRequest_Ack{Ack: &deskv1.EventsAck{Seq: seq, Refusals: refusals}}}); err != nil {
			t.Fatal(err)
		}
	}
	ack(2)
	want(t, logged(),
		"[INFO]  desk.support: ← AgentJoined: chat=c1 event=e1 outcome=acknowledged",
		`[INFO]  desk.support: ← MessageToUser: chat=c1 event=e2 parts="text 14B, link 18B" state=14B outcome=acknowledged`)
	ack(3, &deskv1.Refusal{Seq: 3, Code: deskv1.RefusalCode_REFUSAL_CODE_CHAT_UNKNOWN, Reason: "no such chat"})
	want(t, logged(), `[WARN]  desk.support: ← AgentTyping: chat=c2 typing=true outcome="refused: chat_unknown" reason="no such chat"`)
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	want(t, logged(), `[WARN]  desk.support: ← AgentEndedChat: chat=c2 outcome="not acknowledged"`)
}
