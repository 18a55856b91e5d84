package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// Entry is a line of a session's log, or passing news, as a page gets it.
type Entry struct {
	Seq    uint64 `json:"seq"`
	Type   string `json:"type"`
	ChatID string `json:"chat_id"`
	From   string `json:"from"`
	ID     string `json:"id"`
	Text   string `json:"text"`
	Status string `json:"status"`
	Reason string `json:"reason"`
	By     string `json:"by"`
	Kind   string `json:"kind"`
	Typing bool   `json:"typing"`
	Agent  *struct {
		ID       string `json:"id"`
		Nickname string `json:"nickname"`
	} `json:"agent"`
	// Raw is all of it.
	Raw json.RawMessage `json:"-"`
}

// Of matches entries of a type.
func Of(kind string) func(Entry) bool {
	return func(e Entry) bool { return e.Type == kind }
}

// AgentSays matches a message of the agent.
func AgentSays(text string) func(Entry) bool {
	return func(e Entry) bool { return e.Type == "message" && e.From == "agent" && e.Text == text }
}

// Answer is the host's answer to a call.
type Answer struct {
	Status int
	Body   map[string]any
}

// Text is a member of the answer that is a text.
func (a Answer) Text(member string) string {
	text, _ := a.Body[member].(string)
	return text
}

// Page is one user's page: a session, and a socket that comes back whenever it
// is lost. A page keeps its cursor and everything that it was told, and fails
// the test when an entry is missing, repeated or out of order. Its methods are
// for one goroutine, but for Call.
type Page struct {
	t         testing.TB
	host      *Host
	SessionID string
	Token     string

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed when follow has ended

	mu      sync.Mutex
	entries []Entry
	lastSeq uint64
	news    chan struct{} // closed when there is more
	socket  *websocket.Conn

	// read is how many entries Await has passed.
	read int
}

// httpClient keeps connections for many pages.
var httpClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}

// Open makes a session and follows its events. The request may be nil.
func (h *Host) Open(request map[string]any) *Page {
	h.t.Helper()
	p := h.session(request)
	p.done = make(chan struct{})
	go p.follow()
	h.t.Cleanup(p.Close)
	return p
}

// session makes a session whose events nobody follows.
func (h *Host) session(request map[string]any) *Page {
	h.t.Helper()
	if request == nil {
		request = map[string]any{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	answer, err := h.call(ctx, "", http.MethodPost, "/v1/sessions", request)
	if err != nil || answer.Status != http.StatusCreated {
		h.t.Fatalf("no session: %d %v %v", answer.Status, answer.Body, err)
	}
	p := &Page{
		t: h.t, host: h, SessionID: answer.Text("session_id"), Token: answer.Text("token"),
		news: make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Close leaves the page.
func (p *Page) Close() {
	p.cancel()
	p.mu.Lock()
	if p.socket != nil {
		_ = p.socket.Close()
	}
	p.mu.Unlock()
	<-p.done
}

// Call makes a call of the session, such as Call("POST", "/chat", …), again
// and again while the host is away.
func (p *Page) Call(method, path string, body any) Answer {
	p.t.Helper()
	answer, err := p.call(method, path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	return answer
}

func (p *Page) call(method, path string, body any) (Answer, error) {
	ctx, cancel := context.WithTimeout(p.ctx, Patience)
	defer cancel()
	return p.host.call(ctx, p.Token, method, "/v1/sessions/"+p.SessionID+path, body)
}

// Start asks for an agent and expects to get one.
func (p *Page) Start(id string) (chatID string) {
	p.t.Helper()
	chatID, err := p.start(id)
	if err != nil {
		p.t.Fatal(err)
	}
	return chatID
}

func (p *Page) start(id string) (chatID string, err error) {
	answer, err := p.call(http.MethodPost, "/chat", map[string]any{"id": id})
	if err != nil {
		return "", err
	}
	if answer.Status != http.StatusCreated {
		return "", fmt.Errorf("the chat does not start: %d %v", answer.Status, answer.Body)
	}
	return answer.Text("chat_id"), nil
}

// Send sends a message and expects the host to take it. It returns the status.
func (p *Page) Send(id, text string) string {
	p.t.Helper()
	status, err := p.send(id, text)
	if err != nil {
		p.t.Fatal(err)
	}
	return status
}

func (p *Page) send(id, text string) (status string, err error) {
	answer, err := p.call(http.MethodPost, "/messages", map[string]any{"id": id, "text": text})
	if err != nil {
		return "", err
	}
	if answer.Status != http.StatusOK && answer.Status != http.StatusAccepted {
		return "", fmt.Errorf("message %s is not taken: %d %v", id, answer.Status, answer.Body)
	}
	return answer.Text("status"), nil
}

// call makes a call until there is an answer. All calls may be repeated.
func (h *Host) call(ctx context.Context, token, method, path string, body any) (Answer, error) {
	for {
		url, err := h.URL(ctx)
		if err != nil {
			return Answer{}, fmt.Errorf("%s %s: %w", method, path, err)
		}
		answer, err := callOnce(ctx, url, token, method, path, body)
		if err == nil && answer.Text("code") != "stopping" {
			return answer, nil
		}
		if ctx.Err() != nil || !h.replaced(url) {
			return answer, fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
}

// replaced awaits that the host, which failed at the address, is down or up
// again at another one. It tells false if the host lives on, or has died without
// the test's doing.
func (h *Host) replaced(url string) bool {
	h.mu.Lock()
	process, current := h.process, h.url
	h.mu.Unlock()
	if current != url {
		return true
	}
	select {
	case <-process.exited:
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.process != process || !h.isUp()
	case <-time.After(Patience):
		return false
	}
}

func callOnce(ctx context.Context, url, token, method, path string, body any) (Answer, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return Answer{}, err
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, url+path, content)
	if err != nil {
		return Answer{}, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := httpClient.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	answer := Answer{Status: response.StatusCode}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, err
	}
	if len(text) > 0 && json.Unmarshal(text, &answer.Body) != nil {
		return Answer{}, fmt.Errorf("answered %d with %q", response.StatusCode, tail(string(text)))
	}
	return answer, nil
}

// follow reads the session's events until Close, over as many sockets as it takes.
func (p *Page) follow() {
	defer close(p.done)
	for {
		url, err := p.host.URL(p.ctx)
		if err != nil {
			return
		}
		err = p.readSocket(url)
		if p.ctx.Err() != nil {
			return
		}
		// A host that closes it so wants it to be opened again.
		if !websocket.IsCloseError(err, websocket.CloseServiceRestart) && !p.host.replaced(url) {
			p.t.Errorf("the socket of session %s was lost while the host lived: %v", p.SessionID, err)
			return
		}
	}
}

func (p *Page) readSocket(url string) error {
	dialer := websocket.Dialer{
		HandshakeTimeout: Patience,
		Subprotocols:     []string{"deskhost.v1", "bearer." + p.Token},
	}
	p.mu.Lock()
	after := p.lastSeq
	p.mu.Unlock()
	address := "ws" + strings.TrimPrefix(url, "http") + "/v1/sessions/" + p.SessionID + "/events?after=" + strconv.FormatUint(after, 10)
	socket, response, err := dialer.DialContext(p.ctx, address, nil)
	if err != nil {
		if response != nil {
			return fmt.Errorf("%w (status %d)", err, response.StatusCode)
		}
		return err
	}
	defer socket.Close()
	p.mu.Lock()
	p.socket = socket
	p.mu.Unlock()
	if p.ctx.Err() != nil {
		return p.ctx.Err() // Close may have looked before the socket was there.
	}
	for {
		_, text, err := socket.ReadMessage()
		if err != nil {
			return err
		}
		if err := p.take(text); err != nil {
			p.t.Errorf("session %s: %v", p.SessionID, err)
			return err
		}
	}
}

// take keeps an entry if it is the one that is due.
func (p *Page) take(text []byte) error {
	e := Entry{Raw: text}
	if err := json.Unmarshal(text, &e); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Seq != 0 && e.Seq != p.lastSeq+1 {
		return fmt.Errorf("entry %d came after %d: %s", e.Seq, p.lastSeq, text)
	}
	if e.Seq != 0 {
		p.lastSeq = e.Seq
	}
	p.entries = append(p.entries, e)
	close(p.news)
	p.news = make(chan struct{})
	return nil
}

// errPatience is a wait that was in vain.
var errPatience = errors.New("it did not come")

// Await returns the next entry that matches, and passes over what comes before it.
func (p *Page) Await(what string, match func(Entry) bool) Entry {
	p.t.Helper()
	e, err := p.await(match)
	if err != nil {
		p.t.Fatalf("session %s: awaiting %s: %v; it got\n%s", p.SessionID, what, err, p.story())
	}
	return e
}

func (p *Page) await(match func(Entry) bool) (Entry, error) {
	deadline := time.After(Patience)
	for {
		p.mu.Lock()
		for p.read < len(p.entries) {
			e := p.entries[p.read]
			p.read++
			if match(e) {
				p.mu.Unlock()
				return e, nil
			}
		}
		news := p.news
		p.mu.Unlock()
		select {
		case <-news:
		case <-deadline:
			return Entry{}, errPatience
		}
	}
}

// AwaitAll returns once each of the matches has matched one more entry, in
// whatever order.
func (p *Page) AwaitAll(what string, matches ...func(Entry) bool) {
	p.t.Helper()
	for len(matches) > 0 {
		p.Await(what, func(e Entry) bool {
			for i, match := range matches {
				if match(e) {
					matches = slices.Delete(matches, i, i+1)
					return true
				}
			}
			return false
		})
	}
}

// Entries is everything that the page was told so far.
func (p *Page) Entries() []Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Entry(nil), p.entries...)
}

// AgentTexts are the texts of the agent's messages so far.
func (p *Page) AgentTexts() []string {
	var texts []string
	for _, e := range p.Entries() {
		if e.Type == "message" && e.From == "agent" {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

func (p *Page) story() string {
	var lines []string
	for _, e := range p.Entries() {
		lines = append(lines, string(e.Raw))
	}
	return tail(strings.Join(lines, "\n"))
}
