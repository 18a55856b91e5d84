package desktest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// parrot is a desk whose agent says what the user said.
type parrot struct{ host sdk.Host }

func (p *parrot) StartChat(ctx context.Context, req *sdk.StartChatRequest) (*sdk.StartChatResponse, error) {
	return nil, p.host.Emit(ctx, &sdk.Event{
		ChatID: req.ChatID, ID: "joined", Payload: sdk.AgentJoined{Agent: sdk.Agent{ID: "polly", Nickname: "Polly"}},
	})
}

func (p *parrot) EndChat(context.Context, *sdk.EndChatRequest) error { return nil }

func (p *parrot) SendMessageToAgent(ctx context.Context, req *sdk.SendMessageRequest) (*sdk.SendMessageResponse, error) {
	return nil, p.host.Emit(ctx, &sdk.Event{
		ChatID: req.ChatID, ID: req.MessageID, Payload: sdk.MessageToUser{Parts: []sdk.Part{sdk.Text(req.Text)}},
	})
}

// A unit test of a desk, without a process: the test calls it as the host does,
// and awaits what it emits.
func ExampleHost() {
	// The host takes the test's t.
	ctx, t := context.Background(), testing.TB(inExample{})
	host := desktest.NewHost(t)
	desk := &parrot{host: host}

	if _, err := desk.StartChat(ctx, &sdk.StartChatRequest{ChatID: "c-1", Attempt: 1}); err != nil {
		t.Fatal(err)
	}
	joined := host.Await("c-1").Payload.(sdk.AgentJoined)
	fmt.Println(joined.Agent.Nickname, "joined")

	message := &sdk.SendMessageRequest{ChatID: "c-1", MessageID: "m-1", Attempt: 1, Text: "Hello!"}
	if _, err := desk.SendMessageToAgent(ctx, message); err != nil {
		t.Fatal(err)
	}
	fmt.Println(host.Await("c-1").Payload.(sdk.MessageToUser).Parts[0])

	// How does the desk take it that the host has ended the chat?
	host.Refuse("c-1", sdk.RefusedChatOver)
	_, err := desk.SendMessageToAgent(ctx, message)
	fmt.Println(err)
	// Output:
	// Polly joined
	// Hello!
	// sdk: event refused: chat_over: the test says so
}

// The whole suite in a plugin's own test: the desk is a simulator that serves a
// script, and the plugin is the file that is shipped.
func ExampleRun() { //nolint:testableexamples // it takes a plugin
	_ = func(t *testing.T) { // func TestConformance(t *testing.T) {
		desktest.Run(t, desktest.Plugin{
			File:      "../bin/deskhost-plugin-acme",
			Config:    json.RawMessage(`{"api_url": "http://127.0.0.1:9000"}`),
			BadConfig: json.RawMessage(`{"api_url": "nowhere"}`),
			Script:    desktest.ScriptAt("http://127.0.0.1:9000/script"),
		})
	}
}

// A simulator in Go serves its script over HTTP.
func ExampleScriptHandler() {
	server := httptest.NewServer(desktest.ScriptHandler(&toldScript{}))
	defer server.Close()

	script := desktest.ScriptAt(server.URL)
	fmt.Println(script.AgentSays(context.Background(), "c-1", "Good morning."))
	fmt.Println(script.FailNextCall(context.Background(), desktest.CallSend))
	// Output:
	// <nil>
	// fail_next_call: the script cannot play this
}

// inExample stands for the test that an example has not.
type inExample struct{ testing.TB }

func (inExample) Helper()        {}
func (inExample) Cleanup(func()) {}
