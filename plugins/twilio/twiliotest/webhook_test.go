package twiliotest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
)

// TestSignature holds Sign to the vendor's published example.
func TestSignature(t *testing.T) {
	t.Parallel()
	got := twiliotest.Sign("12345", "https://mycompany.com/myapp.php?foo=1&bar=2", url.Values{
		"CallSid": {"CA1234567890ABCDE"}, "Caller": {"+14158675309"}, "Digits": {"1234"}, "From": {"+14158675309"}, "To": {"+18005551212"},
	})
	if want := "RSOYDt4T1cUTdK1PDd93/VVr8B8="; got != want {
		t.Errorf("signed %s, expected %s", got, want)
	}
}

// named replaces what differs from run to run: identifiers by their prefix and a
// number in the order in which they came, times by a word.
type named map[string]string

var (
	sids  = regexp.MustCompile(`\b(CH|MB|IM|WH)[0-9a-f]{32}\b`)
	times = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`)
)

func (n named) in(text string) string {
	text = sids.ReplaceAllStringFunc(text, func(sid string) string {
		if n[sid] == "" {
			n[sid] = fmt.Sprint(sid[:2], len(n)+1)
		}
		return n[sid]
	})
	return times.ReplaceAllString(text, "TIME")
}

// TestWebhookBodies holds what webhooks say to testdata/webhooks.txt.
func TestWebhookBodies(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	path, customer := a.chat("c1")
	ctx := t.Context()
	a.must(a.AgentJoins(ctx, "c1"))
	a.must(a.AgentSays(ctx, "c1", "How can I help?"))
	a.must(a.SystemSays("c1", "This chat is recorded."))
	a.must(a.AgentReads("c1"))
	a.must(a.AgentLeaves("c1"))
	a.do(enabled, http.MethodPost, path, "State", "inactive")
	a.must(a.Remove("c1"))
	var all strings.Builder
	names := named{}
	for _, p := range a.webhooks() {
		if kind := p.header.Get("Content-Type"); !strings.HasPrefix(kind, "application/x-www-form-urlencoded") {
			t.Errorf("%s is sent as %q", p.event(), kind)
		}
		keys := make([]string, 0, len(p.form))
		for key := range p.form {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		for _, key := range keys {
			fmt.Fprintf(&all, "%s=%s\n", key, names.in(strings.ReplaceAll(p.form.Get(key), customer, "CUSTOMER")))
		}
		all.WriteString("\n")
	}
	const file = "testdata/webhooks.txt"
	want, err := os.ReadFile(file)
	a.must(err)
	if all.String() != string(want) {
		t.Errorf("webhooks differ from %s:\n%s", file, all.String())
	}
}

// TestSilence makes calls without the header that asks for webhooks.
func TestSilence(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	path, customer := a.chat("c1")
	before := len(a.webhooks())
	a.do(nil, http.MethodPost, path+"/Messages", "Author", customer, "Body", "x")
	a.do(nil, http.MethodPost, path+"/Participants", "Identity", "guest")
	a.do(nil, http.MethodPost, path+"/Participants/guest", "LastReadMessageIndex", "1")
	a.do(nil, http.MethodDelete, path+"/Participants/guest")
	a.do(nil, http.MethodPost, path, "State", "closed")
	if got := a.webhooks()[before:]; len(got) != 0 {
		t.Errorf("%d webhooks of calls without the header", len(got))
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []int
		counts  string
	}{
		"taken":     {[]int{200}, "[0]"},
		"refused":   {[]int{403}, "[0]"},
		"twice":     {[]int{503, 500, 200}, "[0 1 2]"},
		"never":     {[]int{503, 503, 503, 503, 503}, "[0 1 2 3]"},
		"elsewhere": {[]int{302}, "[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t, twiliotest.Options{RetryAfter: time.Millisecond})
			a.answer = func(n int) int { return c.answers[n] }
			a.chat("c1")
			all := a.webhooks()
			var counts, tokens []string
			for i, p := range all {
				counts = append(counts, p.form.Get("RetryCount"))
				if signature := twiliotest.Sign(twiliotest.AuthToken, p.url, p.form); signature != p.header.Get("X-Twilio-Signature") {
					t.Errorf("try %d is signed wrong", i)
				}
				if token := p.header.Get("I-Twilio-Idempotency-Token"); i > 0 {
					tokens = append(tokens, token)
				} else if token != "" {
					t.Error("the first try has an idempotency token")
				}
			}
			if got := fmt.Sprint(counts); got != c.counts {
				t.Errorf("RetryCounts %s, expected %s", got, c.counts)
			}
			if tokens = slices.Compact(tokens); len(all) > 1 && (len(tokens) != 1 || tokens[0] == "") {
				t.Errorf("the retries have the tokens %q", tokens)
			}
		})
	}
}

// TestDelivery delivers what an agent says in each way there is.
func TestDelivery(t *testing.T) {
	t.Parallel()
	const n = 20
	inOrder := make([]string, n)
	for i := range inOrder {
		inOrder[i] = fmt.Sprint(i)
	}
	sorted := func(texts []string) []string {
		texts = slices.Clone(texts)
		slices.SortFunc(texts, func(a, b string) int { return len(a)*100 + strings.Compare(a, b) - len(b)*100 })
		return texts
	}
	for name, c := range map[string]struct {
		how  twiliotest.Webhooks
		good func(got []string) bool
	}{
		"as it should be": {twiliotest.Webhooks{}, func(got []string) bool { return slices.Equal(got, inOrder) }},
		"late":            {twiliotest.Webhooks{Late: time.Millisecond}, func(got []string) bool { return slices.Equal(got, inOrder) }},
		"all lost":        {twiliotest.Webhooks{Lose: 1}, func(got []string) bool { return len(got) == 0 }},
		"every third lost": {twiliotest.Webhooks{Lose: 3}, func(got []string) bool {
			return strings.HasPrefix(strings.Join(got, " "), "0 1 3 4 6 7") && len(got) == n-n/3
		}},
		"doubled": {twiliotest.Webhooks{Double: true}, func(got []string) bool {
			return len(got) == 2*n && slices.Equal(slices.Compact(got), inOrder)
		}},
		"shuffled": {twiliotest.Webhooks{Shuffle: true}, func(got []string) bool {
			return !slices.Equal(got, inOrder) && slices.Equal(sorted(got), inOrder)
		}},
		"doubled and shuffled": {twiliotest.Webhooks{Shuffle: true, Double: true}, func(got []string) bool {
			return len(got) == 2*n && slices.Equal(slices.Compact(sorted(got)), inOrder)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t, twiliotest.Options{})
			a.chat("c1")
			a.must(a.AgentJoins(t.Context(), "c1"))
			before := len(a.webhooks())
			a.SetWebhooks(c.how)
			for _, text := range inOrder {
				a.must(a.AgentSays(t.Context(), "c1", text))
			}
			var got []string
			for _, p := range a.webhooks()[before:] {
				got = append(got, p.form.Get("Body"))
			}
			if !c.good(got) {
				t.Errorf("got %v", got)
			}
		})
	}
}

// TestReplayAfter registers a webhook for what was said before.
func TestReplayAfter(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	path, customer := a.chat("c1")
	a.say(path, customer, "one")
	a.say(path, customer, "two")
	before := len(a.webhooks())
	a.do(nil, http.MethodPost, path+"/Webhooks", "Target", "webhook", "Configuration.Url", a.listen(), "Configuration.Method", "POST",
		"Configuration.Filters", "onMessageAdded", "Configuration.ReplayAfter", "1")
	var got []string
	for _, p := range a.webhooks()[before:] {
		got = append(got, p.form.Get("Body"))
	}
	if fmt.Sprint(got) != "[one two]" {
		t.Errorf("replayed %v", got)
	}
}

// TestMovedWebhook changes a webhook's address.
func TestMovedWebhook(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	path, _ := a.chat("c1")
	for _, h := range a.do(nil, http.MethodGet, path+"/Webhooks").list("webhooks") {
		if h.text("target") == "webhook" {
			moved := a.listen() + "&moved=1"
			a.do(nil, http.MethodPost, path+"/Webhooks/"+h.text("sid"), "Configuration.Url", moved)
		}
	}
	a.must(a.AgentJoins(t.Context(), "c1"))
	all := a.webhooks()
	if last := all[len(all)-1]; last.event() != "onParticipantAdded" || !strings.HasSuffix(last.url, "&moved=1") {
		t.Errorf("%s was sent to %s", last.event(), last.url)
	}
}

// TestCloseStopsWebhooks closes a simulator whose webhooks are not taken.
func TestCloseStopsWebhooks(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{RetryAfter: time.Hour})
	tried := make(chan struct{}, 1)
	a.answer = func(int) int { tried <- struct{}{}; return http.StatusServiceUnavailable }
	a.chat("c1")
	<-tried
	a.Close() // the test would hang if it waited for the hour to be over
	if err := a.Settled(context.Background()); err == nil {
		t.Error("a webhook that nobody took is settled")
	}
}

// TestManyChats has a thousand chats go on at once.
func TestManyChats(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	hook := a.listen()
	const chats = 1000
	for i := range chats {
		id := fmt.Sprint("c", i)
		made := a.do(nil, http.MethodPost, "/conversations/v1/Conversations", "UniqueName", id, "Attributes", fmt.Sprintf(`{"deskhost_chat_id": %q}`, id))
		path := "/conversations/v1/Conversations/" + made.text("sid")
		a.do(nil, http.MethodPost, path+"/Webhooks", "Target", "webhook", "Configuration.Url", hook, "Configuration.Method", "post", "Configuration.Filters", "onMessageAdded")
		a.must(a.SystemSays(id, "Hello"))
	}
	if n := len(a.webhooks()); n != chats {
		t.Errorf("%d webhooks of %d chats", n, chats)
	}
}
