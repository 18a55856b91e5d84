package twiliotest_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// TestStrict makes calls that the vendor refuses, or that are mistakes.
func TestStrict(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	path, customer := a.chat("c1")
	basic := func(user, password string) http.Header {
		return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}}
	}
	const post, get = http.MethodPost, http.MethodGet
	for name, c := range map[string]struct {
		header       http.Header
		method, path string
		parameters   []string
		status, code int
	}{
		"auth token":      {basic(twiliotest.AccountSid, twiliotest.AuthToken), get, path, nil, 200, 0},
		"wrong password":  {basic(twiliotest.AccountSid, "wrong"), get, path, nil, 401, 20003},
		"token of a key":  {basic(twiliotest.APIKeySid, twiliotest.AuthToken), get, path, nil, 401, 20003},
		"nobody":          {http.Header{"Authorization": nil}, get, path, nil, 401, 20003},
		"JSON":            {http.Header{"Content-Type": {"application/json"}}, post, path, nil, 415, 20001},
		"unknown path":    {nil, get, "/conversations/v1/Conversation", nil, 404, 20404},
		"other method":    {nil, http.MethodPut, path, nil, 404, 20404},
		"unknown":         {nil, get, "/conversations/v1/Conversations/CH1", nil, 404, 20404},
		"misspelt":        {nil, post, path + "/Messages", []string{"Author", customer, "body", "x"}, 400, 20001},
		"twice":           {nil, post, path + "/Messages", []string{"Body", "x", "Body", "y"}, 400, 20001},
		"query of a POST": {nil, post, path + "/Messages?Body=x", nil, 400, 20001},

		"no address":           {nil, post, "/flex/v2/WebChats", nil, 400, 20001},
		"data that is no JSON": {nil, post, "/flex/v2/WebChats", []string{"AddressSid", twiliotest.AddressSid, "PreEngagementData", "x"}, 400, 20001},
		"data that is long": {nil, post, "/flex/v2/WebChats",
			[]string{"AddressSid", twiliotest.AddressSid, "PreEngagementData", `{"x": "` + strings.Repeat("x", 16<<10) + `"}`}, 400, 20001},
		"interaction of nothing": {nil, post, "/flex/v1/Interactions", []string{"Channel", "{}", "Routing", "{}"}, 400, 20001},
		"unknown interaction":    {nil, post, "/flex/v1/Interactions/KD1/Channels/UO1", []string{"Status", "closed"}, 404, 20404},

		"empty message":       {nil, post, path + "/Messages", []string{"Author", customer, "Body", ""}, 400, 20001},
		"long message":        {nil, post, path + "/Messages", []string{"Body", strings.Repeat("x", 32<<10+1)}, 400, 20001},
		"longest message":     {nil, post, path + "/Messages", []string{"Body", strings.Repeat("x", 32<<10)}, 201, 0},
		"long attributes":     {nil, post, path + "/Messages", []string{"Body", "x", "Attributes", `{"x": "` + strings.Repeat("x", 4<<10) + `"}`}, 400, 20001},
		"attributes no JSON":  {nil, post, path + "/Messages", []string{"Body", "x", "Attributes", "[1]"}, 400, 20001},
		"unknown media":       {nil, post, path + "/Messages", []string{"MediaSid", "ME1"}, 400, 20001},
		"text beside media":   {nil, post, path + "/Messages", []string{"Body", "x", "MediaSid", "ME1"}, 400, 20001},
		"unknown order":       {nil, get, path + "/Messages", []string{"Order", "up"}, 400, 20001},
		"large page":          {nil, get, path + "/Messages", []string{"PageSize", "101"}, 400, 20001},
		"foreign page":        {nil, get, path + "/Messages", []string{"PageToken", "PA1"}, 400, 20001},
		"there already":       {nil, post, path + "/Participants", []string{"Identity", customer}, 409, 50433},
		"nobody to add":       {nil, post, path + "/Participants", nil, 400, 20001},
		"read what is not":    {nil, post, path + "/Participants/" + customer, []string{"LastReadMessageIndex", "1000"}, 400, 20001},
		"unknown participant": {nil, http.MethodDelete, path + "/Participants/nobody", nil, 404, 20404},
		"unknown state":       {nil, post, path, []string{"State", "open"}, 400, 20001},
		"webhook for nothing": {nil, post, path + "/Webhooks", []string{"Target", "webhook", "Configuration.Url", "https://example.com", "Configuration.Method", "post"}, 400, 20001},
		"webhook for anything": {nil, post, path + "/Webhooks",
			[]string{"Target", "webhook", "Configuration.Url", "https://example.com", "Configuration.Method", "post", "Configuration.Filters", "onMessageAdd"}, 400, 20001},
		"webhook to nowhere": {nil, post, path + "/Webhooks",
			[]string{"Target", "webhook", "Configuration.Url", "/hook", "Configuration.Method", "post", "Configuration.Filters", "onMessageAdded"}, 400, 20001},

		"other workspace":    {nil, get, "/taskrouter/v1/Workspaces/WS1/Tasks", nil, 404, 20404},
		"other queue":        {nil, get, "/taskrouter/v1/Workspaces/" + twiliotest.WorkspaceSid + "/TaskQueues/WQ1/RealTimeStatistics", nil, 404, 20404},
		"odd expression":     {nil, get, "/taskrouter/v1/Workspaces/" + twiliotest.WorkspaceSid + "/Tasks", []string{"EvaluateTaskAttributes", "a HAS b"}, 400, 20001},
		"workspace":          {nil, get, "/taskrouter/v1/Workspaces/" + twiliotest.WorkspaceSid, nil, 200, 0},
		"workflow":           {nil, get, "/taskrouter/v1/Workspaces/" + twiliotest.WorkspaceSid + "/Workflows/" + twiliotest.WorkflowSid, nil, 200, 0},
		"address":            {nil, get, "/conversations/v1/Configuration/Addresses/" + twiliotest.AddressSid, nil, 200, 0},
		"unknown address":    {nil, get, "/conversations/v1/Configuration/Addresses/IG1", nil, 404, 20404},
		"nobody's chats":     {nil, get, "/conversations/v1/ParticipantConversations", []string{"Identity", "nobody"}, 200, 0},
		"chats of no matter": {nil, get, "/conversations/v1/ParticipantConversations", nil, 400, 20001},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := a.callWith(c.header, c.method, c.path, c.parameters...)
			code, _ := answer["code"].(float64)
			if status != c.status || int(code) != c.code {
				t.Errorf("answered %d %v, expected %d with code %d", status, answer, c.status, c.code)
			}
			if c.code != 0 && (answer["status"] != float64(status) || answer.text("message") == "" || answer.text("more_info") == "") {
				t.Errorf("the failure is %v", answer)
			}
		})
	}
}

func TestWebhooksAreFew(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	path, _ := a.chat("c1") // with the flow's webhook and one of its own
	parameters := []string{"Target", "webhook", "Configuration.Url", "https://example.com", "Configuration.Method", "post", "Configuration.Filters", "onMessageAdded"}
	for range 3 {
		a.do(nil, http.MethodPost, path+"/Webhooks", parameters...)
	}
	if status, answer := a.call(http.MethodPost, path+"/Webhooks", parameters...); status != http.StatusBadRequest {
		t.Errorf("the sixth webhook is answered %d %v", status, answer)
	}
}

// TestPages reads what is more than a page, with holes, while more is written.
func TestPages(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	path, _ := a.chat("c1")
	a.must(a.AgentJoins(t.Context(), "c1"))
	for i := range 120 {
		if i == 60 {
			a.must(a.SkipIndexes("c1", 10))
		}
		a.must(a.AgentSays(t.Context(), "c1", fmt.Sprint(i)))
	}
	for _, order := range []string{"asc", "desc"} {
		var indexes []float64
		next := path + "/Messages?PageSize=50&Order=" + order
		for next != "" {
			page := a.do(nil, http.MethodGet, next)
			for _, m := range page.list("messages") {
				indexes = append(indexes, m["index"].(float64))
			}
			meta := object(page["meta"].(map[string]any))
			next = meta.text("next_page_url")
			if meta.text("key") != "messages" || meta["page_size"] != 50. {
				t.Errorf("meta %v", meta)
			}
			if order == "desc" {
				a.must(a.AgentSays(t.Context(), "c1", "late"))
			}
		}
		if len(indexes) != 121 {
			t.Errorf("%s: %d messages on the pages, expected 121", order, len(indexes))
		}
		for i := 1; i < len(indexes); i++ {
			if up := indexes[i] > indexes[i-1]; up != (order == "asc") {
				t.Errorf("%s: %v after %v", order, indexes[i], indexes[i-1])
			}
		}
		if first, last := indexes[0], indexes[120]; first+last != 130 {
			t.Errorf("%s: from %v to %v, with a hole of 10", order, first, last)
		}
	}
	a.SetForeignPages("http://elsewhere.example")
	meta := object(a.do(nil, http.MethodGet, path+"/Messages?PageSize=1")["meta"].(map[string]any))
	if got := meta.text("next_page_url"); !strings.HasPrefix(got, "http://elsewhere.example/conversations/v1/") {
		t.Errorf("next_page_url is %q", got)
	}
}

func TestMedia(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	path, customer := a.chat("c1")
	uploaded := a.do(http.Header{"Content-Type": {"text/plain"}}, http.MethodPost, "/media/v1/Services/"+twiliotest.ChatServiceSid+"/Media", "not", "a form")
	m := a.do(enabled, http.MethodPost, path+"/Messages", "Author", customer, "MediaSid", uploaded.text("sid"))
	files := m.list("media")
	if len(files) != 1 || files[0].text("content_type") != "text/plain" || files[0]["size"] != 10. {
		t.Errorf("the message has %v", files)
	}
	all := a.webhooks()
	if got := all[len(all)-1].form.Get("Media"); !strings.Contains(got, uploaded.text("sid")) {
		t.Errorf("the webhook tells of %q", got)
	}
}

// form is a POST of the account's to a simulator without a network.
func form(path string, parameters ...string) *http.Request {
	values := url.Values{}
	for i := 0; i < len(parameters); i += 2 {
		values.Add(parameters[i], parameters[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(values.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(twiliotest.AccountSid, twiliotest.AuthToken)
	return r
}

// TestRate makes more calls in a second than a conversation takes.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := twiliotest.New(twiliotest.Options{})
		defer s.Close()
		play := func(path string, parameters ...string) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, form(path, parameters...))
			return w
		}
		play("/conversations/v1/Conversations", "UniqueName", "one")
		play("/conversations/v1/Conversations", "UniqueName", "two")
		for range 30 {
			if w := play("/conversations/v1/Conversations/one/Messages", "Body", "x"); w.Code != http.StatusCreated {
				t.Fatalf("a message is answered %d %s", w.Code, w.Body)
			}
		}
		w := play("/conversations/v1/Conversations/one/Messages", "Body", "x")
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "20429") {
			t.Errorf("the 31st is answered %d %v %s", w.Code, w.Header(), w.Body)
		}
		if w := play("/conversations/v1/Conversations/two/Messages", "Body", "x"); w.Code != http.StatusCreated {
			t.Errorf("another conversation's is answered %d %s", w.Code, w.Body)
		}
		time.Sleep(time.Second) // of the bubble
		if w := play("/conversations/v1/Conversations/one/Messages", "Body", "x"); w.Code != http.StatusCreated {
			t.Errorf("a second later it is answered %d %s", w.Code, w.Body)
		}
	})
}

// TestStall has a call answered late that was carried out at once.
func TestStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := twiliotest.New(twiliotest.Options{})
		defer s.Close()
		if err := s.StallNextCall(t.Context(), desktest.CallStart, time.Minute); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		w := httptest.NewRecorder()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			s.ServeHTTP(w, form("/conversations/v1/Conversations", "Attributes", `{"deskhost_chat_id": "c1"}`))
		}()
		synctest.Wait()
		if n := len(s.Conversations("c1")); n != 1 {
			t.Errorf("%d conversations while the call waits", n)
		}
		<-answered
		if late := time.Since(began); late != time.Minute || w.Code != http.StatusCreated {
			t.Errorf("answered %d after %v", w.Code, late)
		}
	})
}

// TestFaults has calls of each kind fail, and no others.
func TestFaults(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	for _, call := range []desktest.Call{desktest.CallStart, desktest.CallSend, desktest.CallEnd} {
		a.must(a.FailNextCall(t.Context(), call))
	}
	web := []string{"AddressSid", twiliotest.AddressSid, "PreEngagementData", `{"deskhost_chat_id": "c1"}`}
	if status, answer := a.call(http.MethodPost, "/flex/v2/WebChats", web...); status != http.StatusTooManyRequests || answer["code"] != 20429. {
		t.Errorf("the start is answered %d %v", status, answer)
	}
	path, customer := a.chat("c1") // whose first message is none of "send"
	if status, _ := a.call(http.MethodPost, path+"/Messages", "Author", customer, "Body", "refused"); status != http.StatusTooManyRequests {
		t.Errorf("the message is answered %d", status)
	}
	a.do(nil, http.MethodPost, path, "FriendlyName", "not the end")
	if status, _ := a.call(http.MethodPost, path, "State", "closed"); status != http.StatusTooManyRequests {
		t.Errorf("the end is answered %d", status)
	}

	a.Fail(twiliotest.Fault{Call: desktest.CallSend, Times: 2, Status: http.StatusServiceUnavailable, Code: 20503})
	for range 2 {
		if status, _ := a.call(http.MethodPost, path+"/Messages", "Author", customer, "Body", "refused"); status != http.StatusServiceUnavailable {
			t.Errorf("the message is answered %d", status)
		}
	}
	a.Fail(twiliotest.Fault{Call: desktest.CallSend, Status: http.StatusBadGateway, Done: true})
	if status, _ := a.call(http.MethodPost, path+"/Messages", "Author", customer, "Body", "done"); status != http.StatusBadGateway {
		t.Errorf("the message is answered %d", status)
	}
	a.Fail(twiliotest.Fault{Call: desktest.CallSend, Cut: true})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.url+path+"/Messages", strings.NewReader(url.Values{"Author": {customer}, "Body": {"cut"}}.Encode()))
	a.must(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(twiliotest.AccountSid, twiliotest.AuthToken)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("a call that is cut is answered %s", resp.Status)
	}
	heard, err := a.Heard(t.Context(), "c1")
	a.must(err)
	if got, want := strings.Join(heard, " "), "Hello done cut"; got != want {
		t.Errorf("heard %q, expected %q", got, want)
	}
}
