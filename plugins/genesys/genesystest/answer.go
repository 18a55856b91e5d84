package genesystest

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// apiError is an error as the platform's API answers it.
type apiError struct {
	Status     int      `json:"status"`
	Code       string   `json:"code"`
	Message    string   `json:"message"`
	ContextID  string   `json:"contextId"`
	Details    []string `json:"details"`
	Errors     []string `json:"errors"`
	retryAfter int
}

func (e *apiError) Error() string { return e.Code + ": " + e.Message }

func newError(status int, code, message string) *apiError {
	return &apiError{Status: status, Code: code, Message: message}
}

func badRequest(message string) *apiError {
	return newError(http.StatusBadRequest, "bad.request", message)
}

var (
	errUnauthorized = newError(http.StatusUnauthorized, "authentication.required", "No authentication bearer token specified in authorization header.")
	errCredentials  = newError(http.StatusUnauthorized, "bad.credentials", "Invalid login credentials.")
	errExpired      = newError(http.StatusUnauthorized, "credentials.expired", "The supplied credentials are expired and cannot be used.")
	errForbidden    = newError(http.StatusForbidden, "not.authorized", "You are not authorized to perform the requested action.")
	errOrigin       = newError(http.StatusForbidden, "origin.not.allowed", "The request's origin is not allowed by the deployment.")
	errNotFound     = newError(http.StatusNotFound, "not.found", "The requested resource was not found.")
)

func errTooMany(retryAfter int) *apiError {
	e := newError(http.StatusTooManyRequests, "too.many.requests", "Rate limit exceeded.")
	e.retryAfter = retryAfter
	return e
}

// endpoint answers a call of the API, with the server locked: with what becomes
// JSON, or nothing at all for 204, or an *answer, or an error.
type endpoint func(r *http.Request, body []byte) (any, error)

// answer is one with a status of its own.
type answer struct {
	status int
	body   any
}

// serve has an endpoint answer the calls of a kind, after the fault that may be
// planned for them.
func (s *Server) serve(kind string, h endpoint) http.HandlerFunc {
	return s.call(kind, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFrame))
		if err != nil {
			writeError(w, badRequest("The request body is too large."))
			return
		}
		s.answer(h, r, body).write(w)
	})
}

// answer returns what an endpoint answers, to be written once the lock is gone.
func (s *Server) answer(h endpoint, r *http.Request, body []byte) *written {
	s.mu.Lock()
	defer s.mu.Unlock()
	result, err := h(r, body)
	if err != nil {
		return refusal(err)
	}
	done := &written{status: http.StatusOK}
	if a, ok := result.(*answer); ok {
		done.status, result = a.status, a.body
	}
	if result == nil {
		done.status = http.StatusNoContent
		return done
	}
	done.body = encode(result)
	return done
}

// written is an answer that only has to go out.
type written struct {
	status, retryAfter int
	body               []byte
}

func (a *written) write(w http.ResponseWriter) {
	if a.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(a.retryAfter))
	}
	if a.body != nil {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the caller has gone if this fails
}

func refusal(err error) *written {
	e := newError(http.StatusInternalServerError, "internal.server.error", "The server encountered an unexpected condition.")
	errors.As(err, &e)
	told := *e
	told.ContextID, told.Details, told.Errors = newID(), []string{}, []string{}
	return &written{e.Status, e.retryAfter, encode(told)}
}

func writeError(w http.ResponseWriter, e *apiError) { refusal(e).write(w) }

func encode(what any) []byte {
	text, err := json.Marshal(what)
	if err != nil {
		panic("genesystest: an answer that is no JSON: " + err.Error())
	}
	return text
}

// readJSON reads the body of a call.
func readJSON(body []byte, to any) error {
	if err := json.Unmarshal(body, to); err != nil {
		return badRequest("The request body is not the JSON that is expected: " + err.Error())
	}
	return nil
}

func queryInt(r *http.Request, name string, otherwise int) int {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return -1
	}
	return n
}

// tokens makes and checks JWTs, which are all that a bearer needs to have.
type tokens struct {
	key  []byte
	now  func() time.Time
	life time.Duration
	// from is the time from which on a token has to be issued to be good.
	from int64
}

// claims are what a token of ours says. Kind is "messaging" (of a session),
// "chat" (of a conversation and its member), "access" (of the OAuth client), or
// "signed" (of a user).
type claims struct {
	Kind    string `json:"kind"`
	Subject string `json:"sub"`
	Member  string `json:"member,omitempty"`
	Expires int64  `json:"exp"`
	// Serial tells when the token was made, among others.
	Serial int64 `json:"serial"`
}

func newTokens(now func() time.Time, life time.Duration) *tokens {
	t := &tokens{key: make([]byte, 32), now: now, life: life}
	_, _ = rand.Read(t.key) // never fails
	return t
}

func (t *tokens) issue(kind, subject, member string) (token string, expires time.Time) {
	expires = t.now().Add(t.life).Truncate(time.Second)
	body, err := json.Marshal(claims{kind, subject, member, expires.Unix(), t.from})
	if err != nil {
		panic("genesystest: claims that are no JSON: " + err.Error())
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(body)
	return text + "." + encode(t.sign(text)), expires
}

func (t *tokens) sign(text string) []byte {
	m := hmac.New(sha256.New, t.key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func (t *tokens) read(token, kind string) (c claims, err error) {
	at := strings.LastIndexByte(token, '.')
	if at < 0 {
		return c, errCredentials
	}
	signature, err := base64.RawURLEncoding.DecodeString(token[at+1:])
	if err != nil || !hmac.Equal(signature, t.sign(token[:at])) {
		return c, errCredentials
	}
	_, payload, _ := strings.Cut(token[:at], ".")
	body, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || json.Unmarshal(body, &c) != nil || c.Kind != kind {
		return c, errCredentials
	}
	if t.now().Unix() >= c.Expires || c.Serial < t.from {
		return c, errExpired
	}
	return c, nil
}

// bearer reads the token of a request.
func (t *tokens) bearer(r *http.Request, kind string) (claims, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return claims{}, errUnauthorized
	}
	return t.read(token, kind)
}

// expire makes all tokens that were issued so far expired ones.
func (t *tokens) expire() { t.from++ }
