package sdk

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

var benchText = Text(strings.Repeat("x", 150))

// BenchmarkEmit measures events that are emitted, sent, acknowledged at once,
// and told to their emitters, over gRPC on loopback. stream_floor is the same
// stream with full batches made in advance and no emitters.
func BenchmarkEmit(b *testing.B) {
	for _, emitters := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("emitters=%d", emitters), func(b *testing.B) { benchEmit(b, emitters) })
	}
	b.Run("stream_floor", benchFloor)
}

func benchEmit(b *testing.B, emitters int) {
	s, client := serveLoopback(b, Plugin{Name: "bench"}, hclog.NewNullLogger())
	batches := acknowledge(b, client)
	host := &host{s}
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for i := range emitters {
		wg.Go(func() {
			chat := fmt.Sprintf("0123456789abcdefghijklmnop-%04d", i)
			for left.Add(-1) >= 0 {
				err := host.Emit(context.Background(), &Event{
					ChatID: chat, ID: "event-id", Payload: MessageToUser{MessageID: "message-id", Parts: []Part{benchText}},
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(b.N)/float64(batches.Load()), "events/batch")
}

// acknowledge opens the stream, settles each batch as it comes, and counts them.
func acknowledge(b *testing.B, client deskv1.DeskServiceClient) *atomic.Int64 {
	var batches atomic.Int64
	var wg sync.WaitGroup
	b.Cleanup(wg.Wait) // runs after the stream's own
	stream := openEvents(b, client)
	wg.Go(func() {
		for {
			batch, err := stream.Recv()
			if err != nil {
				return
			}
			batches.Add(1)
			events := batch.GetEvents()
			if err := stream.Send(ack(events[len(events)-1].GetSeq())); err != nil {
				return
			}
		}
	})
	return &batches
}

// bareDesk sends n events in full batches as fast as the stream takes them.
type bareDesk struct {
	deskv1.UnimplementedDeskServiceServer

	n int
}

func (d *bareDesk) Events(stream deskv1.DeskService_EventsServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	var batch deskv1.EventsResponse
	for range deskv1.MaxBatchEvents {
		e, _ := toEvent(&Event{
			ChatID: "0123456789abcdefghijklmnop-0000", ID: "event-id",
			Payload: MessageToUser{MessageID: "message-id", Parts: []Part{benchText}},
		})
		batch.Events = append(batch.Events, e)
	}
	sent, settled := 0, 0
	for settled < d.n {
		for sent < d.n && sent-settled < deskv1.DefaultWindow {
			sent += deskv1.MaxBatchEvents
			batch.Events[deskv1.MaxBatchEvents-1].Seq = uint64(sent)
			if err := stream.Send(&batch); err != nil {
				return err
			}
		}
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		settled = int(r.GetAck().GetSeq())
	}
	return nil
}

func benchFloor(b *testing.B) {
	client := dial(b, func(g *grpc.Server) { deskv1.RegisterDeskServiceServer(g, &bareDesk{n: b.N}) })
	b.ReportAllocs()
	b.ResetTimer()
	stream := openEvents(b, client)
	for {
		batch, err := stream.Recv()
		if err != nil {
			break
		}
		events := batch.GetEvents()
		if err := stream.Send(ack(events[len(events)-1].GetSeq())); err != nil {
			break
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
