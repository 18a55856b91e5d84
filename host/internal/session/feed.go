package session

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
)

const (
	// feedQueue is how much news a feed holds before it goes back to the journal.
	feedQueue = 128
	// pageBytes ends a page that is read from the journal: it belongs to one reader,
	// who may take its time. Its last entry may go beyond that.
	pageBytes = 256 << 10
)

// feed is a subscription. While it keeps up, its shard hands it each piece of
// news; when it falls behind, the shard hands it only the newest seq, and Pull
// reads what lies between from the journal. So a slow reader costs no memory
// and never loses an entry.
type feed struct {
	sessionID string
	shard     *shard // the session's
	wake      func()

	// cursor belongs to the caller of Pull.
	cursor uint64

	mu     sync.Mutex
	head   uint64 // the newest seq that is durable
	queue  []News // what follows cursor, if not behind
	err    error
	behind bool // entries above cursor are to be read from the journal
	idle   bool // the last Pull found nothing: the next news wakes
	closed bool
}

// push hands over news that is durable. Called by the shard, never blocks.
func (f *feed) push(news []News) {
	f.mu.Lock()
	// What had been written when the feed began it reads from the journal.
	for i, n := range slices.Backward(news) {
		if n.Entry != nil && n.Entry.GetSeq() <= f.head {
			news = news[i+1:]
			break
		}
	}
	for _, n := range news {
		if n.Entry != nil {
			f.head = n.Entry.GetSeq()
		}
	}
	switch {
	case f.behind:
		// Pull finds the entries in the journal. Passing news has passed.
	case len(f.queue)+len(news) > feedQueue:
		f.queue, f.behind = nil, true
	default:
		f.queue = append(f.queue, news...)
	}
	f.wakeLocked()
}

// fail ends the feed with an error. Called by the shard.
func (f *feed) fail(err error) {
	f.mu.Lock()
	f.err = err
	f.wakeLocked()
}

// wakeLocked releases mu and wakes an idle reader.
func (f *feed) wakeLocked() {
	wake := f.idle && !f.closed
	if wake {
		f.idle = false
	}
	// Under the lock, so that Close can promise that no call comes after it.
	if wake {
		f.wake()
	}
	f.mu.Unlock()
}

// Pull implements Feed.
func (f *feed) Pull(limit int) ([]News, error) {
	f.mu.Lock()
	if f.err != nil {
		defer f.mu.Unlock()
		return nil, f.err
	}
	if f.behind {
		f.mu.Unlock()
		return f.read(limit)
	}
	defer f.mu.Unlock()
	if len(f.queue) == 0 {
		f.idle = true
		f.queue = nil
		return nil, nil
	}
	n := min(limit, len(f.queue))
	news := f.queue[:n:n]
	f.queue = f.queue[n:]
	for i := range news {
		if e := news[i].Entry; e != nil {
			f.cursor = e.GetSeq()
		}
	}
	return news, nil
}

// read takes a page from the journal, and leaves the journal once it has read
// the newest entry. It reads no further than its shard has told: a store may
// show what is not durable yet.
func (f *feed) read(limit int) ([]News, error) {
	f.mu.Lock()
	head := f.head
	f.mu.Unlock()
	var news []News
	next, size := f.cursor, 0
	err := f.shard.svc.opts.Journal.Entries(f.sessionID, f.cursor, func(e *recordv1.Entry) bool {
		if e.GetSeq() > head {
			return false
		}
		if e.GetSeq() > next+1 {
			news = append(news, News{GapTo: e.GetSeq() - 1, Time: e.GetTime().AsTime()})
		}
		news = append(news, News{Entry: e})
		next = e.GetSeq()
		size += proto.Size(e)
		return len(news) < limit && size < pageBytes
	})
	if err != nil {
		return nil, err
	}
	if len(news) == 0 && next < head { // all of it is no longer kept
		news = append(news, News{GapTo: head, Time: time.Now()})
		next = head
	}
	f.cursor = next
	f.mu.Lock()
	f.behind = next < f.head
	f.mu.Unlock()
	if len(news) == 0 { // only passing news was dropped
		return f.Pull(limit)
	}
	return news, nil
}

// Close implements Feed.
func (f *feed) Close() {
	f.mu.Lock()
	was := f.closed
	f.closed, f.queue = true, nil
	f.mu.Unlock()
	if !was {
		f.shard.post(func() { f.shard.detach(f) })
	}
}
