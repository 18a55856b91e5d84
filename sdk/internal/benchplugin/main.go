// The bench plugin emits events on command, as fast as it may or at a steady
// rate, each with the time at which it happened. It is what the host's
// benchmark measures with; it talks to no desk.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/deskhost/deskhost/sdk"
)

func main() {
	sdk.Serve(sdk.Plugin{
		Name: "bench", Version: "1.0.0", SendDedupe: sdk.DedupeByKey,
		New: func(h sdk.Host) sdk.Desk { return &desk{host: h} },
	})
}

// padding brings an event's text to about 200 bytes.
var padding = strings.Repeat("x", 160)

// command is the text of a user's message to this desk.
type command struct {
	// Events is how many events each chat gets; 0: the message is only taken.
	Events int `json:"events"`
	// Rate is events a second over all chats; 0: as fast as it goes.
	Rate int `json:"rate"`
}

type desk struct {
	host sdk.Host

	mu    sync.Mutex
	chats []string
	runs  int
}

func (d *desk) StartChat(_ context.Context, req *sdk.StartChatRequest) (*sdk.StartChatResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.chats = append(d.chats, req.ChatID)
	return nil, nil
}

func (d *desk) EndChat(context.Context, *sdk.EndChatRequest) error { return nil }

func (d *desk) SendMessageToAgent(_ context.Context, req *sdk.SendMessageRequest) (*sdk.SendMessageResponse, error) {
	var c command
	if err := json.Unmarshal([]byte(req.Text), &c); err != nil {
		return nil, sdk.Fail(sdk.Invalid, "not a command: %w", err)
	}
	if c.Events == 0 {
		return nil, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runs++
	for i, chat := range d.chats {
		var every, begin time.Duration
		if c.Rate > 0 {
			every = time.Duration(len(d.chats)) * time.Second / time.Duration(c.Rate)
			begin = every * time.Duration(i) / time.Duration(len(d.chats))
		}
		go d.talk(chat, d.runs, c.Events, begin, every)
	}
	return nil, nil
}

// talk emits one chat's events. With a pace it keeps to its schedule, so that a
// slow host shows as latency and not as a lower rate.
func (d *desk) talk(chat string, run, events int, begin, every time.Duration) {
	next := time.Now().Add(begin)
	for i := range events {
		if every > 0 {
			time.Sleep(time.Until(next))
			next = next.Add(every)
		}
		err := d.host.Emit(context.Background(), &sdk.Event{
			ChatID: chat,
			ID:     fmt.Sprintf("%d-%d", run, i),
			Payload: sdk.MessageToUser{Parts: []sdk.Part{
				sdk.Text(fmt.Sprintf("t=%d %s", time.Now().UnixNano(), padding)),
			}},
		})
		if err != nil {
			d.host.Logger().Error("emit", "error", err)
			return
		}
	}
}
