package session

import (
	"errors"
	"fmt"
	"time"

	"github.com/deskhost/deskhost/host/internal/journal"
)

const (
	// sweepEvery is how long the sweeper rests between two passes, and sweepFirst
	// behind the first: by then a machine that has just started has set its clock,
	// and a host that is restarted often gets there.
	sweepEvery = time.Hour
	sweepFirst = 10 * time.Minute
	// sweepLook is how many sessions it looks at, and sweepRemove how many keys
	// it removes, before it stands back.
	sweepLook   = 64
	sweepRemove = 256
	// It stands back for at least sweepPause, and sweepShare times as long as it
	// has worked: a pass over a million sessions takes some twenty minutes, and a
	// twentieth of a processor.
	sweepPause = 10 * time.Millisecond
	sweepShare = 20
)

// sweeper removes from the journal what is kept no longer: sessions that their
// users have deleted, and those that have expired for long enough.
//
// A session is removed only once its shard, which knows what is in use, has
// marked it as deleted in the journal. From then on nobody writes of it, so the
// sweeper may remove it beside the shard, a few keys at a time. Whatever is lost
// in between, by a crash or because there was too much to remember, is found by
// the next pass over all sessions.
type sweeper struct {
	svc    *Service
	marked chan string // ids of sessions that may be removed

	// Of the goroutine of run.
	batch journal.Batch
	// When the latest pass began, by the clock on the wall and by the steady one.
	wall, steady time.Time
}

func newSweeper(s *Service) *sweeper {
	return &sweeper{svc: s, marked: make(chan string, 4*sweepLook)}
}

// take has a marked session removed soon. It never blocks.
func (w *sweeper) take(sessionID string) {
	select {
	case w.marked <- sessionID:
	default: // the next pass finds it
	}
}

// run is the sweeper's goroutine.
func (w *sweeper) run() {
	for rest := sweepFirst; ; rest = sweepEvery {
		err := w.pass(w.before())
		if err == nil {
			err = w.wait(rest, w.marked)
		}
		switch {
		case errors.Is(err, errStopping):
			return
		case err != nil:
			w.svc.fail(err)
			return
		}
	}
}

// before returns the time at which a session must have been used to be kept.
//
// A clock that is set forward is not believed before the second pass after it:
// what a wrong clock removes does not come back when it is set right. So the
// first pass, which has nothing to compare with, finds nothing too old.
func (w *sweeper) before() time.Time {
	lastWall, lastSteady := w.wall, w.steady
	w.wall, w.steady = w.svc.opts.Wall(), time.Now()
	if lastSteady.IsZero() {
		return time.Time{}
	}
	now := lastWall.Add(w.steady.Sub(lastSteady))
	if w.wall.Before(now) {
		now = w.wall
	}
	return now.Add(-w.svc.limits().sessionLife() - w.svc.opts.KeepExpired)
}

// pass looks at every session in the journal, and has those marked that were
// last used before a time.
func (w *sweeper) pass(before time.Time) error {
	for after := ""; ; {
		begun := time.Now()
		for range sweepLook {
			head, err := w.svc.opts.Journal.NextSession(after)
			if errors.Is(err, journal.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			after = head.GetId()
			if head.GetDeleted() || head.GetUsedAt().AsTime().Before(before) {
				sh := w.svc.shard(after)
				sh.post(func() { sh.sweepOut(head.GetId(), before) })
			}
		}
		if err := w.wait(standBack(begun), w.marked); err != nil {
			return err
		}
	}
}

// wait returns when the time is up, and removes what it gets from marked.
func (w *sweeper) wait(d time.Duration, marked <-chan string) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case id := <-marked:
			if err := w.remove(id); err != nil {
				return err
			}
		case <-timer.C:
			return nil
		case <-w.svc.closing:
			return errStopping
		case <-w.svc.dead:
			return errStopping
		}
	}
}

// remove removes a session that is marked, and others beside it as far as they
// fit into the same batches.
func (w *sweeper) remove(id string) error {
	for more := true; more; {
		begun := time.Now()
		for more && w.batch.Len() < sweepRemove {
			all, err := w.svc.opts.Journal.Forget(&w.batch, id, sweepRemove-w.batch.Len())
			if err != nil {
				return err
			}
			if !all {
				break
			}
			select {
			case id = <-w.marked:
			default:
				more = false
			}
		}
		if err := <-w.svc.opts.Journal.Commit(&w.batch); err != nil {
			return fmt.Errorf("session: write the journal: %w", err)
		}
		w.batch.Reset()
		if err := w.wait(standBack(begun), nil); err != nil {
			return err
		}
	}
	return nil
}

// standBack is for how long to leave the disk and the processors to others after
// some work.
func standBack(begun time.Time) time.Duration {
	return max(sweepPause, sweepShare*time.Since(begun))
}

// sweepOut marks a session as deleted if it was last used before a time and
// nobody uses it now. One that is marked already, by a host that has died since,
// goes to the sweeper again.
func (sh *shard) sweepOut(sessionID string, before time.Time) {
	s, err := sh.load(sessionID)
	switch {
	case err != nil:
		return // the turn fails
	case s == nil:
		// Its head went with the last of it, or there never was one.
		sh.svc.sweeper.take(sessionID)
		return
	case !s.head.GetDeleted():
		if !s.idle() || !s.head.GetUsedAt().AsTime().Before(before) {
			return
		}
		s.head.Deleted = true
		sh.dirty(s)
	}
	sh.forgetIfSettled(s)
}
