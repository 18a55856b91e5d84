package mockdesk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/deskapi"
)

// maxBody bounds a request's body.
const maxBody = 4 << 20

// problem is an answer that is no success.
type problem struct {
	status     int
	retryAfter time.Duration
	body       deskapi.Error
}

func (p *problem) Error() string { return p.body.Message }

func newProblem(status int, code, message string) *problem {
	return &problem{status: status, body: deskapi.Error{Code: code, Message: message}}
}

func invalid(message string) *problem {
	return newProblem(http.StatusUnprocessableEntity, deskapi.CodeInvalid, message)
}

func refused(userMessage string) *problem {
	p := newProblem(http.StatusUnprocessableEntity, deskapi.CodeRefused, "the desk declines")
	p.body.UserMessage = userMessage
	return p
}

var (
	errUnknown = newProblem(http.StatusNotFound, deskapi.CodeUnknown, "no such conversation")
	errOver    = newProblem(http.StatusGone, deskapi.CodeOver, "the conversation has ended")
	errReused  = newProblem(http.StatusConflict, deskapi.CodeInvalid, "another message has this id")
	errFault   = newProblem(http.StatusInternalServerError, deskapi.CodeFault, "the desk lost track of the call")
	errClosed  = newProblem(http.StatusServiceUnavailable, deskapi.CodeBusy, "the desk is closing")
)

// failures are what a script can have calls end with.
var failures = map[string]*problem{
	"retry":        newProblem(http.StatusServiceUnavailable, deskapi.CodeBusy, "the desk is overloaded"),
	"busy":         newProblem(http.StatusTooManyRequests, deskapi.CodeBusy, "too many requests"),
	"unknown":      errFault, // and yet the call takes effect
	"invalid":      invalid("the desk does not take this"),
	"refused":      refused(""),
	"chat_over":    errOver,
	"chat_unknown": errUnknown,
}

// ServeHTTP serves the desk's API and its console.
func (d *Desk) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.routes.ServeHTTP(w, r) }

func (d *Desk) handler() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/desk", d.serve("", func(*http.Request, []byte) (any, error) {
		return deskapi.Info{Product: deskapi.Product}, nil
	}))
	m.HandleFunc("GET /v1/availability", d.serve(callAvailability, d.serveAvailability))
	m.HandleFunc("PUT /v1/conversations/{key}", d.serve(callStart, d.serveStart))
	m.HandleFunc("PATCH /v1/conversations/{key}", d.serve(callUpdate, d.serveUpdate))
	m.HandleFunc("DELETE /v1/conversations/{key}", d.serve(callEnd, d.serveEnd))
	m.HandleFunc("POST /v1/conversations/{key}/messages", d.serve(callSend, d.serveMessage))
	m.HandleFunc("POST /v1/conversations/{key}/typing", d.serve(callTyping, d.serveTyping))
	m.HandleFunc("POST /v1/conversations/{key}/read", d.serve(callRead, d.serveRead))
	m.HandleFunc("GET /v1/conversations/{key}/events", d.serve("", d.serveHistory))
	m.HandleFunc("POST /v1/catch-up", d.serve(callCatchUp, d.serveCatchUp))
	m.HandleFunc("GET /v1/feed", d.serveFeed)
	m.HandleFunc("POST /script", d.serve("", d.serveSuite))
	d.console(m)
	return m
}

// nothing is the answer of a call that has none.
type nothing struct{}

// serve wraps a call: its body is read and its answer written here, and the
// script's faults happen here. fn returns a body, or nothing, or a problem.
func (d *Desk) serve(call string, fn func(*http.Request, []byte) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(w, r)
		if err != nil {
			writeProblem(w, err)
			return
		}
		fault, closed := d.next(call)
		if closed {
			writeProblem(w, errClosed)
			return
		}
		if fault != nil {
			// The desk is slow, not gone: the call goes on without its caller.
			d.pause(fault.Delay)
		}
		if fault != nil && fault.Fail != "" {
			p := *failures[fault.Fail]
			p.retryAfter = time.Duration(fault.RetryAfter)
			if fault.UserMessage != "" {
				p.body.UserMessage = fault.UserMessage
			}
			if fault.Fail == "unknown" {
				_, _ = fn(r, body) // its answer is what gets lost
			}
			writeProblem(w, &p)
			return
		}
		answer, err := fn(r, body)
		if fault != nil {
			d.pause(fault.late)
		}
		if err != nil {
			writeProblem(w, err)
			return
		}
		if answer == (nothing{}) {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		writeJSON(w, http.StatusOK, answer)
	}
}

// pause returns after that time, or when the desk is closed.
func (d *Desk) pause(length Millis) {
	if length == 0 {
		return
	}
	select {
	case <-time.After(time.Duration(length)):
	case <-d.done:
	}
}

// next counts a call and returns the fault that it meets, if any.
func (d *Desk) next(call string) (fault *Fault, closed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls[call]++
	if f := d.faults.Calls[call]; f.touches(d.calls[call]) {
		fault = f
	}
	return fault, d.closed
}

// readBody returns the body of a request that changes something, which must be
// JSON: no web page of another origin can send that unasked.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Method == http.MethodGet || r.Method == http.MethodDelete {
		return nil, nil
	}
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
		return nil, newProblem(http.StatusUnsupportedMediaType, deskapi.CodeInvalid, "want Content-Type: application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, newProblem(http.StatusRequestEntityTooLarge, deskapi.CodeInvalid, "the body is over 4 MiB")
	}
	if err != nil {
		return nil, newProblem(http.StatusBadRequest, deskapi.CodeInvalid, "the body broke off")
	}
	return body, nil
}

func decode(body []byte, to any) error {
	if err := json.Unmarshal(body, to); err != nil {
		return newProblem(http.StatusBadRequest, deskapi.CodeInvalid, "the body is not the JSON that this call takes")
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(body); err != nil {
		http.Error(w, "encode: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the caller has gone if this fails
}

func writeProblem(w http.ResponseWriter, err error) {
	p := errFault
	errors.As(err, &p)
	if p.body.Code == deskapi.CodeBusy {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(max(p.retryAfter, time.Second).Seconds()))))
	}
	writeJSON(w, p.status, p.body)
}

func (d *Desk) serveAvailability(*http.Request, []byte) (any, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := &deskapi.Availability{}
	if q := d.script.Queue; q != nil && (d.online == nil || *d.online) {
		a = queued(q.Position, q.WaitMinutes, q.Message)
	}
	a.Online = d.online
	return a, nil
}

func (d *Desk) serveStart(r *http.Request, body []byte) (any, error) {
	var req deskapi.StartRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	key := r.PathValue("key")
	if len(key) > 128 {
		return nil, invalid("the key is over 128 bytes")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.open(key, &req)
	if err != nil {
		return nil, err
	}
	return deskapi.Conversation{ID: c.id, Seq: uint64(len(c.events))}, nil
}

func (d *Desk) serveUpdate(r *http.Request, body []byte) (any, error) {
	var now deskapi.Context
	if err := decode(body, &now); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.find(r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	c.context = now
	d.add(c, &deskapi.Event{Type: deskapi.Updated, Context: &now})
	return nothing{}, nil
}

func (d *Desk) serveEnd(r *http.Request, _ []byte) (any, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.conversations[r.PathValue("key")]
	if c == nil {
		return nil, errUnknown
	}
	if !c.over {
		by := "user"
		if r.URL.Query().Get("by") != "user" {
			by = "host"
		}
		d.typing(c, false)
		d.add(c, &deskapi.Event{Type: deskapi.Ended, By: by, Reason: r.URL.Query().Get("reason")})
	}
	return nothing{}, nil
}

func (d *Desk) serveMessage(r *http.Request, body []byte) (any, error) {
	var m deskapi.Message
	if err := decode(body, &m); err != nil {
		return nil, err
	}
	if m.ID == "" || len(m.ID) > 128 {
		return nil, invalid("want an id of 1 to 128 bytes")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.take(r.PathValue("key"), &m)
}

func (d *Desk) serveTyping(r *http.Request, body []byte) (any, error) {
	var t deskapi.Typing
	if err := decode(body, &t); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.find(r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	c.userTyping = t.Typing
	d.change()
	return nothing{}, nil
}

func (d *Desk) serveRead(r *http.Request, _ []byte) (any, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.find(r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	c.userRead = uint64(len(c.events))
	d.change()
	return nothing{}, nil
}

func (d *Desk) serveHistory(r *http.Request, _ []byte) (any, error) {
	var after uint64
	if s := r.URL.Query().Get("after"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return nil, invalid("after: want a seq")
		}
		after = n
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.conversations[r.PathValue("key")]
	if c == nil {
		return nil, errUnknown
	}
	return c.history(after, maxHistory), nil
}

func (d *Desk) serveCatchUp(_ *http.Request, body []byte) (any, error) {
	var req deskapi.CatchUpRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	if len(req.After) > deskapi.MaxCatchUp {
		return nil, invalid(fmt.Sprintf("at most %d conversations", deskapi.MaxCatchUp))
	}
	resp := deskapi.CatchUpResponse{Conversations: make(map[string]deskapi.History, len(req.After))}
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, after := range req.After {
		if c := d.conversations[key]; c != nil {
			resp.Conversations[key] = c.history(after, maxHistory)
		}
	}
	return resp, nil
}

// serveFeed streams all that happens from now on.
func (d *Desk) serveFeed(w http.ResponseWriter, r *http.Request) {
	changed, stop := d.listen()
	defer stop()
	d.mu.Lock()
	at := d.feedBase + uint64(len(d.feed))
	d.mu.Unlock()

	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	beat := time.NewTicker(deskapi.FeedSilence)
	defer beat.Stop()
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	told := 0
	lines.WriteByte('\n') // the first line says that the feed has begun
	for {
		if lines.Len() > 0 {
			if _, err := w.Write(lines.Bytes()); err != nil {
				return
			}
			if err := flush.Flush(); err != nil {
				return
			}
			lines.Reset()
		} else {
			select {
			case <-r.Context().Done():
				return
			case <-changed:
			case <-beat.C:
				lines.WriteByte('\n')
			}
		}
		d.mu.Lock()
		if d.closed || at < d.feedBase {
			d.mu.Unlock()
			return
		}
		events, fault := d.feed[at-d.feedBase:], d.faults.Feed
		d.mu.Unlock()
		events = events[:min(len(events), 512)]
		at += uint64(len(events))
		for _, e := range fault.apply(events, told) {
			if err := enc.Encode(e); err != nil {
				return
			}
		}
		told += len(events)
	}
}

// apply returns what a feed makes of events, before which it told so many.
func (f FeedFault) apply(events []*deskapi.Event, told int) []*deskapi.Event {
	if f == (FeedFault{}) {
		return events
	}
	var out []*deskapi.Event
	late := (*deskapi.Event)(nil)
	for i, e := range events {
		n := told + i + 1
		if f.Swap > 0 && n%f.Swap == 0 && late == nil && i+1 < len(events) {
			late = e
			continue
		}
		out = append(out, e)
		if late != nil {
			out = append(out, late)
			late = nil
		}
		if f.Duplicate > 0 && n%f.Duplicate == 0 {
			out = append(out, e)
		}
	}
	return out
}

// eventName is how the desk calls an event outside its conversation.
func eventName(e *deskapi.Event) string {
	return e.Conversation + "-" + strconv.FormatUint(e.Seq, 10)
}
