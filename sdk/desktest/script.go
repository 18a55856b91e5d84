package desktest

import (
	"context"
	"errors"
	"time"
)

// Script plays the desk behind the plugin, in conversations that the plugin has
// opened: at a simulator, or at a test account of the vendor's. A chat is named
// by the chat_id of the contract; how the desk knows it is for the plugin and
// its script to agree. What a script cannot play it answers with
// [ErrCannotPlay]. Its methods are called one at a time, also while no process
// of the plugin runs. [ScriptAt] is one that is played elsewhere, over HTTP.
type Script interface {
	// AgentJoins has an agent take the conversation.
	AgentJoins(ctx context.Context, chatID string) error
	// AgentSays has an agent write a text, and join first if none has. It does
	// not wait until the plugin has it.
	AgentSays(ctx context.Context, chatID, text string) error
	// AgentEnds has the desk end the conversation.
	AgentEnds(ctx context.Context, chatID string) error
	// Heard returns what the user wrote, as an agent sees it now, or an error while
	// the desk has no such conversation.
	Heard(ctx context.Context, chatID string) ([]string, error)
	// FailNextCall has the desk answer the next call of that kind with "try
	// again later", and not do what was asked.
	FailNextCall(ctx context.Context, call Call) error
	// StallNextCall has the desk do the next call of that kind at once, and answer
	// so late only.
	StallNextCall(ctx context.Context, call Call, late time.Duration) error
}

// Call is a kind of call of the vendor's API.
type Call string

// The kinds of calls that a script is asked to fail or stall.
const (
	CallStart Call = "start"
	CallSend  Call = "send"
	CallEnd   Call = "end"
)

// ErrCannotPlay says that a script has no way to do what it was asked for.
var ErrCannotPlay = errors.New("the script cannot play this")

// noScript is the script of a plugin that has none.
type noScript struct{}

var errNoScript = untested("it takes a script that plays the desk, and there is none")

func (noScript) AgentJoins(context.Context, string) error                 { return errNoScript }
func (noScript) AgentSays(context.Context, string, string) error          { return errNoScript }
func (noScript) AgentEnds(context.Context, string) error                  { return errNoScript }
func (noScript) Heard(context.Context, string) ([]string, error)          { return nil, errNoScript }
func (noScript) FailNextCall(context.Context, Call) error                 { return errNoScript }
func (noScript) StallNextCall(context.Context, Call, time.Duration) error { return errNoScript }
