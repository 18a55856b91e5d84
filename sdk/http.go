package sdk

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// maxHeaderBytes bounds the headers of an answer, so that it fits a message.
const maxHeaderBytes = 64 << 10

// serveHTTP runs the handler on a forwarded request. Whatever goes wrong is an
// answer to the vendor, never an error of the call.
func serveHTTP(ctx context.Context, h http.Handler, r *deskv1.HandleHTTPRequest) *deskv1.HandleHTTPResponse {
	req, err := fromHTTP(ctx, r)
	if err != nil {
		return plainAnswer(http.StatusBadRequest, "The request cannot be read: "+err.Error())
	}
	rec := recorder{header: http.Header{}}
	h.ServeHTTP(&rec, req)
	return rec.answer()
}

func fromHTTP(ctx context.Context, r *deskv1.HandleHTTPRequest) (*http.Request, error) {
	uri := "/" + r.GetPath()
	if r.GetQuery() != "" {
		uri += "?" + r.GetQuery()
	}
	u, err := url.ParseRequestURI(uri)
	if err != nil {
		return nil, fmt.Errorf("path or query: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, r.GetMethod(), "/", bytes.NewReader(r.GetBody()))
	if err != nil {
		return nil, err
	}
	req.URL, req.RequestURI, req.RemoteAddr = u, uri, r.GetRemoteAddress()
	for _, h := range r.GetHeaders() {
		req.Header.Add(h.GetName(), h.GetValue())
	}
	req.Host = req.Header.Get("Host")
	req.Header.Del("Host")
	return req, nil
}

// recorder is the ResponseWriter of a forwarded request.
type recorder struct {
	header http.Header
	// status is 0 until the header is written; sent is the header as it was then.
	status int
	sent   http.Header
	body   bytes.Buffer
	// fault says why the answer cannot be passed on, if so.
	fault string
}

// Header returns the header to be sent.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader fixes status and header; informational ones are not passed on.
func (r *recorder) WriteHeader(status int) {
	if r.status != 0 || (status >= 100 && status <= 199) {
		return
	}
	if status < 200 || status > 599 {
		r.fault = fmt.Sprintf("The plugin answered with the status %d, which is not one of HTTP.", status)
	}
	r.status, r.sent = status, r.header.Clone()
}

// Write adds to the body, up to the limit.
func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if r.body.Len()+len(b) > deskv1.MaxHTTPBytes {
		r.fault = fmt.Sprintf("The plugin's answer is over the limit of %d bytes.", deskv1.MaxHTTPBytes)
		return 0, fmt.Errorf("sdk: the answer to a webhook is limited to %d bytes", deskv1.MaxHTTPBytes)
	}
	return r.body.Write(b)
}

func (r *recorder) answer() *deskv1.HandleHTTPResponse {
	r.WriteHeader(http.StatusOK)
	resp := &deskv1.HandleHTTPResponse{Status: uint32(r.status), Body: r.body.Bytes()}
	size := 0
	for name, values := range r.sent {
		for _, v := range values {
			size += len(name) + len(v)
			resp.Headers = append(resp.Headers, &deskv1.HTTPHeader{Name: valid(name), Value: valid(v)})
		}
	}
	if size > maxHeaderBytes {
		r.fault = fmt.Sprintf("The headers of the plugin's answer are over the limit of %d bytes.", maxHeaderBytes)
	}
	if r.fault != "" {
		return plainAnswer(http.StatusInternalServerError, r.fault)
	}
	return resp
}

func plainAnswer(status uint32, text string) *deskv1.HandleHTTPResponse {
	return &deskv1.HandleHTTPResponse{
		Status:  status,
		Headers: []*deskv1.HTTPHeader{{Name: "Content-Type", Value: "text/plain; charset=utf-8"}},
		Body:    []byte(text + "\n"),
	}
}
