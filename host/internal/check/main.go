//go:build unix

// Check runs the built host under load and random faults, and compares what all
// who took part know afterwards: what the desk sent and got, what the host's
// journal holds, and what each page was shown.
//
// It owns the processes that it starts (the host, the mock desk, and by way of
// the host the plugins), the users and agents who talk, and the faults. It trusts
// nothing of the host: it speaks plain HTTP and WebSocket, and keeps its own record
// of all that it did and saw. It imports nothing of ours. People run it, and make
// soak; its tests are the faults of make test.
//
// Usage, from anywhere in the repository:
//
//	go run ./host/internal/check [-sessions 1000] [-faults 300] [-seed N] [-dedupe none]
//
// It prints each promise that was not kept on a line, and exits with 1 if there
// was one.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	o := options{}
	flag.IntVar(&o.sessions, "sessions", 1000, "sessions, each with a page and a chat")
	flag.IntVar(&o.faults, "faults", 300, "faults to make")
	flag.IntVar(&o.messages, "messages", 2000, "messages each way, at least")
	flag.IntVar(&o.rate, "rate", 400, "messages a second, both ways together")
	flag.Uint64Var(&o.seed, "seed", rand.Uint64N(1_000_000), "the plan of the faults; the same seed, the same plan")
	flag.StringVar(&o.dedupe, "dedupe", "key", "send_dedupe that the plugin declares: key or none")
	flag.DurationVar(&o.every, "every", 500*time.Millisecond, "about how much time lies between two faults")
	flag.StringVar(&o.only, "only", "", "make only faults with this `word` in their name, such as host")
	flag.DurationVar(&o.limit, "limit", 2*time.Minute, "how long all may take to settle in the end")
	flag.Parse()
	known := slices.ContainsFunc(faultKinds, func(k faultKind) bool { return strings.Contains(k.name, o.only) })
	if o.sessions < 1 || o.rate < 1 || o.every <= 0 || !known || flag.NArg() > 0 || !slices.Contains([]string{"key", "none"}, o.dedupe) {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := o.main(ctx)
	stop()
	os.Exit(code)
}

func (o options) main(ctx context.Context) int {
	dir, err := os.MkdirTemp("", "deskhost-check-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		return 1
	}
	o.dir, o.bin, o.deskhost = dir, dir, filepath.Join(dir, "deskhost")
	if err := build(ctx, dir); err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		return 1
	}
	res, err := o.check(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "check: seed %d: %v; the logs are in %s\n", o.seed, err, dir)
		return 1
	}
	res.print(os.Stdout, o)
	if len(res.violations) > 0 {
		fmt.Fprintf(os.Stdout, "\nThe logs, and the stories of these sessions, are in %s\n", dir)
		return 1
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
	}
	return 0
}

// count tells how many violations are of a kind.
func (r *result) count(kind string) (n int) {
	for _, v := range r.violations {
		if v.kind == kind {
			n++
		}
	}
	return n
}

// print tells what a run has found.
func (r *result) print(to io.Writer, o options) {
	for _, v := range r.violations {
		fmt.Fprintln(to, v)
	}
	outcomes := map[string]int{}
	shown := 0
	for _, a := range r.accounts {
		for i := range a.journal {
			if a.journal[i].Type == "message_status" {
				outcomes[a.journal[i].Status]++
			}
		}
		shown += len(a.seen)
	}
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { fmt.Fprintf(t, "%s\t%v\n", name, value) }
	row("seed", o.seed)
	row("sessions", o.sessions)
	row("send_dedupe", o.dedupe)
	row("messages of users, taken by the host", r.sent)
	for _, name := range []string{"delivered", "unknown", "failed"} {
		row("  "+name, outcomes[name])
	}
	row("messages of agents, taken by the desk", r.said)
	row("entries shown to pages", shown)
	faults := 0
	for _, k := range faultKinds {
		faults += r.made[k.name]
	}
	row("faults", faults)
	for _, k := range faultKinds {
		row("  "+k.name, r.made[k.name])
	}
	row("  that found no process to harm", r.skipped)
	for _, kind := range []string{lost, doubled, outOfOrder, changed, unsettled, ended, died} {
		row(kind, r.count(kind))
	}
	if n := len(r.silences); n > 0 {
		row("longest silence of a chat, median", r.silences[n/2].Round(time.Millisecond))
		row("longest silence of a chat, p99", r.silences[n*99/100].Round(time.Millisecond))
		row("longest silence of a chat, of all", r.silences[n-1].Round(time.Millisecond))
	}
	_ = t.Flush() // nothing is to be done about it
}
