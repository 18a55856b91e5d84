package desktest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// trial is one run of a check. Its methods end the check when something does not
// go as the contract says.
type trial struct {
	ctx       context.Context //nolint:containedctx // it is the trial's life
	plugin    Plugin
	quiet     time.Duration
	processes []*serving
	// webhooks is nil until a process is configured, or if there are to be none.
	webhooks *webhooks
}

// serving is a plugin process that is configured and has its stream open.
type serving struct {
	*process
	*stream

	describe *deskv1.DescribeResponse
	chats    []string // served here
	// saved are the states that came with the answers to StartChat, by chat.
	saved map[string]*deskv1.ResumeState
}

func (t *trial) failf(format string, args ...any) {
	panic(outcome{fmt.Errorf(format, args...)})
}

func (t *trial) notTested(why string) { panic(outcome{untested(why)}) }

// must ends the check if what it names went wrong.
func (t *trial) must(what string, err error) {
	if err != nil {
		panic(outcome{fmt.Errorf("%s: %w", what, err)})
	}
}

// lastWords are those of the process started last.
func (t *trial) lastWords() string {
	if len(t.processes) == 0 {
		return ""
	}
	return t.processes[len(t.processes)-1].lastWords()
}

// close ends the chats that are open, so that no vendor's account fills with
// them, and the processes.
func (t *trial) close() {
	for _, s := range t.processes {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), 2*time.Second)
		for _, chat := range s.chats {
			if s.conn == nil || s.hasEnded() {
				break
			}
			_, _ = s.EndChat(ctx, &deskv1.EndChatRequest{ChatId: chat, Attempt: 1, EndedBy: deskv1.EndedBy_ENDED_BY_HOST})
		}
		cancel()
		s.kill()
	}
	if t.webhooks != nil {
		t.webhooks.close()
	}
}

// start starts a process and takes it no further than the handshake.
func (t *trial) start() *serving {
	p, err := launch(t.ctx, t.plugin.File)
	s := &serving{process: p, saved: map[string]*deskv1.ResumeState{}}
	t.processes = append(t.processes, s)
	if err != nil {
		p.end()
		t.failf("%w", p.noHandshake(err))
	}
	return s
}

// described is start and Describe.
func (t *trial) described() *serving {
	s := t.start()
	ctx, cancel := t.soon()
	defer cancel()
	d, err := s.Describe(ctx, &deskv1.DescribeRequest{})
	t.must("Describe", err)
	s.describe = d
	return s
}

// ready takes a process to where it serves chats, with the host's usual limits.
func (t *trial) ready() *serving {
	return t.readyWith(usualLimits(deskv1.DefaultWindow, deskv1.DefaultWindow/4))
}

func usualLimits(window, chatWindow uint32) *deskv1.EventsOpen {
	return &deskv1.EventsOpen{
		Window: window, ChatWindow: chatWindow, MaxBatchEvents: deskv1.MaxBatchEvents,
		MaxBatchBytes: deskv1.MaxBatchBytes, MaxEventBytes: deskv1.MaxEventBytes,
	}
}

func (t *trial) readyWith(limits *deskv1.EventsOpen) *serving {
	s := t.described()
	ctx, cancel := context.WithTimeout(t.ctx, 3*patience) // as from a host
	defer cancel()
	_, err := s.Configure(ctx, t.configuration(t.plugin.Config))
	t.must("Configure", err)
	s.stream, err = openStream(t.ctx, s.process, limits)
	t.must("Events", err)
	if t.webhooks != nil {
		t.webhooks.to(s)
	}
	return s
}

// configuration names the address of webhooks, unless there are to be none.
func (t *trial) configuration(config []byte) *deskv1.ConfigureRequest {
	req := &deskv1.ConfigureRequest{DeskName: "desktest", ConfigJson: config}
	if t.plugin.NoWebhooks {
		return req
	}
	if t.webhooks == nil {
		var err error
		t.webhooks, err = t.listen()
		t.must("listening for webhooks", err)
	}
	req.WebhookBaseUrl = t.webhooks.url
	return req
}

// soon is the context of something that has to happen.
func (t *trial) soon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.ctx, patience)
}

// scripted ends the check if nobody plays the desk.
func (t *trial) scripted() {
	if !t.hasScript() {
		panic(outcome{errNoScript})
	}
}

func (t *trial) hasScript() bool {
	_, none := t.plugin.Script.(noScript)
	return !none
}

// capable ends the check if the plugin does not declare a capability.
func (t *trial) capable(s *serving, c deskv1.Capability) {
	if !slices.Contains(s.describe.GetCapabilities(), c) {
		t.notTested("the plugin does not declare " + c.String())
	}
}

func (t *trial) newChat() string { return "desktest-" + strings.ToLower(rand.Text()[:16]) }

func startRequest(chat string, attempt uint32) *deskv1.StartChatRequest {
	return &deskv1.StartChatRequest{
		ChatId: chat, Attempt: attempt, Text: "A chat of the conformance suite.",
		Context: &deskv1.UserContext{User: &deskv1.User{Id: "desktest", Name: "Conformance suite"}, Locale: "en-GB"},
	}
}

// chat starts a chat.
func (t *trial) chat(s *serving) string {
	chat := t.newChat()
	s.chats = append(s.chats, chat)
	ctx, cancel := t.soon()
	defer cancel()
	resp, err := s.StartChat(ctx, startRequest(chat, 1))
	t.must("StartChat", err)
	s.saved[chat] = resp.GetState()
	return chat
}

// send hands over a message of the user.
func (t *trial) send(s *serving, chat, id, text string, attempt uint32) error {
	ctx, cancel := t.soon()
	defer cancel()
	return s.send(ctx, chat, id, text, attempt)
}

func (s *serving) send(ctx context.Context, chat, id, text string, attempt uint32) error {
	_, err := s.SendMessageToAgent(ctx, &deskv1.SendMessageToAgentRequest{
		ChatId: chat, MessageId: id, Attempt: attempt, Text: text, Time: timestamppb.Now(),
	})
	return err
}

// says has the agent say something, which need not have arrived yet.
func (t *trial) says(chat, text string) {
	ctx, cancel := t.soon()
	defer cancel()
	t.must("the script's AgentSays", t.plugin.Script.AgentSays(ctx, chat, text))
}

// provoke has the agent say a text: by the script, or by an answer that quotes
// the user, as desks that answer by themselves give.
func (t *trial) provoke(s *serving, chat, text string) {
	if t.hasScript() {
		t.says(chat, text)
		t.await(s, "the message of the agent", func() bool { return s.heard(chat, text) > 0 })
		return
	}
	t.must("SendMessageToAgent", t.send(s, chat, rand.Text(), text, 1))
	ctx, cancel := context.WithTimeout(t.ctx, patience/3)
	defer cancel()
	err := s.await(ctx, func() bool { return s.heard(chat, text) > 0 })
	if errors.Is(err, context.DeadlineExceeded) {
		t.notTested("there is no script, and the desk does not repeat by itself what the user says")
	}
	t.must("the desk's answer", err)
}

// await waits for something on the stream.
func (t *trial) await(s *serving, what string, ok func() bool) {
	ctx, cancel := t.soon()
	defer cancel()
	if err := s.await(ctx, ok); errors.Is(err, context.DeadlineExceeded) {
		t.failf("%s did not come within %s; %s", what, patience, told(s.of("")))
	} else {
		t.must(what, err)
	}
}

// never watches the stream for something that must not come.
func (t *trial) never(s *serving, what string, bad func() bool) {
	ctx, cancel := context.WithTimeout(t.ctx, t.quiet)
	defer cancel()
	err := s.await(ctx, bad)
	if err == nil {
		t.failf("%s; %s", what, told(s.of("")))
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.must("watching the stream", err)
	}
}

// told names the last events that came.
func told(events []*deskv1.Event) string {
	if len(events) == 0 {
		return "no event came"
	}
	names := make([]string, 0, 8)
	for _, e := range events[max(0, len(events)-8):] {
		names = append(names, fmt.Sprintf("%d %s", e.GetSeq(), payloadName(e)))
	}
	return fmt.Sprintf("%d events came, the last of them: %s", len(events), strings.Join(names, ", "))
}

// resume hands a chat with its state to a process.
func (t *trial) resume(s *serving, chat string, state *deskv1.ResumeState, attempt uint32) error {
	s.chats = append(s.chats, chat)
	ctx, cancel := t.soon()
	defer cancel()
	_, err := s.ResumeChat(ctx, &deskv1.ResumeChatRequest{ChatId: chat, Attempt: attempt, State: state})
	return err
}

// latest is the chat's resume state as a host has it: of an event, or else of the
// start.
func (s *serving) latest(chat string) *deskv1.ResumeState {
	if state := s.state(chat); state != nil {
		return state
	}
	return s.saved[chat]
}

// failureOf returns the Failure in an error, or nil.
func failureOf(err error) *deskv1.Failure {
	st, _ := status.FromError(err)
	for _, d := range st.Details() {
		if f, ok := d.(*deskv1.Failure); ok {
			return f
		}
	}
	return nil
}

// kind is the kind of an error's Failure, as a host reads it.
func kind(err error) deskv1.FailureKind {
	if f := failureOf(err); f != nil {
		return f.GetKind()
	}
	if status.Code(err) == codes.Unimplemented {
		return deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED
	}
	return deskv1.FailureKind_FAILURE_KIND_UNSPECIFIED
}

// wantKind ends the check unless the error is a Failure of one of the kinds.
func (t *trial) wantKind(what string, err error, kinds ...deskv1.FailureKind) {
	if !slices.Contains(kinds, kind(err)) {
		names := make([]string, len(kinds))
		for i, k := range kinds {
			names[i] = strings.TrimPrefix(k.String(), "FAILURE_KIND_")
		}
		t.failf("%s answered %s, where a Failure of the kind %s was due", what, describeError(err), strings.Join(names, " or "))
	}
}

func describeError(err error) string {
	if err == nil {
		return "OK"
	}
	if f := failureOf(err); f != nil {
		return fmt.Sprintf("a Failure of the kind %s (%s)", strings.TrimPrefix(f.GetKind().String(), "FAILURE_KIND_"), f.GetMessage())
	}
	return fmt.Sprintf("a status without a Failure (%v)", err)
}
