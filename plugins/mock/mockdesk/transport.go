package mockdesk

import (
	"context"
	"io"
	"net/http"
	"sync"
)

// Transport reaches a handler in the same process as if it were a server, with
// no port opened. Streams work; closing a response's body ends its handler.
func Transport(h http.Handler) http.RoundTripper { return transport{h} }

type transport struct{ handler http.Handler }

// RoundTrip runs the handler in a goroutine that ends before the response's
// body is closed.
func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	in := req.Clone(ctx)
	in.RemoteAddr = "in-process"
	in.RequestURI = in.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	r, w := io.Pipe()
	rw := &pipeWriter{header: http.Header{}, body: w, begun: make(chan struct{})}
	b := &pipeBody{PipeReader: r, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(b.ended)
		t.handler.ServeHTTP(rw, in)
		rw.WriteHeader(http.StatusOK)
		_ = in.Body.Close()
		_ = w.Close()
	}()
	select {
	case <-rw.begun:
	case <-ctx.Done():
		go b.Close() // the handler may be slow to notice; nobody waits for it
		return nil, ctx.Err()
	}
	// A read ends with its request, as on a connection.
	context.AfterFunc(ctx, func() { _ = w.CloseWithError(ctx.Err()) })
	return &http.Response{
		Status:        http.StatusText(rw.status),
		StatusCode:    rw.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        rw.sent,
		Body:          b,
		ContentLength: -1,
		Request:       req,
	}, nil
}

type pipeBody struct {
	*io.PipeReader

	cancel context.CancelFunc
	ended  chan struct{}
}

// Close ends the handler and waits for it.
func (b *pipeBody) Close() error {
	b.cancel()
	err := b.PipeReader.Close()
	<-b.ended
	return err
}

type pipeWriter struct {
	header, sent http.Header
	status       int
	once         sync.Once
	begun        chan struct{}
	body         *io.PipeWriter
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.begun)
	})
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Flush does nothing: what is written arrives at once.
func (w *pipeWriter) Flush() {}
