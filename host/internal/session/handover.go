package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/deskhost/deskhost/host/internal/desk"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// When another generation serves a desk, the chats of the one before are handed
// over, each by itself: its calls are held and those under way awaited; the one
// before lets go of it (QuiesceChat), the other resumes it (ResumeChat). If
// either fails, the one before, which still lives, resumes it.

const (
	// holdLimit is how long the calls under way of a chat that is to be handed over
	// are waited for. Then they are cut, and nobody knows what they did.
	holdLimit = 5 * time.Second
	// quiesceTimeout bounds QuiesceChat.
	quiesceTimeout = 15 * time.Second
	// A chat that could not be handed over stays where it is, and is tried again
	// after moveRetryFirst, four times that, and so on up to moveRetryLongest.
	moveRetryFirst   = time.Second
	moveRetryLongest = 10 * time.Minute
)

// move is a chat on its way from one generation to another.
type move struct {
	from, to desk.Generation
	began    time.Time
}

var errTakerGone = errors.New("the process that was to take the chat has ended")

// reads tells whether a generation reads a resume state. One that does not say
// what it reads is asked to read anything.
func reads(g desk.Generation, s *recordv1.ResumeState) bool {
	formats := g.Describe().GetStateFormats()
	return s == nil || len(formats) == 0 || slices.Contains(formats, s.GetFormat())
}

// stepMove hands a chat over to the generation that serves the desk.
func (sh *shard) stepMove(c *chat, d *shardDesk) {
	if m := c.move; m != nil && !c.linking && (m.to != d.gen || !c.overAt.IsZero()) {
		sh.endMove(c) // its calls were only held
		sh.leave(c)
	}
	if c.move == nil {
		const resume = deskv1.Capability_CAPABILITY_RESUME
		if d.gen == nil || d.gen == c.gen || !c.overAt.IsZero() ||
			!desk.Has(c.gen, resume) || !desk.Has(d.gen, resume) || !reads(d.gen, c.state) ||
			!sh.reached(c, c.moveRetry.at) || !sh.enter(c, d) {
			return
		}
		c.move = &move{from: c.gen, to: d.gen, began: sh.now}
		sh.hold(c)
	}
	switch {
	case c.linking:
	case c.sending || c.update.underway || c.typing.underway || c.read.underway:
		if sh.reached(c, c.move.began.Add(holdLimit)) {
			c.cut()
			sh.allowCalls(c)
		}
	default:
		sh.callQuiesce(c)
	}
}

// endMove leaves the chat with the generation that owns it. Its place is given
// up by leave, once no call of the move is under way.
func (sh *shard) endMove(c *chat) {
	if c.move != nil {
		c.move = nil
		sh.hold(c)
	}
}

func (sh *shard) callQuiesce(c *chat) {
	m := c.move
	c.linking = true
	var resp *deskv1.QuiesceChatResponse
	sh.call(c, quiesceTimeout, func(ctx context.Context) (err error) {
		resp, err = m.from.QuiesceChat(ctx, &deskv1.QuiesceChatRequest{ChatId: c.id()})
		return err
	}, func(err error) {
		c.linking = false
		// The last word counts also if the chat or its generation has ended.
		if err == nil && resp.GetState() != nil && (c.gen == nil || c.gen == m.from) {
			sh.putState(c, resp.GetState())
		}
		sh.quiesced(c, m, err)
		if c.move == nil {
			sh.leave(c)
		}
		sh.step(c)
	})
}

// quiesced takes the outcome of QuiesceChat.
func (sh *shard) quiesced(c *chat, m *move, err error) {
	if c.move != m {
		return // the chat or its generation has ended
	}
	if err != nil {
		switch f := failure(err); f.Kind {
		case deskv1.FailureKind_FAILURE_KIND_CHAT_OVER:
			sh.end(c, recordv1.EndedBy_ENDED_BY_DESK, "chat_over", f.UserMessage, false)
			return
		case deskv1.FailureKind_FAILURE_KIND_CHAT_UNKNOWN: // then it need not let go of it
		default:
			sh.moveBack(c, m, "QuiesceChat", f)
			return
		}
	}
	d := sh.desk(c.deskName())
	if d.gen != nil && d.gen != m.to && desk.Has(d.gen, deskv1.Capability_CAPABILITY_RESUME) {
		m.to = d.gen // it has taken the place of the other meanwhile
		sh.hold(c)
	}
	switch {
	case sh.parked: // The next run of the host resumes it.
		sh.unlink(c, true)
		sh.endMove(c)
	case !slices.Contains(d.live, m.to):
		sh.moveBack(c, m, "QuiesceChat", errTakerGone)
	case !reads(m.to, c.state):
		sh.moveBack(c, m, "QuiesceChat", fmt.Errorf("its last resume state has format %d, which the other process does not read", c.state.GetFormat()))
	default:
		sh.unlink(c, true)
		sh.callResume(c, m.to, func(err error) { sh.moved(c, m, err) })
	}
}

// moved takes the outcome of ResumeChat at the generation that takes the chat.
func (sh *shard) moved(c *chat, m *move, err error) {
	if c.move != m {
		return
	}
	if err == nil {
		sh.endMove(c)
		sh.setLinked(c)
		c.moveRetry = retry{}
		return
	}
	if f := failure(err); f.Kind == deskv1.FailureKind_FAILURE_KIND_CHAT_OVER {
		sh.end(c, recordv1.EndedBy_ENDED_BY_DESK, "chat_over", f.UserMessage, false)
		return
	}
	sh.moveBack(c, m, "ResumeChat", err)
}

// moveBack has the generation before serve the chat on.
func (sh *shard) moveBack(c *chat, m *move, call string, cause error) {
	wait := min(moveRetryFirst<<min(2*c.moveRetry.n, 20), moveRetryLongest)
	c.moveRetry.n++
	c.moveRetry.at = sh.now.Add(wait)
	sh.warn(c, "a chat could not be handed over; the process before serves it on",
		"from", m.from.Number(), "to", m.to.Number(), "call", call, "again_in", wait, "error", cause)
	if c.linked {
		sh.unlink(c, true)
	}
	switch {
	case sh.parked:
		sh.endMove(c)
		return
	case !slices.Contains(sh.desk(c.deskName()).live, m.from):
		sh.endMove(c)
		sh.own(c, nil)
		return
	}
	sh.callResume(c, m.from, func(err error) {
		if c.move == m {
			sh.endMove(c)
			sh.resumeDone(c, m.from, err)
		}
	})
}

// Fits implements desk.Handler: a generation that cannot read the resume state
// of the desk's chats must not take them.
func (s *Service) Fits(g desk.Generation) error {
	if !desk.Has(g, deskv1.Capability_CAPABILITY_RESUME) {
		return nil
	}
	var mu sync.Mutex // guards what the shards count
	chats, formats := 0, map[uint32]bool{}
	s.everywhere(func(sh *shard) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range sh.chatsOf(g.Desk()) {
			if c.open() && !reads(g, c.state) {
				chats++
				formats[c.state.GetFormat()] = true
			}
		}
	})
	mu.Lock()
	defer mu.Unlock()
	if chats == 0 {
		return nil
	}
	return fmt.Errorf("it reads resume state of formats %v, and %d open chats of the desk have format %v; use a version that reads those too, or wait until these chats have ended",
		g.Describe().GetStateFormats(), chats, slices.Sorted(maps.Keys(formats)))
}

// Chats implements desk.Handler.
func (s *Service) Chats(desk string, generation uint64) int {
	d := s.desk(desk)
	if d == nil {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.owned[generation]
}
