package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/admin"
)

// oneConn accepts one connection.
type oneConn struct {
	conn chan net.Conn
	done chan struct{}
}

func (l oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l oneConn) Close() error { close(l.done); return nil }
func (oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// dialServer connects to a server, which ends with end.
func dialServer(s *http.Server) (conn net.Conn, end func()) {
	l := oneConn{make(chan net.Conn, 1), make(chan struct{})}
	ours, theirs := net.Pipe()
	l.conn <- theirs
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	_ = ours.SetDeadline(time.Now().Add(time.Hour)) // so that a test fails in place of waiting
	return ours, func() {
		_ = ours.Close()
		_ = s.Close()
		<-served
	}
}

func emptyHost() *Host { return &Host{log: hclog.NewNullLogger()} }

// A connection whose body does not come is given up, whatever was answered.
func TestOperatorsBodiesThatStallAreGivenUp(t *testing.T) {
	refused := func() *http.Server {
		return emptyHost().operatorsServer(admin.New(admin.Options{Token: "secret", Log: hclog.NewNullLogger()}))
	}
	control := func() *http.Server {
		return emptyHost().controlServer(admin.NewControl(admin.Options{Log: hclog.NewNullLogger()}, admin.Verbs{
			Reload: func(context.Context, string) error { return admin.ErrNoDesk },
		}))
	}
	for _, tt := range []struct {
		name   string
		server func() *http.Server
		target string
		body   string // the header that announces it, and what is sent of it
		status int
	}{
		{"refused, declared", refused, "POST /v1/desks", "Content-Length: 10\r\n\r\n{", http.StatusUnauthorized},
		{"refused, in chunks", refused, "GET /metrics", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", http.StatusUnauthorized},
		{"control, declared", control, "POST /v1/desks/support/reload", "Content-Length: 10\r\n\r\n{", http.StatusNotFound},
		{"control, in chunks", control, "GET /nowhere", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", http.StatusNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, end := dialServer(tt.server())
				defer end()
				start := time.Now()
				go fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: host\r\n%s", tt.target, tt.body)
				from := bufio.NewReader(conn)
				resp, err := http.ReadResponse(from, nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != tt.status {
					t.Errorf("got %d, %v", resp.StatusCode, err)
				}
				if _, err := from.ReadByte(); !errors.Is(err, io.EOF) {
					t.Errorf("behind the answer: %v", err)
				}
				if waited := time.Since(start); waited > bodyTimeout+time.Second {
					t.Errorf("the connection was closed after %v", waited)
				}
			})
		})
	}
}

// Who does not read an answer of the operators' listener loses the connection.
func TestOperatorsAnswersThatAreNotReadAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, end := dialServer(emptyHost().operatorsServer(admin.New(admin.Options{Log: hclog.NewNullLogger()})))
		defer end()
		if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(answerTimeout + time.Second)
		if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	})
}

// A call on the control socket may wait for a desk longer than anybody may take to
// send a request, whether it came with a body or without.
func TestControlCallsAreNotCutOff(t *testing.T) {
	for _, body := range []string{"", "{}"} {
		synctest.Test(t, func(t *testing.T) {
			conn, end := dialServer(emptyHost().controlServer(admin.NewControl(admin.Options{Log: hclog.NewNullLogger()}, admin.Verbs{
				Reload: func(ctx context.Context, _ string) error {
					select {
					case <-ctx.Done():
						return errors.New("cut off")
					case <-time.After(3 * answerTimeout):
						return errors.New("the desk is busy")
					}
				},
			})))
			defer end()
			if _, err := fmt.Fprintf(conn, "POST /v1/desks/support/reload HTTP/1.1\r\nHost: host\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(got), "the desk is busy") {
				t.Errorf("answered %q, %v", got, err)
			}
		})
	}
}
