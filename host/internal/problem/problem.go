// Package problem owns the shape of every error answer over HTTP: an RFC 9457
// problem document with a code for programs.
//
// It knows neither routes nor codes. The doors (api, webhook, admin) make the
// documents and hold the rule that none repeats anything of its request.
package problem

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// ContentType is the media type of a problem document.
const ContentType = "application/problem+json"

// Problem is one problem document. It is an error, so that a handler may return
// it. It is not to be changed once it has been returned.
type Problem struct {
	Type   string `json:"type" doc:"Always about:blank; see code."`
	Title  string `json:"title" doc:"The status in words."`
	Status int    `json:"status" doc:"The HTTP status."`
	Detail string `json:"detail" doc:"What is wrong, for a developer. Never holds what was sent."`
	Code   string `json:"code" doc:"What is wrong, for programs."`

	ChatID      string  `json:"chat_id,omitempty" doc:"With chat_open: the open chat."`
	UserMessage string  `json:"user_message,omitempty" doc:"May be shown to the user."`
	Errors      []Fault `json:"errors,omitempty" nullable:"false" doc:"With invalid: each fault."`

	// RetryAfter becomes the Retry-After header, in whole seconds; 0: none.
	RetryAfter time.Duration `json:"-"`
}

// Fault is one thing that is wrong with a request.
type Fault struct {
	Location string `json:"location" doc:"Where, such as body.user.name."`
	Message  string `json:"message" doc:"What was expected."`
}

// New returns a problem with the given status, code and detail.
func New(status int, code, detail string) *Problem {
	return &Problem{
		Type:   "about:blank",
		Title:  http.StatusText(status),
		Status: status,
		Detail: detail,
		Code:   code,
	}
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType returns the media type of the document, whatever was asked for.
func (p *Problem) ContentType(string) string { return ContentType }

// GetHeaders returns the headers that go with the document.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.RetryAfter > 0 {
		seconds := (p.RetryAfter + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	return h
}

// Write answers a request with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	maps.Copy(w.Header(), p.GetHeaders())
	w.Header().Set("Content-Type", ContentType)
	w.WriteHeader(p.Status)
	// The client may be gone already; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(p)
}
