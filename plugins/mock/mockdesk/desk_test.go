package mockdesk_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/deskapi"
	"github.com/deskhost/deskhost/plugins/mock/mockdesk"
)

func newDesk(t *testing.T, script string) *mockdesk.Desk {
	t.Helper()
	s, err := mockdesk.ParseScript([]byte(script))
	if err != nil {
		t.Fatal(err)
	}
	d := mockdesk.New(s, "")
	t.Cleanup(d.Close)
	return d
}

// call makes a request and decodes the answer, if answer is not nil.
func call(t *testing.T, d http.Handler, method, path, body string, answer any) int {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	d.ServeHTTP(rec, req)
	if answer != nil {
		if err := json.Unmarshal(rec.Body.Bytes(), answer); err != nil {
			t.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
		}
	}
	return rec.Code
}

func start(t *testing.T, d http.Handler, key string) deskapi.Conversation {
	t.Helper()
	var c deskapi.Conversation
	if status := call(t, d, "PUT", "/v1/conversations/"+key, `{}`, &c); status != 200 {
		t.Fatalf("start: %d", status)
	}
	return c
}

func send(t *testing.T, d http.Handler, key, id, text string) int {
	t.Helper()
	return call(t, d, "POST", "/v1/conversations/"+key+"/messages", fmt.Sprintf(`{"id": %q, "text": %q}`, id, text), nil)
}

// types returns the types of a conversation's events, checking their numbers.
func types(t *testing.T, d http.Handler, key string) []string {
	t.Helper()
	var all []string
	for {
		var h deskapi.History
		if status := call(t, d, "GET", fmt.Sprintf("/v1/conversations/%s/events?after=%d", key, len(all)), "", &h); status != 200 {
			t.Fatalf("history: %d", status)
		}
		for _, e := range h.Events {
			if e.Seq != uint64(len(all))+1 || e.Key != key || e.Conversation != h.ID || e.Time.IsZero() {
				t.Fatalf("event %d is %+v", len(all)+1, e)
			}
			all = append(all, e.Type)
		}
		if !h.More {
			return all
		}
	}
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got\n%q\nwant\n%q", got, want)
	}
}

func TestAConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, `{}`)
		first := start(t, d, "k")
		if again := start(t, d, "k"); again.ID != first.ID {
			t.Errorf("a second start made another conversation")
		}
		time.Sleep(time.Second)
		for _, id := range []string{"m1", "m1", "m2"} {
			if status := send(t, d, "k", id, "text of "+id); status != 200 {
				t.Errorf("%s: %d", id, status)
			}
		}
		if status := send(t, d, "k", "m1", "another text"); status != 409 {
			t.Errorf("an id used twice: %d", status)
		}
		time.Sleep(time.Second)
		want := []string{"started", "agent_joined", "user_message", "user_message", "agent_message", "agent_message"}
		equal(t, types(t, d, "k"), want...)
		for range 2 {
			if status := call(t, d, "DELETE", "/v1/conversations/k?by=user", "", nil); status != 204 {
				t.Errorf("end: %d", status)
			}
		}
		equal(t, types(t, d, "k"), append(want, "ended")...)
		if status := send(t, d, "k", "m1", "text of m1"); status != 200 {
			t.Errorf("a message that the desk had before the end: %d", status)
		}
		if status := send(t, d, "k", "m3", "late"); status != 410 {
			t.Errorf("a message after the end: %d", status)
		}
		if status := call(t, d, "PUT", "/v1/conversations/k", `{}`, nil); status != 410 {
			t.Errorf("a start after the end: %d", status)
		}
		if status := send(t, d, "other", "m1", "x"); status != 404 {
			t.Errorf("a message to nowhere: %d", status)
		}
	})
}

func TestBadRequestsChangeNothing(t *testing.T) {
	d := newDesk(t, `{"console": true}`)
	start(t, d, "k")
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"PUT", "/v1/conversations/new", `{`, 400},
		{"PUT", "/v1/conversations/" + strings.Repeat("x", 129), `{}`, 422},
		{"POST", "/v1/conversations/k/messages", `{"text": "no id"}`, 422},
		{"POST", "/v1/conversations/k/messages", `[]`, 400},
		{"POST", "/v1/conversations/k/messages", `{"id": "m", "text": "` + strings.Repeat("x", 5<<20) + `"}`, 413},
		{"GET", "/v1/conversations/k/events?after=-1", "", 422},
		{"POST", "/console/api/conversations/k", `{"agent": "ada", "do": [{"message": [{"type": "image", "url": "javascript:x"}]}]}`, 422},
		{"POST", "/console/api/conversations/none", `{"agent": "ada", "do": []}`, 404},
		{"DELETE", "/v1/conversations/none", "", 404},
	} {
		var problem deskapi.Error
		if status := call(t, d, c.method, c.path, c.body, &problem); status != c.want || problem.Code == "" || problem.Message == "" {
			t.Errorf("%s %.60s %.40s: %d %+v, want %d", c.method, c.path, c.body, status, problem, c.want)
		}
	}
	req := httptest.NewRequest(http.MethodPost, "/console/api/conversations/k", strings.NewReader(`{"agent": "ada", "do": [{"leave": true}]}`))
	req.Header.Set("Content-Type", "text/plain") // what a page of another origin can send unasked
	rec := httptest.NewRecorder()
	d.ServeHTTP(rec, req)
	if rec.Code != 415 {
		t.Errorf("a form of another page: %d", rec.Code)
	}
	equal(t, types(t, d, "k"), "started")
	var s struct{ Conversations []struct{ State string } }
	call(t, d, "GET", "/console/api/state", "", &s)
	if len(s.Conversations) != 1 || s.Conversations[0].State != "waiting" {
		t.Errorf("the conversations are %v", s.Conversations)
	}
}

func TestLongHistoriesComeInPages(t *testing.T) {
	d := newDesk(t, `{"console": true}`)
	start(t, d, "k")
	for i := range 500 {
		send(t, d, "k", fmt.Sprint(i), "x")
	}
	if n := len(types(t, d, "k")); n != 501 {
		t.Errorf("%d events", n)
	}
	var r deskapi.CatchUpResponse
	if status := call(t, d, "POST", "/v1/catch-up", `{"after": {"k": 400, "none": 3}}`, &r); status != 200 {
		t.Fatalf("%d", status)
	}
	h, ok := r.Conversations["k"]
	if _, none := r.Conversations["none"]; !ok || none || len(h.Events) != 101 || h.Events[0].Seq != 401 || h.More {
		t.Errorf("got %d events, more %v", len(h.Events), h.More)
	}
}

func TestTheFeedTellsAllConversationsInOrder(t *testing.T) {
	d := newDesk(t, `{"console": true}`)
	server := httptest.NewServer(d)
	defer server.Close()
	defer d.Close() // ends the feed, for which the server's Close waits
	resp, err := http.Get(server.URL + "/v1/feed")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || lines.Text() != "" {
		t.Fatalf("the feed begins with %q", lines.Text())
	}
	start(t, d, "a")
	start(t, d, "b")
	for i := range 1000 {
		send(t, d, "a", fmt.Sprint(i), "x")
		send(t, d, "b", fmt.Sprint(i), "y")
	}
	seen := map[string]uint64{}
	for seen["a"]+seen["b"] < 2002 && lines.Scan() {
		var e deskapi.Event
		if lines.Text() == "" {
			continue
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if seen[e.Key]++; e.Seq != seen[e.Key] {
			t.Fatalf("event %d of %s came as %d", e.Seq, e.Key, seen[e.Key])
		}
	}
	if seen["a"] != 1001 || seen["b"] != 1001 {
		t.Errorf("the feed told %v: %v", seen, lines.Err())
	}
}

// A reader that lags too far is cut, so that it does not make the desk keep
// everything; it catches up by history.
func TestAFeedThatLagsIsCut(t *testing.T) {
	steps := strings.Repeat(`{"say": "x"},`, 999) + `{"say": "x"}`
	d := newDesk(t, `{"on_start": [{"join": ""}], "rules": [{"when": "talk", "do": [`+steps+`]}]}`)
	client := http.Client{Transport: mockdesk.Transport(d)}
	resp, err := client.Get("http://desk.test/v1/feed")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	start(t, d, "k")
	for i := range 40 {
		send(t, d, "k", fmt.Sprint(i), "talk")
	}
	lines := 0
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		lines++
	}
	if lines >= 40000 {
		t.Errorf("the feed told all of it, in %d lines", lines)
	}
	var h deskapi.History
	call(t, d, "GET", "/v1/conversations/k/events?after=40041", "", &h)
	if h.Seq != 40042 || len(h.Events) != 1 {
		t.Errorf("the history has %d events", h.Seq)
	}
}

func TestScriptedEnds(t *testing.T) {
	for script, want := range map[string][]string{
		`{"leave_after": 2}`: {"started", "agent_joined", "user_message", "agent_message", "user_message", "agent_message", "agent_left", "user_message"},
		`{"end_after": 1}`:   {"started", "agent_joined", "user_message", "agent_message", "ended"},
		`{"answer": ""}`:     {"started", "agent_joined", "user_message", "user_message", "user_message"},
		`{"on_start": [{"say": "We are closed."}, {"trouble": {"kind": "no_agent"}}]}`: {"started", "agent_message", "in_trouble"},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newDesk(t, script)
			start(t, d, "k")
			time.Sleep(time.Second)
			for i := range 3 {
				send(t, d, "k", fmt.Sprint(i), "x")
				time.Sleep(time.Second)
			}
			equal(t, types(t, d, "k"), want...)
		})
	}
}

// A person takes a conversation over from the script, also in the middle of an
// answer, and the script takes it back by a transfer.
func TestTakingOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, `{}`)
		start(t, d, "k")
		time.Sleep(time.Second)
		send(t, d, "k", "1", "x")
		time.Sleep(50 * time.Millisecond) // Ada types
		if status := call(t, d, "POST", "/console/api/conversations/k", `{"agent": "ada", "do": []}`, nil); status != 204 {
			t.Fatalf("take over: %d", status)
		}
		send(t, d, "k", "2", "x")
		time.Sleep(time.Second)
		equal(t, types(t, d, "k"), "started", "agent_joined", "user_message", "user_message")
		call(t, d, "POST", "/console/api/conversations/k", `{"agent": "grace", "do": [{"say": "Hello"}, {"transfer": "ada"}]}`, nil)
		time.Sleep(time.Second)
		send(t, d, "k", "3", "x")
		time.Sleep(time.Second)
		equal(t, types(t, d, "k")[4:], "agent_joined", "agent_message", "transfer", "agent_joined", "user_message", "agent_message")
	})
}

func TestTheStateIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, `{"console": true}`)
		type state struct {
			Version uint64
			Open    struct{ Typing bool }
		}
		var first, same, next state
		start(t, d, "k")
		call(t, d, "GET", "/console/api/state?key=k", "", &first)
		began := time.Now()
		call(t, d, "GET", fmt.Sprintf("/console/api/state?key=k&version=%d", first.Version), "", &same)
		if waited := time.Since(began); waited < time.Second || waited > 3*time.Second || same != first {
			t.Errorf("with nothing new it answered after %s: %+v", waited, same)
		}
		began = time.Now()
		time.AfterFunc(300*time.Millisecond, func() { call(t, d, "POST", "/v1/conversations/k/typing", `{"typing": true}`, nil) })
		call(t, d, "GET", fmt.Sprintf("/console/api/state?key=k&version=%d", first.Version), "", &next)
		if waited := time.Since(began); waited != 300*time.Millisecond || !next.Open.Typing {
			t.Errorf("it told of typing after %s: %+v", waited, next)
		}
	})
}

// A person does all that the page has a button for, and sees it.
func TestThePage(t *testing.T) {
	d := newDesk(t, `{"console": true}`)
	start(t, d, "k")
	send(t, d, "k", "m1", "x")
	var page struct {
		More          []struct{ Do string }
		Online        string
		Conversations []struct {
			ID     string
			Agent  string
			Unread int
		}
		Lines []struct{ From, Who, Text, URL, Media string }
	}
	call(t, d, "GET", "/console/state", "", &page)
	if len(page.More) == 0 || len(page.Conversations) != 1 || page.Conversations[0].Unread != 1 || page.Online != "online" {
		t.Fatalf("the page shows %+v", page)
	}
	id := page.Conversations[0].ID
	do := func(what, text string, want int) {
		t.Helper()
		body := fmt.Sprintf(`{"conversation": %q, "do": %q, "agent": "Ada", "text": %q}`, id, what, text)
		if status := call(t, d, "POST", "/console/do", body, nil); status != want {
			t.Errorf("%s: %d", what, status)
		}
	}
	do("join", "", 204)
	do("join", "", 204) // who is there need not join
	do("typing", "", 204)
	do("stop_typing", "", 204)
	do("read", "", 204)
	do("say", "Hello", 204)
	for _, button := range page.More {
		do(button.Do, "", 204)
	}
	call(t, d, "GET", "/console/state?open="+id, "", &page)
	if c := page.Conversations[0]; c.Agent != "Ada" || c.Unread != 0 {
		t.Errorf("the list shows %+v", c)
	}
	if want := 4 + len(page.More); len(page.Lines) != want || page.Lines[3].Text != "Hello" || page.Lines[3].Who != "Ada" {
		t.Errorf("%d lines for %d: %+v", len(page.Lines), want, page.Lines)
	}
	if picture := page.Lines[4]; picture.Media != "image" || !strings.HasSuffix(picture.URL, "/samples/picture.svg") {
		t.Errorf("the picture is %+v", picture)
	}
	do("attend", "unknown", 204)
	do("attend", "asleep", 409)
	do("dance", "", 409)
	do("transfer", "nobody", 409)
	do("transfer", "Grace", 204)
	do("leave", "", 204) // nobody is there
	do("end", "", 204)
	do("say", "too late", 409)
	equal(t, types(t, d, "k")[:5], "started", "user_message", "agent_joined", "agent_read", "agent_message")
	call(t, d, "GET", "/console/state", "", &page)
	if page.Online != "unknown" {
		t.Errorf("the desk is %s", page.Online)
	}
}

func TestADeskThatCannotTellShowsAMessageAgain(t *testing.T) {
	d := newDesk(t, `{"console": true, "dedupe": false}`)
	start(t, d, "k")
	send(t, d, "k", "m1", "x")
	send(t, d, "k", "m1", "x")
	equal(t, types(t, d, "k"), "started", "user_message", "user_message")
}

func TestFaultsChangeWhileTheDeskRuns(t *testing.T) {
	d := newDesk(t, `{"console": true, "calls": {"send": {"fail": "refused"}}}`)
	start(t, d, "k")
	for i, c := range []struct {
		faults string
		want   []int
	}{
		{"", []int{422}},
		{`{"calls": {"send": {"fail": "busy", "every": 2}}}`, []int{200, 429, 200}},
		{`{}`, []int{200, 200}},
		{`{"calls": {"send": {"fail": "unknown", "first": 1}}}`, []int{500, 200}},
	} {
		if c.faults != "" {
			if status := call(t, d, "PUT", "/console/api/faults", c.faults, nil); status != 204 {
				t.Fatalf("%s: %d", c.faults, status)
			}
		}
		for n, want := range c.want {
			if got := send(t, d, "k", fmt.Sprint(i, "-", n), "x"); got != want {
				t.Errorf("%s: message %d is answered with %d, want %d", c.faults, n, got, want)
			}
		}
	}
	for _, bad := range []string{`{"calls": {"dance": {}}}`, `{"feed": {"swap_every": -1}}`} {
		if status := call(t, d, "PUT", "/console/api/faults", bad, nil); status != 422 {
			t.Errorf("%s: %d", bad, status)
		}
	}
}

func TestACarelessFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, `{"console": true, "feed": {"duplicate_every": 3, "swap_every": 5}}`)
		client := http.Client{Transport: mockdesk.Transport(d)}
		resp, err := client.Get("http://desk.test/v1/feed")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		start(t, d, "k") // event 1, before the others are there
		synctest.Wait()
		call(t, d, "POST", "/console/api/conversations/k", `{"agent": "ada", "do": [{"say": "a"}, {"say": "b"}, {"say": "c"}, {"say": "d"}]}`, nil)
		var seqs []uint64
		lines := bufio.NewScanner(resp.Body)
		for len(seqs) < 8 && lines.Scan() {
			var e deskapi.Event
			if len(lines.Bytes()) == 0 {
				continue
			}
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Fatal(err)
			}
			seqs = append(seqs, e.Seq)
		}
		if want := []uint64{1, 2, 3, 3, 4, 6, 5, 6}; !slices.Equal(seqs, want) {
			t.Errorf("the feed told %v, want %v", seqs, want)
		}
	})
}
