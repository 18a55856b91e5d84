package desktest

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// stream is the host's end of the Events stream: it keeps all that comes,
// notes which rules an event breaks, and acknowledges unless it is held.
type stream struct {
	call   deskv1.DeskService_EventsClient
	limits *deskv1.EventsOpen

	mu      sync.Mutex
	events  []*deskv1.Event
	changed chan struct{} // closed when something comes
	broken  []string      // rules
	ended   error
	held    bool
	settled uint64                        // all up to this seq are acknowledged
	refuse  map[string]deskv1.RefusalCode // by chat: the next event of it
	answer  []*deskv1.Refusal             // to go with the next acknowledgement

	sending sync.Mutex // orders acknowledgements
}

// openStream opens the stream with limits, and reads it until it ends.
func openStream(ctx context.Context, p *process, open *deskv1.EventsOpen) (*stream, error) {
	call, err := p.Events(ctx)
	if err != nil {
		return nil, err
	}
	if err := call.Send(&deskv1.EventsRequest{Kind: &deskv1.EventsRequest_Open{Open: open}}); err != nil {
		return nil, err
	}
	s := &stream{call: call, limits: open, changed: make(chan struct{}), refuse: map[string]deskv1.RefusalCode{}}
	go s.receive()
	return s, nil
}

func (s *stream) receive() {
	for {
		batch, err := s.call.Recv()
		s.mu.Lock()
		s.ended = err
		if err == nil {
			s.admit(batch)
		}
		close(s.changed)
		s.changed = make(chan struct{})
		held := s.held
		s.mu.Unlock()
		if err != nil {
			return
		}
		if !held {
			s.acknowledge()
		}
	}
}

// admit takes account of a batch. The lock is held.
func (s *stream) admit(batch *deskv1.EventsResponse) {
	if n, size := len(batch.GetEvents()), proto.Size(batch); n > int(s.limits.GetMaxBatchEvents()) || size > int(s.limits.GetMaxBatchBytes()) {
		s.broken = append(s.broken, fmt.Sprintf("a batch had %d events and %d bytes, at most %d and %d are allowed",
			n, size, s.limits.GetMaxBatchEvents(), s.limits.GetMaxBatchBytes()))
	}
	for _, e := range batch.GetEvents() {
		if want := uint64(len(s.events)) + 1; e.GetSeq() != want {
			s.broken = append(s.broken, fmt.Sprintf("an event had seq %d, where %d was due", e.GetSeq(), want))
		}
		for _, rule := range brokenBy(e, int(s.limits.GetMaxEventBytes())) {
			s.broken = append(s.broken, fmt.Sprintf("event %d (%s): %s", e.GetSeq(), payloadName(e), rule))
		}
		s.events = append(s.events, e)
		if code, ok := s.refuse[e.GetChatId()]; ok {
			delete(s.refuse, e.GetChatId())
			s.answer = append(s.answer, &deskv1.Refusal{Seq: uint64(len(s.events)), Code: code, Reason: "the conformance suite tries this out"})
		}
	}
}

// acknowledge settles all that has come. A stream that is gone shows in receive.
func (s *stream) acknowledge() {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	ack := &deskv1.EventsAck{Seq: uint64(len(s.events)), Refusals: s.answer}
	due := ack.Seq > s.settled
	s.settled, s.answer = ack.Seq, nil
	s.mu.Unlock()
	if due {
		_ = s.call.Send(&deskv1.EventsRequest{Kind: &deskv1.EventsRequest_Ack{Ack: ack}})
	}
}

// hold stops acknowledging, release catches up.
func (s *stream) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
}

func (s *stream) release() {
	s.mu.Lock()
	s.held = false
	s.mu.Unlock()
	s.acknowledge()
}

func (s *stream) refuseNext(chat string, code deskv1.RefusalCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse[chat] = code
}

// of returns the events of a chat so far; of "" all.
func (s *stream) of(chat string) []*deskv1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var events []*deskv1.Event
	for _, e := range s.events {
		if chat == "" || e.GetChatId() == chat {
			events = append(events, e)
		}
	}
	return events
}

// unsettled counts the events that wait for their acknowledgement.
func (s *stream) unsettled(chat string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events[min(s.settled, uint64(len(s.events))):] {
		if chat == "" || e.GetChatId() == chat {
			n++
		}
	}
	return n
}

// violations are the rules that were broken so far.
func (s *stream) violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.broken...)
}

// await returns once ok holds, with an error if the stream or ctx ends first.
func (s *stream) await(ctx context.Context, ok func() bool) error {
	for {
		s.mu.Lock()
		changed, ended := s.changed, s.ended
		s.mu.Unlock()
		if ok() {
			return nil
		}
		if ended != nil {
			return fmt.Errorf("the event stream ended: %w", ended)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// state is the latest resume state that an event of the chat carried.
func (s *stream) state(chat string) (state *deskv1.ResumeState) {
	for _, e := range s.of(chat) {
		if e.GetState() != nil {
			state = e.GetState()
		}
	}
	return state
}

// told is which of the texts agents said in a chat, in the order in which they did.
func (s *stream) told(chat string, texts []string) []string { return among(texts, textsOf(s.of(chat))) }

// among is which of the texts what was said holds, in the order in which it was
// said. A desk may say more, such as a greeting.
func among(texts, said []string) (told []string) {
	for _, s := range said {
		if i := slices.IndexFunc(texts, func(text string) bool { return strings.Contains(s, text) }); i >= 0 {
			told = append(told, texts[i])
		}
	}
	return told
}

// textsOf are what agents said, one entry an event, doubles by event id left out
// as a host does. The events are of one chat.
func textsOf(events []*deskv1.Event) (texts []string) {
	seen := map[string]bool{}
	for _, e := range events {
		id := e.GetEventId()
		if id != "" && seen[id] {
			continue
		}
		seen[id] = true
		if m := e.GetMessageToUser(); m != nil {
			texts = append(texts, textOf(m))
		}
	}
	return texts
}

func textOf(m *deskv1.MessageToUser) string {
	var b strings.Builder
	for _, part := range m.GetParts() {
		b.WriteString(part.GetText().GetText())
	}
	return b.String()
}

// heard counts the messages of an agent that hold a text.
func (s *stream) heard(chat, text string) (n int) {
	for _, said := range textsOf(s.of(chat)) {
		if strings.Contains(said, text) {
			n++
		}
	}
	return n
}

// has tells whether an event of the chat fulfils the condition.
func (s *stream) has(chat string, is func(*deskv1.Event) bool) bool {
	return slices.ContainsFunc(s.of(chat), is)
}

func payloadName(e *deskv1.Event) string {
	if e.GetPayload() == nil {
		return "no payload"
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", e.GetPayload()), "*deskv1.Event_")
}

// brokenBy lists the rules of the contract that an event breaks by itself.
func brokenBy(e *deskv1.Event, maxBytes int) (rules []string) {
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			rules = append(rules, fmt.Sprintf(format, args...))
		}
	}
	wrong(proto.Size(e) > maxBytes, "it has %d bytes, at most %d are allowed", proto.Size(e), maxBytes)
	wrong(e.GetChatId() == "", "it names no chat")
	id := func(what, id string) {
		wrong(len(id) > deskv1.MaxIDBytes, "its %s has %d bytes, at most %d are allowed", what, len(id), deskv1.MaxIDBytes)
	}
	id("event_id", e.GetEventId())
	rules = append(rules, brokenByState(e.GetState())...)
	link := func(what, address string) {
		u, err := url.Parse(address)
		wrong(err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https", "the link of its %s is no http or https address", what)
	}
	agent := func(a *deskv1.Agent) {
		id("agent id", a.GetId())
		if a.GetAvatarUrl() != "" {
			link("agent's picture", a.GetAvatarUrl())
		}
	}
	switch p := e.GetPayload().(type) {
	case nil:
		wrong(true, "it has no payload")
	case *deskv1.Event_AgentJoined:
		wrong(p.AgentJoined.GetAgent() == nil, "it names no agent")
		agent(p.AgentJoined.GetAgent())
	case *deskv1.Event_TransferStarted:
		agent(p.TransferStarted.GetAgent())
	case *deskv1.Event_AgentLeft:
		id("agent_id", p.AgentLeft.GetAgentId())
	case *deskv1.Event_AgentTyping:
		id("agent_id", p.AgentTyping.GetAgentId())
	case *deskv1.Event_ErrorStatus:
		wrong(p.ErrorStatus.GetKind() == deskv1.ErrorKind_ERROR_KIND_UNSPECIFIED, "it has no kind")
		id("message_id", p.ErrorStatus.GetMessageId())
	case *deskv1.Event_StateSaved:
		wrong(e.GetState() == nil, "it carries no state")
	case *deskv1.Event_MessageToUser:
		m := p.MessageToUser
		id("message_id", m.GetMessageId())
		id("agent_id", m.GetAgentId())
		wrong(len(m.GetParts()) == 0, "the message has no parts")
		for _, part := range m.GetParts() {
			switch k := part.GetKind().(type) {
			case nil:
				wrong(true, "a part is of no kind")
			case *deskv1.MessagePart_Image:
				link("image", k.Image.GetUrl())
			case *deskv1.MessagePart_Video:
				link("video", k.Video.GetUrl())
			case *deskv1.MessagePart_Link:
				link("link", k.Link.GetUrl())
			case *deskv1.MessagePart_File:
				link("file", k.File.GetUrl())
			}
		}
	}
	return rules
}

// brokenByState lists the rules that a resume state breaks; nil breaks none.
func brokenByState(state *deskv1.ResumeState) (rules []string) {
	if state == nil {
		return nil
	}
	if state.GetFormat() == 0 {
		rules = append(rules, "its resume state has format 0; formats begin at 1")
	}
	if n := len(state.GetData()); n > deskv1.MaxStateBytes {
		rules = append(rules, fmt.Sprintf("its resume state has %d bytes, at most %d are allowed", n, deskv1.MaxStateBytes))
	}
	return rules
}
