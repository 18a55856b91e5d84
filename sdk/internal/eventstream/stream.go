// Package eventstream is the plugin's end of the Events stream: it queues
// events, sends them in batches within the host's windows, and tells each
// sender what became of its event.
//
// It owns the order of events, the sequence numbers and the windows. It knows
// the wire's messages but neither the SDK's types nor what an event means; it
// is called by package sdk only.
package eventstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// ErrClosed says that the stream has ended.
var ErrClosed = errors.New("event stream closed")

// Conn is one run of the Events call, as gRPC hands it to the server.
type Conn interface {
	Send(*deskv1.EventsResponse) error
	Recv() (*deskv1.EventsRequest, error)
}

// overhead is what an event needs in a batch beside its own fields: its
// sequence number, and the tag and length of the element.
const overhead = 16

// Stream is the queue of events of a process. Its methods may be called
// concurrently.
type Stream struct {
	// wake holds a token when there may be something to send.
	wake chan struct{}
	// done is closed when the stream has ended.
	done chan struct{}

	mu     sync.Mutex
	opened bool
	closed bool
	limits limits
	chats  map[string]*chat
	// ready lists the chats that may have an event to send, in turn.
	ready []*chat
	// sent holds the events that are not settled, in the order of seq; the
	// first has the number base.
	sent []*pending
	base uint64
	// lost says that the stream ended with events that were not settled.
	lost bool
}

// limits are what the host says in EventsOpen.
type limits struct {
	window, chatWindow                 int
	batchEvents, batchBytes, eventSize int
}

// chat is the queue of one chat. It exists while it has events.
type chat struct {
	id      string
	waiting []*pending
	// sent counts the chat's events in Stream.sent.
	sent int
	// ready says that the chat is listed in Stream.ready.
	ready bool
}

// pending is one event on its way. What became of it is written before done is
// closed.
type pending struct {
	event   *deskv1.Event
	size    int
	chat    *chat
	done    chan struct{}
	refusal *deskv1.Refusal
	err     error
}

// New returns a stream that queues until Run opens it.
func New() *Stream {
	return &Stream{
		wake:  make(chan struct{}, 1),
		done:  make(chan struct{}),
		chats: map[string]*chat{},
		base:  1,
	}
}

// Emit queues the event and waits until the host has settled it. It returns the
// host's refusal if there is one, the error of ctx if that ended first, or
// ErrClosed. Events of one chat are sent in the order of the calls. The event
// belongs to the stream from now on.
func (s *Stream) Emit(ctx context.Context, event *deskv1.Event) (*deskv1.Refusal, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &pending{event: event, size: encodedSize(event), done: make(chan struct{})}
	if refusal := tooLarge(p.size, deskv1.MaxEventBytes); refusal != nil {
		return refusal, nil
	}
	if !s.enqueue(p) {
		return nil, ErrClosed
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		if !s.withdraw(p) {
			return nil, ctx.Err()
		}
	}
	return p.refusal, p.err
}

// CheckSize returns the refusal of an event that is over the contract's limit,
// or nil. A host may have a lower one, which it says when it opens the stream.
func CheckSize(event *deskv1.Event) *deskv1.Refusal {
	return tooLarge(encodedSize(event), deskv1.MaxEventBytes)
}

func encodedSize(event *deskv1.Event) int { return proto.Size(event) + overhead }

// tooLarge returns the refusal of an event over a limit, or nil.
func tooLarge(size, limit int) *deskv1.Refusal {
	if size <= limit {
		return nil
	}
	return &deskv1.Refusal{
		Code:   deskv1.RefusalCode_REFUSAL_CODE_TOO_LARGE,
		Reason: fmt.Sprintf("the event has %d bytes encoded, the limit is %d", size, limit),
	}
}

func (s *Stream) enqueue(p *pending) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	id := p.event.GetChatId()
	c := s.chats[id]
	if c == nil {
		c = &chat{id: id}
		s.chats[id] = c
	}
	p.chat = c
	c.waiting = append(c.waiting, p)
	s.makeReady(c)
	s.mu.Unlock()
	s.signal()
	return true
}

// withdraw gives up on an event whose sender waits no longer, and takes it out
// of the queue if it has not been sent. It tells whether the event has been
// settled meanwhile.
func (s *Stream) withdraw(p *pending) (settled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-p.done:
		return true
	default:
	}
	if i := slices.Index(p.chat.waiting, p); i >= 0 {
		p.chat.waiting = slices.Delete(p.chat.waiting, i, i+1)
		s.release(p.chat)
		close(p.done) // for Flush
	}
	return false
}

// makeReady lists a chat that may have something to send. The lock is held.
func (s *Stream) makeReady(c *chat) {
	if !c.ready {
		c.ready = true
		s.ready = append(s.ready, c)
	}
}

// release forgets an event of a chat that has left. The lock is held.
func (s *Stream) release(c *chat) {
	if len(c.waiting) == 0 && c.sent == 0 {
		delete(s.chats, c.id)
	}
}

func (s *Stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Flush waits until all events that are queued or unsettled now have been settled
// or withdrawn, ctx ends or the stream does. It does not wait for those that come later.
func (s *Stream) Flush(ctx context.Context) error {
	s.mu.Lock()
	lost, all := s.lost, s.unsettled()
	s.mu.Unlock()
	if lost {
		return ErrClosed
	}
	for _, p := range all {
		select {
		case <-p.done:
			if p.err != nil {
				return p.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// unsettled lists the events that are queued or sent. The lock is held.
func (s *Stream) unsettled() []*pending {
	all := slices.Clone(s.sent)
	for _, c := range s.chats {
		all = append(all, c.waiting...)
	}
	return all
}

// Run serves the stream until it ends, then fails all events that are queued or
// unsettled, and all later ones. It returns nil if the host ended the stream,
// and an error if it broke or the host broke its rules. A Stream is run once. What still waits in
// conn.Recv when Run returns ends with the call that conn belongs to.
func (s *Stream) Run(conn Conn) error {
	if !s.claim() {
		return errors.New("the host opened the event stream twice")
	}
	received := make(chan error, 1)
	go func() {
		err := s.receive(conn)
		s.close()
		received <- err
	}()
	if err := s.send(conn); err != nil {
		s.close()
		return err
	}
	return <-received
}

func (s *Stream) claim() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.opened
	s.opened = true
	return first
}

// receive takes the host's limits, then its acknowledgements.
func (s *Stream) receive(conn Conn) error {
	first, err := conn.Recv()
	if err != nil {
		return fmt.Errorf("event stream: %w", err)
	}
	open := first.GetOpen()
	if open == nil {
		return errors.New("event stream: the host's first message must be EventsOpen")
	}
	s.open(open)
	for {
		req, err := conn.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("event stream: %w", err)
		}
		switch kind := req.GetKind().(type) {
		case *deskv1.EventsRequest_Ack:
			if err := s.settle(kind.Ack); err != nil {
				return err
			}
		case *deskv1.EventsRequest_Open:
			return errors.New("event stream: the host must send EventsOpen once")
		default: // of a host that knows more
		}
	}
}

func (s *Stream) open(o *deskv1.EventsOpen) {
	window := bound(o.GetWindow(), math.MaxInt32, deskv1.DefaultWindow)
	l := limits{
		window:      window,
		chatWindow:  bound(o.GetChatWindow(), window, max(1, window/4)),
		batchEvents: bound(o.GetMaxBatchEvents(), deskv1.MaxBatchEvents, deskv1.MaxBatchEvents),
		batchBytes:  bound(o.GetMaxBatchBytes(), deskv1.MaxBatchBytes, deskv1.MaxBatchBytes),
	}
	l.eventSize = min(bound(o.GetMaxEventBytes(), deskv1.MaxEventBytes, deskv1.MaxEventBytes), l.batchBytes)
	s.mu.Lock()
	s.limits = l
	s.mu.Unlock()
	s.signal()
}

// bound is what the host said, at most limit, or fallback if it said nothing.
func bound(said uint32, limit, fallback int) int {
	if said == 0 {
		return fallback
	}
	return int(min(int64(said), int64(limit)))
}

// settle tells the senders of all events up to ack.Seq what became of them.
func (s *Stream) settle(ack *deskv1.EventsAck) error {
	s.mu.Lock()
	next := s.base + uint64(len(s.sent))
	if ack.GetSeq() >= next {
		s.mu.Unlock()
		return fmt.Errorf("event stream: the host acknowledged event %d, the last one sent is %d", ack.GetSeq(), next-1)
	}
	for _, r := range ack.GetRefusals() {
		if r.GetSeq() < s.base || r.GetSeq() > ack.GetSeq() {
			s.mu.Unlock()
			return fmt.Errorf("event stream: the host refused event %d in an acknowledgement of %d to %d",
				r.GetSeq(), s.base, ack.GetSeq())
		}
		s.sent[r.GetSeq()-s.base].refusal = r
	}
	var settled []*pending
	if ack.GetSeq() >= s.base {
		n := ack.GetSeq() - s.base + 1
		settled, s.sent = s.sent[:n:n], s.sent[n:]
		s.base += n
	}
	for _, p := range settled {
		p.chat.sent--
		if len(p.chat.waiting) > 0 {
			s.makeReady(p.chat)
		}
		s.release(p.chat)
	}
	s.mu.Unlock()
	s.signal()
	for _, p := range settled {
		close(p.done)
	}
	return nil
}

// send sends batches until the stream is closed or conn fails.
func (s *Stream) send(conn Conn) error {
	for {
		batch := s.next()
		if len(batch) == 0 {
			select {
			case <-s.wake:
				// Whoever is about to emit goes first. Nobody is made to wait,
				// and batches grow from 1 to about 30 events under load, which
				// doubles the throughput.
				runtime.Gosched()
				continue
			case <-s.done:
				return nil
			}
		}
		if err := conn.Send(&deskv1.EventsResponse{Events: batch}); err != nil {
			return fmt.Errorf("event stream: %w", err)
		}
	}
}

// next takes the events of the next batch from the queue, chat by chat in turn.
// It is empty if there are none, or no window for them.
func (s *Stream) next() []*deskv1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var batch []*deskv1.Event
	for bytes := 0; len(s.ready) > 0 && len(batch) < s.limits.batchEvents && len(s.sent) < s.limits.window; {
		c := s.ready[0]
		if len(c.waiting) > 0 && c.sent < s.limits.chatWindow {
			p := c.waiting[0]
			if refusal := tooLarge(p.size, s.limits.eventSize); refusal != nil {
				c.waiting = c.waiting[1:]
				p.refusal = refusal
				close(p.done)
				s.release(c)
				continue
			}
			if bytes += p.size; bytes > s.limits.batchBytes {
				break
			}
			c.waiting = c.waiting[1:]
			c.sent++
			p.event.Seq = s.base + uint64(len(s.sent))
			s.sent = append(s.sent, p)
			batch = append(batch, p.event)
		}
		s.ready = s.ready[1:]
		c.ready = false
		if len(c.waiting) > 0 && c.sent < s.limits.chatWindow {
			s.makeReady(c)
		}
	}
	return batch
}

// close ends the stream: nobody waits any longer.
func (s *Stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	close(s.done)
	for _, p := range s.unsettled() {
		p.err = ErrClosed
		close(p.done)
		s.lost = true
	}
	s.chats, s.ready, s.sent = nil, nil, nil
}
