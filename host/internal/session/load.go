package session

import (
	"cmp"
	"errors"
	"slices"

	"github.com/deskhost/deskhost/host/internal/journal"
	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
)

// loadChat rebuilds a chat from the journal before the shard runs. Its first
// turn steps it.
func (sh *shard) loadChat(id string) error {
	j := sh.svc.opts.Journal
	head, err := j.Chat(id)
	if err != nil {
		return err
	}
	s, err := sh.load(head.GetSessionId())
	if err != nil {
		return err
	}
	if s == nil {
		return errors.New("its session is not in the journal")
	}
	c := &chat{s: s, head: head, taken: make(seenSet), since: sh.now, endedAt: sh.now, awaySince: sh.now, quiet: true}
	sh.allowCalls(c)
	switch state, err := j.State(id); {
	case err == nil:
		c.state = state
	case !errors.Is(err, journal.ErrNotFound):
		return err
	}
	var records []*recordv1.OutMessage
	if err := j.Outs(id, func(m *recordv1.OutMessage) bool {
		c.taken.add(m.GetId())
		if pending(m.GetState()) {
			records = append(records, m)
		}
		return true
	}); err != nil {
		return err
	}
	slices.SortFunc(records, func(a, b *recordv1.OutMessage) int { return cmp.Compare(a.GetSeq(), b.GetSeq()) })
	for _, m := range records {
		e, err := j.Entry(head.GetSessionId(), m.GetSeq())
		if err != nil {
			return err
		}
		c.outs = append(c.outs, &out{record: m, entry: e.GetUserMessage(), at: e.GetTime().AsTime(), since: sh.now})
	}
	sh.chats[id] = c
	if c.open() {
		s.chat = c
	} else {
		s.ending = append(s.ending, c)
	}
	sh.alarms.set(c, sh.now)
	return nil
}
