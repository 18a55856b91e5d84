// Command deskhost-plugin-echo is a complete desk: Echo joins every chat and
// says again what the user said.
package main

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/deskhost/deskhost/sdk"
)

type echo struct{ host sdk.Host }

func main() {
	sdk.Serve(sdk.Plugin{
		Name:    "echo",
		Version: "1.0.0",
		New:     func(host sdk.Host) sdk.Desk { return &echo{host} },
	})
}

func (e *echo) StartChat(ctx context.Context, req *sdk.StartChatRequest) (*sdk.StartChatResponse, error) {
	agent := sdk.Agent{ID: "echo", Nickname: "Echo", Bot: true}
	return nil, e.host.Emit(ctx, &sdk.Event{ChatID: req.ChatID, ID: "joined", Payload: sdk.AgentJoined{Agent: agent}})
}

// SendMessageToAgent answers under an id that follows from the message's, so a
// second answer to the same message would be dropped by the host.
func (e *echo) SendMessageToAgent(ctx context.Context, req *sdk.SendMessageRequest) (*sdk.SendMessageResponse, error) {
	id := fmt.Sprintf("re-%x", sha256.Sum256([]byte(req.MessageID)))
	answer := sdk.MessageToUser{Parts: []sdk.Part{sdk.Text(req.Text)}}
	return nil, e.host.Emit(ctx, &sdk.Event{ChatID: req.ChatID, ID: id, Payload: answer})
}

func (e *echo) EndChat(context.Context, *sdk.EndChatRequest) error { return nil }
