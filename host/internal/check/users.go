//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// kind is how a user's page is connected.
type kind int

const (
	byWebSocket kind = iota
	byStream         // server-sent events
	slow             // a WebSocket that stops reading now and then
)

// user is one session: somebody who writes, and a page that is told. Both come
// back whenever their connection is lost, and write down all that they do.
type user struct {
	host   *host
	wires  *wires
	kind   kind
	rng    *rand.Rand    // talk's
	taken  *atomic.Int64 // counts the messages that the host has taken
	id     string
	token  string
	number int

	mu       sync.Mutex
	requests []*request
	sent     []*message
	seen     []entry
	broken   []violation
	last     uint64 // the seq of the last entry seen
	connects int
	pausedTo time.Time // a slow page does not read before
}

// open makes the user's session.
func (u *user) open(ctx context.Context) error {
	var made struct {
		ID    string `json:"session_id"`
		Token string `json:"token"`
	}
	request := map[string]any{"desk": desks[u.number%len(desks)]}
	if err := callBy(ctx, u.wires.http, http.MethodPost, u.host.url+"/v1/sessions", "", request, &made); err != nil {
		return err
	}
	u.id, u.token = made.ID, made.Token
	return nil
}

func (u *user) address() string { return u.host.url + "/v1/sessions/" + u.id }

// broke notes what is wrong at first sight. The caller holds mu.
func (u *user) brokef(kind, format string, args ...any) {
	u.broken = append(u.broken, violation{kind, u.id, fmt.Sprintf(format, args...)})
}

// request asks for a chat and writes down the answer.
func (u *user) request(ctx context.Context) {
	u.mu.Lock()
	r := &request{id: fmt.Sprintf("c%d", len(u.requests)+1)}
	u.requests = append(u.requests, r)
	u.mu.Unlock()
	var answer struct {
		ChatID string `json:"chat_id"`
	}
	status, code := u.call(ctx, http.MethodPost, "/chat", map[string]any{"id": r.id, "text": r.id}, &answer)
	u.mu.Lock()
	defer u.mu.Unlock()
	r.status, r.code, r.chatID = status, code, answer.ChatID
}

// chat is the chat that the user takes for open, or nil.
func (u *user) chat() *request {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := len(u.requests); n > 0 && u.requests[n-1].opened() && !u.requests[n-1].ending {
		return u.requests[n-1]
	}
	return nil
}

// end ends the chat.
func (u *user) end(ctx context.Context, r *request) {
	u.mu.Lock()
	r.ending = true
	u.mu.Unlock()
	status, code := u.call(ctx, http.MethodDelete, "/chat", nil, nil)
	u.mu.Lock()
	defer u.mu.Unlock()
	r.ended = status == http.StatusOK
	if !r.ended {
		u.brokef(unsettled, "the end of chat %s was answered with %d %s", r.chatID, status, code)
	}
}

// send sends a message and writes down the answer.
func (u *user) send(ctx context.Context, chatID string) {
	u.mu.Lock()
	m := &message{id: fmt.Sprintf("m%d", len(u.sent)+1), chatID: chatID}
	u.sent = append(u.sent, m)
	u.mu.Unlock()
	text := filled(m.id, 20+u.rng.IntN(200))
	m.sum = sum([]byte(text))
	var answer struct {
		Seq    uint64 `json:"seq"`
		Status string `json:"status"`
	}
	status, code := u.call(ctx, http.MethodPost, "/messages", map[string]any{"id": m.id, "chat_id": chatID, "text": text}, &answer)
	u.mu.Lock()
	defer u.mu.Unlock()
	m.status, m.seq, m.word = status, answer.Seq, answer.Status+code
	if m.taken() {
		u.taken.Add(1)
	}
}

// filled is a text that begins with a name and has so many bytes more.
func filled(name string, bytes int) string { return name + " " + strings.Repeat("x", bytes) }

// call makes a call until it is answered, as a page does. It returns the status:
// 200 for every success, 0 if ctx ended before. Of a problem it returns the code.
func (u *user) call(ctx context.Context, method, path string, body, answer any) (status int, code string) {
	for ctx.Err() == nil {
		err := callBy(ctx, u.wires.http, method, u.address()+path, u.token, body, answer)
		p := (*problem)(nil)
		switch {
		case err == nil:
			return http.StatusOK, ""
		case errors.As(err, &p):
			if again := []string{"stopping", "timeout", "too_many_requests", "too_many_messages"}; !slices.Contains(again, p.Code) {
				return p.status, p.Code
			}
		}
		pause(ctx, 50*time.Millisecond+rand.N(200*time.Millisecond))
	}
	return 0, ""
}

// pause waits. It tells false if ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// talk writes every now and then until talking ends. Calls that were begun are
// made to their end, or to that of calling.
func (u *user) talk(talking, calling context.Context, every time.Duration) {
	for pause(talking, time.Duration(u.rng.ExpFloat64()*float64(every))) {
		switch chat := u.chat(); {
		case chat == nil:
			u.request(calling)
		case u.rng.IntN(40) == 0:
			u.end(calling, chat)
		default:
			u.send(calling, chat.chatID)
		}
	}
}

// listen follows the session's events until ctx ends.
func (u *user) listen(ctx context.Context) {
	for ctx.Err() == nil {
		var err error
		u.mu.Lock()
		u.connects++
		address := fmt.Sprintf("%s/events?after=%d", u.address(), u.last)
		u.mu.Unlock()
		if u.kind == byStream {
			err = u.readStream(ctx, address, u.take)
		} else {
			err = u.readSocket(ctx, address)
		}
		if p := (*problem)(nil); errors.As(err, &p) && p.status/100 == 4 || websocket.IsCloseError(err, 4404) {
			u.mu.Lock()
			u.brokef(lost, "the host does not know the session any more: %v", err)
			u.mu.Unlock()
			return
		}
		pause(ctx, 50*time.Millisecond+rand.N(200*time.Millisecond))
	}
}

func (u *user) readSocket(ctx context.Context, address string) error {
	dialer := websocket.Dialer{NetDialContext: u.wires.dial, HandshakeTimeout: patience / 2, Subprotocols: []string{"deskhost.v1", "bearer." + u.token}}
	socket, response, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(address, "http"), nil) //nolint:bodyclose // gorilla/websocket: it need not be closed
	if err != nil {
		if response != nil {
			return &problem{status: response.StatusCode, text: response.Status}
		}
		return err
	}
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { _ = socket.Close() })() // closing wakes the reader
	for {
		u.mu.Lock()
		rest := time.Until(u.pausedTo)
		u.mu.Unlock()
		if rest > 0 {
			// What is not read is not to vanish in the buffers of the system.
			u.buffer(socket, 64<<10)
			if !pause(ctx, rest) {
				return ctx.Err()
			}
			u.buffer(socket, 1<<20)
		}
		// The host pings more often.
		if err := socket.SetReadDeadline(time.Now().Add(2 * patience)); err != nil {
			return err
		}
		_, text, err := socket.ReadMessage()
		if err != nil {
			return err
		}
		if err := u.take(text); err != nil {
			return err
		}
	}
}

// buffer sets how much the system keeps of what the page has not read.
func (u *user) buffer(socket *websocket.Conn, bytes int) {
	if w, ok := socket.NetConn().(*wire); ok {
		if tcp, ok := w.Conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(bytes) // it may be closed already
		}
	}
}

// readStream reads server-sent events until the stream ends or take returns an
// error.
func (u *user) readStream(ctx context.Context, address string, take func(line []byte) error) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Authorization", "Bearer "+u.token)
	response, err := u.wires.http.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return &problem{status: response.StatusCode, text: response.Status}
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok {
			if err := take(data); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// take keeps an entry. It has to be the one that is due.
func (u *user) take(line []byte) error {
	e, err := readEntry(line)
	if err != nil {
		// A line that was cut; the rest of it cannot follow.
		return err
	}
	if e.Seq == 0 {
		return nil // passing news
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case e.Seq <= u.last:
		u.brokef(doubled, "the page was shown an entry again, or too late; it had %d: %s", u.last, &e)
		return nil
	case e.Seq > u.last+1:
		u.brokef(lost, "the page was not shown what lies between entry %d and %s", u.last, &e)
	case e.Type == "gap":
		u.brokef(lost, "the page was shown a gap: %s", &e)
	}
	u.last = e.Seq
	u.seen = append(u.seen, e)
	return nil
}

// readJournal reads the session's log anew, up to the entry that is now its last.
func (u *user) readJournal(ctx context.Context) (log, transcript []entry, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var state struct {
		LastSeq uint64 `json:"last_seq"`
	}
	if err := callBy(ctx, u.wires.http, http.MethodGet, u.address(), u.token, nil, &state); err != nil {
		return nil, nil, err
	}
	var whole struct {
		Entries []rawEntry `json:"entries"`
	}
	if err := callBy(ctx, u.wires.http, http.MethodGet, u.address()+"/transcript", u.token, nil, &whole); err != nil {
		return nil, nil, err
	}
	for _, e := range whole.Entries {
		transcript = append(transcript, entry(e))
	}
	if state.LastSeq == 0 {
		return nil, transcript, nil
	}
	errEnd := errors.New("the last entry")
	err = u.readStream(ctx, u.address()+"/events", func(line []byte) error {
		e, err := readEntry(line)
		if err == nil && e.Seq != 0 {
			log = append(log, e)
		}
		if e.Seq >= state.LastSeq {
			return errEnd
		}
		return err
	})
	if !errors.Is(err, errEnd) {
		return nil, nil, fmt.Errorf("the events of session %s end before entry %d: %w", u.id, state.LastSeq, err)
	}
	return log, transcript, nil
}

// rawEntry is an entry inside of another answer.
type rawEntry entry

// UnmarshalJSON reads an entry as it came.
func (e *rawEntry) UnmarshalJSON(text []byte) error {
	read, err := readEntry(text)
	*e = rawEntry(read)
	return err
}

// account is what the user knows.
func (u *user) account() *account {
	u.mu.Lock()
	defer u.mu.Unlock()
	a := &account{session: u.id, connects: u.connects, seen: slices.Clone(u.seen), broken: slices.Clone(u.broken)}
	for _, r := range u.requests {
		c := *r
		a.requests = append(a.requests, &c)
	}
	for _, m := range u.sent {
		c := *m
		a.sent = append(a.sent, &c)
	}
	return a
}
