package host

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

// TestClientThatDoesNotReadCostsLittle writes to a client that does not read
// until the system takes no more.
func TestClientThatDoesNotReadCostsLittle(t *testing.T) {
	written := make(chan int, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n, piece := 0, make([]byte, 8<<10)
		for {
			// A client that reads takes a piece at once.
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				t.Error(err)
			}
			_, err := w.Write(piece)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				written <- n
				return
			}
			if err != nil {
				t.Error(err)
			}
			n += len(piece)
		}
	}))
	server.Config.ConnContext = boundWrites
	server.Start()
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: host\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if n := <-written; n > 8*writeBuffer {
		t.Errorf("the system holds %d KiB for a client that does not read", n>>10)
	} else {
		t.Logf("%d KiB", n>>10)
	}
}
