package process

// Limits are what one process may use. Linux holds a process to all of them,
// other systems to those of the log only: see [Lacking].
type Limits struct {
	// Memory is how many bytes the process and its children may have resident.
	// Go's collector is told nine tenths of it.
	Memory int64
	// OpenFiles is how many descriptors each process may have open.
	OpenFiles int
	// Nice is how far the process stands back for the host when processors are
	// scarce, from 0 to 19.
	Nice int
	// LogLines and LogBytes are what may be logged in a second; five seconds'
	// worth may come at once.
	LogLines int
	LogBytes int64
}

// DefaultLimits returns the limits that hold if nobody sets others.
func DefaultLimits() Limits {
	return Limits{Memory: 512 << 20, OpenFiles: 1024, Nice: 5, LogLines: 100, LogBytes: 256 << 10}
}

// softMemory is what Go's collector keeps to, so that a process that only
// collects too seldom does not meet the hard limit.
func (l Limits) softMemory() int64 { return l.Memory / 10 * 9 }
