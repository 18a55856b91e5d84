//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/deskhost/deskhost/host/internal/bench/usage"
)

// dayInSmall is a day of a contact centre: customers come, few in the morning
// and in the evening, many at noon; they wait in a queue, talk, reload their
// pages and go. The plugin is upgraded twice and killed once, the host is killed
// once. As many come in a second as in earnest, but a chat and the day are
// shorter. One day is enough: there is no floor, and no median.
type dayInSmall struct {
	length, talk time.Duration
	agents       int
}

// dayMessages is how many messages a customer sends.
const dayMessages = 8

// day is one of them.
type day struct {
	*dayInSmall

	url   string
	began time.Time

	mu      sync.Mutex
	centre  *centre // whose host changes
	chats   int
	answers []time.Duration // all of them
	seconds []second
}

// second is what was seen of a second.
type second struct {
	Subject string  `json:"subject"`
	Second  int     `json:"second"`
	Chats   int     `json:"open_chats"`
	Answers int     `json:"answers"`
	P99     float64 `json:"p99_ms"`
	Cores   float64 `json:"cores"`
	MiB     float64 `json:"mib"`
}

func (m *dayInSmall) measure(r *run) error {
	if err := allowFiles(10_000); err != nil {
		return err
	}
	series, err := os.Create(filepath.Join(r.out, "day.jsonl"))
	if err != nil {
		return err
	}
	defer series.Close()
	charts := make([]chart, 5)
	for i, up := range []string{"open chats", "answers a second", "p99 of answers in ms", "cores of host and plugin", "MiB of host and plugin"} {
		charts[i] = chart{title: "day", up: up, across: "seconds", even: true}
	}
	for _, subject := range r.hosts() {
		seconds, err := m.pass(r, subject)
		if err != nil {
			return fmt.Errorf("%s: %w", subject, err)
		}
		for _, s := range seconds {
			s.Subject = subject
			if err := json.NewEncoder(series).Encode(s); err != nil {
				return err
			}
			for i, value := range []float64{float64(s.Chats), float64(s.Answers), s.P99, s.Cores, s.MiB} {
				charts[i].add(subject, charts[i].up, float64(s.Second), value)
			}
		}
	}
	for _, c := range charts {
		if err := r.draw(c); err != nil {
			return err
		}
	}
	return series.Close()
}

// pass has a day pass at a build of the host.
func (m *dayInSmall) pass(r *run, subject string) ([]second, error) {
	c, err := r.startCentre(subject, `{"queue": {"position": 2, "wait_minutes": 1, "step_ms": 200}, "join_delay_ms": 200, "typing_ms": 1}`)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	morning := folderSize(c.host.dir)
	d := &day{dayInSmall: m, url: c.host.url, began: time.Now(), centre: c}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var used account
	var watching sync.WaitGroup
	watching.Go(func() { used = d.watch(ctx) })
	var troubles errgroup.Group
	troubles.Go(d.troubles)
	came, err := d.open()
	err = errors.Join(troubles.Wait(), err)
	stop()
	watching.Wait()
	if err != nil {
		return nil, err
	}
	took := time.Since(d.began)
	slices.Sort(d.answers)
	for _, figure := range []struct {
		what, unit string
		value      float64
	}{
		{"chats in the day", "", float64(came)},
		{"answers in the day", "", float64(len(d.answers))},
		{"answer: p50", "ms", milliseconds(d.answers[len(d.answers)/2])},
		{"answer: p99", "ms", milliseconds(d.answers[len(d.answers)*99/100])},
		{"answer: p99 of the usual second", "ms", d.calm()},
		{"processors used by host and plugin", "cores", used.cpu.Seconds() / took.Seconds()},
		{"memory of host and plugin, at most", "MiB", used.peak / (1 << 20)},
		{"written", "MiB", float64(used.written) / (1 << 20)},
		{"more on disk in the evening", "MiB", float64(folderSize(c.host.dir)-morning) / (1 << 20)},
	} {
		r.note(row{What: figure.what, Unit: figure.unit}, subject, 0, figure.value)
	}
	return d.seconds, nil
}

// open lets customers come until the evening, and returns how many came, once
// the last has gone.
func (d *day) open() (came int, err error) {
	var customers errgroup.Group
	random := rand.New(rand.NewPCG(1, 0))
	for {
		passed := time.Since(d.began)
		if passed >= d.length {
			break
		}
		// A tenth of the peak in the morning and in the evening.
		peak := float64(d.agents) / (10 * time.Minute).Seconds()
		rate := peak * (0.1 + 0.9*math.Pow(math.Sin(math.Pi*passed.Seconds()/d.length.Seconds()), 2))
		time.Sleep(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		came++
		own := rand.New(rand.NewPCG(1, uint64(came)))
		customers.Go(func() error { return d.customer(own) })
	}
	return came, customers.Wait()
}

// customer talks and goes.
func (d *day) customer(random *rand.Rand) (err error) {
	u, err := visit(d.url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.close()) }()
	if err := u.start(); err != nil {
		return err
	}
	d.count(1)
	defer d.count(-1)
	for range dayMessages {
		time.Sleep(time.Duration((0.5 + random.Float64()) * float64(d.talk) / dayMessages))
		if random.IntN(2*dayMessages) == 0 { // the page is loaded again
			if err := u.close(); err != nil {
				return err
			}
			u.open()
		}
		sent := time.Now()
		if err := u.talk(); err != nil {
			return err
		}
		d.mu.Lock()
		d.answers = append(d.answers, time.Since(sent))
		d.mu.Unlock()
	}
	if random.IntN(4) == 0 {
		return nil // some just leave
	}
	return u.client.End(context.Background(), u.session)
}

func (d *day) count(chats int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.chats += chats
}

// troubles are the day's, one after the other.
func (d *day) troubles() error {
	for _, trouble := range []struct {
		at float64 // of the day
		do func() error
	}{{0.3, d.reload}, {0.45, d.reload}, {0.6, d.killPlugin}, {0.75, d.killHost}} {
		time.Sleep(time.Until(d.began.Add(time.Duration(trouble.at * float64(d.length)))))
		if err := trouble.do(); err != nil {
			return err
		}
	}
	return nil
}

func (d *day) reload() error { return d.host().reload() }

func (d *day) killPlugin() error {
	desk, err := d.host().desk()
	if err != nil {
		return err
	}
	return syscall.Kill(desk.PID, syscall.SIGKILL)
}

func (d *day) killHost() error {
	host := d.host()
	host.kill()
	next, err := host.again()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.centre.host = next
	return err
}

func (d *day) host() *server {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.centre.host
}

// account is what host and plugin have used.
type account struct {
	cpu     time.Duration
	written int64
	peak    float64 // of memory, in bytes
}

// watch looks at the processes each second, and returns their account. What a
// process does between the last look and its end is missing.
func (d *day) watch(ctx context.Context) (total account) {
	cpu, written := make(map[int]time.Duration), make(map[int]int64)
	// Their starts are not the day's.
	for _, pid := range usage.Family(d.host().cmd.Process.Pid) {
		cpu[pid], written[pid] = usage.CPU(pid), usage.Written(pid)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	seen := 0
	for {
		select {
		case <-ctx.Done():
			return total
		case <-tick.C:
		}
		s := second{Second: int(time.Since(d.began).Seconds())}
		pids := usage.Family(d.host().cmd.Process.Pid)
		before := total.cpu
		for _, pid := range pids {
			now, bytes := usage.CPU(pid), usage.Written(pid)
			total.cpu += max(0, now-cpu[pid])
			total.written += max(0, bytes-written[pid])
			cpu[pid], written[pid] = now, bytes
		}
		s.Cores = (total.cpu - before).Seconds()
		if memory, err := usage.Memory(pids...); err == nil { // one may have ended meanwhile
			s.MiB = memory / (1 << 20)
			total.peak = max(total.peak, memory)
		}
		d.mu.Lock()
		recent := slices.Sorted(slices.Values(d.answers[seen:]))
		seen = len(d.answers)
		s.Chats, s.Answers = d.chats, len(recent)
		if len(recent) > 0 {
			s.P99 = milliseconds(recent[len(recent)*99/100])
		}
		d.seconds = append(d.seconds, s)
		d.mu.Unlock()
	}
}

// calm is the median of all seconds' 99th percentile: what troubles change little.
func (d *day) calm() float64 {
	var all []float64
	for _, s := range d.seconds {
		if s.Answers > 0 {
			all = append(all, s.P99)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// folderSize is how many bytes the files in a folder have.
func folderSize(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil { // else it has gone meanwhile
				n += info.Size()
			}
		}
		return nil
	})
	return n
}
