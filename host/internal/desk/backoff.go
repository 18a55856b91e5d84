package desk

import (
	"math/rand/v2"
	"slices"
	"time"
)

// backoff decides how long a desk waits for its next start. The wait doubles with
// each, from BackoffMin to BackoffMax; after too many crashes in a short time it
// is QuarantineProbe. Only a generation that was ready for BackoffReset makes up
// for what came before it: neither time nor a restart does.
type backoff struct {
	failures    int
	crashes     []time.Time // within QuarantineWindow
	quarantined bool
}

// next returns the wait after a generation that was ready for so long (0 if it
// never was), and whether the desk is in quarantine. Desks that fell together
// are spread by up to a quarter.
func (b *backoff) next(l *Limits, now time.Time, ready time.Duration, crashed bool) (wait time.Duration, quarantined bool) {
	if ready >= l.BackoffReset {
		*b = backoff{}
	}
	if crashed {
		b.crashes = slices.DeleteFunc(b.crashes, func(at time.Time) bool { return now.Sub(at) > l.QuarantineWindow })
		b.crashes = append(b.crashes, now)
		b.quarantined = b.quarantined || len(b.crashes) >= l.QuarantineCrashes
	}
	jitter := rand.Float64() / 4
	if b.quarantined {
		return l.QuarantineProbe + time.Duration(jitter*float64(l.QuarantineProbe)), true
	}
	wait = l.BackoffMin
	for i := 0; i < b.failures && wait < l.BackoffMax; i++ {
		wait *= 2
	}
	b.failures++
	return min(l.BackoffMax, wait+time.Duration(jitter*float64(wait))), false
}
