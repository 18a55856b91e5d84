package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/deskhost/deskhost/host/internal/problem"
)

// readBody reads the whole body of a request, checks that it is JSON and puts
// it back; where no call wants one, it is dropped. From then on the request's
// connection has no read deadline: one that passes while a call waits for a desk
// would cancel the call.
func (a *API) readBody(w http.ResponseWriter, r *http.Request) *problem.Problem {
	if r.ContentLength == 0 {
		return nil
	}
	wanted := r.Method == http.MethodPost || r.Method == http.MethodPatch
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); wanted && (err != nil || media != "application/json") {
		return problem.New(http.StatusUnsupportedMediaType, codeUnsupportedMediaType,
			"The body must be JSON, and Content-Type must say so: application/json.")
	}
	if r.ContentLength > a.limits.BodyBytes {
		return a.tooLarge(w)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, a.limits.BodyBytes+1))
	if err != nil {
		w.Header().Set("Connection", "close")
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return problem.New(http.StatusRequestTimeout, codeBodyTimeout, "The body did not arrive in time.")
		}
		return problem.New(http.StatusBadRequest, codeBadRequest, "The body broke off.")
	}
	if int64(len(body)) > a.limits.BodyBytes {
		return a.tooLarge(w)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if wanted && !json.Valid(body) {
		return problem.New(http.StatusBadRequest, codeBodyNotJSON, "The body is not JSON.")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// tooLarge refuses a body, and the connection with it: the rest of the body
// would have to be read first.
func (a *API) tooLarge(w http.ResponseWriter) *problem.Problem {
	w.Header().Set("Connection", "close")
	return problem.New(http.StatusRequestEntityTooLarge, codeBodyTooLarge,
		"A body is at most "+strconv.FormatInt(a.limits.BodyBytes, 10)+" bytes.")
}
