package session

import (
	"context"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/deskhost/deskhost/host/internal/desk"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// end closes a chat for good. Owed says that the desk must be told, which step
// does behind it: a new chat may begin meanwhile.
func (sh *shard) end(c *chat, by recordv1.EndedBy, reason, message string, owed bool) {
	if c.starting() && c.head.GetStartProblem() == nil {
		c.head.StartProblem = &recordv1.StartProblem{
			Code: string(CodeStartFailed), Detail: "The chat was ended before the desk had taken it.",
		}
	}
	c.head.Phase = recordv1.ChatPhase_CHAT_PHASE_ENDED
	c.head.Start = nil
	c.head.Ended = &recordv1.ChatEnded{By: by, Reason: reason, Message: message}
	c.head.EndedAt = timestamppb.New(sh.wall)
	c.head.DeskAway = false
	c.head.EndOwed = owed && c.head.GetStartAttempts() > 0
	// A message that is with the desk is settled by its call, or by the next
	// run of the host. Those that wait have failed.
	c.head.Unsettled = c.sending
	first := 0
	if c.sending {
		first = 1
	}
	for len(c.outs) > first {
		sh.giveUp(c, first, "chat_over")
	}
	c.endedAt, c.linked = sh.now, false
	sh.endMove(c)
	if !c.linking {
		sh.leave(c)
	}
	c.s.chat = nil
	c.s.ending = append(c.s.ending, c)
	sh.svc.count(c, -1)
	sh.append(c.s, c.id(), &recordv1.Entry{Body: &recordv1.Entry_ChatEnded{ChatEnded: c.head.GetEnded()}})
	sh.batch.PutChat(c.head)
	sh.answerStarters(c, startAnswer(c.head))
}

// stepEnd does what is left for an ended chat: settle its last message, tell
// its desk, let it go.
func (sh *shard) stepEnd(c *chat) {
	if c.sending || c.linking || c.closing {
		return // what starts late must be ended behind it
	}
	if c.head.GetUnsettled() {
		for len(c.outs) > 0 {
			sh.giveUp(c, 0, "chat_over")
		}
		c.head.Unsettled = false
		sh.batch.PutChat(c.head)
	}
	if c.head.GetEndOwed() {
		begin := c.endedAt
		if c.head.GetCrashes() >= mostCrashes {
			begin = begin.Add(crashPause)
		}
		switch {
		case !sh.reached(c, begin):
			return
		case sh.reached(c, begin.Add(sh.svc.limits().EndRetry)):
			sh.giveUpEnd(c)
		}
	}
	if !c.head.GetEndOwed() {
		sh.release(c)
		return
	}
	d, g := sh.desk(c.deskName()), c.gen // it knows the chat
	if g == nil {
		g = d.gen
	}
	if sh.parked || g == nil || !sh.reached(c, c.endRetry.at) || c.suspect() && !sh.enter(c, d) {
		return
	}
	sh.callEnd(c, g)
}

func (sh *shard) callEnd(c *chat, g desk.Generation) {
	sh.own(c, g)
	c.closing, c.fell = true, false
	c.head.EndAttempts++
	sh.batch.PutChat(c.head)
	req := &deskv1.EndChatRequest{
		ChatId:  c.id(),
		Attempt: c.head.GetEndAttempts(),
		State:   wireState(c.state),
		EndedBy: deskv1.EndedBy_ENDED_BY_HOST,
		Reason:  c.head.GetEnded().GetReason(),
	}
	if c.head.GetEnded().GetBy() == recordv1.EndedBy_ENDED_BY_USER {
		req.EndedBy = deskv1.EndedBy_ENDED_BY_USER
	}
	sh.call(c, endTimeout, func(ctx context.Context) error { return g.EndChat(ctx, req) }, func(err error) {
		c.closing = false
		sh.answered(c, err)
		sh.endDone(c, err)
		sh.leave(c)
		sh.step(c)
	})
}

// endDone takes the outcome of EndChat.
func (sh *shard) endDone(c *chat, err error) {
	if err == nil {
		sh.endSettled(c)
		return
	}
	f := failure(err)
	switch f.Kind {
	case deskv1.FailureKind_FAILURE_KIND_CHAT_OVER, deskv1.FailureKind_FAILURE_KIND_CHAT_UNKNOWN:
		sh.endSettled(c)
		return
	case deskv1.FailureKind_FAILURE_KIND_RETRY, deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN:
		c.endRetry.later(sh.now, f.RetryAfter)
	default: // it will not answer otherwise next time
		sh.endSettled(c)
	}
	sh.warn(c, "a chat could not be ended at its desk",
		"attempt", c.head.GetEndAttempts(), "outcome", f.Kind, "error", f)
}

// giveUpEnd leaves a chat open at its desk, where an operator has to end it.
func (sh *shard) giveUpEnd(c *chat) {
	sh.svc.log.Error("a desk could not be told that a chat has ended; it may still be open there",
		"desk", c.deskName(), "chat", c.id(), "attempts", c.head.GetEndAttempts(), "crashes", c.head.GetCrashes())
	sh.endSettled(c)
}

func (sh *shard) endSettled(c *chat) {
	c.head.EndOwed = false
	sh.batch.PutChat(c.head)
}

// release lets go of a chat for which nothing is left to be done.
func (sh *shard) release(c *chat) {
	c.released = true
	sh.released = append(sh.released, c)
	sh.own(c, nil)
	c.cut()
	sh.alarms.remove(c)
	c.s.ending = slices.DeleteFunc(c.s.ending, func(have *chat) bool { return have == c })
	sh.batch.RemoveState(c.id())
	sh.forgetIfSettled(c.s)
}
