// Package cloud is what both guest APIs of Genesys Cloud stand on: where the
// vendor's services are, HTTP calls and sockets to them, errors that tell what
// became of a call, and OAuth with what it gives access to.
//
// It decides where credentials may go: to the configured addresses and nowhere
// that a reply names, so it follows no redirect. It keeps no chat and knows
// nothing of deskhost. Packages webmessaging, webchat and adapter call it.
package cloud

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
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// maxAnswer and maxFrame bound what is read of an answer and of one frame.
	maxAnswer = 8 << 20
	maxFrame  = 1 << 20
	// maxConns is how many HTTP connections there are to one service at most.
	maxConns = 64
	// socketBuffer is small since there is a socket for each open chat; a frame
	// may be larger.
	socketBuffer = 512
)

// Endpoints are the addresses of the vendor's services, without a slash at the
// end of their paths.
type Endpoints struct {
	API, Sockets, Login, CDN *url.URL
	// Region is the vendor's domain of which all are part; empty if they are given
	// one by one.
	Region string
}

// InRegion returns the addresses of a region such as "mypurecloud.de".
func InRegion(domain string) Endpoints {
	at := func(scheme, name string) *url.URL { return &url.URL{Scheme: scheme, Host: name + "." + domain} }
	return Endpoints{
		API: at("https", "api"), Sockets: at("wss", "webmessaging"), Login: at("https", "login"), CDN: at("https", "api-cdn"),
		Region: domain,
	}
}

// trusts tells whether a socket address that a reply named is one of the vendor's.
// An unencrypted one has to be configured, as it is for a simulator.
func (e *Endpoints) trusts(u *url.URL) bool {
	if u.User != nil {
		return false
	}
	if u.Scheme == "wss" && e.Region != "" && strings.HasSuffix(u.Hostname(), "."+e.Region) && u.Port() == "" {
		return true
	}
	for _, own := range []*url.URL{e.API, e.Sockets} {
		encrypted := own.Scheme == "https" || own.Scheme == "wss"
		if own.Host == u.Host && (u.Scheme == "wss" || u.Scheme == "ws" && !encrypted) {
			return true
		}
	}
	return false
}

// Client reaches the vendor's services. It is safe for concurrent use, tries
// nothing twice, and leaves deadlines to its callers' contexts.
type Client struct {
	At Endpoints
	// origin is sent as the Origin header; deployments may be restricted to some.
	origin string
	http   *http.Client
	dialer *websocket.Dialer
}

// New returns a client. A nil proxy is the one of the environment.
func New(at Endpoints, origin string, proxy *url.URL) *Client {
	choose := http.ProxyFromEnvironment
	if proxy != nil {
		choose = http.ProxyURL(proxy)
	}
	dial := (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	return &Client{
		At:     at,
		origin: origin,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:               choose,
				DialContext:         dial,
				TLSHandshakeTimeout: 10 * time.Second,
				MaxConnsPerHost:     maxConns,
				MaxIdleConnsPerHost: maxConns,
				IdleConnTimeout:     30 * time.Second,
				ForceAttemptHTTP2:   true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		dialer: &websocket.Dialer{
			Proxy:           choose,
			NetDialContext:  dial,
			ReadBufferSize:  socketBuffer,
			WriteBufferSize: socketBuffer,
			WriteBufferPool: new(sync.Pool),
		},
	}
}

// Error is a call that the vendor did not serve.
type Error struct {
	// Status is the HTTP status, or the code of a web messaging reply, such as
	// 4006; 0 if there was no answer.
	Status int
	// Code is the vendor's name of the error, such as "too.many.requests", if any.
	Code string
	// Message is the vendor's explanation, if any.
	Message string
	// RetryAfter is how long the vendor asks to wait, or 0.
	RetryAfter time.Duration
	// Sent is false if the vendor cannot have had the call.
	Sent bool
	// Err is the cause if there was no answer.
	Err error
}

// Error returns what went wrong.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	text := fmt.Sprintf("Genesys answered %d", e.Status)
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.Message != "" {
		text += fmt.Sprintf(": %.300s", e.Message)
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Time is a time that may be null or missing, or not understood, which is no reason
// to lose a message.
type Time struct{ time.Time }

// UnmarshalJSON reads RFC 3339; anything else is the zero time.
func (t *Time) UnmarshalJSON(text []byte) error {
	if t.Time.UnmarshalJSON(text) != nil {
		t.Time = time.Time{}
	}
	return nil
}

// Call makes one request of the API. body and answer may be nil; bearer may be empty.
func (c *Client) Call(ctx context.Context, method string, u *url.URL, bearer string, body, answer any) error {
	header := http.Header{"Accept": {"application/json"}}
	if bearer != "" {
		header.Set("Authorization", "Bearer "+bearer)
	}
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			return &Error{Err: err}
		}
		header.Set("Content-Type", "application/json")
	}
	return c.do(ctx, method, u, header, encoded, answer)
}

func (c *Client) do(ctx context.Context, method string, u *url.URL, header http.Header, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return &Error{Err: err}
	}
	req.Header = header
	if c.origin != "" {
		req.Header.Set("Origin", c.origin)
	}
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
		return answered(resp, text)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return &Error{Status: resp.StatusCode, Sent: true, Err: fmt.Errorf("the answer of %s is not understood: %w", u.Host, err)}
	}
	return nil
}

// answered reads an answer that is an error.
func answered(resp *http.Response, text []byte) *Error {
	e := &Error{Status: resp.StatusCode, Sent: true}
	if resp.StatusCode < 400 {
		e.Message = "a redirect, which is not followed"
		return e
	}
	var body struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		// OAuth names them so.
		OAuthCode    string `json:"error"`
		OAuthMessage string `json:"description"`
	}
	if json.Unmarshal(text, &body) == nil {
		e.Code, e.Message = body.Code+body.OAuthCode, body.Message+body.OAuthMessage
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

// Socket is a connection on which the vendor sends. One goroutine reads; writing
// is for any number, one at a time. Whoever reads answers the vendor's pings.
type Socket struct {
	conn    *websocket.Conn
	silence time.Duration
	// writing is held by who writes.
	writing chan struct{}
}

// Dial opens a socket at one of the configured addresses. It is lost when
// nothing, not even the answer to a ping, has come for as long as silence.
func (c *Client) Dial(ctx context.Context, u *url.URL, silence time.Duration) (*Socket, error) {
	header := http.Header{}
	if c.origin != "" {
		header.Set("Origin", c.origin)
	}
	dialer, stop := *c.dialer, func() bool { return true }
	dialer.NetDialContext = func(dialing context.Context, network, address string) (net.Conn, error) {
		conn, err := c.dialer.NetDialContext(dialing, network, address)
		if err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				// What was written and is still here when the socket is closed is not
				// to arrive behind the look at what has.
				_ = tcp.SetLinger(0)
			}
			// Of ctx the dialer's handshake heeds the deadline only.
			stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
		}
		return conn, err
	}
	conn, resp, err := dialer.DialContext(ctx, u.String(), header) //nolint:bodyclose // it is read already, says the dialer
	if !stop() && err == nil {
		_ = conn.Close()
		err = ctx.Err()
	}
	if err != nil {
		if resp != nil {
			text, _ := io.ReadAll(resp.Body)
			return nil, answered(resp, text)
		}
		return nil, &Error{Err: fmt.Errorf("connect to %s: %w", u.Host, err)}
	}
	s := &Socket{conn: conn, silence: silence, writing: make(chan struct{}, 1)}
	conn.SetReadLimit(maxFrame)
	conn.SetPongHandler(func(string) error { return s.alive() })
	answerPing := conn.PingHandler()
	conn.SetPingHandler(func(data string) error {
		if err := s.alive(); err != nil {
			return err
		}
		return answerPing(data)
	})
	if err := s.alive(); err != nil {
		_ = conn.Close()
		return nil, &Error{Err: err}
	}
	return s, nil
}

// ErrUntrusted says that a reply named an address that is not the vendor's.
var ErrUntrusted = errors.New("the event stream is said to be where the desk is not configured to be")

// DialNamed opens a socket at an address that a reply named, if it is the
// vendor's: such an address holds a credential.
func (c *Client) DialNamed(ctx context.Context, address string, silence time.Duration) (*Socket, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, &Error{Err: fmt.Errorf("%w: at no URL", ErrUntrusted)}
	}
	if !c.At.trusts(u) {
		return nil, &Error{Err: fmt.Errorf("%w: at %s://%s", ErrUntrusted, u.Scheme, u.Host)}
	}
	return c.Dial(ctx, u, silence)
}

func (s *Socket) alive() error { return s.conn.SetReadDeadline(time.Now().Add(s.silence)) }

// Read waits for the next frame, which is the caller's.
func (s *Socket) Read() ([]byte, error) {
	_, frame, err := s.conn.ReadMessage()
	if err != nil {
		return nil, &Error{Sent: true, Err: err}
	}
	if err := s.alive(); err != nil {
		return nil, &Error{Sent: true, Err: err}
	}
	return frame, nil
}

// Write sends a value as JSON. After an error the vendor may have it, unless
// Sent is false; the socket is of no use any more.
func (s *Socket) Write(ctx context.Context, v any) error {
	frame, err := json.Marshal(v)
	if err != nil {
		return &Error{Err: err}
	}
	select {
	case s.writing <- struct{}{}:
	case <-ctx.Done():
		return &Error{Err: ctx.Err()}
	}
	defer func() { <-s.writing }()
	if err := ctx.Err(); err != nil {
		return &Error{Err: err}
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(s.silence)
	}
	if err := errors.Join(s.conn.SetWriteDeadline(deadline), s.conn.WriteMessage(websocket.TextMessage, frame)); err != nil {
		return &Error{Sent: true, Err: err}
	}
	return nil
}

// Ping asks for a sign of life, for which it waits no longer than within.
func (s *Socket) Ping(within time.Duration) error {
	if err := s.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(within)); err != nil {
		return &Error{Sent: true, Err: err}
	}
	return nil
}

// Close ends the socket, and with it a Read under way. The vendor takes it for a
// lost connection, not for the end of a conversation.
func (s *Socket) Close() { _ = s.conn.Close() }
