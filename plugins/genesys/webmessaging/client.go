// Package webmessaging speaks Genesys Cloud's Web Messaging guest API, as a
// vendor's client would: one socket for each session, and its history over HTTP.
//
// It keeps no state besides the connection and tries nothing twice; sending,
// reading and coming back after a loss are put together by its caller, package
// adapter. It knows nothing of deskhost.
package webmessaging

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
)

const (
	// application names this client to the vendor.
	application = "deskhost"
	// PageSize is how many messages a page of the history has.
	PageSize = 25
	// maxEarly bounds what comes before a session is ready.
	maxEarly = 256
)

// Client opens sessions of one deployment. It is safe for concurrent use.
type Client struct {
	cloud      *cloud.Client
	deployment string
	// silence is after how long without a sign of life a connection is lost.
	silence time.Duration
}

// New returns a client of a deployment.
func New(c *cloud.Client, deploymentID string, silence time.Duration) *Client {
	return &Client{cloud: c, deployment: deploymentID, silence: silence}
}

// Deployment is what the vendor publishes of one.
type Deployment struct {
	Status string `json:"status"` // "Active" or "Inactive"
}

// Deployment asks for the deployment's public configuration.
func (c *Client) Deployment(ctx context.Context) (*Deployment, error) {
	d := new(Deployment)
	u := c.cloud.At.CDN.JoinPath("webdeployments/v1/deployments", url.PathEscape(c.deployment), "config.json")
	return d, c.cloud.Call(ctx, http.MethodGet, u, "", nil, d)
}

// History is a page of a session's messages.
type History struct {
	Entities []Message `json:"entities"`
	Pages    int       `json:"pageCount"`
}

// History returns a page, counted from 1.
func (c *Client) History(ctx context.Context, jwt string, page int) (*History, error) {
	h := new(History)
	u := c.cloud.At.API.JoinPath("api/v2/webmessaging/messages")
	u.RawQuery = url.Values{"pageSize": {strconv.Itoa(PageSize)}, "pageNumber": {strconv.Itoa(page)}}.Encode()
	return h, c.cloud.Call(ctx, http.MethodGet, u, jwt, nil, h)
}

// Conn is a connection of a session. One goroutine calls Read and JWT; the others
// are for any.
type Conn struct {
	socket *cloud.Socket
	token  string
	// early holds what came before what was waited for.
	early []*Reply
}

// Open connects to the session of a token that the caller has made, or makes it.
// With a sign-in token the session is that of a signed-in user. A [ClosedError] says
// that the vendor closes the connection instead.
func (c *Client) Open(ctx context.Context, token, signInToken string) (*Conn, *Session, error) {
	u := c.cloud.At.Sockets.JoinPath("v1")
	u.RawQuery = url.Values{"deploymentId": {c.deployment}, "application": {application}}.Encode()
	socket, err := c.cloud.Dial(ctx, u, c.silence)
	if err != nil {
		return nil, nil, err
	}
	conn := &Conn{socket: socket, token: token}
	r, err := conn.ask(ctx, configureRequest(c.deployment, token, signInToken), func(r *Reply) bool { return r.Session != nil })
	if err != nil {
		socket.Close()
		return nil, nil, err
	}
	return conn, r.Session, nil
}

// JWT asks for the key to the history.
func (c *Conn) JWT(ctx context.Context) (string, error) {
	r, err := c.ask(ctx, jwtRequest(c.token), func(r *Reply) bool { return r.JWT != nil })
	if err != nil {
		return "", err
	}
	return r.JWT.Token, nil
}

// ask sends a request and waits for its answer. What comes before it is left to Read.
func (c *Conn) ask(ctx context.Context, req *request, answers func(*Reply) bool) (*Reply, error) {
	stop := context.AfterFunc(ctx, c.socket.Close)
	defer stop()
	if err := c.socket.Write(ctx, req); err != nil {
		return nil, err
	}
	for {
		r, err := c.next()
		lost := (*cloud.Error)(nil)
		switch {
		case errors.As(err, &lost) && ctx.Err() != nil:
			return nil, &cloud.Error{Sent: true, Err: ctx.Err()}
		case errors.As(err, &lost):
			return nil, err
		case err != nil:
			// A frame that is not understood is not the answer.
		case r.Failed != nil:
			return nil, r.Failed
		case r.Closed != nil:
			return nil, r.Closed
		case answers(r):
			return r, nil
		case len(c.early) < maxEarly: // what is more is in the history
			c.early = append(c.early, r)
		}
	}
}

// Read returns the next reply. A frame that is not understood is an error, after
// which reading may go on; any other is of the type [cloud.Error] and ends the
// connection.
func (c *Conn) Read() (*Reply, error) {
	if len(c.early) > 0 {
		r := c.early[0]
		c.early = c.early[1:]
		return r, nil
	}
	c.early = nil
	return c.next()
}

func (c *Conn) next() (*Reply, error) {
	frame, err := c.socket.Read()
	if err != nil {
		return nil, err
	}
	return Decode(frame)
}

// Text sends a message of the user. It is there when it comes back with the tracing id.
func (c *Conn) Text(ctx context.Context, tracingID, text string, attributes map[string]string) error {
	return c.socket.Write(ctx, textRequest(c.token, tracingID, text, attributes))
}

// Typing tells that the user types.
func (c *Conn) Typing(ctx context.Context) error {
	return c.socket.Write(ctx, typingRequest(c.token))
}

// Clear ends the conversation for both sides, where the deployment lets guests do so.
// A refusal comes with the tracing id.
func (c *Conn) Clear(ctx context.Context, tracingID string) error {
	return c.socket.Write(ctx, clearRequest(c.token, tracingID))
}

// CloseSession ends the session. The answer is a Session that is not connected.
func (c *Conn) CloseSession(ctx context.Context) error {
	return c.socket.Write(ctx, closeRequest(c.token))
}

// Ping asks for a sign of life, for which it waits no longer than within.
func (c *Conn) Ping(within time.Duration) error { return c.socket.Ping(within) }

// Close ends the connection; the session lives on.
func (c *Conn) Close() { c.socket.Close() }
