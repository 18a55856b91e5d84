package twiliotest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
)

// account is a simulator under test, with somebody who listens to its webhooks.
type account struct {
	*twiliotest.Simulator
	t   *testing.T
	url string

	mu     sync.Mutex
	posted []posted
	answer func(n int) int // to the n-th webhook, from 0
}

// posted is a webhook that was sent.
type posted struct {
	header http.Header
	url    string
	form   url.Values
}

func (p *posted) event() string { return p.form.Get("EventType") }

// start starts a simulator for as long as the test runs.
func start(t *testing.T, opts twiliotest.Options) *account {
	t.Helper()
	a := &account{Simulator: twiliotest.New(opts), t: t}
	server := httptest.NewServer(a)
	t.Cleanup(func() {
		a.Close()
		server.Close()
	})
	a.url = server.URL
	return a
}

// listen starts somebody who takes webhooks, and returns his address.
func (a *account) listen() string {
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, err := url.ParseQuery(string(body))
		if err != nil {
			a.t.Errorf("a webhook has the body %q", body)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.posted = append(a.posted, posted{r.Header, server.URL + r.URL.RequestURI(), form})
		if a.answer != nil {
			w.WriteHeader(a.answer(len(a.posted) - 1))
		}
	}))
	a.t.Cleanup(server.Close)
	return server.URL + "/webhooks/support/twilio?chat=c1"
}

// webhooks returns what was posted, once nothing more is on its way.
func (a *account) webhooks() []posted {
	a.t.Helper()
	a.must(a.Settled(a.t.Context()))
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]posted(nil), a.posted...)
}

// events returns the names of what was posted.
func (a *account) events() (names []string) {
	a.t.Helper()
	for _, p := range a.webhooks() {
		names = append(names, p.event())
	}
	return names
}

func (a *account) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// object is a JSON object of an answer.
type object map[string]any

func (o object) text(name string) string {
	s, _ := o[name].(string)
	return s
}

func (o object) list(name string) (items []object) {
	all, _ := o[name].([]any)
	for _, item := range all {
		m, _ := item.(map[string]any)
		items = append(items, m)
	}
	return items
}

// call makes a call with the account's credentials and returns what it was
// answered with. Of parameters the names and the values alternate.
func (a *account) call(method, path string, parameters ...string) (int, object) {
	a.t.Helper()
	return a.callWith(http.Header{}, method, path, parameters...)
}

// enabled has a call fire webhooks.
var enabled = http.Header{"X-Twilio-Webhook-Enabled": {"true"}}

func (a *account) callWith(header http.Header, method, path string, parameters ...string) (int, object) {
	a.t.Helper()
	form := url.Values{}
	for i := 0; i < len(parameters); i += 2 {
		form.Add(parameters[i], parameters[i+1])
	}
	address, body := a.url+path, io.Reader(nil)
	if strings.HasPrefix(path, "http") {
		address = path
	}
	if method == http.MethodPost {
		body = strings.NewReader(form.Encode())
	} else if len(form) > 0 {
		address += "?" + form.Encode()
	}
	req, err := http.NewRequestWithContext(a.t.Context(), method, address, body)
	a.must(err)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.SetBasicAuth(twiliotest.APIKeySid, twiliotest.APIKeySecret)
	maps.Copy(req.Header, header)
	resp, err := http.DefaultClient.Do(req)
	a.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	a.must(err)
	var answer object
	if len(text) > 0 {
		if err := json.Unmarshal(text, &answer); err != nil {
			a.t.Fatalf("%s %s: %s: %q", method, path, resp.Status, text)
		}
	}
	return resp.StatusCode, answer
}

// do makes a call that has to succeed.
func (a *account) do(header http.Header, method, path string, parameters ...string) object {
	a.t.Helper()
	status, answer := a.callWith(header, method, path, parameters...)
	if status >= http.StatusMultipleChoices {
		a.t.Fatalf("%s %s: %d %v", method, path, status, answer)
	}
	return answer
}

// chat begins one as an adapter does: a web chat with a webhook and a first
// message. It returns the conversation's path and the customer's identity.
func (a *account) chat(id string) (path, customer string) {
	a.t.Helper()
	made := a.do(nil, http.MethodPost, "/flex/v2/WebChats", "AddressSid", twiliotest.AddressSid, "CustomerFriendlyName", "Chris",
		"PreEngagementData", fmt.Sprintf(`{"deskhost_chat_id": %q}`, id))
	path, customer = "/conversations/v1/Conversations/"+made.text("conversation_sid"), made.text("identity")
	parameters := []string{"Target", "webhook", "Configuration.Url", a.listen(), "Configuration.Method", "post"}
	for _, event := range []string{"onMessageAdded", "onParticipantAdded", "onParticipantRemoved", "onParticipantUpdated", "onConversationStateUpdated", "onConversationRemoved"} {
		parameters = append(parameters, "Configuration.Filters", event)
	}
	a.do(nil, http.MethodPost, path+"/Webhooks", parameters...)
	a.say(path, customer, "Hello")
	return path, customer
}

// say has the customer write.
func (a *account) say(path, customer, text string) object {
	a.t.Helper()
	return a.do(enabled, http.MethodPost, path+"/Messages", "Author", customer, "Body", text, "Attributes", `{"deskhost_message_id": "m1"}`)
}

func TestChat(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	path, customer := a.chat("c1")
	ctx := context.Background()
	a.must(a.AgentJoins(ctx, "c1"))
	a.must(a.AgentSays(ctx, "c1", "How can I help?"))
	a.say(path, customer, "My order is late")
	a.must(a.AgentReads("c1"))
	a.must(a.AgentEnds(ctx, "c1"))

	heard, err := a.Heard(ctx, "c1")
	a.must(err)
	if got, want := fmt.Sprint(heard), "[Hello My order is late]"; got != want {
		t.Errorf("heard %s, expected %s", got, want)
	}
	want := "[onMessageAdded onParticipantAdded onMessageAdded onMessageAdded onParticipantUpdated onConversationStateUpdated]"
	if got := fmt.Sprint(a.events()); got != want {
		t.Errorf("webhooks %s, expected %s", got, want)
	}
	status, refused := a.callWith(enabled, http.MethodPost, path+"/Messages", "Author", customer, "Body", "Are you there?")
	if status != http.StatusBadRequest || refused["code"] != 50377. {
		t.Errorf("a message after the end is answered %d %v", status, refused)
	}
}
