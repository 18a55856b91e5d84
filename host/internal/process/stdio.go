package process

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
)

// go-plugin redirects what a Go plugin prints on os.Stdout and os.Stderr into a
// stream of its own service, and the plugin blocks unless somebody reads it.
// The service's Go types are internal to go-plugin; this is the schema:
//
//	message StdioData { Channel channel = 1; bytes data = 2; }
//	enum Channel { INVALID = 0; STDOUT = 1; STDERR = 2; }
const (
	stdioMethod  = "/plugin.GRPCStdio/StreamStdio"
	stdioChannel = 1
	stdioData    = 2
	stdioStderr  = 2
)

// copyStdio reads that stream until the connection is closed, or the plugin has
// no such service.
func copyStdio(conn *grpc.ClientConn, out *output) {
	// The stream lives as long as the connection, which Stop closes.
	stream, err := conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true}, stdioMethod)
	if err != nil {
		return
	}
	if stream.SendMsg(&emptypb.Empty{}) != nil || stream.CloseSend() != nil {
		return
	}
	stdout := &lineWriter{limit: maxLogLine, emit: out.stdout}
	stderr := &lineWriter{limit: maxLogLine, emit: out.stderr}
	defer stdout.flush()
	defer stderr.flush()
	for {
		// A message of which no field is known keeps all of them as they came.
		var msg emptypb.Empty
		if stream.RecvMsg(&msg) != nil {
			return
		}
		channel, data := parseStdio(msg.ProtoReflect().GetUnknown())
		out.pace(data)
		// Neither Write fails.
		if channel == stdioStderr {
			_, _ = stderr.Write(data)
		} else {
			_, _ = stdout.Write(data)
		}
	}
}

// parseStdio reads the fields of a StdioData. The bytes have passed the
// protobuf decoder, so they are well-formed.
func parseStdio(b []byte) (channel uint64, data []byte) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return channel, data
		}
		b = b[n:]
		switch {
		case num == stdioChannel && typ == protowire.VarintType:
			channel, n = protowire.ConsumeVarint(b)
		case num == stdioData && typ == protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return channel, data
		}
		b = b[n:]
	}
	return channel, data
}
