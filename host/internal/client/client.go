// Package client talks to a host as the page of a widget does: over its public
// HTTP API and WebSocket, docs/http-api.md, and nothing else.
//
// It owns how calls are repeated and how the entries of a session are followed
// over as many connections as it takes. It keeps nothing between calls: its
// caller, the terminal widget of the deskhost command, keeps the session and the
// cursor, and decides what is shown. It knows nothing of the host's insides.
package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// For how long calls are made again while the host does not answer.
const (
	// patienceAsk is for what is worth nothing later.
	patienceAsk = 4 * time.Second
	// patienceCall bridges a restart of the host.
	patienceCall = time.Minute
	// patienceSend is as long as a host keeps a message waiting for its desk.
	patienceSend = 5 * time.Minute
)

// Client calls one host. It may be used by several goroutines at once.
type Client struct {
	url    string
	http   *http.Client
	dialer *websocket.Dialer

	mu sync.Mutex
	// reached is closed, and replaced, when a connection for entries stands: a
	// call that waits for another try need not wait longer.
	reached chan struct{}
}

// New makes a client of the host at a URL such as "https://chat.example.com".
// Nothing is asked of the host yet.
func New(address string) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not the address of a host: expected http(s)://HOST[:PORT][/PATH]", address)
	}
	dialer := &net.Dialer{Timeout: attemptTimeout}
	return newClient(strings.TrimSuffix(u.String(), "/"), dialer.DialContext), nil
}

func newClient(base string, dial func(ctx context.Context, network, address string) (net.Conn, error)) *Client {
	return &Client{
		url: base,
		http: &http.Client{
			Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dial, IdleConnTimeout: time.Minute},
			// A host does not redirect. Whatever does must not be sent the token.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		dialer: &websocket.Dialer{
			Proxy:            http.ProxyFromEnvironment,
			NetDialContext:   dial,
			HandshakeTimeout: attemptTimeout,
			Subprotocols:     []string{subprotocol},
		},
		reached: make(chan struct{}),
	}
}

func (c *Client) noteReached() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.reached)
	c.reached = make(chan struct{})
}

func (c *Client) whenReached() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reached
}

// Session is what a host gave to its user. The token is a secret.
type Session struct {
	ID    string `json:"session_id"`
	Token string `json:"token"`
}

// NewSession tells what a session is made for. All of it may be empty.
type NewSession struct {
	Desk   string `json:"desk,omitempty"`
	User   *User  `json:"user,omitempty"`
	Locale string `json:"locale,omitempty"`
}

// User is who talks to the agent, unverified.
type User struct {
	Name string `json:"name,omitempty"`
}

// Create makes a session.
func (c *Client) Create(ctx context.Context, request NewSession) (Session, error) {
	var made Session
	err := c.call(ctx, patienceAsk, http.MethodPost, "/v1/sessions", "", request, &made)
	return made, err
}

// Availability asks whether anybody is there.
func (c *Client) Availability(ctx context.Context, s Session) (Availability, error) {
	var a Availability
	err := c.inSession(ctx, patienceAsk, s, http.MethodGet, "/availability", nil, &a)
	return a, err
}

// Start asks for an agent and returns the id of the chat. The same id never
// starts two chats. The agent reads text first; it may be empty.
func (c *Client) Start(ctx context.Context, s Session, id, text string) (chatID string, err error) {
	request := struct {
		ID   string `json:"id"`
		Text string `json:"text,omitempty"`
	}{id, text}
	var answer struct {
		ChatID string `json:"chat_id"`
	}
	err = c.inSession(ctx, patienceCall, s, http.MethodPost, "/chat", request, &answer)
	return answer.ChatID, err
}

// End ends the open chat, if there is one.
func (c *Client) End(ctx context.Context, s Session) error {
	return c.inSession(ctx, patienceCall, s, http.MethodDelete, "/chat", nil, nil)
}

// Send has the host take a message to the agent. What becomes of it is told by
// an entry. A message is sent once, however often its id is.
func (c *Client) Send(ctx context.Context, s Session, id, text string) error {
	request := struct {
		ID   string `json:"id"`
		Text string `json:"text"`
	}{id, text}
	return c.inSession(ctx, patienceSend, s, http.MethodPost, "/messages", request, nil)
}

// Typing tells the agent, once and not again, whether the user types.
func (c *Client) Typing(ctx context.Context, s Session, typing bool) error {
	request := struct {
		Typing bool `json:"typing"`
	}{typing}
	return c.inSession(ctx, 0, s, http.MethodPost, "/typing", request, nil)
}

// Read tells the agent, once and not again, that the user has read everything.
func (c *Client) Read(ctx context.Context, s Session) error {
	return c.inSession(ctx, 0, s, http.MethodPost, "/read", nil, nil)
}

func (c *Client) inSession(ctx context.Context, patience time.Duration, s Session, method, path string, body, into any) error {
	return c.call(ctx, patience, method, sessionPath(s)+path, s.Token, body, into)
}

func sessionPath(s Session) string { return "/v1/sessions/" + url.PathEscape(s.ID) }

// NewID makes an id for a chat or a message.
func NewID() string { return rand.Text() }

// Lost tells whether a call failed because the host knows the session no more.
func Lost(err error) bool {
	var p *Problem
	if !errors.As(err, &p) {
		return false
	}
	switch p.Code {
	case "session_unknown", "token_wrong", "token_missing":
		return true
	}
	return false
}
