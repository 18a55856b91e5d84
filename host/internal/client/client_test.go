package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

// network is a network of pipes with one server, for bubbles of synctest.
type network struct {
	server *http.Server
	conns  chan net.Conn
	down   atomic.Bool // dialling fails
}

func (n *network) Accept() (net.Conn, error) {
	conn, open := <-n.conns
	if !open {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (n *network) Close() error   { return nil }
func (n *network) Addr() net.Addr { return &net.TCPAddr{} }

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if n.down.Load() {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	select {
	case n.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// inBubble runs a test with a client of a handler in a bubble with its own time.
func inBubble(t *testing.T, handler http.HandlerFunc, test func(t *testing.T, c *Client, n *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &network{conns: make(chan net.Conn)}
		n.server = &http.Server{Handler: handler}
		go n.server.Serve(n)
		c := newClient("http://host.test", n.dial)
		defer func() {
			c.http.CloseIdleConnections()
			close(n.conns)
			n.server.Close()
		}()
		test(t, c, n)
	})
}

func problem(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"code":%q,"detail":"It is so."}`, code)
}

var session = Session{ID: "s1", Token: "secret"}

func TestCallsAreRepeatedWithTheSameID(t *testing.T) {
	t.Parallel()
	var bodies []string
	answers := []func(http.ResponseWriter){
		func(w http.ResponseWriter) { problem(w, http.StatusServiceUnavailable, "stopping") },
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) },
		func(w http.ResponseWriter) { panic(http.ErrAbortHandler) },
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusAccepted) },
	}
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies = append(bodies, fmt.Sprint(r.Method, " ", r.URL.Path, " ", r.Header.Get("Authorization"), " ", string(body)))
		answers[len(bodies)-1](w)
	}, func(t *testing.T, c *Client, _ *network) {
		if err := c.Send(t.Context(), session, "m1", "Hello"); err != nil {
			t.Fatal(err)
		}
	})
	want := `POST /v1/sessions/s1/messages Bearer secret {"id":"m1","text":"Hello"}`
	if !slices.Equal(bodies, []string{want, want, want, want}) {
		t.Errorf("the host got %q", bodies)
	}
}

func TestPatience(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		call     func(context.Context, *Client) error
		patience time.Duration
	}{
		{"typing", func(ctx context.Context, c *Client) error { return c.Typing(ctx, session, true) }, 0},
		{"availability", func(ctx context.Context, c *Client) error { _, err := c.Availability(ctx, session); return err }, patienceAsk},
		{"end", func(ctx context.Context, c *Client) error { return c.End(ctx, session) }, patienceCall},
		{"send", func(ctx context.Context, c *Client) error { return c.Send(ctx, session, "m1", "Hello") }, patienceSend},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, nil, func(t *testing.T, c *Client, n *network) {
				n.down.Store(true)
				begun := time.Now()
				if err := test.call(t.Context(), c); err == nil || !strings.Contains(err.Error(), "refused") {
					t.Errorf("got %v", err)
				}
				if took := time.Since(begun); took > test.patience || took < test.patience-15*time.Second {
					t.Errorf("it gave up after %v, expected %v", took, test.patience)
				}
			})
		})
	}
}

// TestHostIsBack has a message leave as soon as the connection for entries stands.
func TestHostIsBack(t *testing.T) {
	t.Parallel()
	handler, _ := events(t, func(conn *websocket.Conn) { conn.ReadMessage() })
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/events") {
			handler(w, r)
		}
	}, func(t *testing.T, c *Client, n *network) {
		n.down.Store(true)
		var work sync.WaitGroup
		var sent, back time.Time
		work.Go(func() {
			if err := c.Send(t.Context(), session, "m1", "Hello"); err != nil {
				t.Error(err)
			}
			sent = time.Now()
		})
		<-time.After(time.Minute) // In the bubble's time: the next try is seconds away.
		n.down.Store(false)
		ctx, cancel := context.WithCancel(t.Context())
		work.Go(func() {
			_ = c.Follow(ctx, session, 0, func(Entry) error { return nil }, func(bool) { back = time.Now() })
		})
		synctest.Wait()
		cancel()
		work.Wait()
		if !sent.Equal(back) {
			t.Errorf("the message left %v behind the connection", sent.Sub(back))
		}
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	calls := 0
	inBubble(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls++; calls == 1 {
			w.Header().Set("Retry-After", "20")
			problem(w, http.StatusTooManyRequests, "too_many_messages")
		}
	}, func(t *testing.T, c *Client, _ *network) {
		begun := time.Now()
		if err := c.Send(t.Context(), session, "m1", "Hello"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != 20*time.Second {
			t.Errorf("it came back after %v", took)
		}
	})
}

func TestAnswersAreFinal(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status int
		code   string
		lost   bool
	}{
		{http.StatusUnauthorized, "token_wrong", true},
		{http.StatusNotFound, "session_unknown", true},
		{http.StatusNotFound, "not_found", false},
		{http.StatusConflict, "no_chat", false},
		{http.StatusUnprocessableEntity, "text_too_long", false},
		{http.StatusBadGateway, "start_refused", false},
		{http.StatusServiceUnavailable, "desk_unavailable", false},
		{http.StatusFound, "", false},
	} {
		t.Run(test.code, func(t *testing.T) {
			t.Parallel()
			calls := 0
			inBubble(t, func(w http.ResponseWriter, _ *http.Request) {
				calls++
				w.Header().Set("Location", "http://elsewhere.test/")
				problem(w, test.status, test.code)
			}, func(t *testing.T, c *Client, _ *network) {
				_, err := c.Start(t.Context(), session, "c1", "")
				var p *Problem
				if !errors.As(err, &p) || !p.Final() || p.Status != test.status || Lost(err) != test.lost {
					t.Errorf("got %v, lost %v", err, Lost(err))
				}
			})
			if calls != 1 {
				t.Errorf("it was called %d times", calls)
			}
		})
	}
}

func TestAnAnswerOfSomethingElse(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "<html>Welcome to the hotel's wireless network")
	}, func(t *testing.T, c *Client, _ *network) {
		_, err := c.Create(t.Context(), NewSession{})
		if err == nil || !strings.Contains(err.Error(), "is this the address of a deskhost?") {
			t.Errorf("got %v", err)
		}
	})
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for address, good := range map[string]bool{
		"http://127.0.0.1:8080": true, "https://chat.example.com/desk/": true,
		"": false, "chat.example.com": false, "ftp://chat.example.com": false, "http://": false,
		"http://user:secret@chat.example.com": false, "http://chat.example.com/?a=b": false, "http://[::1": false,
	} {
		if _, err := New(address); (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// events is a host's socket that plays one script a connection.
func events(t *testing.T, scripts ...func(conn *websocket.Conn)) (handler http.HandlerFunc, asked *[]string) {
	asked = new([]string)
	upgrader := websocket.Upgrader{Subprotocols: []string{subprotocol}}
	return func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.Query().Get("after"))
		if n := len(*asked); n > len(scripts) {
			problem(w, http.StatusNotFound, "session_unknown")
			return
		}
		if r.Header.Get("Authorization") != "Bearer "+session.Token {
			t.Errorf("the token is %q", r.Header.Get("Authorization"))
		}
		script := scripts[len(*asked)-1]
		if script == nil {
			problem(w, http.StatusServiceUnavailable, "stopping")
			return
		}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		script(conn)
	}, asked
}

func entries(seqs ...int) func(*websocket.Conn) {
	return func(conn *websocket.Conn) {
		for _, seq := range seqs {
			text, _ := json.Marshal(Entry{Seq: uint64(seq), Type: "message", Text: fmt.Sprint("entry ", seq)})
			_ = conn.WriteMessage(websocket.TextMessage, text)
		}
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	handler, asked := events(t, entries(4, 5), nil, entries(5, 6, 0, 7), entries(8))
	inBubble(t, handler, func(t *testing.T, c *Client, _ *network) {
		var texts []string
		var states []bool
		err := c.Follow(t.Context(), session, 3, func(e Entry) error {
			texts = append(texts, e.Text)
			return nil
		}, func(online bool) { states = append(states, online) })
		if !Lost(err) {
			t.Errorf("it ended with %v", err)
		}
		if want := []string{"entry 4", "entry 5", "entry 6", "entry 0", "entry 7", "entry 8"}; !slices.Equal(texts, want) {
			t.Errorf("got %q", texts)
		}
		if want := []bool{true, false, true, true}; !slices.Equal(states, want) {
			t.Errorf("it was told %v of the connection", states)
		}
	})
	if want := []string{"3", "5", "5", "7", "8"}; !slices.Equal(*asked, want) {
		t.Errorf("the host was asked for what is after %v", *asked)
	}
}

func TestFollowEnds(t *testing.T) {
	t.Parallel()
	forever := func(conn *websocket.Conn) {
		entries(1)(conn)
		conn.ReadMessage()
	}
	gone := func(conn *websocket.Conn) {
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(closeGone, ""), time.Now().Add(time.Second))
		conn.ReadMessage()
	}
	ignore := func(bool) {}
	t.Run("with the session", func(t *testing.T) {
		t.Parallel()
		handler, _ := events(t, gone)
		inBubble(t, handler, func(t *testing.T, c *Client, _ *network) {
			if err := c.Follow(t.Context(), session, 0, func(Entry) error { return nil }, ignore); !Lost(err) {
				t.Errorf("it ended with %v", err)
			}
		})
	})
	t.Run("with its taker", func(t *testing.T) {
		t.Parallel()
		full := errors.New("the disk is full")
		handler, _ := events(t, forever)
		inBubble(t, handler, func(t *testing.T, c *Client, _ *network) {
			if err := c.Follow(t.Context(), session, 0, func(Entry) error { return full }, ignore); !errors.Is(err, full) {
				t.Errorf("it ended with %v", err)
			}
		})
	})
	t.Run("with its context", func(t *testing.T) {
		t.Parallel()
		handler, _ := events(t, forever)
		inBubble(t, handler, func(t *testing.T, c *Client, _ *network) {
			ctx, cancel := context.WithCancel(t.Context())
			if err := c.Follow(ctx, session, 0, func(Entry) error { cancel(); return nil }, ignore); !errors.Is(err, context.Canceled) {
				t.Errorf("it ended with %v", err)
			}
		})
	})
}

// TestFollowSilence has a connection die without a word, and another live by
// pings alone.
func TestFollowSilence(t *testing.T) {
	t.Parallel()
	handler, asked := events(t,
		func(conn *websocket.Conn) {
			pings := time.NewTicker(30 * time.Second)
			defer pings.Stop()
			var writer sync.WaitGroup
			writer.Go(func() {
				for range 10 {
					<-pings.C
					_ = conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second))
				}
			})
			conn.ReadMessage() // pongs, until the client has given up
			writer.Wait()
		},
	)
	inBubble(t, handler, func(t *testing.T, c *Client, _ *network) {
		begun := time.Now()
		err := c.Follow(t.Context(), session, 0, func(Entry) error { return nil }, func(bool) {})
		if took := time.Since(begun); !Lost(err) || took < 300*time.Second+silence || took > 300*time.Second+silence+time.Second {
			t.Errorf("it ended with %v after %v", err, took)
		}
	})
	if len(*asked) != 2 {
		t.Errorf("there were %d connections", len(*asked))
	}
}

func TestEntry(t *testing.T) {
	t.Parallel()
	var e Entry
	text := `{"seq":7,"time":"2026-01-02T15:04:05.123Z","type":"message","chat_id":"c","from":"agent","id":"m1","text":"Hi","agent_id":"ada",
		"parts":[{"type":"image","url":"https://example.com/a.png","title":"A","alt_text":"B"},{"type":"quick_replies","replies":[{"label":"Yes","value":"yes"}]}],"new":1}`
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	if e.Seq != 7 || e.ChatID != "c" || e.AgentID != "ada" || len(e.Parts) != 2 || e.Parts[0].AltText != "B" || e.Parts[1].Replies[0] != (Reply{"Yes", "yes"}) {
		t.Errorf("got %+v", e)
	}
}
