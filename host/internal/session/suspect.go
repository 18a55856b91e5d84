package session

import (
	"sync"
	"time"

	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// A chat that crashes its adapter whenever it is resumed must not take the desk's
// other chats along. One that was being resumed at two crashes is suspect: it is
// resumed last, with no other beside it. Where others fail to be resumed again and
// again, they wait for one such chat a minute. If there is a third crash, it was
// the chat, and it is ended. Telling the desk so may crash it too, so that is tried
// once, and after a pause: a desk that crashes too often in a short time is not
// started again. A message that the process had at three crashes is given up.
const (
	suspectCrashes = 2
	mostCrashes    = 3
	// suspectWait is how long after a generation has become ready its suspects
	// wait for the others to begin, suspectTurn how long until no other may begin
	// before one of them has; resumeAgain when to ask again whether there is room.
	// One that has not asked for suspectGone waits no longer: its chat has ended, or
	// the process has.
	suspectWait = 2 * time.Second
	suspectTurn = time.Minute
	suspectGone = 10 * resumeAgain
	// crashPause is how long a chat that was ended by crashes waits for EndChat. By
	// then the desk no longer counts them.
	crashPause  = 10 * time.Minute
	resumeAgain = 100 * time.Millisecond
)

func (c *chat) suspect() bool { return c.head.GetCrashes() >= suspectCrashes }

// countCrash takes account of a process that ended while it had the chat.
func (sh *shard) countCrash(c *chat) {
	if c.linked {
		if len(c.outs) > 0 && c.outs[0].record.GetState() == recordv1.OutState_OUT_STATE_SENDING {
			c.outs[0].crashes++
		}
		return
	}
	if c.linking || c.closing {
		c.fell = true // The outcome of the call says whether the process had it.
		return
	}
	if c.starting() || !c.unclear {
		return
	}
	c.unclear = false
	c.head.Crashes++
	sh.batch.PutChat(c.head)
	switch {
	case c.head.GetCrashes() < mostCrashes:
	case c.open():
		sh.svc.log.Error("a chat is ended because the desk's process has ended each time that it was resumed",
			"desk", c.deskName(), "chat", c.id(), "crashes", c.head.GetCrashes())
		sh.end(c, recordv1.EndedBy_ENDED_BY_HOST, "resume_crashes", "", true)
	case c.head.GetEndOwed():
		sh.giveUpEnd(c)
	}
}

// answered takes account of the outcome of a call to resume or end the chat.
func (sh *shard) answered(c *chat, err error) {
	fell := c.fell
	c.fell = false
	if err == nil || failure(err).Kind != deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN {
		return
	}
	c.unclear = true
	if fell {
		sh.countCrash(c)
	}
}

// resumes lets the shards resume a desk's chats side by side, or one suspect
// alone. It is safe for concurrent use.
type resumes struct {
	mu       sync.Mutex
	underWay int
	alone    bool // the one that is under way is suspect
	// since is when a suspect first asked in vain, asked when one last did.
	since, asked time.Time
}

// enter tells whether a chat may be resumed now. Leave follows if so.
func (r *resumes) enter(alone bool, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	waited := now.Sub(r.asked) < suspectGone
	switch {
	case alone && r.underWay > 0:
		if !waited {
			r.since = now
		}
		r.asked = now
		return false
	case r.alone, waited && !alone && now.Sub(r.since) >= suspectTurn:
		return false
	}
	if alone {
		r.asked = time.Time{} // another that waits will ask again
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
