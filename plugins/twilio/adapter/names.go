package adapter

import (
	"context"
	"sync"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/client"
)

const (
	// nameFor is how long a display name is good for, maxNames how many are kept.
	nameFor  = 10 * time.Minute
	maxNames = 4096
	// noName is what an agent without a display name is called. The identity
	// would tell the user the agent's address or number.
	noName = "Agent"
)

// names keeps the display names of agents.
type names struct {
	mu    sync.Mutex
	known map[string]name // by identity
}

type name struct {
	text string
	at   time.Time
}

// name returns how an agent is called. That Twilio does not tell keeps nobody
// from joining.
func (d *Desk) name(ctx context.Context, identity string) string {
	n := &d.names
	n.mu.Lock()
	known, ok := n.known[identity]
	n.mu.Unlock()
	if ok && time.Since(known.at) < nameFor {
		return known.text
	}
	ctx, cancel := context.WithTimeout(ctx, whoTimeout)
	defer cancel()
	var text string
	err := client.Retry(ctx, func() (err error) {
		text, err = d.client.DisplayName(ctx, identity)
		return err
	})
	if err != nil {
		d.log.Warn("Twilio does not tell an agent's display name; another is shown", "error", err)
		if ok {
			return known.text
		}
		return noName
	}
	if text == "" {
		text = noName
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.known) >= maxNames || n.known == nil {
		n.known = map[string]name{}
	}
	n.known[identity] = name{text, time.Now()}
	return text
}
