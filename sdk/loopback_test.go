package sdk

import (
	"context"
	"net"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// serveLoopback serves a plugin over gRPC on loopback and returns its client.
func serveLoopback(t testing.TB, p Plugin, log hclog.Logger) (*server, deskv1.DeskServiceClient) {
	t.Helper()
	s := newServer(&p, log)
	return s, dial(t, func(g *grpc.Server) { deskv1.RegisterDeskServiceServer(g, s) }, s.serverOptions()...)
}

func dial(t testing.TB, register func(*grpc.Server), opts ...grpc.ServerOption) deskv1.DeskServiceClient {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(opts...)
	register(g)
	served := make(chan error, 1)
	go func() { served <- g.Serve(lis) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(deskv1.MaxMessageBytes), grpc.MaxCallSendMsgSize(deskv1.MaxMessageBytes)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return deskv1.NewDeskServiceClient(conn)
}

// openEvents opens the event stream for the life of the test.
func openEvents(t testing.TB, c deskv1.DeskServiceClient) deskv1.DeskService_EventsClient {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	open := &deskv1.EventsOpen{Window: deskv1.DefaultWindow, ChatWindow: deskv1.DefaultWindow / 4}
	if err := stream.Send(&deskv1.EventsRequest{Kind: &deskv1.EventsRequest_Open{Open: open}}); err != nil {
		t.Fatal(err)
	}
	return stream
}

func ack(seq uint64, refusals ...*deskv1.Refusal) *deskv1.EventsRequest {
	return &deskv1.EventsRequest{Kind: &deskv1.EventsRequest_Ack{Ack: &deskv1.EventsAck{Seq: seq, Refusals: refusals}}}
}
