package api

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"testing"
)

// BenchmarkIdleSocket reports what an open socket costs while nothing happens,
// the client's end of the connection included.
func BenchmarkIdleSocket(b *testing.B) {
	const sockets = 2000
	f := newFake(b)
	server := serve(b, newAPI(b, Options{Sessions: f}))
	memory := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	conns := make([]net.Conn, sockets)
	for b.Loop() {
		before, goroutines := memory(), runtime.NumGoroutine()
		for i := range conns {
			conns[i] = upgrade(b, server.Listener.Addr().String())
		}
		b.ReportMetric(float64(memory()-before)/sockets, "B/socket")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/sockets, "goroutines/socket")
		for _, c := range conns {
			_ = c.Close()
			<-f.closed
		}
	}
}

// upgrade opens a socket and keeps nothing but the connection.
func upgrade(b *testing.B, address string) net.Conn {
	c, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: host\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: %s, %s%s\r\n\r\n",
		eventsURL, subprotocol, tokenProtocol, testToken); err != nil {
		b.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		b.Fatal(err, resp)
	}
	return c
}
