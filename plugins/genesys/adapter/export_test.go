package adapter

import "time"

// SetPings changes how soon a dead connection is noticed, before Configure.
func SetPings(d *Desk, every, silence time.Duration) { d.pingEvery, d.silence = every, silence }

// Links counts the chats that are connected.
func Links(d *Desk) int { return len(d.all(func(c *chat) bool { return c.link != nil })) }
