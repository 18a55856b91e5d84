package twiliotest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/twilio/twilio-go/client"
	conversations "github.com/twilio/twilio-go/rest/conversations/v1"
	flex "github.com/twilio/twilio-go/rest/flex/v1"
	webchats "github.com/twilio/twilio-go/rest/flex/v2"
	taskrouter "github.com/twilio/twilio-go/rest/taskrouter/v1"

	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
)

// rerouted sends what is meant for the vendor's hosts to a simulator.
type rerouted struct{ to *url.URL }

func (t rerouted) RoundTrip(r *http.Request) (*http.Response, error) {
	product, _, _ := strings.Cut(r.URL.Host, ".")
	product = strings.TrimSuffix(product, "-api") // flex-api
	r = r.Clone(r.Context())
	if strings.HasSuffix(r.URL.Host, ".twilio.com") {
		r.URL.Path = "/" + product + r.URL.Path
	}
	r.URL.Scheme, r.URL.Host, r.Host = t.to.Scheme, t.to.Host, t.to.Host
	return http.DefaultTransport.RoundTrip(r)
}

// vendorClient is the vendor's own client of an account.
func (a *account) vendorClient() client.BaseClient {
	to, err := url.Parse(a.url)
	a.must(err)
	c := &client.Client{
		Credentials: client.NewCredentials(twiliotest.AccountSid, twiliotest.AuthToken),
		HTTPClient:  &http.Client{Transport: rerouted{to}},
	}
	c.SetAccountSid(twiliotest.AccountSid)
	return c
}

// TestVendorClient drives a conversation from its start to its end with the
// vendor's own client.
func TestVendorClient(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	api := conversations.NewApiServiceWithClient(a.vendorClient())

	made, err := api.CreateConversation((&conversations.CreateConversationParams{}).
		SetUniqueName("chat-1").SetFriendlyName("Chat 1").SetAttributes(`{"deskhost_chat_id": "c1"}`))
	a.must(err)
	sid := *made.Sid
	if *made.State != "active" || *made.UniqueName != "chat-1" || made.DateCreated.IsZero() {
		t.Errorf("made %s %s", *made.State, *made.UniqueName)
	}
	p, err := api.CreateConversationParticipant(sid, (&conversations.CreateConversationParticipantParams{}).SetIdentity("chris"))
	a.must(err)
	_, err = api.CreateConversationParticipant(sid, (&conversations.CreateConversationParticipantParams{}).SetIdentity("chris"))
	wantCode(t, "a participant who is there", err, http.StatusConflict, 50433)

	hook, err := api.CreateConversationScopedWebhook(sid, (&conversations.CreateConversationScopedWebhookParams{}).SetTarget("webhook").
		SetConfigurationUrl(a.listen()).SetConfigurationMethod("post").SetConfigurationFilters([]string{"onMessageAdded", "onParticipantUpdated"}))
	a.must(err)
	for _, text := range []string{"one", "two", "three"} {
		m, err := api.CreateConversationMessage(sid, (&conversations.CreateConversationMessageParams{}).
			SetXTwilioWebhookEnabled("true").SetAuthor("chris").SetBody(text).SetAttributes(`{"n": 1}`))
		a.must(err)
		if *m.Body != text || *m.Author != "chris" || *m.ParticipantSid != *p.Sid || !strings.HasPrefix(*m.Sid, "IM") {
			t.Errorf("posted %+v", m)
		}
	}
	// Two pages, latest first.
	messages, err := api.ListConversationMessage(sid, (&conversations.ListConversationMessageParams{}).SetOrder("desc").SetPageSize(2))
	a.must(err)
	var texts []string
	for _, m := range messages {
		texts = append(texts, fmt.Sprint(m.Index, *m.Body))
	}
	if got, want := strings.Join(texts, " "), "2three 1two 0one"; got != want {
		t.Errorf("listed %q, expected %q", got, want)
	}
	read, err := api.UpdateConversationParticipant(sid, *p.Sid, (&conversations.UpdateConversationParticipantParams{}).SetLastReadMessageIndex(2))
	a.must(err)
	if *read.LastReadMessageIndex != 2 {
		t.Errorf("read up to %d", *read.LastReadMessageIndex)
	}
	moved, err := api.UpdateConversationScopedWebhook(sid, *hook.Sid, (&conversations.UpdateConversationScopedWebhookParams{}).
		SetConfigurationUrl("https://chat.example.com/hook"))
	a.must(err)
	if got, _ := (*moved.Configuration).(map[string]any); got["url"] != "https://chat.example.com/hook" {
		t.Errorf("the webhook is at %v", got)
	}
	hooks, err := api.ListConversationScopedWebhook(sid, nil)
	a.must(err)
	if len(hooks) != 1 {
		t.Errorf("%d webhooks", len(hooks))
	}
	user, err := api.FetchUser("chris")
	a.must(err)
	if *user.Identity != "chris" {
		t.Errorf("the user is %q", *user.Identity)
	}
	a.must(api.DeleteConversationParticipant(sid, "chris", nil))
	people, err := api.ListConversationParticipant(sid, nil)
	a.must(err)
	if len(people) != 0 {
		t.Errorf("%d participants after the only one has left", len(people))
	}
	closed, err := api.UpdateConversation(sid, (&conversations.UpdateConversationParams{}).SetState("closed"))
	a.must(err)
	if *closed.State != "closed" {
		t.Errorf("closed is %q", *closed.State)
	}
	_, err = api.UpdateConversation(sid, (&conversations.UpdateConversationParams{}).SetState("active"))
	wantCode(t, "closed is final", err, http.StatusBadRequest, 50377)
	_, err = api.FetchConversation("CH00000000000000000000000000000000")
	wantCode(t, "no such conversation", err, http.StatusNotFound, 20404)
}

// TestVendorClientOfFlex drives a web chat and an interaction: who is called, who
// is there, and how it is ended.
func TestVendorClientOfFlex(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	api := conversations.NewApiServiceWithClient(a.vendorClient())
	channels := flex.NewApiServiceWithClient(a.vendorClient())
	router := taskrouter.NewApiServiceWithClient(a.vendorClient())

	made, err := webchats.NewApiServiceWithClient(a.vendorClient()).CreateWebChannel((&webchats.CreateWebChannelParams{}).
		SetAddressSid(twiliotest.AddressSid).SetCustomerFriendlyName("Chris").SetIdentity("chris-1").
		SetPreEngagementData(`{"deskhost_chat_id": "c1"}`))
	a.must(err)
	sid := *made.ConversationSid
	if *made.Identity != "chris-1" {
		t.Errorf("the identity is %q", *made.Identity)
	}
	user, err := api.FetchUser("chris-1")
	a.must(err)
	if *user.FriendlyName != "Chris" {
		t.Errorf("the customer is called %q", *user.FriendlyName)
	}
	found, err := api.ListParticipantConversation((&conversations.ListParticipantConversationParams{}).SetIdentity("chris-1"))
	a.must(err)
	if len(found) != 1 || *found[0].ConversationSid != sid {
		t.Errorf("%d conversations of the customer", len(found))
	}

	tasks := func() []taskrouter.TaskrouterV1Task {
		list, err := router.ListTask(twiliotest.WorkspaceSid, (&taskrouter.ListTaskParams{}).
			SetEvaluateTaskAttributes(fmt.Sprintf("conversationSid == %q", sid)))
		a.must(err)
		return list
	}
	post := func(enabled string) {
		_, err := api.CreateConversationMessage(sid, (&conversations.CreateConversationMessageParams{}).
			SetXTwilioWebhookEnabled(enabled).SetAuthor("chris-1").SetBody("Hello"))
		a.must(err)
	}
	post("false")
	if n := len(tasks()); n != 0 {
		t.Errorf("%d tasks after a message without webhooks", n)
	}
	if err := a.AgentJoins(t.Context(), "c1"); err == nil {
		t.Error("an agent joins whom nobody called")
	}
	post("true")
	list := tasks()
	if len(list) != 1 || *list[0].AssignmentStatus != "pending" {
		t.Fatalf("tasks %+v", list)
	}
	var attributes struct {
		Interaction string `json:"flexInteractionSid"`
		Channel     string `json:"flexInteractionChannelSid"`
	}
	a.must(json.Unmarshal([]byte(*list[0].Attributes), &attributes))

	statistics := func() *taskrouter.TaskrouterV1TaskQueueRealTimeStatistics {
		st, err := router.FetchTaskQueueRealTimeStatistics(twiliotest.WorkspaceSid, twiliotest.TaskQueueSid,
			(&taskrouter.FetchTaskQueueRealTimeStatisticsParams{}).SetTaskChannel("chat"))
		a.must(err)
		return st
	}
	if st := statistics(); st.TotalAvailableWorkers != 3 || st.TotalTasks != 1 {
		t.Errorf("statistics %+v", st)
	}
	a.SetWorkers(0)
	if st := statistics(); st.TotalAvailableWorkers != 0 {
		t.Errorf("%d workers after all have gone", st.TotalAvailableWorkers)
	}

	a.must(a.AgentJoins(t.Context(), "c1"))
	a.must(a.SupervisorJoins("c1"))
	a.must(a.BotSays("c1", "I only help."))
	people, err := channels.ListInteractionChannelParticipant(attributes.Interaction, attributes.Channel, nil)
	a.must(err)
	var types []string
	for _, p := range people {
		types = append(types, *p.Type)
	}
	if got, want := strings.Join(types, " "), "customer agent supervisor"; got != want {
		t.Errorf("in the channel are %q, expected %q", got, want)
	}
	closed, err := channels.UpdateInteractionChannel(attributes.Interaction, attributes.Channel, (&flex.UpdateInteractionChannelParams{}).SetStatus("closed"))
	a.must(err)
	if *closed.Status != "closed" {
		t.Errorf("the channel is %q", *closed.Status)
	}
	c, err := api.FetchConversation(sid)
	a.must(err)
	if *c.State != "closed" || *tasks()[0].AssignmentStatus != "completed" {
		t.Errorf("the conversation is %s, its task %s", *c.State, *tasks()[0].AssignmentStatus)
	}
}

// TestVendorClientOfInteractions starts a chat with routing of the caller's own.
func TestVendorClientOfInteractions(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	api := conversations.NewApiServiceWithClient(a.vendorClient())
	channels := flex.NewApiServiceWithClient(a.vendorClient())
	made, err := api.CreateConversation((&conversations.CreateConversationParams{}).SetAttributes(`{"deskhost_chat_id": "c1"}`))
	a.must(err)
	_, err = api.CreateConversationParticipant(*made.Sid, (&conversations.CreateConversationParticipantParams{}).SetIdentity("chris"))
	a.must(err)
	interact := func(workflow string) (*flex.FlexV1Interaction, error) {
		return channels.CreateInteraction((&flex.CreateInteractionParams{}).
			SetChannel(map[string]any{"type": "web", "initiated_by": "customer", "properties": map[string]any{"media_channel_sid": *made.Sid}}).
			SetRouting(map[string]any{"properties": map[string]any{
				"workspace_sid": twiliotest.WorkspaceSid, "workflow_sid": workflow, "task_channel_unique_name": "chat",
				"attributes": map[string]any{"topic": "orders"},
			}}))
	}
	_, err = interact("WW00000000000000000000000000000009")
	wantCode(t, "another workflow", err, http.StatusBadRequest, 20001)
	interaction, err := interact(twiliotest.WorkflowSid)
	a.must(err)
	channel, _ := (*interaction.Channel).(map[string]any)
	if id, _ := channel["sid"].(string); !strings.HasPrefix(*interaction.Sid, "KD") || !strings.HasPrefix(id, "UO") {
		t.Errorf("made interaction %s with channel %v", *interaction.Sid, channel)
	}
	a.must(a.AgentSays(t.Context(), "c1", "Hello"))
	list, err := taskrouter.NewApiServiceWithClient(a.vendorClient()).ListTask(twiliotest.WorkspaceSid,
		(&taskrouter.ListTaskParams{}).SetEvaluateTaskAttributes(`topic == 'orders'`).SetAssignmentStatus([]string{"assigned"}))
	a.must(err)
	if len(list) != 1 {
		t.Errorf("%d tasks with the routing's attributes", len(list))
	}
}

func wantCode(t *testing.T, what string, err error, status, code int) {
	t.Helper()
	var refused *client.TwilioRestError
	if !errors.As(err, &refused) || refused.Status != status || refused.Code != code || refused.MoreInfo == "" || refused.Message == "" {
		t.Errorf("%s: %v, expected %d with code %d", what, err, status, code)
	}
}

// TestVendorSignatures holds the signatures of webhooks to the vendor's own
// validator.
func TestVendorSignatures(t *testing.T) {
	t.Parallel()
	a := start(t, twiliotest.Options{})
	a.chat("c1")
	a.must(a.AgentSays(t.Context(), "c1", "Grüße & = + % Привет\r\n🙂"))
	validator := client.NewRequestValidator(twiliotest.AuthToken)
	other := client.NewRequestValidator("54321")
	all := a.webhooks()
	if len(all) != 3 {
		t.Fatalf("%d webhooks", len(all))
	}
	for _, p := range all {
		signature := p.header.Get("X-Twilio-Signature")
		body := p.form.Encode()
		if !validator.ValidateBody(p.url, []byte(body), signature) {
			t.Errorf("the vendor refuses the signature of %s", body)
		}
		flipped := []byte(body)
		i := slices.Index(flipped, '=') + 1
		flipped[i] ^= 1
		for what, ok := range map[string]bool{
			"one flipped byte":   validator.ValidateBody(p.url, flipped, signature),
			"no signature":       validator.ValidateBody(p.url, []byte(body), ""),
			"another path":       validator.ValidateBody(strings.Replace(p.url, "support", "sales", 1), []byte(body), signature),
			"another query":      validator.ValidateBody(strings.Replace(p.url, "chat=c1", "chat=c2", 1), []byte(body), signature),
			"another auth token": other.ValidateBody(p.url, []byte(body), signature),
		} {
			if ok {
				t.Errorf("%s: the vendor takes it", what)
			}
		}
	}
	a.SetWebhooks(twiliotest.Webhooks{WrongSignature: true})
	a.must(a.AgentSays(t.Context(), "c1", "Forged"))
	all = a.webhooks()
	forged := all[len(all)-1]
	if validator.ValidateBody(forged.url, []byte(forged.form.Encode()), forged.header.Get("X-Twilio-Signature")) {
		t.Error("the vendor takes a forged signature")
	}
}
