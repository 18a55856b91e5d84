package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/deskhost/deskhost/sdk"
)

// acme is a desk with a configuration and a webhook.
type acme struct {
	host   sdk.Host
	apiURL string
}

func (a *acme) Configure(_ context.Context, req *sdk.ConfigureRequest) error {
	var config struct {
		APIURL string `json:"api_url"`
	}
	if err := json.Unmarshal(req.Config, &config); err != nil {
		return sdk.Fail(sdk.Invalid, "read the configuration: %w", err)
	}
	a.apiURL = config.APIURL
	return nil
}

func (a *acme) StartChat(context.Context, *sdk.StartChatRequest) (*sdk.StartChatResponse, error) {
	return nil, &sdk.Failure{
		Kind: sdk.Retry, RetryAfter: 10 * time.Second, Err: errors.New("Acme answers 429: the account has too many chats"),
	}
}

func (a *acme) EndChat(_ context.Context, req *sdk.EndChatRequest) error {
	return sdk.Fail(sdk.ChatUnknown, "Acme has no conversation for %s", req.ChatID)
}

func (a *acme) SendMessageToAgent(context.Context, *sdk.SendMessageRequest) (*sdk.SendMessageResponse, error) {
	return &sdk.SendMessageResponse{DeskMessageID: "acme-1"}, nil
}

// ServeHTTP lets Acme forget a message only once the host has it for good.
func (a *acme) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var hook struct {
		ID   string `json:"id"`
		Chat string `json:"chat"`
		Text string `json:"text"`
	}
	if err := json.NewDecoder(r.Body).Decode(&hook); err != nil {
		http.Error(w, "The body is not JSON.", http.StatusBadRequest)
		return
	}
	err := a.host.Emit(r.Context(), &sdk.Event{
		ChatID: hook.Chat, ID: hook.ID, Payload: sdk.MessageToUser{Parts: []sdk.Part{sdk.Text(hook.Text)}},
	})
	var refused *sdk.RefusedError
	switch {
	case errors.As(err, &refused):
		a.host.Logger().Info("a message was not taken", "chat", hook.Chat, "error", err)
	case err != nil:
		http.Error(w, "Try again.", http.StatusServiceUnavailable)
	}
}

// A plugin with a configuration, which the host checks against the schema, and
// a webhook whose deliveries Acme repeats after a 5xx.
func ExampleServe() {
	sdk.Serve(sdk.Plugin{
		Name:    "acme",
		Version: "1.0.0",
		ConfigSchema: `{
			"type": "object",
			"required": ["api_url"],
			"additionalProperties": false,
			"properties": {"api_url": {"type": "string", "description": "where Acme's API is"}}
		}`,
		Replay: sdk.ReplayByWebhook,
		New:    func(host sdk.Host) sdk.Desk { return &acme{host: host} },
	})
}

// A failure may be wrapped on its way up; what it says stays.
func ExampleFail() {
	err := fmt.Errorf("send: %w", sdk.Fail(sdk.ChatOver, "conversation %d has ended", 7))
	var failure *sdk.Failure
	fmt.Println(errors.As(err, &failure), failure.Kind)
	fmt.Println(err)
	// Output:
	// true chat_over
	// send: chat_over: conversation 7 has ended
}
