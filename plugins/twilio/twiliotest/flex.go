package twiliotest

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
)

// maxPreEngagement bounds the data of a form before the chat, in bytes.
const maxPreEngagement = 16 << 10

// Types of an Interaction's participants.
const (
	typeCustomer   = "customer"
	typeAgent      = "agent"
	typeSupervisor = "supervisor"
	typeUnknown    = "unknown"
)

// roles are what participants may do; an empty kind is a user's.
var roles = map[string]string{
	"":             "RL00000000000000000000000000000000",
	typeCustomer:   "RL00000000000000000000000000000001",
	typeAgent:      "RL00000000000000000000000000000002",
	typeSupervisor: "RL00000000000000000000000000000003",
	typeUnknown:    "RL00000000000000000000000000000004",
}

// interaction is an Interaction with its one channel.
type interaction struct {
	sid, channel string
	conversation *conversation
	routing      map[string]any
	status       string // of the channel
}

func (s *Simulator) createWebChat(r *request) (int, any) {
	if r.form.Get("AddressSid") != AddressSid {
		return invalid("AddressSid %q is no address of this account", r.form.Get("AddressSid"))
	}
	given := cmp.Or(r.form.Get("PreEngagementData"), "{}")
	if len(given) > maxPreEngagement || !isJSONObject(given) {
		return invalid("PreEngagementData is longer than %d bytes, or no JSON object", maxPreEngagement)
	}
	name := cmp.Or(r.form.Get("CustomerFriendlyName"), "Customer")
	attributes, _ := json.Marshal(map[string]any{ // of JSON and strings
		"channel_type": "web", "from": name, "pre_engagement_data": json.RawMessage(given),
	})
	c := s.newConversation(string(attributes))
	c.webChat = true
	if friendly := r.form.Get("ChatFriendlyName"); friendly != "" {
		c.FriendlyName = &friendly
	}
	identity := cmp.Or(r.form.Get("Identity"), newSid(""))
	s.user(identity).FriendlyName = name
	s.add(c, identity, typeCustomer, actor{silent: true})
	// The address's Studio flow listens as a webhook does.
	c.hooks = append(c.hooks, &hook{
		AccountSid: AccountSid, ConversationSid: c.Sid, Sid: newSid("WH"), Target: "studio", DateCreated: now(),
		Configuration: hookConfiguration{FlowSid: studioFlow, Filters: []string{"onMessageAdded"}},
	})
	return http.StatusCreated, map[string]string{"conversation_sid": c.Sid, "identity": identity}
}

func (s *Simulator) fetchAddress(r *request) (int, any) {
	if r.PathValue("sid") != AddressSid {
		return r.notFound()
	}
	return http.StatusOK, map[string]any{
		"account_sid": AccountSid, "sid": AddressSid, "type": "chat", "address": "Website", "friendly_name": "Website",
		"auto_creation": map[string]any{"enabled": true, "type": "studio", "studio_flow_sid": studioFlow, "conversation_service_sid": ChatServiceSid},
		"url":           r.link(r.URL.Path),
	}
}

func (s *Simulator) createInteraction(r *request) (int, any) {
	var channel struct {
		Type        string `json:"type"`
		InitiatedBy string `json:"initiated_by"`
		Properties  struct {
			MediaChannelSid string `json:"media_channel_sid"`
		} `json:"properties"`
	}
	var routing struct {
		Properties struct {
			WorkspaceSid string         `json:"workspace_sid"`
			WorkflowSid  string         `json:"workflow_sid"`
			TaskChannel  string         `json:"task_channel_unique_name"`
			Attributes   map[string]any `json:"attributes"`
		} `json:"properties"`
	}
	if json.Unmarshal([]byte(r.form.Get("Channel")), &channel) != nil || json.Unmarshal([]byte(r.form.Get("Routing")), &routing) != nil {
		return invalid("Channel and Routing are JSON objects")
	}
	to := routing.Properties
	switch {
	case channel.Type != "web" || channel.InitiatedBy != typeCustomer:
		return invalid("Channel is not of the type web, or not initiated by the customer")
	case to.WorkspaceSid != WorkspaceSid || to.WorkflowSid != WorkflowSid || to.TaskChannel != "chat":
		return invalid("Routing names no workspace, workflow and task channel of this account")
	}
	c := s.conversations[channel.Properties.MediaChannelSid]
	switch {
	case c == nil:
		return invalid("There is no conversation %q", channel.Properties.MediaChannelSid)
	case c.State == stateClosed:
		return fail(http.StatusBadRequest, codeClosed, "Conversation %s is closed", c.Sid)
	case c.customer == nil:
		return invalid("Conversation %s has no customer", c.Sid)
	case c.interaction != nil:
		return invalid("Conversation %s has an interaction", c.Sid)
	}
	s.call(c, to.Attributes)
	return http.StatusCreated, c.interaction.shown(r)
}

// call has an agent called to a conversation, by an interaction and its task.
func (s *Simulator) call(c *conversation, attributes map[string]any) {
	if c.interaction == nil {
		c.interaction = &interaction{sid: newSid("KD"), channel: newSid("UO"), conversation: c, status: stateActive, routing: attributes}
		s.interactions[c.interaction.sid] = c.interaction
	}
	c.interaction.status = stateActive
	all := map[string]any{"channelType": "web", "direction": "inbound", "customerName": s.user(c.customer.Identity).FriendlyName}
	maps.Copy(all, attributes)
	all["conversationSid"], all["flexInteractionSid"], all["flexInteractionChannelSid"] = c.Sid, c.interaction.sid, c.interaction.channel
	text, _ := json.Marshal(all) // of JSON
	t := &task{
		AccountSid: AccountSid, WorkspaceSid: WorkspaceSid, WorkflowSid: WorkflowSid, TaskQueueSid: TaskQueueSid, TaskChannelUniqueName: "chat",
		Sid: newSid("WT"), AssignmentStatus: "pending", Attributes: string(text), Timeout: 86400, DateCreated: now(), DateUpdated: now(),
	}
	s.tasks[t.Sid] = t
	c.tasks = append(c.tasks, t)
	c.note("", "", "An agent is called: task "+t.Sid)
}

// openTask returns the task that is waiting or assigned, or nil.
func (c *conversation) openTask() *task {
	if n := len(c.tasks); n > 0 && c.tasks[n-1].open() {
		return c.tasks[n-1]
	}
	return nil
}

// finishTask ends the open task, if there is one.
func (s *Simulator) finishTask(c *conversation) {
	t := c.openTask()
	if t == nil {
		return
	}
	status := "completed"
	if t.AssignmentStatus == "pending" {
		status = "canceled"
	}
	t.AssignmentStatus, t.DateUpdated = status, now()
}

// channelShown is the channel of an interaction as a caller sees it.
type channelShown struct {
	Sid            string `json:"sid"`
	InteractionSid string `json:"interaction_sid"`
	Type           string `json:"type"`
	Status         string `json:"status"`
	ErrorCode      *int   `json:"error_code"`
	URL            string `json:"url"`
}

func (i *interaction) url(r *request) string { return r.link("/flex/v1/Interactions/" + i.sid) }

func (i *interaction) shown(r *request) any {
	return map[string]any{
		"sid": i.sid, "channel": i.channelShown(r), "routing": map[string]any{"properties": map[string]any{
			"workspace_sid": WorkspaceSid, "workflow_sid": WorkflowSid, "task_channel_unique_name": "chat", "attributes": i.routing,
		}},
		"url": i.url(r), "links": map[string]string{"channels": i.url(r) + "/Channels"},
	}
}

func (i *interaction) channelShown(r *request) channelShown {
	return channelShown{Sid: i.channel, InteractionSid: i.sid, Type: "web", Status: i.status, URL: i.url(r) + "/Channels/" + i.channel}
}

func (s *Simulator) fetchInteraction(r *request) (int, any) {
	i := s.interactions[r.PathValue("sid")]
	if i == nil {
		return r.notFound()
	}
	return http.StatusOK, i.shown(r)
}

// channel returns the interaction of a call on its channel, or nil.
func (s *Simulator) channel(r *request) *interaction {
	i := s.interactions[r.PathValue("interaction")]
	if i == nil || i.channel != r.PathValue("sid") {
		return nil
	}
	return i
}

func (s *Simulator) fetchChannel(r *request) (int, any) {
	i := s.channel(r)
	if i == nil {
		return r.notFound()
	}
	return http.StatusOK, i.channelShown(r)
}

func (s *Simulator) updateChannel(r *request) (int, any) {
	i := s.channel(r)
	if i == nil {
		return r.notFound()
	}
	switch status := r.form.Get("Status"); status {
	case stateClosed:
		s.end(i.conversation, actor{source: "API"})
	default:
		return invalid("The status of a channel cannot become %q here", status)
	}
	return http.StatusOK, i.channelShown(r)
}

// channelParticipant is somebody in an interaction's channel.
type channelParticipant struct {
	Sid               string    `json:"sid"`
	Type              string    `json:"type"`
	InteractionSid    string    `json:"interaction_sid"`
	ChannelSid        string    `json:"channel_sid"`
	URL               string    `json:"url"`
	RoutingProperties *struct{} `json:"routing_properties"`
	// MediaProperties tell who it is in the conversation.
	MediaProperties map[string]string `json:"media_properties,omitempty"`
}

func (s *Simulator) listChannelParticipants(r *request) (int, any) {
	i := s.channel(r)
	if i == nil {
		return r.notFound()
	}
	var shown []channelParticipant
	for _, p := range i.conversation.participants {
		if p.kind == typeUnknown {
			continue // a bot that was added by the Conversations API is none of Flex's
		}
		in := channelParticipant{
			Sid: p.channelSid, Type: p.kind, InteractionSid: i.sid, ChannelSid: i.channel,
			URL: i.url(r) + "/Channels/" + i.channel + "/Participants/" + p.channelSid,
		}
		if !s.opts.NoMediaProperties {
			in.MediaProperties = map[string]string{"sid": p.Sid, "identity": p.Identity}
		}
		shown = append(shown, in)
	}
	return list(s, r, "participants", shown, maxLongPage, func(p channelParticipant) string { return p.Sid })
}
