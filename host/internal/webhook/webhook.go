// Package webhook is the vendors' door: it forwards what a vendor sends to
// /webhooks/{desk}/… into the plugin of that desk, and the plugin's answer back.
//
// It owns what the host adds to that: which headers pass, sizes, the deadline,
// how many requests a desk may have under way. It must not know what a request
// means or whether it is genuine: the plugin checks the vendor's signature over
// the raw path, query and body. Package host mounts it, in front of any mux:
// one would redirect paths that it finds unclean.
package webhook

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/problem"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// Prefix begins the path of every webhook; the desk's name follows.
const Prefix = "/webhooks/"

const (
	// timeout bounds a request from its first byte to the plugin's answer.
	// Vendors give up after five seconds or more.
	timeout = 4 * time.Second
	// answerTimeout bounds a request from its first byte to the answer's last one: who
	// does not read keeps one of the desk's places.
	answerTimeout = 15 * time.Second
	// maxUnderWay is how many requests of one desk may be under way.
	maxUnderWay = 64
	// retryLater tells a vendor when to deliver again.
	retryLater = 5 * time.Second
)

// Desks tells who serves a desk.
type Desks interface {
	// Current returns the newest ready generation of a desk, nil if none is
	// ready, and whether there is a desk of that name.
	Current(name string) (g desk.Generation, known bool)
}

// Options configure a Handler.
type Options struct {
	Desks Desks
	// Pages lets a plugin's pages run in the host's origin. Only for a demo, whose
	// agent's console is such a page.
	Pages bool
	Log   hclog.Logger
}

// Handler forwards webhooks. It may be used concurrently.
type Handler struct {
	desks Desks
	pages bool
	log   hclog.Logger

	mu       sync.Mutex
	underWay map[string]int
}

// New returns a handler.
func New(o Options) *Handler {
	return &Handler{desks: o.Desks, pages: o.Pages, log: o.Log, underWay: map[string]int{}}
}

// ServeHTTP forwards one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bound(w, r)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !h.pages {
		// What a plugin answers must not run as a page of the host's origin.
		w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox")
	}

	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), Prefix)
	name, path, _ := strings.Cut(rest, "/")
	var g desk.Generation
	if ok {
		g, ok = h.desks.Current(name)
	}
	switch {
	case !ok:
		problem.New(http.StatusNotFound, "not_found", "There is no desk of this name.").Write(w)
	case g == nil:
		unavailable(w, "desk_unavailable", "The desk is not ready; deliver again later.")
	case !desk.Has(g, deskv1.Capability_CAPABILITY_HTTP):
		problem.New(http.StatusNotFound, "not_found", "The plugin of this desk takes no webhooks.").Write(w)
	case !h.begin(name):
		unavailable(w, "too_many_requests", "The desk has too many requests under way; deliver again later.")
	default:
		defer h.done(name)
		h.forward(w, r, g, path)
	}
}

// bound sets the deadlines of a request's connection. They are the server's too: it
// reads the rest of a body that was refused, and writes the end of each answer,
// when nobody here looks any more. A server that cannot set deadlines has its own.
func bound(w http.ResponseWriter, r *http.Request) {
	control, now := http.NewResponseController(w), time.Now()
	_ = control.SetWriteDeadline(now.Add(answerTimeout))
	if r.ContentLength != 0 {
		_ = control.SetReadDeadline(now.Add(timeout))
	}
}

// begin counts a request in if its desk may have one more.
func (h *Handler) begin(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.underWay[name] >= maxUnderWay {
		return false
	}
	h.underWay[name]++
	return true
}

func (h *Handler) done(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.underWay[name]--
}

func (h *Handler) forward(w http.ResponseWriter, r *http.Request, g desk.Generation, path string) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()

	body, failure := readBody(w, r)
	if failure != nil {
		failure.Write(w)
		return
	}
	req := &deskv1.HandleHTTPRequest{
		Method:        r.Method,
		Path:          path,
		Query:         valid(r.URL.RawQuery),
		Body:          body,
		RemoteAddress: r.RemoteAddr,
	}
	for name, values := range r.Header {
		if !inward(name) {
			continue
		}
		for _, v := range values {
			req.Headers = append(req.Headers, &deskv1.HTTPHeader{Name: name, Value: valid(v)})
		}
	}
	resp, err := g.HandleHTTP(ctx, req)
	if err != nil {
		h.refuse(ctx, w, g, err)
		return
	}
	if resp.GetStatus() < 200 || resp.GetStatus() > 599 || len(resp.GetBody()) > deskv1.MaxHTTPBytes {
		h.log.Error("plugin answered a webhook with a bad response; expected a status of 200 to 599 and at most 1 MiB",
			"desk", g.Desk(), "plugin", g.Describe().GetName(), "version", g.Describe().GetVersion(),
			"status", resp.GetStatus(), "bytes", len(resp.GetBody()))
		problem.New(http.StatusBadGateway, "bad_response", "The desk's plugin answered wrongly.").Write(w)
		return
	}
	for _, header := range resp.GetHeaders() {
		if name := http.CanonicalHeaderKey(header.GetName()); outward[name] {
			w.Header().Add(name, header.GetValue())
		}
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(int(resp.GetStatus()))
	_, _ = w.Write(resp.GetBody()) // A vendor that has gone delivers again.
}

// valid replaces what is not UTF-8, which no call to a plugin can hold. What a
// signature covers is ASCII.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// readBody reads the whole body before its deadline, and takes the deadline off:
// one that passes while the plugin works would cancel the request.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *problem.Problem) {
	body, err := io.ReadAll(io.LimitReader(r.Body, deskv1.MaxHTTPBytes+1))
	if err != nil {
		w.Header().Set("Connection", "close")
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			return nil, problem.New(http.StatusRequestTimeout, "body_timeout", "The body did not arrive in time.")
		}
		return nil, problem.New(http.StatusBadRequest, "bad_request", "The body broke off.")
	}
	if len(body) > deskv1.MaxHTTPBytes {
		w.Header().Set("Connection", "close")
		return nil, problem.New(http.StatusRequestEntityTooLarge, "body_too_large", "A body is at most 1 MiB.")
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return body, nil
}

// refuse answers for a plugin that has not. Whatever may pass is a 5xx, after
// which vendors deliver again.
func (h *Handler) refuse(ctx context.Context, w http.ResponseWriter, g desk.Generation, err error) {
	h.log.Warn("webhook failed", "desk", g.Desk(), "plugin", g.Describe().GetName(),
		"version", g.Describe().GetVersion(), "error", err)
	var call *desk.CallError
	switch kind := errors.As(err, &call); {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		problem.New(http.StatusGatewayTimeout, "timeout", "The desk's plugin took too long; deliver again.").Write(w)
	case kind && call.Kind == deskv1.FailureKind_FAILURE_KIND_RETRY:
		p := problem.New(http.StatusServiceUnavailable, "desk_unavailable", "The desk cannot take this now; deliver again later.")
		p.RetryAfter = max(call.RetryAfter, time.Second)
		p.Write(w)
	case kind && call.Kind == deskv1.FailureKind_FAILURE_KIND_INVALID:
		problem.New(http.StatusBadRequest, "bad_request", "The desk's plugin does not accept this.").Write(w)
	case kind && call.Kind == deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED:
		problem.New(http.StatusNotFound, "not_found", "The plugin of this desk takes no webhooks.").Write(w)
	default:
		problem.New(http.StatusBadGateway, "plugin_failed", "The desk's plugin failed; deliver again.").Write(w)
	}
}

func unavailable(w http.ResponseWriter, code, detail string) {
	p := problem.New(http.StatusServiceUnavailable, code, detail)
	p.RetryAfter = retryLater
	p.Write(w)
}

// inwardNames are the headers that reach a plugin, besides those that begin
// like a signature's. Authorization does: it holds what the vendor was told to
// prove itself with. Cookies do not: they are the host's origin's.
var inwardNames = map[string]bool{
	"Accept":           true,
	"Authorization":    true,
	"Content-Digest":   true,
	"Content-Encoding": true,
	"Content-Type":     true,
	"Date":             true,
	"Digest":           true,
	"Idempotency-Key":  true,
	"Signature":        true,
	"Signature-Input":  true,
	"User-Agent":       true,
}

// inwardPrefixes begin the names under which vendors send signatures, such as
// X-Twilio-Signature, X-Hub-Signature-256, I-Twilio-Idempotency-Token and
// Webhook-Signature.
var inwardPrefixes = []string{"X-", "I-Twilio-", "Webhook-"}

// proxyPrefixes begin the names that proxies and their callers write. A plugin
// that believed them would believe anybody.
var proxyPrefixes = []string{"X-Forwarded-", "X-Real-", "X-Original-", "X-Rewrite-"}

// inward tells whether a header, by its canonical name, reaches the plugin.
func inward(name string) bool {
	return inwardNames[name] || hasPrefix(name, inwardPrefixes) && !hasPrefix(name, proxyPrefixes)
}

func hasPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// outward are the headers of an answer that reach the vendor.
var outward = map[string]bool{
	"Cache-Control": true,
	"Content-Type":  true,
	"Etag":          true,
	"Location":      true,
	"Retry-After":   true,
}
