// Package api is the widgets' door: the JSON calls, the event sockets and the
// files that pages load, as docs/http-api.md describes them.
//
// It owns what concerns a connection: origins, bearer tokens on their way in,
// rates, sizes, deadlines, sockets and the form of every answer. It must not
// know desks, plugins or the journal's keys: what a call means is the business
// of [Sessions]. Package host makes it, mounts it and closes it.
package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/identity"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	"github.com/deskhost/deskhost/host/internal/problem"
	"github.com/deskhost/deskhost/host/internal/session"
)

// Sessions is what the API needs of session.Service. Its errors are
// *session.Error or those of the context.
type Sessions interface {
	Create(ctx context.Context, req session.CreateRequest) (*session.Created, error)
	Info(ctx context.Context, ref session.Ref) (*session.Info, error)
	Update(ctx context.Context, ref session.Ref, update session.Update) error
	Delete(ctx context.Context, ref session.Ref) error
	Availability(ctx context.Context, ref session.Ref) (*session.Availability, error)
	StartChat(ctx context.Context, ref session.Ref, req session.StartRequest) (chatID string, err error)
	EndChat(ctx context.Context, ref session.Ref, chatID string) error
	SendMessage(ctx context.Context, ref session.Ref, msg session.Message) (*session.Sent, error)
	Typing(ctx context.Context, ref session.Ref, typing bool) error
	Read(ctx context.Context, ref session.Ref) error
	Subscribe(ctx context.Context, ref session.Ref, after uint64, wake func()) (session.Feed, error)
	Transcript(ctx context.Context, ref session.Ref, fn func(*recordv1.Entry) bool) error
}

// Verifier checks the identity tokens of users; identity.Verifier is one. It may
// be called concurrently.
type Verifier interface {
	// Verify returns whom a token speaks for. Its error is for a developer and
	// repeats nothing of the token.
	Verify(token string, now time.Time) (identity.User, error)
}

// Options are what an API is made of. Sessions and Log are required.
type Options struct {
	Sessions Sessions
	// Origins are the origins whose pages may call, such as
	// "https://www.example.com", or "*" for any. A page of the host's own
	// origin always may.
	Origins []string
	// Proxies are the networks of reverse proxies whose X-Forwarded-For is
	// believed. Without them the address of the connection counts.
	Proxies []netip.Prefix
	Limits  Limits
	// Identity checks identity tokens; nil: every token is refused.
	Identity Verifier
	// IdentityRequired refuses sessions without an identity token.
	IdentityRequired bool
	// Bridge holds the files of the bridge, Demo and Carbon those of pages; each
	// may be nil. They are served at the root.
	Bridge, Demo, Carbon fs.FS
	// Version of the host, for the API's description.
	Version string
	Log     hclog.Logger
}

// API is the widgets' door. It is ready once New has returned and serves until
// Close; its methods may be called concurrently.
type API struct {
	sessions         Sessions
	origins          origins
	proxies          []netip.Prefix
	limits           Limits
	identity         Verifier
	identityRequired bool
	log              hclog.Logger

	mux  *http.ServeMux
	huma huma.API

	requests *rates[netip.Prefix]
	creates  *rates[netip.Prefix]
	chats    *rates[uint64] // by a hash of the session's id
	messages *rates[uint64]

	listeners *listeners
}

// New returns an API that serves until it is closed.
func New(o Options) (*API, error) {
	allowed, err := parseOrigins(o.Origins)
	if err != nil {
		return nil, err
	}
	a := &API{
		sessions:         o.Sessions,
		origins:          allowed,
		proxies:          o.Proxies,
		limits:           o.Limits,
		identity:         o.Identity,
		identityRequired: o.IdentityRequired,
		log:              o.Log,
		mux:              http.NewServeMux(),
		requests:         newRates[netip.Prefix](o.Limits.RequestsPerMinute),
		creates:          newRates[netip.Prefix](o.Limits.SessionsPerMinute),
		chats:            newRates[uint64](o.Limits.ChatsPerMinute),
		messages:         newRates[uint64](o.Limits.MessagesPerMinute),
	}
	description, err := a.describe(o.Version)
	if err != nil {
		return nil, fmt.Errorf("describe the API: %w", err)
	}
	if err := a.serveFiles(description, o.Bridge, o.Demo, o.Carbon); err != nil {
		return nil, err
	}
	a.listeners = newListeners(o.Limits)
	return a, nil
}

// Close refuses new sockets and ends the open ones (close code 1012, "service
// restart"), so that their pages come back to the next host. It returns once
// all are gone; when ctx ends first, it cuts what is left and returns the
// context's error. Calls under way are the HTTP server's to wait for.
func (a *API) Close(ctx context.Context) error { return a.listeners.close(ctx) }

const (
	// bodyTimeout bounds how long a client may take to send a body.
	bodyTimeout = 10 * time.Second
	// answerTimeout bounds how long one may take to read an answer.
	answerTimeout = time.Minute
)

// ServeHTTP answers one request.
func (a *API) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &answer{ResponseWriter: rw}
	defer a.recovered(w, r)
	a.bound(w, r)

	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if done := a.origins.admit(w, r); done {
		return
	}
	if p := a.refuse(w, r); p != nil {
		p.Write(w)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// bound sets the deadlines of a request's connection. They are the server's too: it
// reads the rest of a body that was refused, and writes the end of each answer,
// when nobody here looks any more. Each request replaces what the one before it on
// its connection has left. A server that cannot set deadlines has its own.
func (a *API) bound(w http.ResponseWriter, r *http.Request) {
	control, now := http.NewResponseController(w), time.Now()
	_ = control.SetWriteDeadline(now.Add(bodyTimeout + a.limits.Call + answerTimeout))
	if r.ContentLength != 0 {
		_ = control.SetReadDeadline(now.Add(bodyTimeout))
	}
}

// refuse checks what is the same for every call, before any of them sees it.
func (a *API) refuse(w http.ResponseWriter, r *http.Request) *problem.Problem {
	if wait := a.requests.take(address(r, a.proxies)); wait > 0 {
		return tooMany(wait)
	}
	if tokenInQuery(r) {
		return problem.New(http.StatusBadRequest, codeTokenInQuery,
			"A token in a query ends up in logs. Send it as Authorization: Bearer, or on a WebSocket as a subprotocol.")
	}
	// The mux would answer an unclean path with a redirect that repeats it.
	if r.URL.Path != "/" && path.Clean(r.URL.Path) != strings.TrimSuffix(r.URL.Path, "/") {
		return notFound()
	}
	if h, pattern := a.mux.Handler(r); pattern == "" {
		refused := statusOnly{header: w.Header()}
		h.ServeHTTP(&refused, r)
		if refused.status == http.StatusMethodNotAllowed {
			return problem.New(refused.status, codeMethodNotAllowed, "The Allow header lists the methods of this path.")
		}
		return notFound()
	}
	return a.readBody(w, r)
}

func notFound() *problem.Problem {
	return problem.New(http.StatusNotFound, codeNotFound, "There is nothing at this path.")
}

func tooMany(wait time.Duration) *problem.Problem {
	p := problem.New(http.StatusTooManyRequests, codeTooManyRequests, "Slow down; Retry-After says for how long.")
	p.RetryAfter = wait
	return p
}

// recovered answers for a handler that has panicked.
func (a *API) recovered(w *answer, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(cause)
	}
	if r.Context().Err() != nil {
		// Writing to a client that has gone ends in a panic of huma's.
		a.log.Debug("client left before its answer", "cause", cause)
		return
	}
	a.log.Error("panic in a handler", "method", r.Method, "pattern", r.Pattern, "panic", cause, "stack", string(debug.Stack()))
	if w.wrote {
		panic(http.ErrAbortHandler)
	}
	internal().Write(w)
}

// tokenParameters are query parameters that look like an attempt to
// authenticate.
var tokenParameters = []string{
	"token", "access_token", "auth_token", "bearer", "bearer_token", "authorization", "identity_token", "jwt",
}

func tokenInQuery(r *http.Request) bool {
	if r.URL.RawQuery == "" {
		return false
	}
	for name := range r.URL.Query() {
		for _, p := range tokenParameters {
			if strings.EqualFold(name, p) {
				return true
			}
		}
	}
	return false
}

// answer remembers whether anything has been written, for recovered.
type answer struct {
	http.ResponseWriter
	wrote bool
}

func (w *answer) WriteHeader(status int) {
	w.wrote = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *answer) Write(b []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(b)
}

// Hijack serves WebSockets.
func (w *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.wrote = true
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap serves http.ResponseController.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// statusOnly keeps the status and the headers of an answer.
type statusOnly struct {
	header http.Header
	status int
}

func (w *statusOnly) Header() http.Header         { return w.header }
func (w *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (w *statusOnly) WriteHeader(status int)      { w.status = status }
