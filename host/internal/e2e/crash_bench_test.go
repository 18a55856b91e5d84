//go:build unix

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/deskhost/deskhost/host/internal/bench/usage"
)

// benchDesk is a mock desk whose agents join at once, and a host with it.
func benchDesk(b *testing.B) (*MockDesk, *Host) {
	b.Helper()
	script := filepath.Join(b.TempDir(), "script.json")
	if err := os.WriteFile(script, []byte(`{"join_delay_ms": 1}`), 0o600); err != nil {
		b.Fatal(err)
	}
	desk := StartDesk(b, "--script", script)
	settings := desk.Settings()
	settings["limits"] = Unlimited(map[string]any{"abandon_waiting": "1h", "abandon_connected": "1h"})
	return desk, NewHost(b, settings)
}

// openChats opens chats that no page attends, a few at a time.
func openChats(b *testing.B, h *Host, chats int) {
	b.Helper()
	var all errgroup.Group
	all.SetLimit(64)
	for range chats {
		all.Go(func() error {
			_, err := h.session(nil).start("c1")
			return err
		})
	}
	if err := all.Wait(); err != nil {
		b.Fatal(err)
	}
}

func anyDesk(Desk) bool { return true }

// awaitServed waits until a process serves all chats again, and the desk is as
// wanted; it returns how long that took since a time.
func awaitServed(b *testing.B, h *Host, chats int, generation uint64, since time.Time, want func(Desk) bool) time.Duration {
	b.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for give := time.Now().Add(2*time.Minute + time.Duration(chats)*2*time.Millisecond); ; <-tick.C {
		d := h.Desk("support")
		if d.Generation >= generation && d.State == "ready" && d.Chats == chats && d.ChatsAway == 0 && want(d) {
			return time.Since(since)
		}
		if time.Now().After(give) {
			b.Fatalf("desk %+v", d)
		}
	}
}

// BenchmarkUpgrade tells how long a chat is silent while its plugin is replaced:
// a thousand users send a message every four seconds, and get an answer to each.
func BenchmarkUpgrade(b *testing.B) {
	const pages = 1000
	desk, h := benchDesk(b)
	h.Start()
	var all errgroup.Group
	stop := make(chan struct{})
	type answer struct {
		page int
		at   time.Time
		took time.Duration
	}
	answers := make(chan answer, 1_000_000)
	for i := range pages {
		p := h.Open(nil)
		chat, err := p.start("c1")
		if err != nil {
			b.Fatal(err)
		}
		all.Go(func() error {
			tick := time.NewTicker(4 * time.Second)
			defer tick.Stop()
			for m := 0; ; m++ {
				select {
				case <-stop:
					return checkTalk(p, desk, chat, m)
				case <-tick.C:
				}
				began := time.Now()
				if err := talk(p, m, m+1); err != nil {
					return err
				}
				answers <- answer{i, began, time.Since(began)}
			}
		})
	}
	// longest reads answers until each page has had some more, and returns the
	// longest time that each waited, sorted.
	longest := func(rounds int, since time.Time) []time.Duration {
		most, had, done := make([]time.Duration, pages), make([]int, pages), 0
		for done < pages {
			a := <-answers
			if a.at.Before(since) {
				continue
			}
			most[a.page] = max(most[a.page], a.took)
			if had[a.page]++; had[a.page] == rounds {
				done++
			}
		}
		slices.Sort(most)
		return most
	}
	longest(1, time.Now())
	calm := longest(2, time.Now())
	began := time.Now()
	h.CLI("plugin", "reload", "support")
	ready := time.Since(began)
	awaitDesk(b, h, "support", handedOver(2))
	upgrade := longest(2, began)
	gone := time.Since(began)
	close(stop)
	if err := all.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(ms(calm[pages*99/100]), "p99-ms-calm")
	b.ReportMetric(ms(upgrade[pages*99/100]), "p99-ms-upgrade")
	b.ReportMetric(ms(upgrade[pages-1]), "longest-ms-upgrade")
	b.ReportMetric(ms(ready), "ms-to-ready")
	b.ReportMetric(ms(gone), "ms-to-2-answers-each")
	b.ReportMetric(0, "ns/op")
	h.Stop()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// sizes are those at which it is seen how the cost of a crash or hand-over grows.
// The bench asks for some of them by name.
var sizes = []int{1000, 10_000, 100_000, 1_000_000}

// BenchmarkHandOver tells how long it takes to move all chats of a plugin to
// another process.
func BenchmarkHandOver(b *testing.B) {
	for _, chats := range sizes {
		b.Run(strconv.Itoa(chats), func(b *testing.B) {
			_, h := benchDesk(b)
			h.Start()
			openChats(b, h, chats)
			began := time.Now()
			h.CLI("plugin", "reload", "support")
			b.ReportMetric(ms(time.Since(began)), "ms-to-ready")
			awaitServed(b, h, chats, 2, began, func(d Desk) bool { return len(d.Generations) == 1 })
			b.ReportMetric(ms(time.Since(began)), "ms-to-all-moved")
			b.ReportMetric(0, "ns/op")
			h.Stop()
		})
	}
}

// BenchmarkPluginKilled tells how long after a plugin's new start its chats are
// served again.
func BenchmarkPluginKilled(b *testing.B) {
	for _, chats := range sizes {
		b.Run(strconv.Itoa(chats), func(b *testing.B) {
			_, h := benchDesk(b)
			h.Start()
			openChats(b, h, chats)
			h.KillPlugin("support")
			began := time.Now()
			awaitDesk(b, h, "support", func(d Desk) bool { return d.Generation == 2 })
			started := time.Now()
			awaitDesk(b, h, "support", func(d Desk) bool { return d.State == "ready" && d.Generation == 2 })
			b.ReportMetric(ms(time.Since(began)), "ms-to-ready")
			b.ReportMetric(ms(awaitServed(b, h, chats, 2, started, anyDesk)), "ms-to-all-resumed-since-start")
			b.ReportMetric(0, "ns/op")
			h.Stop()
		})
	}
}

// BenchmarkHostKilled tells how long a host takes to start again with so many
// open chats in its journal.
func BenchmarkHostKilled(b *testing.B) {
	for _, chats := range sizes {
		b.Run(strconv.Itoa(chats), func(b *testing.B) { restartHost(b, chats, chats) })
	}
}

// BenchmarkHostWithSessionsKilled tells how long a host takes to start again with a
// thousand open chats among so many sessions in its journal.
func BenchmarkHostWithSessionsKilled(b *testing.B) {
	for _, sessions := range sizes {
		b.Run(strconv.Itoa(sessions), func(b *testing.B) { restartHost(b, sessions, 1000) })
	}
}

// restartHost kills a host that has sessions, of which some have open chats.
func restartHost(b *testing.B, sessions, chats int) {
	_, h := benchDesk(b)
	h.Start()
	openChats(b, h, chats)
	var all errgroup.Group
	all.SetLimit(64)
	for range sessions - chats {
		all.Go(func() error { h.session(nil); return nil })
	}
	if err := all.Wait(); err != nil {
		b.Fatal(err)
	}
	h.Kill()
	began := time.Now()
	h.Start()
	b.ReportMetric(ms(time.Since(began)), "ms-to-ready")
	b.ReportMetric(ms(awaitServed(b, h, chats, 1, began, anyDesk)), "ms-to-all-resumed")
	if memory, err := usage.Memory(h.pid()); err == nil { // there is none but on Linux
		b.ReportMetric(memory/(1<<20), "MiB-of-the-host")
	}
	b.ReportMetric(0, "ns/op")
	h.Stop()
}

// pid is the host's process.
func (h *Host) pid() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.process.PID()
}
