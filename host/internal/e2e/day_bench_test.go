//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/deskhost/deskhost/host/internal/bench/usage"
)

var (
	dayLength = flag.Duration("day", 2*time.Minute, "how long BenchmarkDay's day is")
	dayAgents = flag.Int("agents", 10_000, "agents of BenchmarkDay's contact centre: at the day's peak each gets a chat in ten minutes")
	dayTalk   = flag.Duration("talk", 10*time.Second, "how long a chat of BenchmarkDay takes")
	daySeries = flag.String("series", "", "`file` for what BenchmarkDay sees each second, as JSON lines")
)

// dayMessages is how many messages a customer sends.
const dayMessages = 8

// day is a contact centre's day in small.
type day struct {
	h     *Host
	began time.Time

	mu      sync.Mutex
	chats   int
	answers []time.Duration // all of them
	seconds []second
}

// second is what was seen of a second.
type second struct {
	Second  int     `json:"second"`
	Chats   int     `json:"open_chats"`
	Answers int     `json:"answers"`
	P99     float64 `json:"p99_ms"`
	Cores   float64 `json:"cores"`
	MiB     float64 `json:"mib"`
}

// BenchmarkDay is a day of a contact centre: customers come, few in the morning
// and in the evening, many at noon; they wait in a queue, talk, reload their
// pages and go. The plugin is upgraded twice and killed once, the host is killed
// once. As many come in a second as in earnest, but a chat and the day are
// shorter. A page fails it if an entry is lost, repeated or out of order.
func BenchmarkDay(b *testing.B) {
	dir := b.TempDir()
	script := filepath.Join(dir, "script.json")
	if err := os.WriteFile(script, []byte(`{"queue": {"position": 2, "wait_minutes": 1, "step_ms": 200}, "join_delay_ms": 200, "typing_ms": 1}`), 0o600); err != nil {
		b.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	settings := StartDesk(b, "--script", script).Settings()
	settings["data_dir"] = data
	d := &day{h: NewHost(b, settings)}
	d.h.Start()
	d.began = time.Now()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var others sync.WaitGroup
	var account account
	others.Go(func() { account = d.watch(ctx) })
	others.Go(d.troubles)
	came := d.open()
	stop()
	others.Wait()
	if b.Failed() {
		return
	}
	took := time.Since(d.began)
	slices.Sort(d.answers)
	b.ReportMetric(float64(came), "chats-in-the-day")
	b.ReportMetric(float64(len(d.answers)), "answers-in-the-day")
	b.ReportMetric(ms(d.answers[len(d.answers)/2]), "ms-answer,-p50")
	b.ReportMetric(ms(d.answers[len(d.answers)*99/100]), "ms-answer,-p99")
	b.ReportMetric(d.calm(), "ms-answer,-p99-of-the-usual-second")
	b.ReportMetric(account.cpu.Seconds()/took.Seconds(), "cores-of-host-and-plugin")
	b.ReportMetric(account.peak/(1<<20), "MiB-of-host-and-plugin-at-most")
	b.ReportMetric(float64(account.written)/(1<<20), "MiB-written")
	b.ReportMetric(float64(folderSize(data))/(1<<20), "MiB-on-disk-in-the-evening")
	b.ReportMetric(0, "ns/op")
	d.h.Stop()
	if *daySeries != "" {
		if err := d.save(*daySeries); err != nil {
			b.Fatal(err)
		}
	}
}

// open lets customers come until the evening, and returns how many came, once
// the last has gone.
func (d *day) open() (came int) {
	var customers sync.WaitGroup
	random := rand.New(rand.NewPCG(1, 0))
	for {
		passed := time.Since(d.began)
		if passed >= *dayLength {
			break
		}
		// A tenth of the peak in the morning and in the evening.
		peak := float64(*dayAgents) / (10 * time.Minute).Seconds()
		rate := peak * (0.1 + 0.9*math.Pow(math.Sin(math.Pi*passed.Seconds()/dayLength.Seconds()), 2))
		time.Sleep(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		came++
		own := rand.New(rand.NewPCG(1, uint64(came)))
		customers.Go(func() {
			if err := d.customer(own); err != nil {
				d.h.t.Error(err)
			}
		})
	}
	customers.Wait()
	return came
}

// customer talks and goes.
func (d *day) customer(random *rand.Rand) error {
	p := d.h.session(nil)
	p.done = make(chan struct{})
	go p.follow()
	defer func() { p.Close() }()
	if _, err := p.start("c1"); err != nil {
		return err
	}
	d.mu.Lock()
	d.chats++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.chats--
	}()
	if _, err := p.await(Of("agent_joined")); err != nil {
		return fmt.Errorf("awaiting the agent: %w", err)
	}
	for i := range dayMessages {
		time.Sleep(time.Duration((0.5 + random.Float64()) * float64(*dayTalk) / dayMessages))
		if random.IntN(2*dayMessages) == 0 {
			p = p.reload()
		}
		sent := time.Now()
		if err := talk(p, i, i+1); err != nil {
			return err
		}
		d.mu.Lock()
		d.answers = append(d.answers, time.Since(sent))
		d.mu.Unlock()
	}
	if random.IntN(4) == 0 {
		return nil // some just leave
	}
	_, err := p.call("DELETE", "/chat", nil)
	return err
}

// reload is a page that comes back with the cursor it had.
func (p *Page) reload() *Page {
	p.Close()
	next := &Page{t: p.t, host: p.host, SessionID: p.SessionID, Token: p.Token, lastSeq: p.lastSeq, news: make(chan struct{}), done: make(chan struct{})}
	next.ctx, next.cancel = context.WithCancel(context.Background())
	go next.follow()
	return next
}

// troubles are the day's, one after the other.
func (d *day) troubles() {
	upgrade := func() { d.h.CLI("plugin", "reload", "support") }
	for _, trouble := range []struct {
		at float64 // of the day
		do func()
	}{{0.3, upgrade}, {0.45, upgrade}, {0.6, func() { d.h.KillPlugin("support") }}, {0.75, func() { d.h.Kill(); d.h.Start() }}} {
		time.Sleep(time.Until(d.began.Add(time.Duration(trouble.at * float64(*dayLength)))))
		trouble.do()
	}
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
		pids := usage.Family(d.h.pid())
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
			s.P99 = ms(recent[len(recent)*99/100])
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

func (d *day) save(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, s := range d.seconds {
		if err := json.NewEncoder(f).Encode(s); err != nil {
			return err
		}
	}
	return f.Close()
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
