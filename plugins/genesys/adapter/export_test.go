package adapter

import "time"

// SetPings changes how soon a dead connection is noticed, before Configure.
func SetPings(d *Desk, every, silence time.Duration) { d.pingEvery, d.silence = every, silence }

// SetHoldBack changes how long an occurrence waits for an earlier one, before
// Configure.
func SetHoldBack(d *Desk, wait time.Duration) { d.holdBack = wait }

// Links counts the chats that are connected.
func Links(d *Desk) int { return len(d.all(func(c *chat) bool { return c.link != nil })) }
