package desk

import (
	"math/rand/v2"
	"time"
)

// backoff is the wait between the end of one generation and the start of the
// next. It doubles with each, from min to max, and begins again after a
// generation that was ready for at least reset.
type backoff struct {
	min, max, reset time.Duration
	failures        int
}

// next returns the wait after a generation that was ready for so long; 0 if it
// never was. Desks that fell together are spread by up to a quarter.
func (b *backoff) next(ready time.Duration) time.Duration {
	if ready >= b.reset {
		b.failures = 0
	}
	wait := b.min
	for i := 0; i < b.failures && wait < b.max; i++ {
		wait *= 2
	}
	b.failures++
	jitter := rand.Float64()
	return min(b.max, wait+time.Duration(jitter*float64(wait)/4))
}
