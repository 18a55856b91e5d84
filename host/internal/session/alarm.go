package session

import (
	"container/heap"
	"time"
)

// alarms says when to look at which chat again. It may be too early: looking at
// a chat when nothing is due does nothing.
type alarms []*chat // a heap by alarm

// set has a chat looked at no later than at. A later time than the one set
// already changes nothing: most limits move on with each message, and the early
// look sets the next.
func (a *alarms) set(c *chat, at time.Time) {
	switch {
	case c.alarm.IsZero():
		c.alarm = at
		heap.Push(a, c)
	case at.Before(c.alarm):
		c.alarm = at
		heap.Fix(a, c.alarmIndex)
	}
}

// remove lets go of a chat.
func (a *alarms) remove(c *chat) {
	if !c.alarm.IsZero() {
		heap.Remove(a, c.alarmIndex)
	}
}

// due calls fn for each chat whose alarm has come.
func (a *alarms) due(now time.Time, fn func(*chat)) {
	for len(*a) > 0 && !(*a)[0].alarm.After(now) {
		c := (*a)[0]
		heap.Remove(a, 0)
		fn(c)
	}
}

// next returns the time of the next alarm.
func (a *alarms) next() (time.Time, bool) {
	if len(*a) == 0 {
		return time.Time{}, false
	}
	return (*a)[0].alarm, true
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (a *alarms) Len() int           { return len(*a) }
func (a *alarms) Less(i, j int) bool { return (*a)[i].alarm.Before((*a)[j].alarm) }
func (a *alarms) Swap(i, j int) {
	(*a)[i], (*a)[j] = (*a)[j], (*a)[i]
	(*a)[i].alarmIndex, (*a)[j].alarmIndex = i, j
}

// Push adds a chat at the end.
func (a *alarms) Push(x any) {
	c := x.(*chat) //nolint:errcheck // the heap holds nothing else
	c.alarmIndex = len(*a)
	*a = append(*a, c)
}

// Pop takes the chat at the end.
func (a *alarms) Pop() any {
	last := len(*a) - 1
	c := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	c.alarm = time.Time{}
	return c
}
