package desktest

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

const (
	webhookPath = "/webhooks/desktest/"
	// webhookTime is what a plugin has for an answer, as in a host.
	webhookTime = 4 * time.Second
)

// webhooks is the vendors' door: it forwards what comes to a loopback address
// into the process that has become ready last, as a host does.
type webhooks struct {
	url    string
	server *http.Server
	served chan struct{}

	mu      sync.Mutex
	now     *serving // nil: there is none
	came    []*webhook
	changed chan struct{} // closed when one has been answered
}

// webhook is one request.
type webhook struct {
	text   string // path, query and body
	status int    // of the answer; 0 until there is one
}

// listen opens the door.
func (t *trial) listen() (*webhooks, error) {
	listener, err := new(net.ListenConfig).Listen(t.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &webhooks{
		url:    "http://" + listener.Addr().String() + webhookPath,
		served: make(chan struct{}), changed: make(chan struct{}),
	}
	w.server = &http.Server{Handler: w, ReadHeaderTimeout: webhookTime}
	go func() {
		defer close(w.served)
		_ = w.server.Serve(listener) // until it is closed
	}()
	return w, nil
}

// close ends what is under way too.
func (w *webhooks) close() {
	_ = w.server.Close() // nothing is left to be lost
	<-w.served
}

// to has a process get what comes from now on.
func (w *webhooks) to(s *serving) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = s
}

// begins notes a request, and tells which process gets it.
func (w *webhooks) begins(text string) (*webhook, *serving) {
	w.mu.Lock()
	defer w.mu.Unlock()
	hook := &webhook{text: text}
	w.came = append(w.came, hook)
	return hook, w.now
}

// answered notes what a request was answered with.
func (w *webhooks) answered(hook *webhook, status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	hook.status = status
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *webhooks) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, deskv1.MaxHTTPBytes))
	if err != nil {
		http.Error(rw, "A body is at most 1 MiB.", http.StatusRequestEntityTooLarge)
		return
	}
	path, ours := strings.CutPrefix(r.URL.EscapedPath(), webhookPath)
	hook, s := w.begins(strings.Join([]string{path, r.URL.RawQuery, string(body)}, "\n"))
	var answer *deskv1.HandleHTTPResponse
	switch {
	case s == nil:
		answer = plain(http.StatusServiceUnavailable, "No process is ready.")
	case !ours || !slices.Contains(s.describe.GetCapabilities(), deskv1.Capability_CAPABILITY_HTTP):
		answer = plain(http.StatusNotFound, "Nobody takes this.")
	default:
		answer = s.forward(r, path, body)
	}
	w.answered(hook, int(answer.GetStatus()))
	for _, h := range answer.GetHeaders() {
		rw.Header().Add(h.GetName(), h.GetValue())
	}
	rw.WriteHeader(int(answer.GetStatus()))
	_, _ = rw.Write(answer.GetBody()) //nolint:gosec // to the vendor, who may have gone, and no page
}

func plain(status uint32, text string) *deskv1.HandleHTTPResponse {
	return &deskv1.HandleHTTPResponse{Status: status, Body: []byte(text + "\n")}
}

// forward is HandleHTTP with a request of a vendor's, and an answer in any case.
func (s *serving) forward(r *http.Request, path string, body []byte) *deskv1.HandleHTTPResponse {
	ctx, cancel := context.WithTimeout(r.Context(), webhookTime)
	defer cancel()
	req := &deskv1.HandleHTTPRequest{Method: r.Method, Path: path, Query: r.URL.RawQuery, Body: body, RemoteAddress: r.RemoteAddr}
	for name, values := range r.Header {
		for _, value := range values {
			req.Headers = append(req.Headers, &deskv1.HTTPHeader{Name: name, Value: value})
		}
	}
	resp, err := s.HandleHTTP(ctx, req)
	switch {
	case err != nil:
		return plain(http.StatusBadGateway, err.Error())
	case resp.GetStatus() < 200 || resp.GetStatus() > 599:
		return plain(http.StatusBadGateway, "The plugin's answer has no status of HTTP.")
	}
	return resp
}

// brought tells whether a request has held a text.
func (w *webhooks) brought(text string) bool {
	return w.has(func(h *webhook) bool { return strings.Contains(h.text, text) })
}

// accepted tells whether one that held the text has been answered so that the
// vendor forgets it.
func (w *webhooks) accepted(text string) bool {
	return w.has(func(h *webhook) bool {
		return strings.Contains(h.text, text) && h.status >= http.StatusOK && h.status < http.StatusMultipleChoices
	})
}

func (w *webhooks) has(is func(*webhook) bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.came, is)
}

// await returns once ok holds, with an error if ctx ends first.
func (w *webhooks) await(ctx context.Context, ok func() bool) error {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if ok() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
