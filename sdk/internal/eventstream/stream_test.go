package eventstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

var errLost = errors.New("the call is over")

// fakeHost is the host's end of the stream. A send hands its batch to the test.
type fakeHost struct {
	over     <-chan struct{} // the end of the call
	requests chan *deskv1.EventsRequest
	batches  chan []*deskv1.Event
}

func (h *fakeHost) Recv() (*deskv1.EventsRequest, error) {
	select {
	case r, ok := <-h.requests:
		if !ok {
			return nil, io.EOF
		}
		return r, nil
	case <-h.over:
		return nil, errLost
	}
}

func (h *fakeHost) Send(r *deskv1.EventsResponse) error {
	select {
	case h.batches <- r.GetEvents():
		return nil
	case <-h.over:
		return errLost
	}
}

func (h *fakeHost) open(o *deskv1.EventsOpen) {
	h.requests <- &deskv1.EventsRequest{Kind: &deskv1.EventsRequest_Open{Open: o}}
}

func (h *fakeHost) ack(seq uint64, refusals ...*deskv1.Refusal) {
	h.requests <- &deskv1.EventsRequest{Kind: &deskv1.EventsRequest_Ack{Ack: &deskv1.EventsAck{Seq: seq, Refusals: refusals}}}
}

// batch is the batch that has been sent by now, as "chat/event chat/event".
func (h *fakeHost) batch() string {
	synctest.Wait()
	select {
	case events := <-h.batches:
		var names []string
		for _, e := range events {
			names = append(names, e.GetChatId()+"/"+e.GetEventId())
		}
		return strings.Join(names, " ")
	default:
		return "nothing"
	}
}

type result struct {
	refusal *deskv1.Refusal
	err     error
}

type fixture struct {
	*testing.T

	s    *Stream
	host *fakeHost
	// broken ends the call as a lost transport does; ended is what Run returned.
	broken context.CancelFunc
	ended  chan error
}

// start runs a stream in a bubble. The call ends when Run returns, as in gRPC.
func start(t *testing.T, test func(f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := &fixture{
			T: t, s: New(), broken: cancel, ended: make(chan error, 1),
			host: &fakeHost{over: ctx.Done(), requests: make(chan *deskv1.EventsRequest), batches: make(chan []*deskv1.Event)},
		}
		go func() {
			f.ended <- f.s.Run(f.host)
			cancel()
		}()
		test(f)
		cancel()
		synctest.Wait()
	})
}

// emit begins to emit and returns when the event is queued.
func (f *fixture) emit(ctx context.Context, chat, id string) chan result {
	f.Helper()
	return f.emitEvent(ctx, &deskv1.Event{ChatId: chat, EventId: id})
}

func (f *fixture) emitEvent(ctx context.Context, e *deskv1.Event) chan result {
	f.Helper()
	r := make(chan result, 1)
	go func() {
		refusal, err := f.s.Emit(ctx, e)
		r <- result{refusal, err}
	}()
	synctest.Wait()
	return r
}

func (f *fixture) sent(want string) {
	f.Helper()
	if got := f.host.batch(); got != want {
		f.Errorf("sent %s, want %s", got, want)
	}
}

func (f *fixture) settled(r chan result) {
	f.Helper()
	synctest.Wait()
	select {
	case got := <-r:
		if got.err != nil || got.refusal != nil {
			f.Errorf("Emit = %v, %v, want success", got.refusal, got.err)
		}
	default:
		f.Error("Emit still waits")
	}
}

func (f *fixture) failed(r chan result, want error) {
	f.Helper()
	synctest.Wait()
	select {
	case got := <-r:
		if !errors.Is(got.err, want) {
			f.Errorf("Emit = %v, %v, want the error %v", got.refusal, got.err, want)
		}
	default:
		f.Errorf("Emit still waits, want the error %v", want)
	}
}

func (f *fixture) waits(r chan result) {
	f.Helper()
	synctest.Wait()
	select {
	case got := <-r:
		f.Errorf("Emit = %v, %v, want it to wait", got.refusal, got.err)
	default:
	}
}

func TestWhatANewerHostSendsIsIgnored(t *testing.T) {
	start(t, func(f *fixture) {
		f.host.open(&deskv1.EventsOpen{})
		f.host.requests <- new(deskv1.EventsRequest)
		a := f.emit(f.Context(), "c", "1")
		f.sent("c/1")
		f.host.ack(1)
		f.settled(a)
	})
}

func TestEmitReturnsOnAcknowledgementOnly(t *testing.T) {
	start(t, func(f *fixture) {
		a := f.emit(f.Context(), "c", "1")
		f.sent("nothing") // the host has not opened the stream
		f.host.open(&deskv1.EventsOpen{})
		f.sent("c/1")
		b := f.emit(f.Context(), "c", "2")
		f.sent("c/2")
		f.waits(a)
		f.host.ack(1)
		f.settled(a)
		f.waits(b)
		f.host.ack(1) // again, which changes nothing
		f.waits(b)
		f.host.ack(2)
		f.settled(b)
	})
}

func TestSequenceNumbersHaveNoHoles(t *testing.T) {
	start(t, func(f *fixture) {
		f.host.open(&deskv1.EventsOpen{})
		for want := uint64(1); want <= 5; want++ {
			r := f.emit(f.Context(), "c", "x")
			events := <-f.host.batches
			if len(events) != 1 || events[0].GetSeq() != want {
				f.Fatalf("sent %v, want one event with seq %d", events, want)
			}
			f.host.ack(want)
			f.settled(r)
		}
	})
}

func TestEventsOfAChatKeepTheOrderOfTheCalls(t *testing.T) {
	start(t, func(f *fixture) {
		var want []string
		for i := range 10 {
			f.emit(f.Context(), "c", fmt.Sprint(i))
			want = append(want, fmt.Sprintf("c/%d", i))
		}
		f.host.open(&deskv1.EventsOpen{})
		f.sent(strings.Join(want, " "))
		f.host.ack(10)
	})
}

func TestABatchHoldsWhatIsQueuedUpToTheLimits(t *testing.T) {
	t.Run("events", func(t *testing.T) {
		start(t, func(f *fixture) {
			for range 150 {
				f.emit(f.Context(), "c", "x")
			}
			f.host.open(&deskv1.EventsOpen{})
			for _, want := range []int{64, 64, 22} {
				if got := len(<-f.host.batches); got != want {
					f.Errorf("a batch of %d events, want %d", got, want)
				}
			}
		})
	})
	t.Run("events by the host", func(t *testing.T) {
		start(t, func(f *fixture) {
			for i := 1; i <= 3; i++ {
				f.emit(f.Context(), "c", fmt.Sprint(i))
			}
			f.host.open(&deskv1.EventsOpen{MaxBatchEvents: 2})
			f.sent("c/1 c/2")
			f.sent("c/3")
		})
	})
	t.Run("bytes", func(t *testing.T) {
		start(t, func(f *fixture) {
			total := 0
			for range 30 {
				f.emitEvent(f.Context(), &deskv1.Event{ChatId: "c", State: &deskv1.ResumeState{Data: make([]byte, 60<<10)}})
			}
			f.host.open(&deskv1.EventsOpen{})
			for total < 30 {
				events := <-f.host.batches
				total += len(events)
				if size := proto.Size(&deskv1.EventsResponse{Events: events}); size > deskv1.MaxBatchBytes {
					f.Errorf("a batch of %d bytes, over the limit", size)
				}
				synctest.Wait()
			}
		})
	})
}

func TestAnEventOverTheLimitIsRefusedAndHoldsNobodyUp(t *testing.T) {
	wantRefusal := func(f *fixture, r chan result) {
		f.Helper()
		synctest.Wait()
		got := <-r
		if got.refusal.GetCode() != deskv1.RefusalCode_REFUSAL_CODE_TOO_LARGE || got.err != nil {
			f.Errorf("Emit = %v, %v, want TOO_LARGE", got.refusal, got.err)
		}
	}
	big := func(size int) *deskv1.Event {
		return &deskv1.Event{ChatId: "c", State: &deskv1.ResumeState{Data: make([]byte, size)}}
	}
	start(t, func(f *fixture) {
		wantRefusal(f, f.emitEvent(f.Context(), big(deskv1.MaxEventBytes)))
		tooBig := f.emitEvent(f.Context(), big(2000))
		small := f.emit(f.Context(), "c", "small")
		f.host.open(&deskv1.EventsOpen{MaxEventBytes: 1000})
		wantRefusal(f, tooBig)
		f.sent("c/small")
		f.host.ack(1)
		f.settled(small)
	})
}

func TestWindow(t *testing.T) {
	start(t, func(f *fixture) {
		f.host.open(&deskv1.EventsOpen{Window: 2, ChatWindow: 2})
		a := f.emit(f.Context(), "a", "1")
		f.sent("a/1")
		b := f.emit(f.Context(), "b", "1")
		f.sent("b/1")
		c := f.emit(f.Context(), "c", "1")
		f.sent("nothing")
		f.host.ack(1)
		f.settled(a)
		f.sent("c/1")
		f.host.ack(3)
		f.settled(b)
		f.settled(c)
	})
}

func TestAChatOverItsShareBlocksNoOther(t *testing.T) {
	start(t, func(f *fixture) {
		f.host.open(&deskv1.EventsOpen{Window: 8}) // two a chat
		first := f.emit(f.Context(), "loud", "1")
		f.sent("loud/1")
		for i := 2; i <= 5; i++ {
			f.emit(f.Context(), "loud", fmt.Sprint(i))
		}
		f.sent("loud/2")
		f.sent("nothing")
		quiet := f.emit(f.Context(), "quiet", "1")
		f.sent("quiet/1")
		f.host.ack(1)
		f.settled(first)
		f.sent("loud/3")
		f.waits(quiet)
		f.host.ack(4)
		f.settled(quiet)
		f.sent("loud/4 loud/5")
	})
}

func TestChatsTakeTurns(t *testing.T) {
	start(t, func(f *fixture) {
		for i := 1; i <= 3; i++ {
			f.emit(f.Context(), "a", fmt.Sprint(i))
		}
		f.emit(f.Context(), "b", "1")
		f.host.open(&deskv1.EventsOpen{})
		f.sent("a/1 b/1 a/2 a/3")
	})
}

func TestRefusalsReachTheirEvents(t *testing.T) {
	start(t, func(f *fixture) {
		a, b, c := f.emit(f.Context(), "c", "1"), f.emit(f.Context(), "c", "2"), f.emit(f.Context(), "c", "3")
		f.host.open(&deskv1.EventsOpen{})
		f.sent("c/1 c/2 c/3")
		f.host.ack(3, &deskv1.Refusal{Seq: 2, Code: deskv1.RefusalCode_REFUSAL_CODE_CHAT_OVER, Reason: "the chat has ended"})
		f.settled(a)
		f.settled(c)
		got := <-b
		if got.err != nil || got.refusal.GetReason() != "the chat has ended" {
			f.Errorf("Emit = %v, %v, want the refusal", got.refusal, got.err)
		}
	})
}

func TestCancellation(t *testing.T) {
	t.Run("before the call", func(t *testing.T) {
		start(t, func(f *fixture) {
			ctx, cancel := context.WithCancel(f.Context())
			cancel()
			f.failed(f.emit(ctx, "c", "1"), context.Canceled)
			f.host.open(&deskv1.EventsOpen{})
			f.sent("nothing")
		})
	})
	t.Run("while queued: never sent", func(t *testing.T) {
		start(t, func(f *fixture) {
			ctx, cancel := context.WithCancel(f.Context())
			a, b, c := f.emit(f.Context(), "c", "1"), f.emit(ctx, "c", "2"), f.emit(f.Context(), "c", "3")
			cancel()
			f.failed(b, context.Canceled)
			f.host.open(&deskv1.EventsOpen{})
			f.sent("c/1 c/3")
			f.host.ack(2)
			f.settled(a)
			f.settled(c)
		})
	})
	t.Run("once sent: it may still become durable", func(t *testing.T) {
		start(t, func(f *fixture) {
			f.host.open(&deskv1.EventsOpen{Window: 1})
			ctx, cancel := context.WithCancel(f.Context())
			a := f.emit(ctx, "c", "1")
			f.sent("c/1")
			cancel()
			f.failed(a, context.Canceled)
			b := f.emit(f.Context(), "c", "2")
			f.sent("nothing") // it still counts
			f.host.ack(1)
			f.sent("c/2")
			f.host.ack(2)
			f.settled(b)
		})
	})
	t.Run("of all of a chat leaves nothing behind", func(t *testing.T) {
		start(t, func(f *fixture) {
			ctx, cancel := context.WithCancel(f.Context())
			a, b := f.emit(ctx, "c", "1"), f.emit(ctx, "c", "2")
			cancel()
			f.failed(a, context.Canceled)
			f.failed(b, context.Canceled)
			if n := len(f.s.unsettled()); len(f.s.chats) != 0 || n != 0 {
				f.Errorf("%d chats and %d events are left", len(f.s.chats), n)
			}
			again := f.emit(f.Context(), "c", "3")
			f.host.open(&deskv1.EventsOpen{})
			f.sent("c/3")
			f.host.ack(1)
			f.settled(again)
			if len(f.s.chats) != 0 {
				f.Errorf("%d chats are left", len(f.s.chats))
			}
		})
	})
}

func TestTheEndOfTheStreamReachesEverybody(t *testing.T) {
	for name, end := range map[string]func(f *fixture){
		"host closes":     func(f *fixture) { close(f.host.requests) },
		"transport lost":  func(f *fixture) { f.broken() },
		"lost in a batch": func(f *fixture) { f.emit(f.Context(), "b", "1"); f.broken() },
	} {
		t.Run(name, func(t *testing.T) {
			start(t, func(f *fixture) {
				f.host.open(&deskv1.EventsOpen{Window: 4})
				sent := f.emit(f.Context(), "c", "1")
				f.sent("c/1")
				queued := f.emit(f.Context(), "c", "2")
				flushed := make(chan error, 1)
				go func() { flushed <- f.s.Flush(f.Context()) }()
				end(f)
				f.failed(sent, ErrClosed)
				f.failed(queued, ErrClosed)
				f.failed(f.emit(f.Context(), "c", "3"), ErrClosed)
				if err := <-flushed; !errors.Is(err, ErrClosed) {
					f.Errorf("Flush = %v, want ErrClosed", err)
				}
				if err := <-f.ended; (err == nil) != (name == "host closes") {
					f.Errorf("Run = %v", err)
				}
			})
		})
	}
}

func TestAHostThatBreaksTheRulesEndsTheStream(t *testing.T) {
	for name, broken := range map[string]func(f *fixture){
		"ack of what was not sent": func(f *fixture) { f.host.ack(2) },
		"refusal of what was not acknowledged": func(f *fixture) {
			f.host.ack(0, &deskv1.Refusal{Seq: 1})
		},
		"refusal of what was settled": func(f *fixture) {
			f.host.ack(1)
			f.host.ack(1, &deskv1.Refusal{Seq: 1})
		},
		"open twice": func(f *fixture) { f.host.open(&deskv1.EventsOpen{}) },
	} {
		t.Run(name, func(t *testing.T) {
			start(t, func(f *fixture) {
				f.host.open(&deskv1.EventsOpen{})
				f.emit(f.Context(), "c", "1")
				f.sent("c/1")
				broken(f)
				if err := <-f.ended; err == nil {
					f.Error("Run returned no error")
				}
				f.failed(f.emit(f.Context(), "c", "2"), ErrClosed)
			})
		})
	}
	t.Run("ack first", func(t *testing.T) {
		start(t, func(f *fixture) {
			f.host.ack(0)
			if err := <-f.ended; err == nil {
				f.Error("Run returned no error")
			}
		})
	})
}

func TestTheStreamIsRunOnce(t *testing.T) {
	start(t, func(f *fixture) {
		f.host.open(&deskv1.EventsOpen{})
		if err := f.s.Run(f.host); err == nil {
			f.Error("a second Run was accepted")
		}
		r := f.emit(f.Context(), "c", "1") // the first one goes on
		f.sent("c/1")
		f.host.ack(1)
		f.settled(r)
	})
}

func TestFlushWaitsForTheLastAcknowledgement(t *testing.T) {
	start(t, func(f *fixture) {
		if err := f.s.Flush(f.Context()); err != nil {
			f.Errorf("Flush with nothing queued = %v", err)
		}
		f.emit(f.Context(), "c", "1")
		f.emit(f.Context(), "d", "1")
		flushed := make(chan error, 1)
		go func() { flushed <- f.s.Flush(f.Context()) }()
		f.host.open(&deskv1.EventsOpen{})
		f.sent("c/1 d/1")
		f.host.ack(1)
		synctest.Wait()
		select {
		case err := <-flushed:
			f.Errorf("Flush = %v with an event not settled", err)
		default:
		}
		f.host.ack(2)
		if err := <-flushed; err != nil {
			f.Errorf("Flush = %v", err)
		}
		ctx, cancel := context.WithCancel(f.Context())
		f.emit(f.Context(), "c", "2")
		cancel()
		if err := f.s.Flush(ctx); !errors.Is(err, context.Canceled) {
			f.Errorf("Flush with its ctx ended = %v", err)
		}
	})
}

func TestFlushDoesNotWaitForWhatComesLater(t *testing.T) {
	start(t, func(f *fixture) {
		f.host.open(&deskv1.EventsOpen{ChatWindow: 1})
		f.emit(f.Context(), "c", "1")
		f.emit(f.Context(), "c", "2")
		ctx, cancel := context.WithCancel(f.Context())
		f.emit(ctx, "c", "given up")
		flushed := make(chan error, 1)
		go func() { flushed <- f.s.Flush(f.Context()) }()
		synctest.Wait()
		f.emit(f.Context(), "d", "1")
		cancel()
		f.sent("c/1")
		f.sent("d/1")
		f.host.ack(1)
		f.sent("c/2")
		select {
		case err := <-flushed:
			f.Errorf("Flush = %v with an event not settled", err)
		default:
		}
		f.host.ack(3)
		f.emit(f.Context(), "e", "1")
		synctest.Wait()
		select {
		case err := <-flushed:
			if err != nil {
				f.Errorf("Flush = %v", err)
			}
		default:
			f.Error("Flush waits for later events")
		}
	})
}
