// Package client speaks the parts of Twilio's API that a Flex chat takes:
// Conversations v1, Web Chats and Interactions of the Flex API, TaskRouter.
//
// It owns how a call is made and what its failure means: one request each;
// [Retry] repeats what may be.
// Credentials go to the configured addresses only: redirects are not followed,
// and of the address of a next page only the query is used. It keeps no state
// of a conversation but its rate of writing, and knows nothing of deskhost. The
// plugin's adapter is its caller.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// maxAnswer bounds what is read of an answer: a page of 100 messages of 32 KiB
	// and their attributes.
	maxAnswer = 8 << 20
	// maxSaid bounds what is quoted of an error's text.
	maxSaid = 300
	// Back-off of Retry before jitter.
	minPause = 200 * time.Millisecond
	maxPause = 5 * time.Second
	maxTries = 5
)

// Default addresses, those of the region US1.
const (
	DefaultConversationsURL = "https://conversations.twilio.com"
	DefaultFlexURL          = "https://flex-api.twilio.com"
	DefaultTaskRouterURL    = "https://taskrouter.twilio.com"
)

// Options say where Twilio is and who calls.
type Options struct {
	// User and Password are the account's SID and auth token, or an API key's
	// SID and secret.
	User, Password string
	// The addresses of the products, without a version; empty: the defaults.
	ConversationsURL, FlexURL, TaskRouterURL string
	// Transport is for tests; nil: one of its own.
	Transport http.RoundTripper
}

// Client calls one account. It is safe for concurrent use.
type Client struct {
	user, password                  string
	conversations, flex, taskRouter *url.URL
	http                            *http.Client
}

// New returns a client.
func New(o Options) (*Client, error) {
	c := &Client{user: o.User, password: o.Password}
	for _, a := range []struct {
		what, given, otherwise string
		to                     **url.URL
	}{
		{"conversations", o.ConversationsURL, DefaultConversationsURL, &c.conversations},
		{"flex", o.FlexURL, DefaultFlexURL, &c.flex},
		{"taskrouter", o.TaskRouterURL, DefaultTaskRouterURL, &c.taskRouter},
	} {
		if a.given == "" {
			a.given = a.otherwise
		}
		u, err := url.Parse(a.given)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("urls.%s is %q: want an http or https URL without version, such as %s", a.what, a.given, a.otherwise)
		}
		*a.to = u
	}
	transport := o.Transport
	if transport == nil {
		transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout:   5 * time.Second,
			ForceAttemptHTTP2:     true,
			MaxConnsPerHost:       128,
			MaxIdleConnsPerHost:   64,
			IdleConnTimeout:       30 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
		}
	}
	c.http = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Error is a call that Twilio did not serve.
type Error struct {
	// Status is the HTTP status; 0 if there was no answer.
	Status int
	// Sent is false if Twilio cannot have had the call.
	Sent bool
	// RetryAfter is what Twilio asked for, or 0.
	RetryAfter time.Duration
	// Code is Twilio's own; 0 if it was not Twilio that answered.
	Code    int
	Message string
	// Err is the cause if there was no answer that could be read.
	Err error

	write bool
}

// errNoSID is an answer to a write that does not name what was made.
var errNoSID = &Error{Sent: true, Err: errors.New("an answer of Twilio's does not name what was made"), write: true}

// Error returns what went wrong, without anything that was sent.
func (e *Error) Error() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Code != 0:
		return fmt.Sprintf("Twilio answered %d, error %d: %s", e.Status, e.Code, e.Message)
	default:
		return fmt.Sprintf("Twilio's address answered %d", e.Status)
	}
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Throttled says that the call was not processed, because there were too many.
func (e *Error) Throttled() bool {
	return e.Status == http.StatusTooManyRequests || e.Code == 20429 || e.Code == 45719 || e.Code == 45780
}

// Unauthorized says that Twilio does not accept the credentials.
func (e *Error) Unauthorized() bool { return e.Status == http.StatusUnauthorized || e.Code == 20003 }

// NotFound says that what was named does not exist, or not any more. A 404
// without Twilio's code is somebody else's.
func (e *Error) NotFound() bool { return e.Code == 20404 }

// Astray says that what answered does not know the address and is not Twilio.
func (e *Error) Astray() bool { return e.Status == http.StatusNotFound && e.Code == 0 }

// Closed says that the conversation is closed for good.
func (e *Error) Closed() bool { return e.Code == 50377 }

// Exists says that the participant is in the conversation already.
func (e *Error) Exists() bool { return e.Code == 50433 || e.Code == 50437 }

// Unclear says that a write may have taken effect.
func (e *Error) Unclear() bool {
	return e.write && e.Sent && !e.Throttled() && (e.Status == 0 || e.Status < 400 || e.Status >= 500)
}

// Passing says that the call had no effect, and that the same may work later. A
// 412 is one: somebody else has changed the resource at the same moment.
func (e *Error) Passing() bool {
	return e.Throttled() || !e.Sent || e.Astray() || e.Status == http.StatusPreconditionFailed || !e.write && (e.Status == 0 || e.Status >= 500)
}

// As returns the Error in an error; one that says nothing if there is none.
func As(err error) *Error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	return &Error{Sent: true, write: true, Err: err}
}

// Retry repeats a call that had no effect and may work later, as long as ctx
// leaves time for the pause that this takes.
func Retry(ctx context.Context, call func() error) error {
	return repeat(ctx, call, (*Error).Passing)
}

// Insist is Retry for a call that does no harm if it takes effect twice.
func Insist(ctx context.Context, call func() error) error {
	return repeat(ctx, call, func(e *Error) bool { return e.Passing() || e.Unclear() })
}

func repeat(ctx context.Context, call func() error, again func(*Error) bool) error {
	for try := 0; ; try++ {
		err := call()
		if err == nil || !again(As(err)) || try == maxTries-1 || !Wait(ctx, Pause(try, err)) {
			return err
		}
	}
}

// Pause is how long to wait after a try (0, 1, …) that ended with err: longer
// each time, with jitter, and on top of what Twilio asks for.
func Pause(try int, err error) time.Duration {
	pause := min(minPause<<min(try, 10), maxPause)
	return As(err).RetryAfter + pause/2 + rand.N(pause)
}

// Wait returns true after the pause, or false at once if ctx leaves no time for it.
func Wait(ctx context.Context, pause time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= pause {
		return false
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// request is one call.
type request struct {
	method string
	url    *url.URL
	// form is the body of a POST.
	form url.Values
	// webhooks has Twilio call webhooks and flows for what the call does.
	webhooks bool
}

// at is an address below a product's.
func at(base *url.URL, path ...string) *url.URL {
	escaped := make([]string, len(path))
	for i, p := range path {
		escaped[i] = url.PathEscape(p)
	}
	return base.JoinPath(escaped...)
}

func (c *Client) get(ctx context.Context, u *url.URL, query url.Values, answer any) error {
	u.RawQuery = query.Encode()
	return c.call(ctx, request{method: http.MethodGet, url: u}, answer)
}

func (c *Client) post(ctx context.Context, u *url.URL, form url.Values, answer any) error {
	return c.call(ctx, request{method: http.MethodPost, url: u, form: form}, answer)
}

// call makes one request. answer may be nil.
func (c *Client) call(ctx context.Context, r request, answer any) error {
	write := r.method != http.MethodGet
	req, err := http.NewRequestWithContext(ctx, r.method, r.url.String(), strings.NewReader(r.form.Encode()))
	if err != nil {
		return &Error{Err: err}
	}
	req.SetBasicAuth(c.user, c.password)
	req.Header.Set("Accept", "application/json")
	if r.form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if r.webhooks {
		req.Header.Set("X-Twilio-Webhook-Enabled", "true")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// The error of net/http quotes the address, which may name a person.
		if quoting := (*url.Error)(nil); errors.As(err, &quoting) {
			err = quoting.Err
		}
		return &Error{Sent: !neverSent(err), Err: fmt.Errorf("%s did not answer: %w", r.url.Host, err), write: write}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case resp.StatusCode >= 300:
		return failure(resp, text, write)
	case err != nil:
		return &Error{Sent: true, Err: fmt.Errorf("read Twilio's answer: %w", err), write: write}
	case len(text) > maxAnswer:
		return &Error{Sent: true, Err: fmt.Errorf("an answer of Twilio's is over %d bytes", maxAnswer), write: write}
	case answer == nil:
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return &Error{Sent: true, Err: fmt.Errorf("an answer of Twilio's is not understood: %w", err), write: write}
	}
	return nil
}

func failure(resp *http.Response, text []byte, write bool) *Error {
	var said struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	e := &Error{Status: resp.StatusCode, Sent: true, RetryAfter: retryAfter(resp.Header.Get("Retry-After")), write: write}
	if json.Unmarshal(text, &said) == nil {
		e.Code, e.Message = said.Code, said.Message[:min(len(said.Message), maxSaid)]
	}
	return e
}

// retryAfter reads seconds or a date; what is neither is 0. What is far away is
// cut to a minute, since the host has limits of its own.
func retryAfter(text string) time.Duration {
	var d time.Duration
	if s, err := strconv.Atoi(text); err == nil {
		d = time.Duration(min(s, 3600)) * time.Second
	} else if t, err := http.ParseTime(text); err == nil {
		d = time.Until(t)
	}
	return min(max(d, 0), time.Minute)
}

// neverSent tells of an error of a request whether no connection was made.
func neverSent(err error) bool {
	op := (*net.OpError)(nil)
	return errors.As(err, &op) && op.Op == "dial"
}
