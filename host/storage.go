package host

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/admin"
)

// storageLook is how often the free space is looked at: what fills in between
// has to fit into the reserve.
const storageLook = time.Second

// storage watches the room on the journal's disk, so that what is under way can
// be brought to its end before there is none.
type storage struct {
	free    func() (uint64, error) // bytes that the host may still take
	used    func() uint64          // bytes that the journal takes
	reserve func() uint64          // limits.disk_reserve, as it is now
	log     hclog.Logger

	latest atomic.Pointer[room]
}

// room is one look at the disk.
type room struct {
	free    uint64
	full    bool
	problem string
}

// look takes a look, and tells the log what has changed.
func (s *storage) look() {
	before := s.latest.Load()
	if before == nil {
		before = new(room)
	}
	now := new(room)
	free, err := s.free()
	if err != nil {
		// Nobody is turned away for what is not known.
		now.problem = err.Error()
		if before.problem == "" {
			s.log.Error("the free space of the data folder cannot be told, so limits.disk_reserve is not held", "error", err)
		}
	} else {
		now.free, now.full = free, free < s.reserve()
	}
	switch {
	case now.full && !before.full:
		s.log.Error("the disk of the data folder is nearly full: new sessions, chats and messages are refused; free some space",
			"free_bytes", now.free, "disk_reserve", s.reserve())
	case before.full && !now.full:
		s.log.Info("the disk of the data folder has room again", "free_bytes", now.free)
	}
	s.latest.Store(now)
}

// watch looks until ctx ends. A look that hangs, as on a network's disk, delays
// nothing but the next.
func (s *storage) watch(ctx context.Context) {
	tick := time.NewTicker(storageLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.look()
		case <-ctx.Done():
			return
		}
	}
}

// full tells whether nothing new may be begun.
func (s *storage) full() bool { return s.latest.Load().full }

// state is for operators.
func (s *storage) state() admin.Storage {
	r := s.latest.Load()
	return admin.Storage{Journal: s.used(), Free: r.free, Reserve: s.reserve(), Full: r.full, Problem: r.problem}
}
