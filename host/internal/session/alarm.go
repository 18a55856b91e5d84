package session

import (
	"container/heap"
	"time"
)

// alarms says when to look at which chat again. A chat has one alarm that
// counts, the one at its own alarm time; others are leftovers. It may come too
// early: looking at a chat when nothing is due does nothing.
type alarms struct{ heap alarmHeap }

type alarm struct {
	at   time.Time
	chat *chat
}

// set has a chat looked at no later than at. A later time than the one set
// already changes nothing: most limits move on with each message, and the early
// look sets the next.
func (a *alarms) set(c *chat, at time.Time) {
	if at.IsZero() || (!c.alarm.IsZero() && !at.Before(c.alarm)) {
		return
	}
	c.alarm = at
	heap.Push(&a.heap, alarm{at, c})
}

// due calls fn for each chat whose alarm has come.
func (a *alarms) due(now time.Time, fn func(*chat)) {
	for len(a.heap) > 0 && !a.heap[0].at.After(now) {
		x := heap.Pop(&a.heap).(alarm) //nolint:errcheck // the heap holds nothing else
		if x.at.Equal(x.chat.alarm) {
			x.chat.alarm = time.Time{}
			fn(x.chat)
		}
	}
}

// next returns the time of the next alarm.
func (a *alarms) next() (time.Time, bool) {
	for len(a.heap) > 0 {
		if x := a.heap[0]; x.at.Equal(x.chat.alarm) {
			return x.at, true
		}
		heap.Pop(&a.heap)
	}
	return time.Time{}, false
}

type alarmHeap []alarm

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarmHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *alarmHeap) Push(x any)        { *h = append(*h, x.(alarm)) } //nolint:errcheck // only set pushes
func (h *alarmHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = alarm{}
	*h = old[:len(old)-1]
	return x
}
