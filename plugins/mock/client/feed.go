package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/deskapi"
)

// feedDead is the silence after which a feed counts as lost.
const feedDead = 3 * deskapi.FeedSilence

// errSilent says that a feed was silent for too long.
var errSilent = errors.New("the desk's feed fell silent")

// Feed is what happens at a desk from the moment of [Client.Feed] on, in all of
// its conversations. One goroutine may use it.
type Feed struct {
	body     io.ReadCloser
	lines    *bufio.Reader
	watchdog *time.Timer
	cancel   context.CancelCauseFunc
	ctx      context.Context //nolint:containedctx // it is the feed's life
	long     []byte
}

// Feed opens the feed and returns once it has begun.
func (c *Client) Feed(ctx context.Context) (*Feed, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	f := &Feed{ctx: ctx, cancel: cancel}
	f.watchdog = time.AfterFunc(feedDead, func() { cancel(errSilent) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath("v1/feed").String(), nil)
	if err != nil {
		f.Close()
		return nil, &Error{Err: err}
	}
	resp, err := c.http.Do(req) //nolint:bodyclose // Feed.Close closes it
	if err != nil {
		err = &Error{Sent: !neverSent(err), Err: f.cause(err)}
		f.Close()
		return nil, err
	}
	f.body = resp.Body
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // says why, if it can be read
		f.Close()
		return nil, failure(resp, text)
	}
	f.lines = bufio.NewReaderSize(resp.Body, 64<<10)
	if _, err := f.line(); err != nil {
		f.Close()
		return nil, &Error{Sent: true, Err: err}
	}
	return f, nil
}

// Next returns the next event. After an error the feed is of no use.
func (f *Feed) Next() (*deskapi.Event, error) {
	for {
		line, err := f.line()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			continue
		}
		e := new(deskapi.Event)
		if err := json.Unmarshal(line, e); err != nil {
			return nil, fmt.Errorf("the desk's feed is not understood: %w", err)
		}
		return e, nil
	}
}

// Close ends the feed.
func (f *Feed) Close() {
	f.watchdog.Stop()
	f.cancel(nil)
	if f.body != nil {
		_ = f.body.Close() // nothing was written to it
	}
}

// line returns the next line, which is valid until the next call.
func (f *Feed) line() ([]byte, error) {
	f.long = f.long[:0]
	for {
		part, err := f.lines.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, f.cause(err)
		}
		f.watchdog.Reset(feedDead)
		if err == nil && len(f.long) == 0 {
			return bytes.TrimSpace(part), nil
		}
		f.long = append(f.long, part...)
		if err == nil {
			return bytes.TrimSpace(f.long), nil
		}
	}
}

// cause prefers the reason for which the feed was given up.
func (f *Feed) cause(err error) error {
	if cause := context.Cause(f.ctx); cause != nil {
		return cause
	}
	return err
}
