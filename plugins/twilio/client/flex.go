package client

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
)

// WebChat asks for a web chat.
type WebChat struct {
	// AddressSID is that of the Flex address of the chat, IG….
	AddressSID string
	// Identity is the customer's, unique to the chat.
	Identity string
	// CustomerName is what the agent reads as the customer's name.
	CustomerName string
	// PreEngagementData is JSON, at most 16 KiB.
	PreEngagementData string
}

// CreateWebChat opens a web chat and returns its conversation and the identity
// that the customer has in it. An agent is called by the first message.
func (c *Client) CreateWebChat(ctx context.Context, w WebChat) (v *Conversation, identity string, err error) {
	var made struct {
		ConversationSID string `json:"conversation_sid"`
		Identity        string `json:"identity"`
	}
	err = c.post(ctx, at(c.flex, "v2", "WebChats"), url.Values{
		"AddressSid":           {w.AddressSID},
		"ChatFriendlyName":     {"Web chat"},
		"CustomerFriendlyName": {w.CustomerName},
		"PreEngagementData":    {w.PreEngagementData},
		"Identity":             {w.Identity},
	}, &made)
	if err == nil && (made.ConversationSID == "" || made.Identity == "") {
		err = errNoSID
	}
	if err != nil {
		return nil, "", err
	}
	return c.Conversation(made.ConversationSID), made.Identity, nil
}

// Routing says where an interaction's task goes.
type Routing struct {
	WorkspaceSID, WorkflowSID, TaskChannel string
	Attributes                             map[string]any
}

// Interaction is what Flex makes of a conversation.
type Interaction struct {
	// SID is KD…, Channel UO….
	SID, Channel string
}

// CreateInteraction has a task made for a conversation, which calls an agent.
func (c *Client) CreateInteraction(ctx context.Context, conversation string, r Routing) (*Interaction, error) {
	channel, err := json.Marshal(map[string]any{
		"type":         "web",
		"initiated_by": "customer",
		"properties":   map[string]any{"media_channel_sid": conversation},
	})
	if err != nil {
		return nil, &Error{Err: err}
	}
	routing, err := json.Marshal(map[string]any{"properties": map[string]any{
		"workspace_sid":            r.WorkspaceSID,
		"workflow_sid":             r.WorkflowSID,
		"task_channel_unique_name": r.TaskChannel,
		"attributes":               r.Attributes,
	}})
	if err != nil {
		return nil, &Error{Err: err}
	}
	var made struct {
		SID     string `json:"sid"`
		Channel struct {
			SID string `json:"sid"`
		} `json:"channel"`
	}
	err = c.post(ctx, at(c.flex, "v1", "Interactions"), url.Values{"Channel": {string(channel)}, "Routing": {string(routing)}}, &made)
	if err == nil && made.SID == "" {
		err = errNoSID
	}
	if err != nil {
		return nil, err
	}
	return &Interaction{SID: made.SID, Channel: made.Channel.SID}, nil
}

// CloseInteraction ends an interaction's channel, and with it the agent's task.
func (c *Client) CloseInteraction(ctx context.Context, i Interaction) error {
	return c.post(ctx, at(c.flex, "v1", "Interactions", i.SID, "Channels", i.Channel), url.Values{"Status": {"closed"}}, nil)
}

// ChannelParticipant is somebody in an interaction's channel.
type ChannelParticipant struct {
	// Type is agent, supervisor, customer, external or unknown.
	Type string `json:"type"`
	// Media tells who it is in the conversation, if it is there: the reference
	// does not promise it.
	Media struct {
		SID string `json:"sid"`
	} `json:"media_properties"`
}

// ChannelParticipants returns who is in an interaction's channel.
func (c *Client) ChannelParticipants(ctx context.Context, i Interaction) ([]ChannelParticipant, error) {
	var page struct {
		Participants []ChannelParticipant `json:"participants"`
	}
	err := c.get(ctx, at(c.flex, "v1", "Interactions", i.SID, "Channels", i.Channel, "Participants"), nil, &page)
	return page.Participants, err
}

// Task is a task of TaskRouter for a conversation.
type Task struct {
	SID string `json:"sid"`
	// AssignmentStatus is pending, reserved, assigned, wrapping, completed or canceled.
	AssignmentStatus string `json:"assignment_status"`
	// Attributes is JSON.
	Attributes string `json:"attributes"`
}

// Live says that an agent has the task, or may still get it.
func (t *Task) Live() bool {
	return slices.Contains([]string{"pending", "reserved", "assigned"}, t.AssignmentStatus)
}

// Interaction is the one that the task belongs to; nil if it names none.
func (t *Task) Interaction() *Interaction {
	var a struct {
		SID     string `json:"flexInteractionSid"`
		Channel string `json:"flexInteractionChannelSid"`
	}
	if json.Unmarshal([]byte(t.Attributes), &a) != nil || a.SID == "" || a.Channel == "" {
		return nil
	}
	return &Interaction{SID: a.SID, Channel: a.Channel}
}

// Tasks returns the tasks of a conversation.
func (c *Client) Tasks(ctx context.Context, workspace, conversation string) ([]Task, error) {
	var page struct {
		Tasks []Task `json:"tasks"`
	}
	query := url.Values{"EvaluateTaskAttributes": {`conversationSid == "` + conversation + `"`}}
	err := c.get(ctx, at(c.taskRouter, "v1", "Workspaces", workspace, "Tasks"), query, &page)
	return page.Tasks, err
}

// Queue is how a task queue stands.
type Queue struct {
	AvailableWorkers int `json:"total_available_workers"`
}

// QueueStatistics returns how a queue stands now, for one task channel.
func (c *Client) QueueStatistics(ctx context.Context, workspace, queue, taskChannel string) (*Queue, error) {
	q := new(Queue)
	u := at(c.taskRouter, "v1", "Workspaces", workspace, "TaskQueues", queue, "RealTimeStatistics")
	return q, c.get(ctx, u, url.Values{"TaskChannel": {taskChannel}}, q)
}

// Workspace fails if the account has no workspace of that SID.
func (c *Client) Workspace(ctx context.Context, sid string) error {
	return c.get(ctx, at(c.taskRouter, "v1", "Workspaces", sid), nil, nil)
}

// Workflow fails if the workspace has no workflow of that SID.
func (c *Client) Workflow(ctx context.Context, workspace, sid string) error {
	return c.get(ctx, at(c.taskRouter, "v1", "Workspaces", workspace, "Workflows", sid), nil, nil)
}
