package adapter

import (
	"context"
	_ "embed"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/client"
	"github.com/deskhost/deskhost/sdk"
)

// configSchema describes config, with the defaults of newConfig.
//
//go:embed config.schema.json
var configSchema string

// Ways to end a conversation for the user.
const (
	endInteraction  = "interaction"
	endConversation = "conversation"
	endParticipant  = "participant"
)

// config is the desk's configuration. config.schema.json tells what each means.
type config struct {
	AccountSID   string `json:"account_sid"`
	AuthToken    string `json:"auth_token"`
	APIKeySID    string `json:"api_key_sid"`
	APIKeySecret string `json:"api_key_secret"`
	AddressSID   string `json:"address_sid"`
	Interaction  *struct {
		WorkflowSID string         `json:"workflow_sid"`
		Attributes  map[string]any `json:"attributes"`
	} `json:"interaction"`
	WorkspaceSID     string   `json:"workspace_sid"`
	QueueSID         string   `json:"queue_sid"`
	TaskChannel      string   `json:"task_channel"`
	End              string   `json:"end"`
	Bots             []string `json:"bots"`
	UnattendedAfterS int      `json:"unattended_after_s"`
	UnattendedText   string   `json:"unattended_text"`
	ReconcileMS      int      `json:"reconcile_ms"`
	PollMS           int      `json:"poll_ms"`
	URLs             struct {
		Conversations string `json:"conversations"`
		Flex          string `json:"flex"`
		TaskRouter    string `json:"taskrouter"`
	} `json:"urls"`
}

func newConfig() config {
	return config{
		TaskChannel:      "chat",
		End:              endInteraction,
		UnattendedAfterS: 60,
		UnattendedText:   "No agent is with you, and none is on the way. You can wait, or end this chat and try again later.",
		ReconcileMS:      20_000,
		PollMS:           1_500,
	}
}

func (c *config) reconcile() time.Duration { return time.Duration(c.ReconcileMS) * time.Millisecond }

func (c *config) poll() time.Duration { return time.Duration(c.PollMS) * time.Millisecond }

func (c *config) unattendedAfter() time.Duration {
	return time.Duration(c.UnattendedAfterS) * time.Second
}

// client makes the client of the account.
func (c *config) client(transport http.RoundTripper) (*client.Client, error) {
	o := client.Options{
		User: c.AccountSID, Password: c.AuthToken, Transport: transport,
		ConversationsURL: c.URLs.Conversations, FlexURL: c.URLs.Flex, TaskRouterURL: c.URLs.TaskRouter,
	}
	if c.APIKeySID != "" {
		o.User, o.Password = c.APIKeySID, c.APIKeySecret
	}
	return client.New(o)
}

// Configure looks whether Twilio knows the account and what is named of it.
func (d *Desk) Configure(ctx context.Context, req *sdk.ConfigureRequest) error {
	d.config = newConfig()
	if err := json.Unmarshal(req.Config, &d.config); err != nil {
		return sdk.Fail(sdk.Invalid, "the configuration is not what its schema says: %w", err)
	}
	if (d.config.AddressSID == "") == (d.config.Interaction == nil) {
		return sdk.Fail(sdk.Invalid, "the configuration needs one of address_sid (web chats) and interaction (routing from here)")
	}
	c, err := d.config.client(d.transport)
	if err != nil {
		return sdk.Fail(sdk.Invalid, "%w", err)
	}
	d.client = c
	if req.WebhookBaseURL != "" {
		d.webhookBase = strings.TrimSuffix(req.WebhookBaseURL, "/")
		d.webhookURL = d.webhookBase + webhookPath
	}
	if err := d.prove(ctx); err != nil {
		return err
	}
	if d.webhookURL == "" {
		d.log.Info("the host has no public_url, so Twilio cannot call: conversations are polled", "poll_ms", d.config.PollMS)
	}
	return nil
}

// prove calls Twilio with each setting that it can tell right from wrong.
func (d *Desk) prove(ctx context.Context) error {
	type proof struct {
		key, at, name, remedy string
		call                  func() error
	}
	var proofs []proof
	cfg := &d.config
	if cfg.AddressSID != "" {
		proofs = append(proofs, proof{
			"address_sid", "urls.conversations", "address " + cfg.AddressSID, "take the SID (IG…) from Flex > Channels > Messaging in the console",
			func() error { return d.client.Address(ctx, cfg.AddressSID) },
		})
	}
	if cfg.WorkspaceSID != "" {
		proofs = append(proofs, proof{
			"workspace_sid", "urls.taskrouter", "workspace " + cfg.WorkspaceSID, "take the SID (WS…) from TaskRouter > Workspaces in the console",
			func() error { return d.client.Workspace(ctx, cfg.WorkspaceSID) },
		})
	}
	if cfg.Interaction != nil {
		proofs = append(proofs, proof{
			"interaction.workflow_sid", "urls.taskrouter", "workflow " + cfg.Interaction.WorkflowSID, "take the SID (WW…) from the workspace's workflows in the console",
			func() error { return d.client.Workflow(ctx, cfg.WorkspaceSID, cfg.Interaction.WorkflowSID) },
		})
	}
	if cfg.QueueSID != "" {
		proofs = append(proofs, proof{
			"queue_sid", "urls.taskrouter", "task queue " + cfg.QueueSID, "take the SID (WQ…) from the workspace's task queues in the console",
			func() error {
				_, err := d.client.QueueStatistics(ctx, cfg.WorkspaceSID, cfg.QueueSID, cfg.TaskChannel)
				return err
			},
		})
	}
	for _, p := range proofs {
		err := client.Retry(ctx, p.call)
		if err == nil {
			continue
		}
		switch e := client.As(err); {
		case e.Unauthorized():
			return sdk.Fail(sdk.Invalid, "account_sid and auth_token, or the API key: Twilio does not accept them (%w); take them from the front page of the console, or from API keys & tokens", err)
		case e.Astray():
			return sdk.Fail(sdk.Invalid, "%s: what answers there is not Twilio (%w); compare the address, which has no version, with the vendor's", p.at, err)
		case e.NotFound():
			return sdk.Fail(sdk.Invalid, "%s: the account has no %s (%w); %s", p.key, p.name, err, p.remedy)
		case e.Status >= 400 && e.Status < 500 && !e.Throttled():
			return sdk.Fail(sdk.Invalid, "%s: %w", p.key, err)
		default:
			return &sdk.Failure{Kind: sdk.Retry, RetryAfter: e.RetryAfter, Err: err}
		}
	}
	return nil
}
