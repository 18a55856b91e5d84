package api

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

	"github.com/deskhost/deskhost/host/internal/session"
)

// rawDial connects to pipes; the connection ends with the test.
func rawDial(t *testing.T, p *pipes) net.Conn {
	t.Helper()
	conn, err := p.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Hour)) // so that a test fails in place of waiting
	return conn
}

// A connection whose body does not come is given up, whatever was answered: the
// server waits for the rest of a body that the call did not want.
func TestBodiesThatStallAreGivenUp(t *testing.T) {
	const own = "/v1/sessions/" + testID
	for _, tt := range []struct {
		name   string
		target string // method and path
		header string
		body   string // what is sent of it
		status int
	}{
		{"declared", "POST " + own + "/typing", "Content-Type: application/json\r\nContent-Length: 10", "{", 408},
		{"in chunks", "POST " + own + "/typing", "Content-Type: application/json\r\nTransfer-Encoding: chunked", "1\r\n{\r\n", 408},
		{"over the limit", "POST " + own + "/typing", "Content-Type: application/json\r\nTransfer-Encoding: chunked", "2000\r\n" + strings.Repeat("x", 0x2000) + "\r\n", 413},
		{"of another media type", "POST " + own + "/typing", "Content-Length: 10", "", 415},
		{"at no path", "POST /nowhere", "Content-Length: 10", "", 404},
		{"of a foreign page", "POST " + own + "/typing", "Origin: https://evil.test\r\nContent-Length: 10", "", 403},
		{"not asked for", "GET " + own, "Content-Length: 10", "", 408},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limits := unlimited()
				limits.BodyBytes = 0x1000
				p, stop := servePipes(t, newAPI(t, Options{Sessions: newFake(t), Limits: limits}))
				defer stop()
				conn := rawDial(t, p)
				start := time.Now()
				go fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: host\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n%s", tt.target, testToken, tt.header, tt.body)
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

// A client that does not read its answer does not keep its connection.
func TestAnswersThatAreNotReadAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := servePipes(t, newAPI(t, Options{Sessions: newFake(t)}))
		defer stop()
		conn := rawDial(t, p)
		if _, err := io.WriteString(conn, "GET /openapi.json HTTP/1.1\r\nHost: host\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(bodyTimeout + DefaultLimits().Call + answerTimeout + time.Second)
		if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	})
}

// A stream that ends after a silence ends whole, and its connection can be used
// again, for as long as it likes.
func TestStreamLeavesItsConnectionUsable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p, stop := servePipes(t, newAPI(t, Options{Sessions: f}))
		defer stop()
		by := &http.Transport{DialContext: p.Dial}
		defer by.CloseIdleConnections()
		s := openStreamBy(t, by, "http://host"+eventsURL)
		time.Sleep(DefaultLimits().SocketWrite + time.Millisecond)
		f.failWith(&session.Error{Code: session.CodeSessionUnknown, Detail: "Gone."})
		for {
			_, err := s.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		_ = s.body.Close()
		f.failWith(nil)
		time.Sleep(2 * time.Minute)
		by.DialContext = func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("the connection of the stream is not used again")
		}
		req, err := http.NewRequest("GET", "http://host/openapi.json", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := by.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Error(err)
		}
	})
}
