package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

const (
	// attemptTimeout bounds one try of a call: a start takes the host up to 10 s.
	attemptTimeout = 15 * time.Second
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 1 << 20
)

// Problem is a call's refusal by the host, or by something between.
type Problem struct {
	Status int    `json:"-"`
	Code   string `json:"code"`
	// Detail is a sentence for developers.
	Detail string `json:"detail"`
	// UserMessage is the desk's own word to the user, mostly empty.
	UserMessage string `json:"user_message"`

	retryAfter time.Duration
}

func (p *Problem) Error() string {
	return fmt.Sprintf("the host answered %d %s: %s", p.Status, p.Code, p.Detail)
}

// final lists the problems that are an answer although their status sounds as
// if they might pass: the same call would be answered so again.
var final = []string{"start_failed", "start_refused", "start_timeout", "desk_unavailable", "storage_full"}

// Final tells whether the same call would be answered so again. After another
// problem nobody knows what became of the call.
func (p *Problem) Final() bool {
	switch p.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return p.Status < 500 || slices.Contains(final, p.Code)
}

// call makes a call until it is answered or its patience has run out. Every call
// may be repeated: a chat and a message carry an id, and a session that nobody
// was told of is never used.
func (c *Client) call(ctx context.Context, patience time.Duration, method, path, token string, body, into any) error {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(patience)
	for attempt := 1; ; attempt++ {
		reached := c.whenReached()
		err := c.callOnce(ctx, method, path, token, content, into)
		if err == nil {
			return nil
		}
		wait := backoff(attempt)
		if p := (*Problem)(nil); errors.As(err, &p) {
			if p.Final() {
				return err
			}
			if p.retryAfter > 0 {
				wait, reached = max(wait, p.retryAfter), nil
			}
		}
		if ctx.Err() != nil || time.Now().Add(wait).After(deadline) || !pause(ctx, wait, reached) {
			return err
		}
	}
}

func (c *Client) callOnce(ctx context.Context, method, path, token string, content []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json, application/problem+json")
	if content != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.http.Do(r)
	if err != nil {
		// What was called is known to whoever calls.
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err
		}
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return err
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return problemOf(response, answer)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return &Problem{Status: response.StatusCode, Code: "not_a_host", Detail: "the answer is not the JSON that a host sends; is this the address of a deskhost?"}
	}
	return nil
}

func problemOf(response *http.Response, answer []byte) *Problem {
	p := &Problem{}
	if json.Unmarshal(answer, p) != nil || p.Code == "" {
		// Not from the host, but from something in between.
		*p = Problem{Code: "not_a_host", Detail: http.StatusText(response.StatusCode) + ", but not as a host says it"}
	}
	p.Status = response.StatusCode
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
		p.retryAfter = time.Duration(seconds) * time.Second
	}
	return p
}

// backoff is how long to wait before try number attempt; 1 is the first
// repetition. Jitter keeps many clients of one host apart.
func backoff(attempt int) time.Duration {
	longest := min(15*time.Second, 250*time.Millisecond<<min(attempt, 10))
	return longest/2 + rand.N(longest/2)
}

// pause waits for so long, or until there is reason not to wait longer, which may
// be nil. It tells false if ctx ended first.
func pause(ctx context.Context, d time.Duration, reason <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-reason:
		return true
	case <-ctx.Done():
		return false
	}
}
