package session

import (
	"errors"
	"slices"

	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/journal"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

var (
	refuseUnknown = &desk.Refusal{Code: deskv1.RefusalCode_REFUSAL_CODE_CHAT_UNKNOWN, Reason: "this desk has no such chat"}
	refuseOver    = &desk.Refusal{Code: deskv1.RefusalCode_REFUSAL_CODE_CHAT_OVER, Reason: "the chat has ended"}
	refuseMoved   = &desk.Refusal{Code: deskv1.RefusalCode_REFUSAL_CODE_MOVED, Reason: "another process serves the chat now"}
)

func refuseInvalid(reason string) *desk.Refusal {
	return &desk.Refusal{Code: deskv1.RefusalCode_REFUSAL_CODE_INVALID, Reason: reason}
}

// deskReady has a generation take the desk's chats, oldest first.
func (sh *shard) deskReady(g desk.Generation) {
	d := sh.desk(g.Desk())
	d.gen = g
	if !slices.Contains(d.live, g) {
		d.live = append(d.live, g)
	}
	for _, c := range sh.chatsOf(g.Desk()) {
		c.linkRetry, c.endRetry, c.moveRetry, c.unclear = retry{}, retry{}, retry{}, false
		if c.suspect() {
			c.linkRetry.at = sh.now.Add(suspectWait) // the others first
			c.endRetry.at = c.linkRetry.at
		}
		sh.step(c)
	}
}

// deskDown takes the chats from a generation that is gone. Its calls under way
// come back by themselves.
func (sh *shard) deskDown(g desk.Generation, cause error) {
	d := sh.desk(g.Desk())
	d.live = slices.DeleteFunc(d.live, func(have desk.Generation) bool { return have == g })
	if d.gen == g {
		d.gen = nil
		for _, c := range d.queue {
			c.queued = false
		}
		d.queue = nil
	}
	for _, c := range sh.chatsOf(g.Desk()) {
		if c.gen != g {
			continue
		}
		c.move, c.quiet = nil, len(d.live) > 0
		sh.own(c, nil)
		sh.leave(c)
		if !desk.Planned(cause) {
			sh.countCrash(c)
		}
		if c.linked {
			c.linked, c.awaySince = false, sh.now
		}
		sh.step(c)
	}
}

// chatsOf returns a desk's chats, oldest first.
func (sh *shard) chatsOf(name string) []*chat {
	var out []*chat
	for _, c := range sh.chats {
		if c.deskName() == name {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b *chat) int {
		return a.head.GetRequestedAt().AsTime().Compare(b.head.GetRequestedAt().AsTime())
	})
	return out
}

// deskEvent takes or refuses an event, and has it settled once that is durable.
func (sh *shard) deskEvent(g desk.Generation, ev *deskv1.Event) {
	refusal, err := sh.applyEvent(g, ev)
	if err != nil {
		sh.fatal(err)
		return
	}
	sh.told.settled = append(sh.told.settled, settlement{g, ev.GetSeq(), refusal})
	if c := sh.chats[ev.GetChatId()]; c != nil && !c.open() {
		sh.step(c)
	}
}

func (sh *shard) applyEvent(g desk.Generation, ev *deskv1.Event) (*desk.Refusal, error) {
	c := sh.chats[ev.GetChatId()]
	if c == nil {
		switch old, err := sh.svc.opts.Journal.Chat(ev.GetChatId()); {
		case errors.Is(err, journal.ErrNotFound):
			return refuseUnknown, nil
		case err != nil:
			return nil, err
		case old.GetDesk() != g.Desk():
			return refuseUnknown, nil
		}
		return refuseOver, nil
	}
	switch {
	case c.deskName() != g.Desk():
		return refuseUnknown, nil
	case !c.open():
		return refuseOver, nil
	case c.gen != nil && c.gen != g, c.gen == nil && sh.desk(g.Desk()).gen != g:
		return refuseMoved, nil
	}
	id := ev.GetEventId()
	if id != "" {
		if err := sh.loadSeen(c); err != nil {
			return nil, err
		}
		if c.seen.has(id) {
			sh.streamState(c, ev)
			return nil, nil
		}
	}
	e, refusal := sh.applyPayload(c, ev)
	switch {
	case refusal != nil:
		return refusal, nil
	case e != nil:
		e.EventId = id
		sh.append(c.s, c.id(), e)
	case id != "":
		sh.batch.MarkSeen(c.id(), id)
	}
	if id != "" {
		c.seen.add(id)
	}
	sh.streamState(c, ev)
	return nil, nil
}

// streamState takes the state that an event carries. That of an event which the
// chat has had before counts too: it may have changed since.
func (sh *shard) streamState(c *chat, ev *deskv1.Event) {
	if ev.GetState() != nil && c.open() {
		c.streamed = true
		sh.putState(c, ev.GetState())
	}
}

// loadSeen sees to it that the chat knows which events it has had.
func (sh *shard) loadSeen(c *chat) error {
	if c.seen != nil {
		return nil
	}
	c.seen = make(seenSet)
	return sh.svc.opts.Journal.SeenEvents(c.id(), c.seen.add)
}

func (sh *shard) putState(c *chat, s *deskv1.ResumeState) {
	c.state = recordState(s)
	sh.batch.PutState(c.id(), c.state)
}

// applyPayload takes what an event says, and returns the entry that is to be
// written of it; nil if it is passing news, or has had its effect.
func (sh *shard) applyPayload(c *chat, ev *deskv1.Event) (*recordv1.Entry, *desk.Refusal) {
	e := new(recordv1.Entry)
	switch p := ev.GetPayload().(type) {
	case *deskv1.Event_AgentJoined:
		a := recordAgent(p.AgentJoined.GetAgent())
		if a == nil {
			return nil, refuseInvalid("an agent must be named")
		}
		c.head.Agent, c.head.AgentJoined = a, true
		sh.batch.PutChat(c.head)
		e.Body = &recordv1.Entry_AgentJoined{AgentJoined: &recordv1.AgentJoined{Agent: a}}
	case *deskv1.Event_AgentLeft:
		id := p.AgentLeft.GetAgentId()
		if id == "" || id == c.head.GetAgent().GetId() {
			c.head.Agent = nil
			sh.batch.PutChat(c.head)
		}
		e.Body = &recordv1.Entry_AgentLeft{AgentLeft: &recordv1.AgentLeft{AgentId: id}}
	case *deskv1.Event_AgentEndedChat:
		sh.end(c, recordv1.EndedBy_ENDED_BY_AGENT, "", p.AgentEndedChat.GetReason(), false)
		return nil, nil
	case *deskv1.Event_AgentTyping:
		sh.passing(c.s, News{ChatID: c.id(), Typing: &Typing{Typing: p.AgentTyping.GetTyping(), AgentID: p.AgentTyping.GetAgentId()}})
		return nil, nil
	case *deskv1.Event_AgentReadMessages:
		e.Body = &recordv1.Entry_AgentRead{AgentRead: &recordv1.AgentRead{}}
	case *deskv1.Event_MessageToUser:
		parts, fault := recordParts(p.MessageToUser.GetParts())
		if fault != "" {
			return nil, refuseInvalid(fault)
		}
		m := &recordv1.AgentMessage{Id: p.MessageToUser.GetMessageId(), AgentId: p.MessageToUser.GetAgentId(), Parts: parts}
		if m.GetId() == "" {
			m.Id = ev.GetEventId()
		}
		if m.GetAgentId() == "" {
			m.AgentId = c.head.GetAgent().GetId()
		}
		e.Body = &recordv1.Entry_AgentMessage{AgentMessage: m}
	case *deskv1.Event_TransferStarted:
		e.Body = &recordv1.Entry_TransferStarted{TransferStarted: &recordv1.TransferStarted{Agent: recordAgent(p.TransferStarted.GetAgent())}}
	case *deskv1.Event_AvailabilityChanged:
		a := p.AvailabilityChanged
		sh.passing(c.s, News{ChatID: c.id(), Availability: &Availability{WaitMinutes: a.WaitMinutes, Position: a.Position, Message: a.GetMessage()}})
		return nil, nil
	case *deskv1.Event_CapabilitiesChanged:
		e.Body = &recordv1.Entry_Capabilities{Capabilities: &recordv1.Capabilities{
			FileUploads:         p.CapabilitiesChanged.GetFileUploads(),
			MultipleFileUploads: p.CapabilitiesChanged.GetMultipleFileUploads(),
			FileUploadTypes:     p.CapabilitiesChanged.GetFileUploadTypes(),
		}}
	case *deskv1.Event_ErrorStatus:
		return nil, sh.applyError(c, p.ErrorStatus)
	case *deskv1.Event_StateSaved:
		if ev.GetState() == nil {
			return nil, refuseInvalid("StateSaved must carry a state")
		}
		return nil, nil
	default:
		return nil, refuseInvalid("an event of a kind that this host does not know")
	}
	return e, nil
}

// failMessage records that a message which the desk had taken has failed there.
func (sh *shard) failMessage(c *chat, id string) *desk.Refusal {
	o, m, err := sh.message(c.id(), id)
	switch {
	case err != nil:
		return nil // the turn fails, and with it the event
	case m == nil:
		return refuseInvalid("the chat has no message of that id")
	case o != nil:
		o.deskFailed = true // its call is not back yet, and settles it
	default:
		sh.record(c, m, recordv1.OutState_OUT_STATE_FAILED, "desk_failed")
	}
	return nil
}

// applyError tells the page of trouble at the desk.
func (sh *shard) applyError(c *chat, p *deskv1.ErrorStatus) *desk.Refusal {
	if p.GetLogMessage() != "" {
		sh.warn(c, "a desk reports trouble", "kind", p.GetKind(), "message", p.GetLogMessage())
	}
	switch p.GetKind() {
	case deskv1.ErrorKind_ERROR_KIND_CONNECTING:
		sh.append(c.s, c.id(), &recordv1.Entry{Body: &recordv1.Entry_Trouble{Trouble: &recordv1.Trouble{
			Kind: recordv1.TroubleKind_TROUBLE_KIND_CONNECTING, Message: p.GetUserMessage(),
		}}})
		sh.end(c, recordv1.EndedBy_ENDED_BY_DESK, "connect_failed", p.GetUserMessage(), false)
	case deskv1.ErrorKind_ERROR_KIND_DISCONNECTED:
		sh.append(c.s, c.id(), &recordv1.Entry{Body: &recordv1.Entry_Trouble{Trouble: &recordv1.Trouble{
			Kind: recordv1.TroubleKind_TROUBLE_KIND_DISCONNECTED, Disconnected: p.GetDisconnected(), Message: p.GetUserMessage(),
		}}})
	case deskv1.ErrorKind_ERROR_KIND_USER_MESSAGE:
		return sh.failMessage(c, p.GetMessageId())
	default:
		return refuseInvalid("trouble of a kind that this host does not know")
	}
	return nil
}
