// Package client speaks the mock desk's HTTP API, as a vendor's client would:
// calls with typed errors, and the feed. It keeps no state and tries nothing
// twice; it knows nothing of deskhost. The plugin's adapter is its caller.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/deskapi"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

// Client calls one desk. It is safe for concurrent use.
type Client struct {
	base *url.URL
	http *http.Client
}

// New returns a client of the desk at the base URL. A nil transport is one of
// its own over TCP.
func New(base string, transport http.RoundTripper) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("want an http or https URL such as http://127.0.0.1:9000")
	}
	if transport == nil {
		transport = &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout:   5 * time.Second,
			MaxConnsPerHost:       256,
			MaxIdleConnsPerHost:   256,
			IdleConnTimeout:       30 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
		}
	}
	return &Client{base: u, http: &http.Client{Transport: transport}}, nil
}

// Base returns the desk's address.
func (c *Client) Base() *url.URL { return c.base }

// Transport returns what the client calls through.
func (c *Client) Transport() http.RoundTripper { return c.http.Transport }

// Error is a call that the desk did not serve.
type Error struct {
	// Status is the HTTP status; 0 if there was no answer.
	Status int
	// Sent is false if the desk cannot have had the call.
	Sent bool
	// RetryAfter is what the desk asked for, or 0.
	RetryAfter time.Duration
	// Body is what the desk said; its code is empty if it was not the desk
	// that answered.
	Body deskapi.Error
	// Err is the cause if there was no answer.
	Err error
}

// Error returns what went wrong.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	if e.Body.Code == "" {
		return fmt.Sprintf("the desk answered %d", e.Status)
	}
	return fmt.Sprintf("the desk answered %d %s: %s", e.Status, e.Body.Code, e.Body.Message)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Info asks who answers at the address.
func (c *Client) Info(ctx context.Context) (*deskapi.Info, error) {
	info := new(deskapi.Info)
	return info, c.call(ctx, http.MethodGet, c.base.JoinPath("v1/desk"), nil, info)
}

// Availability asks whether anybody is there.
func (c *Client) Availability(ctx context.Context) (*deskapi.Availability, error) {
	a := new(deskapi.Availability)
	return a, c.call(ctx, http.MethodGet, c.base.JoinPath("v1/availability"), nil, a)
}

// Start opens the conversation with the key, or joins it.
func (c *Client) Start(ctx context.Context, key string, req *deskapi.StartRequest) (*deskapi.Conversation, error) {
	conv := new(deskapi.Conversation)
	return conv, c.call(ctx, http.MethodPut, c.conversation(key), req, conv)
}

// Update tells what is now known of the user.
func (c *Client) Update(ctx context.Context, key string, now *deskapi.Context) error {
	return c.call(ctx, http.MethodPatch, c.conversation(key), now, nil)
}

// End ends a conversation; by is "user" or "host".
func (c *Client) End(ctx context.Context, key, by, reason string) error {
	u := c.conversation(key)
	u.RawQuery = url.Values{"by": {by}, "reason": {reason}}.Encode()
	return c.call(ctx, http.MethodDelete, u, nil, nil)
}

// Send hands over a message. The same id is the same message.
func (c *Client) Send(ctx context.Context, key string, m *deskapi.Message) (*deskapi.MessageTaken, error) {
	taken := new(deskapi.MessageTaken)
	return taken, c.call(ctx, http.MethodPost, c.conversation(key, "messages"), m, taken)
}

// Typing tells whether the user types.
func (c *Client) Typing(ctx context.Context, key string, typing bool) error {
	return c.call(ctx, http.MethodPost, c.conversation(key, "typing"), deskapi.Typing{Typing: typing}, nil)
}

// Read tells that the user has seen everything.
func (c *Client) Read(ctx context.Context, key string) error {
	return c.call(ctx, http.MethodPost, c.conversation(key, "read"), struct{}{}, nil)
}

// CatchUp returns what happened in conversations behind the cursors given, at
// most [deskapi.MaxCatchUp] of them.
func (c *Client) CatchUp(ctx context.Context, after map[string]uint64) (map[string]deskapi.History, error) {
	var resp deskapi.CatchUpResponse
	err := c.call(ctx, http.MethodPost, c.base.JoinPath("v1/catch-up"), deskapi.CatchUpRequest{After: after}, &resp)
	return resp.Conversations, err
}

func (c *Client) conversation(key string, more ...string) *url.URL {
	return c.base.JoinPath(append([]string{"v1/conversations", url.PathEscape(key)}, more...)...)
}

// call makes one request. body may be nil, and so may answer.
func (c *Client) call(ctx context.Context, method string, u *url.URL, body, answer any) error {
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			return &Error{Err: err}
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(encoded))
	if err != nil {
		return &Error{Err: err}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// Every call of this API may be repeated. This lets net/http do so when the
	// connection that it picked turns out to be closed; nothing is sent for it.
	req.Header["Idempotency-Key"] = nil
	resp, err := c.http.Do(req)
	if err != nil {
		return &Error{Sent: !neverSent(err), Err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return &Error{Status: resp.StatusCode, Sent: true, Err: err}
	}
	if resp.StatusCode >= 300 {
		return failure(resp, text)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return &Error{Status: resp.StatusCode, Sent: true, Err: fmt.Errorf("the desk's answer is not understood: %w", err)}
	}
	return nil
}

func failure(resp *http.Response, text []byte) *Error {
	e := &Error{Status: resp.StatusCode, Sent: true}
	if json.Unmarshal(text, &e.Body) != nil {
		e.Body = deskapi.Error{}
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return e
}

// neverSent tells of an error of a request whether no connection was made.
func neverSent(err error) bool {
	op := (*net.OpError)(nil)
	return errors.As(err, &op) && op.Op == "dial"
}
