//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// options are how a run is.
type options struct {
	sessions int
	faults   int
	messages int // each way, at least
	rate     int // messages a second, both ways together
	seed     uint64
	dedupe   string        // what the plugin declares: key or none
	limit    time.Duration // for all to settle in the end
	every    time.Duration // between two faults, about
	only     string        // a word in the names of the faults
	deskhost string        // the host's program
	bin      string        // has the plugins
	dir      string        // for all that the run writes
}

// run is one run. It owns the processes, and the goroutines of users and agents.
type run struct {
	options

	out   io.Writer
	desk  *desk
	host  *host
	wires *wires
	users []*user

	sent    atomic.Int64 // messages of users that the host has taken
	said    atomic.Int64 // messages of agents, some for chats that are over
	skipped atomic.Int64 // faults that found nothing to harm
	made    map[string]int

	mu     sync.Mutex
	broken []violation // of no session
}

// result is what a run has found.
type result struct {
	violations []violation
	accounts   []*account
	made       map[string]int // faults by kind
	skipped    int            // of these, such as found nothing to harm
	sent, said int            // messages taken by the host, and by the desk of agents
	silences   []time.Duration
}

// start starts the processes. What it returns is to be closed in any case.
func (o options) start(out io.Writer) (*run, error) {
	r := &run{options: o, out: out, wires: newWires(), made: map[string]int{}}
	var err error
	if r.desk, err = o.startDesk(); err != nil {
		return r, err
	}
	r.host, err = o.startHost(r.desk.url, r.fell)
	return r, err
}

// fell notes that a process has not done what it should.
func (r *run) fell(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, violation{died, "-", text})
}

// close ends the processes. It may be called again.
func (r *run) close() {
	if r.host != nil {
		if err := r.host.close(); err != nil {
			r.fell(err.Error())
		}
	}
	if r.desk != nil {
		r.desk.process.kill()
	}
}

// check runs the whole of it: load and faults, quiet, comparison.
func (o options) check(ctx context.Context, out io.Writer) (*result, error) {
	r, err := o.start(out)
	defer r.close()
	if err != nil {
		return nil, err
	}
	life, die := context.WithCancel(ctx)
	var alive sync.WaitGroup
	defer alive.Wait()
	defer die()
	if err := r.openAll(life, &alive); err != nil {
		return nil, err
	}
	if err := r.load(ctx, life); err != nil {
		return nil, err
	}
	unsettled := r.settle(ctx, false)
	// What is only in the memory of the host is not to count.
	if err := r.host.restart(true, 0); err != nil {
		return nil, err
	}
	accounts := r.settle(ctx, true)
	for i, a := range unsettled {
		if len(a.found) > 0 && len(accounts[i].found) == 0 {
			accounts[i] = a // it has taken a restart
		}
	}
	r.close() // to end well is a promise too
	return r.result(accounts), nil
}

// openAll opens all sessions, each with a page and a chat.
func (r *run) openAll(life context.Context, alive *sync.WaitGroup) error {
	began := time.Now()
	var opening sync.WaitGroup
	slots := make(chan struct{}, 32)
	failed := make(chan error, r.sessions)
	for i := range r.sessions {
		u := &user{host: r.host, wires: r.wires, taken: &r.sent, number: i, rng: rand.New(rand.NewPCG(r.seed, uint64(i)+1))}
		switch i % 20 {
		case 0:
			u.kind = slow
		case 1:
			u.kind = byStream
		}
		r.users = append(r.users, u)
		opening.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := u.open(life); err != nil {
				failed <- err
				return
			}
			alive.Go(func() { u.listen(life) })
			u.request(life)
		})
	}
	opening.Wait()
	select {
	case err := <-failed:
		return fmt.Errorf("open a session: %w", err)
	default:
	}
	fmt.Fprintf(r.out, "%d sessions in %s; seed %d\n", r.sessions, time.Since(began).Round(time.Millisecond), r.seed)
	return nil
}

// load has users and agents talk, and makes the faults meanwhile.
func (r *run) load(ctx, life context.Context) error {
	talking, quiet := context.WithCancel(ctx)
	defer quiet()
	calling, hangUp := context.WithCancel(life)
	defer hangUp()
	var busy sync.WaitGroup
	each := time.Second * time.Duration(2*r.sessions) / time.Duration(r.rate)
	for _, u := range r.users {
		busy.Go(func() { u.talk(talking, calling, each) })
	}
	const agents = 8
	for i := range agents {
		rng := rand.New(rand.NewPCG(r.seed, uint64(1_000_000+i)))
		busy.Go(func() { r.speak(talking, rng, time.Second*2*agents/time.Duration(r.rate)) })
	}
	busy.Go(func() { r.progress(talking) })
	err := r.inject(ctx)
	for err == nil && min(r.said.Load(), r.sent.Load()) < int64(r.messages) {
		pause(ctx, time.Second/10)
		err = ctx.Err()
	}
	quiet()
	if e := r.desk.recover(); err == nil {
		err = e
	}
	late := time.AfterFunc(r.limit, hangUp) // what has no answer by then is a violation
	defer late.Stop()
	busy.Wait()
	return err
}

// inject makes the faults, one after the other.
func (r *run) inject(ctx context.Context) error {
	for i, f := range r.plan() {
		kind := faultKinds[f.kind]
		began := time.Now()
		if err := kind.do(ctx, r, rand.New(rand.NewPCG(f.seed, 0))); err != nil {
			return fmt.Errorf("fault %d, %s: %w", i+1, kind.name, err)
		}
		r.made[kind.name]++
		fmt.Fprintf(r.out, "%s fault %d: %s, took %s\n", began.Format("15:04:05.000"), i+1, kind.name, time.Since(began).Round(time.Millisecond))
		if !pause(ctx, f.pause) {
			return ctx.Err()
		}
	}
	return nil
}

// speak has agents say something every now and then, also in bursts.
func (r *run) speak(talking context.Context, rng *rand.Rand, every time.Duration) {
	for pause(talking, time.Duration(rng.ExpFloat64()*2*float64(every))) {
		chat := pick(rng, r.users).chat()
		if chat == nil {
			continue
		}
		var texts []string
		for range 1 + rng.IntN(3) { // two, on average
			texts = append(texts, filled(fmt.Sprintf("a%d", r.said.Add(1)), 20+rng.IntN(200)))
		}
		if err := r.desk.say(context.WithoutCancel(talking), chat.chatID, texts...); err != nil {
			r.fell(fmt.Sprintf("the desk: %v", err))
		}
	}
}

func (r *run) progress(talking context.Context) {
	began := time.Now()
	for pause(talking, 5*time.Second) {
		seen, connects := 0, 0
		for _, u := range r.users {
			u.mu.Lock()
			seen += len(u.seen)
			connects += u.connects
			u.mu.Unlock()
		}
		fmt.Fprintf(r.out, "%4.0f s: %d messages of users, %d of agents, %d entries shown, %d connections, %d starts of the host\n",
			time.Since(began).Seconds(), r.sent.Load(), r.said.Load(), seen, connects, r.hostStarts())
	}
}

func (r *run) hostStarts() int {
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	return r.host.starts
}

// settle compares until there is nothing to find, twice in a row, or the limit
// has come. What is found then is wrong. With journal the host's is read anew.
func (r *run) settle(ctx context.Context, journal bool) []*account {
	began := time.Now()
	accounts := make([]*account, len(r.users))
	for calm := 0; ; {
		var open atomic.Int64
		var reading sync.WaitGroup
		slots := make(chan struct{}, 16)
		for i, u := range r.users {
			if a := accounts[i]; calm == 0 && a != nil && len(a.found) == 0 {
				continue
			}
			reading.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				accounts[i] = r.account(ctx, u, journal)
				if len(accounts[i].violations()) > 0 {
					open.Add(1)
				}
			})
		}
		reading.Wait()
		late := time.Since(began) > r.limit
		if n := open.Load(); n > 0 {
			i := slices.IndexFunc(accounts, func(a *account) bool { return len(a.found) > 0 })
			fmt.Fprintf(r.out, "%d sessions are not settled after %s, such as by %s\n", n, time.Since(began).Round(time.Millisecond), accounts[i].found[0])
		}
		switch {
		case open.Load() > 0 && !late:
			calm = 0
		case calm == 1 || late:
			fmt.Fprintf(r.out, "settled after %s, but for %d sessions\n", time.Since(began).Round(time.Millisecond), open.Load())
			return accounts
		default:
			calm = 1
		}
		if !pause(ctx, 2*time.Second) {
			return accounts
		}
	}
}

// account gathers all that is known of a session.
func (r *run) account(ctx context.Context, u *user, journal bool) *account {
	a := u.account()
	a.certain = r.dedupe == "key" || r.faults == 0
	a.desk = map[string][]deskEvent{}
	fail := func(err error) *account {
		a.broken = append(a.broken, violation{unsettled, u.id, err.Error()})
		return a
	}
	if journal {
		var err error
		if a.journal, a.transcript, err = u.readJournal(ctx); err != nil {
			return fail(err)
		}
		a.journaled = true
	}
	for _, t := range talks(slices.Concat(a.seen, a.journal)) {
		events, err := r.desk.history(ctx, t.id)
		if err != nil {
			return fail(err)
		}
		a.desk[t.id] = events
	}
	return a
}

// result sums up, and writes the stories of what went wrong.
func (r *run) result(accounts []*account) *result {
	res := &result{accounts: accounts, made: r.made, sent: int(r.sent.Load()), skipped: int(r.skipped.Load())}
	r.mu.Lock()
	res.violations = slices.Clone(r.broken)
	r.mu.Unlock()
	for i, a := range accounts {
		res.violations = append(res.violations, a.found...)
		for _, events := range a.desk {
			for i := range events {
				if events[i].Type == "agent_message" {
					res.said++
				}
			}
		}
		if r.users[i].kind != slow {
			if longest := a.longestSilence(); longest > 0 {
				res.silences = append(res.silences, longest)
			}
		}
		if len(a.found) > 0 {
			file := filepath.Join(r.dir, a.session+".txt")
			if err := os.WriteFile(file, []byte(a.story()), 0o600); err != nil {
				fmt.Fprintln(r.out, err)
			}
		}
	}
	slices.Sort(res.silences)
	return res
}

// longestSilence is the longest time between something that an agent said and
// its coming to the page.
func (a *account) longestSilence() (longest time.Duration) {
	said := map[string]time.Time{}
	for _, events := range a.desk {
		for i := range events {
			said[events[i].id()] = events[i].Time
		}
	}
	for i := range a.seen {
		if at, ok := said[a.seen[i].ID]; ok && a.seen[i].Type == "message" {
			longest = max(longest, a.seen[i].at.Sub(at))
		}
	}
	return longest
}
