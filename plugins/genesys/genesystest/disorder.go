package genesystest

import "slices"

// disorder is a fault of what is passed on: the next shuffle frames come in reverse,
// once all are there; the next repeat frames come twice.
type disorder[F any] struct {
	shuffle, repeat int
	held            []F
}

// ordered returns what is passed on when a frame is there to be.
func (d *disorder[F]) ordered(f F) []F {
	if d.shuffle == 0 {
		return []F{f}
	}
	d.shuffle--
	d.held = append(d.held, f)
	if d.shuffle > 0 {
		return nil
	}
	ready := d.held
	d.held = nil
	slices.Reverse(ready)
	return ready
}

// times is how often the next frame is passed on.
func (d *disorder[F]) times() int {
	if d.repeat == 0 {
		return 1
	}
	d.repeat--
	return 2
}
