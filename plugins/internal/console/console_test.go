package console_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/deskhost/deskhost/plugins/internal/console"
)

// desk has conversations that a test gave it, and records what agents do.
type desk struct {
	conversations []console.Conversation
	lines         []console.Line
	done          []console.Action
}

func (d *desk) Conversations() []console.Conversation { return slices.Clone(d.conversations) }

func (d *desk) Transcript(_ string, after int) []console.Line {
	return d.lines[min(after, len(d.lines)):]
}

func (d *desk) Do(a console.Action) error {
	if a.Agent == "" {
		return errors.New("no agent")
	}
	d.done = append(d.done, a)
	return nil
}

func get(t *testing.T, h http.Handler, path string, to any) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	resp := w.Result()
	if to != nil {
		if err := json.NewDecoder(resp.Body).Decode(to); err != nil {
			t.Fatal(err)
		}
	}
	return resp
}

func TestState(t *testing.T) {
	t.Parallel()
	d := &desk{lines: []console.Line{{Text: "Started"}, {From: "customer", Text: "Hello"}}}
	for i := range 150 {
		c := console.Conversation{ID: strconv.Itoa(i), State: console.Ended, Facts: []console.Fact{{Name: "language", Value: "de"}}}
		if i >= 140 {
			c.State = console.Waiting
		}
		d.conversations = append(d.conversations, c)
	}
	h := console.New(console.Options{Title: "Desk", Agents: []string{"Ada"}}, d)
	var s struct {
		Counts        map[string]int
		Conversations []console.Conversation
		Open          *console.Conversation
		Lines         []console.Line
	}
	get(t, h, "/state?open=139&after=1", &s)
	if len(s.Conversations) != 100 || s.Conversations[0].ID != "140" || s.Conversations[10].ID != "0" {
		t.Errorf("the list has %d conversations and begins with %s", len(s.Conversations), s.Conversations[0].ID)
	}
	if s.Counts[console.Waiting] != 10 || s.Counts[console.Ended] != 140 {
		t.Errorf("counted %v", s.Counts)
	}
	if s.Open == nil || s.Open.ID != "139" || len(s.Open.Facts) != 1 || len(s.Lines) != 1 || s.Lines[0].Text != "Hello" {
		t.Errorf("open is %+v with %v", s.Open, s.Lines)
	}
	get(t, h, "/state?after=-3", &s)
}

// TestAnswersAreBounded: an answer that goes through a host may have 1 MiB.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 100<<10)
	d := &desk{
		conversations: []console.Conversation{{ID: "1", Preview: long, Facts: []console.Fact{{Name: "history", Value: long}}}},
		lines:         []console.Line{{Text: long}, {Text: long}, {Text: "end"}},
	}
	h := console.New(console.Options{}, d)
	texts := 0
	for further := true; further; {
		var s struct {
			Open    *console.Conversation
			Lines   []console.Line
			Further bool
		}
		get(t, h, "/state?open=1&after="+strconv.Itoa(texts), &s)
		if len(s.Lines) == 0 || s.Open == nil {
			t.Fatalf("no progress behind %d lines", texts)
		}
		if len(s.Open.Preview) > 300 || len(s.Open.Facts[0].Value) > 40<<10 || !strings.HasSuffix(s.Open.Preview, "ü…") {
			t.Errorf("%d bytes of preview, %d of a fact", len(s.Open.Preview), len(s.Open.Facts[0].Value))
		}
		if texts += len(s.Lines); s.Further == (texts == len(d.lines)) {
			t.Errorf("further is %v behind %d lines", s.Further, texts)
		}
		further = s.Further
	}
	if value := d.conversations[0].Facts[0].Value; value != long {
		t.Error("the desk's own facts were cut")
	}
}

func TestDo(t *testing.T) {
	t.Parallel()
	d := &desk{}
	h := console.New(console.Options{}, d)
	post := func(kind, body string) (int, string) {
		r := httptest.NewRequest(http.MethodPost, "/do", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		text, _ := io.ReadAll(w.Result().Body)
		return w.Code, string(text)
	}
	if code, _ := post("application/json", `{"conversation":"1","do":"say","agent":"Ada","text":"Hi"}`); code != http.StatusNoContent {
		t.Error(code)
	}
	if len(d.done) != 1 || d.done[0] != (console.Action{Conversation: "1", Do: console.Say, Agent: "Ada", Text: "Hi"}) {
		t.Errorf("done: %+v", d.done)
	}
	if code, text := post("application/json", `{"conversation":"1","do":"say"}`); code != http.StatusConflict || strings.TrimSpace(text) != "no agent" {
		t.Error(code, text)
	}
	if code, _ := post("text/plain", `{"agent":"Ada"}`); code != http.StatusUnsupportedMediaType {
		t.Errorf("a form of another page's is answered with %d", code)
	}
	if code, _ := post("application/json", `?`); code != http.StatusBadRequest {
		t.Error(code)
	}
}

// TestPage: it must work with no network but the simulator.
func TestPage(t *testing.T) {
	t.Parallel()
	resp := get(t, console.New(console.Options{}, &desk{}), "/", nil)
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{`src="`, `href="http`, "@import", "url("} {
		if strings.Contains(string(text), from) {
			t.Errorf("the page loads something: %s", from)
		}
	}
	if !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Error("no policy")
	}
}
