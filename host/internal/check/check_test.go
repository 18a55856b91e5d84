//go:build unix

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// bin has the built host and plugins.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if bin, err = os.MkdirTemp("", "deskhost-check-"); err == nil {
			defer os.RemoveAll(bin)
			err = build(context.Background(), bin)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// output is the log of a test as a writer.
type output struct{ t *testing.T }

func (o output) Write(line []byte) (int, error) {
	o.t.Log(strings.TrimSuffix(string(line), "\n"))
	return len(line), nil
}

func check(t *testing.T, o options) *result {
	t.Helper()
	o.dir, o.bin, o.deskhost = t.TempDir(), bin, cmp.Or(o.deskhost, filepath.Join(bin, "deskhost"))
	res, err := o.check(t.Context(), output{t})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	res.print(&table, o)
	t.Log(table.String())
	return res
}

// Every kind of fault once, under load, with both ways of send_dedupe.
func TestNothingIsLostByFaults(t *testing.T) {
	for _, dedupe := range []string{"key", "none"} {
		t.Run(dedupe, func(t *testing.T) {
			res := check(t, options{
				sessions: 1000, messages: 1500, faults: len(faultKinds), rate: 300, every: 500 * time.Millisecond,
				seed: 1, dedupe: dedupe, limit: 2 * time.Minute,
			})
			for _, v := range res.violations {
				t.Error(v)
			}
			for i := range res.accounts {
				if a := res.accounts[i]; len(a.found) > 0 {
					t.Log(a.story())
					break
				}
			}
		})
	}
}

// sabotages are edits to the host's own source, so that no host that is shipped
// has any of it. Each has it break a promise once in a thousand times.
var sabotages = []struct{ how, file, before, after string }{
	{"loses for the page or reorders", "events.go", `
	return e, nil
}`, `
	if sabotaged("loses for the page") {
		return nil, nil
	}
	if sabotaged("reorders") { // behind the next
		held.Store(c.id(), e)
		return nil, nil
	}
	if before, ok := held.LoadAndDelete(c.id()); ok {
		sh.append(c.s, c.id(), e)
		return before.(*recordv1.Entry), nil
	}
	return e, nil
}`},
	{"loses or doubles for the desk", "chat.go", `
		_, err := g.SendMessageToAgent(ctx, req)
`, `
		if sabotaged("loses for the desk") {
			return nil
		}
		if sabotaged("doubles for the desk") {
			_, _ = g.SendMessageToAgent(ctx, req)
		}
		_, err := g.SendMessageToAgent(ctx, req)
`},
	{"doubles for the page", "feed.go", `
func (f *feed) push(news []News) {
`, `
func (f *feed) push(news []News) {
	if sabotaged("doubles for the page") {
		news = append(news[:len(news):len(news)], news...)
	}
`},
	// It tells of a turn before it writes it, and falls in between.
	{"acknowledges before writing", "shard.go", `
	if sh.batch.Len() == 0 && len(sh.written) == 0 {
`, `
	if sabotaged("acknowledges before writing") {
		sh.tell(&sh.told)
		fall()
	}
	if sh.batch.Len() == 0 && len(sh.written) == 0 {
`},
}

const sabotaged = `package session

import (
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var counts, held sync.Map

func sabotaged(how string) bool {
	n, _ := counts.LoadOrStore(how, new(atomic.Int64))
	return strings.Contains(os.Getenv("SABOTAGE"), how) && n.(*atomic.Int64).Add(1)%1000 == 0
}

// fall ends the host as kill -9 does, once what it has told is on its way.
func fall() {
	time.Sleep(500 * time.Millisecond)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
`

// buildSaboteur builds the host that can do all of it, by an overlay of its
// source. SABOTAGE in its environment tells what it does.
func buildSaboteur(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(root, "host", "internal", "session")
	texts := map[string]string{"sabotage.go": sabotaged}
	for _, s := range sabotages {
		text, edited := texts[s.file]
		if !edited {
			source, err := os.ReadFile(filepath.Join(folder, s.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(source)
		}
		if strings.Count(text, s.before) != 1 {
			t.Fatalf("%s has changed: the host that %s is to be made of this, there once:%s", s.file, s.how, s.before)
		}
		texts[s.file] = strings.Replace(text, s.before, s.after, 1)
	}
	replace := map[string]string{}
	for file, text := range texts {
		edited := filepath.Join(dir, file)
		replace[filepath.Join(folder, file)] = edited
		if err := os.WriteFile(edited, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := buildOne(t.Context(), dir, "deskhost", "./host/cmd/deskhost", "-overlay", filepath.Join(dir, "overlay.json")); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "deskhost")
}

// A checker that finds nothing has to be one that would.
func TestTheCheckerCatches(t *testing.T) {
	saboteur := buildSaboteur(t)
	for _, c := range []struct {
		host, dedupe string
		messages     int
		want         []violation // text: its beginning
	}{
		{"does nothing", "none", 1100, nil},
		{"loses for the page, loses for the desk", "key", 1100, []violation{
			{kind: lost, text: "message to the page did not come"}, {kind: lost, text: "message to the desk did not come"},
		}},
		{"doubles for the page, doubles for the desk", "none", 1100, []violation{
			{kind: doubled, text: "the page was shown an entry again"}, {kind: doubled, text: "message to the desk came again"},
		}},
		// With many behind the thousandth: one more has to come in the same chat.
		{"reorders", "key", 2500, []violation{{kind: outOfOrder, text: "message to the page came behind a later one"}}},
		{"acknowledges before writing", "key", 4000, []violation{{kind: changed, text: "the page was shown"}}},
	} {
		t.Run(c.host, func(t *testing.T) {
			t.Setenv("SABOTAGE", c.host)
			limit := 5 * time.Second // in which all settles that will
			if c.want == nil {
				limit = 2 * time.Minute
			}
			res := check(t, options{
				sessions: 100, messages: c.messages, rate: 1500, seed: 1, dedupe: c.dedupe, limit: limit, deskhost: saboteur,
			})
			for _, want := range c.want {
				if !slices.ContainsFunc(res.violations, func(v violation) bool {
					return v.kind == want.kind && strings.HasPrefix(v.text, want.text)
				}) {
					t.Errorf("it did not catch a host that %s: %s: %s", c.host, want.kind, want.text)
				}
			}
			if c.want == nil && len(res.violations) > 0 {
				t.Errorf("it caught one that does nothing: %v", res.violations)
			}
		})
	}
}
