package desktest

import (
	"context"
	"errors"
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

	mu  sync.Mutex
	now *serving // nil until there is one
}

// listen opens the door.
func (t *trial) listen() (*webhooks, error) {
	listener, err := new(net.ListenConfig).Listen(t.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &webhooks{url: "http://" + listener.Addr().String() + webhookPath, served: make(chan struct{})}
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

func (w *webhooks) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	s := w.now
	w.mu.Unlock()
	path, ours := strings.CutPrefix(r.URL.EscapedPath(), webhookPath)
	switch {
	case s == nil:
		http.Error(rw, "No process is ready.", http.StatusServiceUnavailable)
		return
	case !ours || !slices.Contains(s.describe.GetCapabilities(), deskv1.Capability_CAPABILITY_HTTP):
		http.NotFound(rw, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), webhookTime)
	defer cancel()
	resp, err := s.forward(ctx, r, path)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	for _, h := range resp.GetHeaders() {
		rw.Header().Add(h.GetName(), h.GetValue())
	}
	rw.WriteHeader(int(resp.GetStatus()))
	_, _ = rw.Write(resp.GetBody()) // a vendor that has gone does not care
}

// forward is HandleHTTP with a request of a vendor's.
func (s *serving) forward(ctx context.Context, r *http.Request, path string) (*deskv1.HandleHTTPResponse, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, deskv1.MaxHTTPBytes))
	if err != nil {
		return nil, err
	}
	req := &deskv1.HandleHTTPRequest{Method: r.Method, Path: path, Query: r.URL.RawQuery, Body: body, RemoteAddress: r.RemoteAddr}
	for name, values := range r.Header {
		for _, value := range values {
			req.Headers = append(req.Headers, &deskv1.HTTPHeader{Name: name, Value: value})
		}
	}
	resp, err := s.HandleHTTP(ctx, req)
	if err == nil && (resp.GetStatus() < 200 || resp.GetStatus() > 599) {
		err = errors.New("the plugin's answer has no status of HTTP")
	}
	return resp, err
}
