package process

import (
	"fmt"
	"time"
)

// Usage is what a process and its children have in use.
type Usage struct {
	// Memory is resident, in bytes.
	Memory int64
	// CPU is the processor time so far, that of children which have ended included.
	CPU time.Duration
}

const (
	// watchInterval is how often a process is looked at.
	watchInterval = time.Second
	// busyWindow is how long a process may keep a processor busy before the
	// operator is told, again after each.
	busyWindow = 10 * time.Second
)

// watch looks after what a process has in use until done is closed. Where the
// system does not tell (see [Lacking]) it does nothing.
func (p *program) watch(done <-chan struct{}) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	began := time.Now()
	var before time.Duration
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		u, ok := usage(p.pid())
		if !ok {
			continue
		}
		p.usage.Store(&u)
		if u.Memory > p.cfg.Limits.Memory {
			p.killFor(fmt.Sprintf("it has %d MiB of memory resident, and limits.plugin_memory allows %d MiB; raise that, or ask the plugin's vendor",
				u.Memory>>20, p.cfg.Limits.Memory>>20))
			return
		}
		if elapsed := time.Since(began); elapsed >= busyWindow {
			now := demand(p.pid())
			if wanted := now - before; wanted > elapsed*9/10 {
				p.cfg.Log.Warn("the plugin keeps the processors busy", "pid", p.pid(),
					"could_use", fmt.Sprintf("%.1f", wanted.Seconds()/elapsed.Seconds()), "for", elapsed.Round(time.Second))
			}
			began, before = time.Now(), now
		}
	}
}
