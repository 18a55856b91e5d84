package session

import (
	"sync"
	"time"

	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
)

// A chat that crashes its adapter whenever it is resumed must not take the desk's
// other chats along. One that was being resumed at two crashes is suspect: it is
// resumed last, with no other beside it. If there is a third, it was the chat.
const (
	suspectCrashes = 2
	mostCrashes    = 3
	// suspectWait is how long after a generation has become ready its suspects
	// wait for the others to begin; resumeAgain when to ask again whether there is
	// room.
	suspectWait = 2 * time.Second
	resumeAgain = 100 * time.Millisecond
)

func (c *chat) suspect() bool { return c.crashes >= suspectCrashes }

// countCrash takes account of a process that ended before the chat was resumed.
func (sh *shard) countCrash(c *chat) {
	if c.starting() || !c.open() || !c.linking && !c.unclear {
		return
	}
	c.unclear = false
	c.crashes++
	if c.crashes < mostCrashes {
		return
	}
	sh.svc.log.Error("a chat is ended because the desk's process has ended each time that it was resumed",
		"desk", c.deskName(), "chat", c.id(), "crashes", c.crashes)
	sh.end(c, recordv1.EndedBy_ENDED_BY_HOST, "resume_crashes", "", true)
}

// resumes lets the shards resume a desk's chats side by side, or one suspect
// alone. It is safe for concurrent use.
type resumes struct {
	mu       sync.Mutex
	underWay int
	alone    bool // the one that is under way is suspect
}

// enter tells whether a chat may be resumed now. Leave follows if so.
func (r *resumes) enter(alone bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.alone || alone && r.underWay > 0 {
		return false
	}
	r.underWay++
	r.alone = alone
	return true
}

func (r *resumes) leave(alone bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.underWay--
	if alone {
		r.alone = false
	}
}
