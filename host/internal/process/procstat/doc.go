// Package procstat reads what Linux tells of a process. It knows nothing of hosts
// and plugins; packages process and launcher call it. It imports little, because
// launcher must be ready before most of a host's program is.
package procstat
