package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/types/known/timestamppb"

	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	"github.com/deskhost/deskhost/host/internal/session"
)

const (
	testID    = "abcdefghijklmnopqrstuvwxyz"
	testToken = "tttttttttttttttttttttttttttttttttttttttttt0"
	testChat  = testID + "-00000001"
)

var testTime = time.Date(2026, 1, 2, 15, 4, 5, 123e6, time.UTC)

// fake is a session service of one session, testID, whose log the test writes.
type fake struct {
	t testing.TB

	mu     sync.Mutex
	fail   error // what every call returns, if set
	calls  []any // the request of each call that may change something
	info   session.Info
	sent   session.Sent
	online session.Availability
	log    []*recordv1.Entry
	feeds  map[*fakeFeed]struct{}
	closed chan struct{} // one token for each feed that is closed
}

func newFake(t testing.TB) *fake {
	return &fake{t: t, feeds: map[*fakeFeed]struct{}{}, closed: make(chan struct{}, 10000)}
}

func (f *fake) check(ref session.Ref) error {
	if ref.ID != testID {
		return &session.Error{Code: session.CodeSessionUnknown, Detail: "There is no such session."}
	}
	if ref.Token != testToken {
		return &session.Error{Code: session.CodeTokenWrong, Detail: "The token is not this session's."}
	}
	return f.fail
}

// changed records a call that may change something.
func (f *fake) changed(ctx context.Context, ref session.Ref, call any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := ctx.Deadline(); !ok {
		f.t.Error("a call without a deadline")
	}
	if err := f.check(ref); err != nil {
		return err
	}
	f.calls = append(f.calls, call)
	return nil
}

func (f *fake) lastCall() any {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return nil
	}
	return f.calls[len(f.calls)-1]
}

func (f *fake) Create(ctx context.Context, req session.CreateRequest) (*session.Created, error) {
	if err := f.changed(ctx, session.Ref{ID: testID, Token: testToken}, req); err != nil {
		return nil, err
	}
	return &session.Created{
		ID: testID, Token: testToken, ExpiresAt: testTime,
		Capabilities: session.Capabilities{Availability: true, Known: true},
	}, nil
}

func (f *fake) Info(_ context.Context, ref session.Ref) (*session.Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.info
	return &i, f.check(ref)
}

func (f *fake) Update(ctx context.Context, ref session.Ref, u session.Update) error {
	return f.changed(ctx, ref, u)
}

func (f *fake) Delete(ctx context.Context, ref session.Ref) error {
	return f.changed(ctx, ref, "delete")
}

func (f *fake) Availability(_ context.Context, ref session.Ref) (*session.Availability, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &f.online, f.check(ref)
}

func (f *fake) StartChat(ctx context.Context, ref session.Ref, req session.StartRequest) (string, error) {
	return testChat, f.changed(ctx, ref, req)
}

func (f *fake) EndChat(ctx context.Context, ref session.Ref, chatID string) error {
	return f.changed(ctx, ref, strings.TrimSpace("end "+chatID))
}

func (f *fake) SendMessage(ctx context.Context, ref session.Ref, m session.Message) (*session.Sent, error) {
	err := f.changed(ctx, ref, m)
	return &f.sent, err
}

func (f *fake) Typing(ctx context.Context, ref session.Ref, typing bool) error {
	return f.changed(ctx, ref, typing)
}

func (f *fake) Read(ctx context.Context, ref session.Ref) error {
	return f.changed(ctx, ref, "read")
}

func (f *fake) Transcript(_ context.Context, ref session.Ref, fn func(*recordv1.Entry) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(ref); err != nil {
		return err
	}
	for _, e := range f.log {
		if !fn(e) {
			break
		}
	}
	return nil
}

func (f *fake) Subscribe(_ context.Context, ref session.Ref, after uint64, wake func()) (session.Feed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(ref); err != nil {
		return nil, err
	}
	feed := &fakeFeed{fake: f, cursor: after, wake: wake}
	f.feeds[feed] = struct{}{}
	return feed, nil
}

// write adds entries to the log and wakes the feeds.
func (f *fake) write(entries ...*recordv1.Entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range entries {
		e.Seq = uint64(len(f.log) + 1)
		e.Time = timestamppb.New(testTime)
		e.ChatId = testChat
		f.log = append(f.log, e)
	}
	f.wakeAll()
}

// pass hands passing news to the feeds.
func (f *fake) pass(n session.News) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for feed := range f.feeds {
		feed.passing = append(feed.passing, n)
	}
	f.wakeAll()
}

// failWith makes every call and every feed fail.
func (f *fake) failWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
	f.wakeAll()
}

func (f *fake) wakeAll() {
	for feed := range f.feeds {
		if feed.idle {
			feed.idle = false
			feed.wake()
		}
	}
}

func (f *fake) openFeeds() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.feeds)
}

// fakeFeed keeps the letter of session.Feed and holds its caller to it.
type fakeFeed struct {
	fake    *fake
	cursor  uint64
	passing []session.News
	idle    bool
	wake    func()
	pulling atomic.Bool
	closed  atomic.Bool
}

func (f *fakeFeed) Pull(limit int) ([]session.News, error) {
	if !f.pulling.CompareAndSwap(false, true) {
		f.fake.t.Error("two goroutines pull from one feed")
	}
	defer f.pulling.Store(false)
	if f.closed.Load() {
		f.fake.t.Error("a closed feed is pulled from")
	}
	f.fake.mu.Lock()
	defer f.fake.mu.Unlock()
	if f.fake.fail != nil {
		return nil, f.fake.fail
	}
	news := f.passing
	f.passing = nil
	for f.cursor < uint64(len(f.fake.log)) && len(news) < limit {
		news = append(news, session.News{Entry: f.fake.log[f.cursor]})
		f.cursor++
	}
	f.idle = len(news) == 0
	return news, nil
}

func (f *fakeFeed) Close() {
	if f.pulling.Load() || f.closed.Swap(true) {
		f.fake.t.Error("a feed is closed twice or under a pull")
	}
	f.fake.mu.Lock()
	delete(f.fake.feeds, f)
	f.fake.mu.Unlock()
	f.fake.closed <- struct{}{}
}

// said is an entry with a message of the agent.
func said(text string) *recordv1.Entry {
	return &recordv1.Entry{Body: &recordv1.Entry_AgentMessage{AgentMessage: &recordv1.AgentMessage{
		Id: "m", Parts: []*recordv1.Part{{Kind: &recordv1.Part_Text{Text: &recordv1.Text{Text: text}}}},
	}}}
}

// unlimited are limits that no test meets by accident.
func unlimited() Limits {
	l := DefaultLimits()
	l.RequestsPerMinute, l.SessionsPerMinute, l.ChatsPerMinute, l.MessagesPerMinute = 0, 0, 0, 0
	l.SocketsPerSession, l.SocketsPerAddress = 0, 0
	return l
}

func newAPI(t testing.TB, o Options) *API {
	t.Helper()
	if o.Limits == (Limits{}) {
		o.Limits = unlimited()
	}
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	o.Version = "1.2.3"
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// serve serves an API on loopback until the test ends.
func serve(t testing.TB, a *API) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := a.Close(ctx); err != nil {
			t.Error("close:", err)
		}
		server.Close()
	})
	return server
}

// pipes is a listener whose connections are pipes, so that a server can run on
// the fake clock of testing/synctest.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) Dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours, nil
}

// servePipes serves an API on pipes; stop ends server and API.
func servePipes(t testing.TB, a *API) (p *pipes, stop func()) {
	p = newPipes()
	server := &http.Server{Handler: a}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(p)
	}()
	return p, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := a.Close(ctx); err != nil {
			t.Error("close:", err)
		}
		_ = server.Close()
		<-served
	}
}

// contract is the description that a host serves, held against its answers.
type contract struct {
	t        testing.TB
	doc      map[string]any
	compiler *jsonschema.Compiler
	used     map[string]bool // "METHOD path status" that have been seen
}

func fetchContract(t testing.TB, url string) *contract {
	t.Helper()
	resp, err := http.Get(url + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	doc, err := jsonschema.UnmarshalJSON(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	// What the document lets future hosts add, this one must not answer.
	tighten(doc)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	return &contract{t, doc.(map[string]any), c, map[string]bool{}}
}

func tighten(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, isObject := v["properties"].(map[string]any); isObject && v["additionalProperties"] == true {
			v["additionalProperties"] = false
		}
		for _, child := range v {
			tighten(child)
		}
	case []any:
		for _, child := range v {
			tighten(child)
		}
	}
}

// holds checks one answer against the description of its operation.
func (c *contract) holds(method, path string, resp *http.Response, body []byte) {
	c.t.Helper()
	status := resp.Status[:3]
	operation, ok := at(c.doc, "paths", path, strings.ToLower(method)).(map[string]any)
	if !ok {
		c.t.Fatalf("%s %s is not described", method, path)
	}
	if at(operation, "responses", status) == nil {
		status = "default"
	}
	answer, ok := at(operation, "responses", status).(map[string]any)
	if !ok {
		c.t.Fatalf("%s %s: status %d is not described", method, path, resp.StatusCode)
	}
	c.used[method+" "+path+" "+status] = true
	if answer["content"] == nil {
		if len(body) > 0 {
			c.t.Errorf("%s %s %s: described without a body, has %s", method, path, status, body)
		}
		return
	}
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if at(answer, "content", media, "schema") == nil {
		c.t.Fatalf("%s %s %s: media type %q is not described", method, path, status, media)
	}
	pointer := "/paths/" + escape(path) + "/" + strings.ToLower(method) + "/responses/" + status + "/content/" + escape(media) + "/schema"
	c.valid(pointer, body)
}

func (c *contract) valid(pointer string, body []byte) {
	c.t.Helper()
	schema, err := c.compiler.Compile("openapi.json#" + pointer)
	if err != nil {
		c.t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		c.t.Fatalf("%s: %v in %s", pointer, err, body)
	}
	if err := schema.Validate(v); err != nil {
		c.t.Errorf("%v in %s", err, body)
	}
}

func at(v any, path ...string) any {
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func escape(s string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
}

// gotAnswer is an answer, read.
type gotAnswer struct {
	*http.Response
	body []byte
}

func (g gotAnswer) json(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(g.body, &v); err != nil {
		t.Fatalf("%v in %q", err, g.body)
	}
	return v
}

func (g gotAnswer) code(t testing.TB) string {
	t.Helper()
	code, _ := g.json(t)["code"].(string)
	return code
}

// send makes one request. Headers come as name, value, name, value; a
// Content-Type of JSON and the token are added unless there.
func send(t testing.TB, method, url, body string, headers ...string) gotAnswer {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, url, r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for pair := range slices.Chunk(headers, 2) {
		req.Header.Set(pair[0], pair[1])
		if pair[1] == "" {
			req.Header.Del(pair[0])
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	return gotAnswer{resp, b}
}

var _ Sessions = (*session.Service)(nil)
