package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const (
	subprotocol = "deskhost.v1"
	// closeGone is the host's close code for a session that is no more.
	closeGone = 4404
	// silence is how long a connection may be without a message or a ping, which
	// the host sends more often than this, before it counts as lost.
	silence = 90 * time.Second
	// goodAfter is for how long a connection has to live for the next try to be
	// a first one.
	goodAfter = 5 * time.Second
	// maxEntry bounds an entry: an event of 256 KiB, with all of it escaped.
	maxEntry = 2 << 20
)

// Follow passes on every entry of a session behind the cursor after, once and
// in order, and passing news as it comes, until ctx ends, take returns an error, or
// the session is lost. It reconnects as often as it takes. online is told when a
// connection stands, and, with false, when a try to get one has failed. Neither
// function is called after Follow has returned, nor both at once.
func (c *Client) Follow(ctx context.Context, s Session, after uint64, take func(Entry) error, online func(bool)) error {
	for attempt := 0; ; attempt++ {
		if attempt > 0 && !pause(ctx, backoff(attempt), nil) {
			return ctx.Err()
		}
		conn, err := c.dial(ctx, s, after)
		if err == nil {
			c.noteReached()
			online(true)
			opened := time.Now()
			err = read(ctx, conn, &after, take)
			if time.Since(opened) > goodAfter {
				attempt = 0
			}
		} else if ctx.Err() == nil && !Lost(err) {
			online(false)
		}
		var taken *takeError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case Lost(err):
			return err
		case errors.As(err, &taken):
			return taken.error
		}
		if p := (*Problem)(nil); errors.As(err, &p) && p.retryAfter > 0 && !pause(ctx, p.retryAfter, nil) {
			return ctx.Err()
		}
	}
}

// takeError is an error of the one who takes the entries.
type takeError struct{ error }

func (c *Client) dial(ctx context.Context, s Session, after uint64) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	address := "ws" + strings.TrimPrefix(c.url, "http") + sessionPath(s) + "/events?after=" + strconv.FormatUint(after, 10)
	conn, response, err := c.dialer.DialContext(ctx, address, http.Header{"Authorization": {"Bearer " + s.Token}})
	if err != nil {
		if response == nil {
			return nil, err
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
		if err != nil {
			return nil, err
		}
		return nil, problemOf(response, answer)
	}
	return conn, nil
}

// read takes the entries of one connection until that is lost, and moves the cursor.
func read(ctx context.Context, conn *websocket.Conn, after *uint64, take func(Entry) error) error {
	defer conn.Close()
	// Closing is what wakes a reader.
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()

	conn.SetReadLimit(maxEntry)
	extend := func() error { return conn.SetReadDeadline(time.Now().Add(silence)) }
	pong := conn.PingHandler()
	conn.SetPingHandler(func(data string) error {
		if err := extend(); err != nil {
			return err
		}
		return pong(data)
	})
	for {
		if err := extend(); err != nil {
			return err
		}
		_, text, err := conn.ReadMessage()
		if websocket.IsCloseError(err, closeGone) {
			return &Problem{Status: http.StatusNotFound, Code: "session_unknown", Detail: "the session is no more"}
		}
		if err != nil {
			return err
		}
		var e Entry
		if err := json.Unmarshal(text, &e); err != nil {
			return fmt.Errorf("an entry that cannot be read: %w", err)
		}
		if e.Seq != 0 {
			if e.Seq <= *after {
				continue
			}
			*after = e.Seq
		}
		if err := take(e); err != nil {
			return &takeError{err}
		}
	}
}
