package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/deskhost/deskhost/host/internal/problem"
	"github.com/deskhost/deskhost/host/internal/session"
)

// The codes that this package adds to those of session.
const (
	codeBadRequest           = "bad_request"
	codeBodyNotJSON          = "body_not_json"
	codeBodyTooLarge         = "body_too_large"
	codeBodyTimeout          = "body_timeout"
	codeIdentityInvalid      = "identity_invalid"
	codeIdentityRequired     = "identity_required"
	codeInternal             = "internal"
	codeInvalid              = string(session.CodeInvalid)
	codeMethodNotAllowed     = "method_not_allowed"
	codeNotAcceptable        = "not_acceptable"
	codeNotFound             = "not_found"
	codeOriginNotAllowed     = "origin_not_allowed"
	codeTextEmpty            = "text_empty"
	codeTimeout              = "timeout"
	codeTokenInQuery         = "token_in_query"
	codeTokenMissing         = "token_missing"
	codeTooManyRequests      = "too_many_requests"
	codeUnsupportedMediaType = "unsupported_media_type"
)

// retryLater goes with problems that pass by themselves.
const retryLater = 5 * time.Second

// statuses is the one place that turns a code of session into a status.
var statuses = map[session.Code]int{
	session.CodeTokenWrong:      http.StatusUnauthorized,
	session.CodeSessionUnknown:  http.StatusNotFound,
	session.CodeChatOpen:        http.StatusConflict,
	session.CodeNoChat:          http.StatusConflict,
	session.CodeIDReused:        http.StatusConflict,
	session.CodeInvalid:         http.StatusUnprocessableEntity,
	session.CodeDeskUnknown:     http.StatusUnprocessableEntity,
	session.CodeTextTooLong:     http.StatusUnprocessableEntity,
	session.CodeTooManyMessages: http.StatusTooManyRequests,
	session.CodeStartRefused:    http.StatusBadGateway,
	session.CodeStartFailed:     http.StatusBadGateway,
	session.CodeDeskUnavailable: http.StatusServiceUnavailable,
	session.CodeStopping:        http.StatusServiceUnavailable,
	session.CodeStartTimeout:    http.StatusGatewayTimeout,
	session.CodeStorageFull:     http.StatusInsufficientStorage,
}

// problemOf turns any error of a call into a problem. What is no refusal is
// logged, and told to nobody else.
func (a *API) problemOf(err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p
	}
	if refusal, ok := errors.AsType[*session.Error](err); ok {
		if status, ok := statuses[refusal.Code]; ok {
			p := problem.New(status, string(refusal.Code), refusal.Detail)
			p.ChatID = refusal.ChatID
			p.UserMessage = refusal.UserMessage
			switch status {
			case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusInsufficientStorage:
				p.RetryAfter = retryLater
			}
			return p
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return problem.New(http.StatusGatewayTimeout, codeTimeout,
			"The call took too long; its outcome is not known. The same call with the same id may be repeated.")
	}
	a.log.Error("a call failed", "error", err)
	return internal()
}

func internal() *problem.Problem {
	return problem.New(http.StatusInternalServerError, codeInternal, "The host failed to answer; its log tells why.")
}

// invalid is a request that has the right form but an unacceptable value.
func invalid(faults ...problem.Fault) *problem.Problem {
	p := problem.New(http.StatusUnprocessableEntity, codeInvalid, "The request does not fit its schema; see errors.")
	p.Errors = faults
	return p
}

// strip is a huma transformer: it turns huma's own errors, which repeat what
// was sent, into problems that do not.
func strip(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	switch e.Status {
	case http.StatusUnprocessableEntity:
		faults := make([]problem.Fault, len(e.Errors))
		for i, d := range e.Errors {
			faults[i] = problem.Fault{Location: location(d.Location), Message: message(d.Message)}
		}
		return invalid(faults...), nil
	case http.StatusBadRequest:
		return problem.New(e.Status, codeBodyNotJSON, "This call needs a body: a JSON object."), nil
	default:
		return internal(), nil
	}
}

// location cuts a path where it begins to hold names that the client made.
func location(path string) string {
	const names = ".attributes"
	if i := strings.Index(path, names+"."); i >= 0 {
		return path[:i+len(names)]
	}
	return path
}

// message lets the validator's own sentences through, which are made of the
// schema, and no error of a parser, which may be made of the input.
func message(m string) string {
	if strings.HasPrefix(m, "expected ") {
		return m
	}
	return "not a value of the expected form"
}
