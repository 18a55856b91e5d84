package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
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
	if !strings.HasPrefix(config.APIURL, "https://") {
		return sdk.Fail(sdk.Invalid, "api_url is %q; it has to begin with https://", config.APIURL)
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

// What a schema cannot tell is refused by the desk: Invalid if an operator has to
// change something, Retry if the same configuration may work later.
func ExampleConfigurer() {
	var desk sdk.Configurer = &acme{}
	fmt.Println(desk.Configure(context.Background(), &sdk.ConfigureRequest{Config: []byte(`{"api_url": "acme.example"}`)}))
	fmt.Println(desk.Configure(context.Background(), &sdk.ConfigureRequest{Config: []byte(`{"api_url": "https://acme.example"}`)}))
	// Output:
	// invalid: api_url is "acme.example"; it has to begin with https://
	// <nil>
}

// A webhook is answered once its event is durable. If it is not, the vendor
// delivers it again, and the host drops what it has had.
func ExampleHTTPHandler() {
	host := desktest.NewHost(inExample{}) // in a test: of the test's t
	var desk sdk.HTTPHandler = &acme{host: host}
	deliver := func() {
		w := httptest.NewRecorder()
		desk.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"id": "7", "chat": "c-1", "text": "Hello!"}`)))
		fmt.Println(w.Code, "and the host has", len(host.Events("c-1")))
	}
	deliver()
	deliver()
	host.Close()
	deliver()
	// Output:
	// 200 and the host has 1
	// 200 and the host has 1
	// 503 and the host has 1
}

// Emit waits until the host has the event for good, and says if it never will.
func ExampleHost() {
	var host sdk.Host = desktest.NewHost(inExample{}) // in a plugin: that of Plugin.New
	err := host.Emit(context.Background(), &sdk.Event{
		ChatID: "c-1", ID: "7",
		Payload: sdk.MessageToUser{Parts: []sdk.Part{sdk.Text("Have a look:"), sdk.Link{URL: "https://acme.example/7", Label: "Your order"}}},
	})
	fmt.Println(err)
	err = host.Emit(context.Background(), &sdk.Event{
		ChatID: "c-1", ID: "8", Payload: sdk.MessageToUser{Parts: []sdk.Part{sdk.Link{URL: "javascript:alert(1)"}}},
	})
	var refused *sdk.RefusedError
	fmt.Println(errors.As(err, &refused), err)
	// Output:
	// <nil>
	// true sdk: event refused: invalid: Link.URL must be an http or https link
}

// courier is a desk that reads a vendor's conversation from a cursor. The cursor
// goes with each event, so the host has both or neither.
type courier struct {
	host sdk.Host
	said *[]string // at the vendor's
}

func (c *courier) read(ctx context.Context, chatID string, cursor int) error {
	for ; cursor < len(*c.said); cursor++ {
		err := c.host.Emit(ctx, &sdk.Event{
			ChatID: chatID, ID: strconv.Itoa(cursor),
			State:   &sdk.ResumeState{Data: []byte(strconv.Itoa(cursor + 1)), Format: 1},
			Payload: sdk.MessageToUser{Parts: []sdk.Part{sdk.Text((*c.said)[cursor])}},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *courier) ResumeChat(ctx context.Context, req *sdk.ResumeChatRequest) error {
	cursor := 0
	if req.State != nil {
		var err error
		if cursor, err = strconv.Atoi(string(req.State.Data)); err != nil {
			return sdk.Fail(sdk.Invalid, "a state of format %d that is no cursor: %w", req.State.Format, err)
		}
	}
	return c.read(ctx, req.ChatID, cursor)
}

func (c *courier) QuiesceChat(context.Context, *sdk.QuiesceChatRequest) (*sdk.QuiesceChatResponse, error) {
	return nil, nil // this one reads nothing by itself, and each event had the state
}

// What the agent says while no process lives is read by the next one.
func ExampleResumer() {
	ctx, host := context.Background(), desktest.NewHost(inExample{})
	said := []string{"Hello!", "Are you there?"}
	if err := (&courier{host: host, said: &said}).read(ctx, "c-1", 0); err != nil {
		fmt.Println(err)
	}
	// The process dies, and the agent goes on.
	said = append(said, "I have found your order.")
	var next sdk.Resumer = &courier{host: host, said: &said}
	if err := next.ResumeChat(ctx, &sdk.ResumeChatRequest{ChatID: "c-1", Attempt: 1, State: host.State("c-1")}); err != nil {
		fmt.Println(err)
	}
	for _, e := range host.Events("c-1") {
		fmt.Println(e.Payload.(sdk.MessageToUser).Parts[0])
	}
	// Output:
	// Hello!
	// Are you there?
	// I have found your order.
}

// A Failure tells the host what became of a call, and what to do next.
func ExampleFailure() {
	_, err := (&acme{}).StartChat(context.Background(), &sdk.StartChatRequest{ChatID: "c-1", Attempt: 1})
	if failure, ok := errors.AsType[*sdk.Failure](err); ok {
		fmt.Println(failure.Kind, "in", failure.RetryAfter)
	}
	// Output: retry in 10s
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

// inExample stands for the test that an example has not.
type inExample struct{ testing.TB }

func (inExample) Helper()        {}
func (inExample) Cleanup(func()) {}
