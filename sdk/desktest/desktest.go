// Package desktest holds a plugin to the contract: a list of checks, each a rule
// of desk.v1 with what was expected, what came, and where
// docs/write-a-plugin.md explains it.
//
// It plays the host against the plugin's own program, over the wire, so it does
// not matter in which language the plugin is written. It owns the plugin's
// processes and ends them. It knows the contract and nothing of the host's
// code, nor of any vendor: the desk behind the plugin is played by a [Script],
// and what cannot be played is reported as not tested, never as passed. Tests
// of plugins call [Run], "deskhost plugin verify" calls [Verify].
//
// For unit tests of a desk, without a process, there is [Host].
package desktest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// Plugin says what to test.
type Plugin struct {
	// File is the plugin's program, named deskhost-plugin-NAME.
	File string
	// Config is a configuration that it can work with; empty: {}.
	Config json.RawMessage
	// BadConfig is one that its schema or the plugin itself has to refuse; optional.
	BadConfig json.RawMessage
	// Script plays the desk that Config leads to; optional.
	Script Script
	// NoWebhooks has the plugin configured as by a host that vendors cannot reach.
	// Otherwise it is given an address on loopback, and what comes there reaches
	// its HandleHTTP.
	NoWebhooks bool
}

// Outcome is how a check went.
type Outcome string

// The outcomes.
const (
	Pass      Outcome = "pass"
	Fail      Outcome = "fail"
	NotTested Outcome = "not_tested"
)

// Result is what a check found.
type Result struct {
	// Check is its name, such as "events/order".
	Check string `json:"check"`
	// Expected is the rule.
	Expected string  `json:"expected"`
	Outcome  Outcome `json:"outcome"`
	// Came is what came instead or, if it was not tested, why. Empty for a pass.
	Came string `json:"came,omitempty"`
	// Explained is the part of the documentation that explains the rule.
	Explained string `json:"explained"`
}

// page is where the rules are explained; a check names a part of it.
const page = "docs/write-a-plugin.md"

// check is one rule, and how it is tested.
type check struct {
	name, expected, anchor string
	run                    func(*trial)
}

const (
	// checkTime bounds one check, patience one thing that has to happen in it.
	checkTime = 45 * time.Second
	patience  = 10 * time.Second
	// quiet is how long is watched for what must not happen. A right plugin
	// passes however long it takes.
	quiet = 300 * time.Millisecond
)

// Verify runs all checks, one after the other, and hands each result to tell.
// Nothing of the plugin runs any more when it returns.
func Verify(ctx context.Context, plugin Plugin, tell func(Result)) error {
	plugin, err := plugin.absolute()
	if err != nil {
		return err
	}
	for _, c := range checks() {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := c.try(ctx, plugin, quiet)
		tell(r)
		if c.name == firstCheck && r.Outcome == Fail {
			return nil // no other could tell more
		}
	}
	return nil
}

// Run tests a plugin, each check as a test of its own.
func Run(t *testing.T, plugin Plugin) {
	t.Helper()
	plugin, err := plugin.absolute()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks() {
		passed := t.Run(c.name, func(t *testing.T) {
			switch r := c.try(t.Context(), plugin, quiet); r.Outcome {
			case Fail:
				t.Errorf("expected: %s\ncame: %s\nexplained in %s", r.Expected, r.Came, r.Explained)
			case NotTested:
				t.Skip("not tested: " + r.Came)
			}
		})
		if c.name == firstCheck && !passed {
			return
		}
	}
}

// absolute is the plugin with its file's full path.
func (p Plugin) absolute() (Plugin, error) {
	file, err := filepath.Abs(p.File)
	if err != nil {
		return p, fmt.Errorf("find the plugin's file: %w", err)
	}
	p.File = file
	if len(p.Config) == 0 {
		p.Config = json.RawMessage("{}")
	}
	if p.Script == nil {
		p.Script = noScript{}
	}
	return p, nil
}

// outcome ends a check from within: a trial panics with it and try recovers, as
// the testing package does with its tests.
type outcome struct{ err error }

// untestedError says why a rule was not tested.
type untestedError struct{ why string }

func (e *untestedError) Error() string { return e.why }

func untested(why string) error { return &untestedError{why} }

// try runs the check. What must not happen is watched for so long.
func (c *check) try(ctx context.Context, plugin Plugin, quiet time.Duration) (r Result) {
	r = Result{Check: c.name, Expected: c.expected, Outcome: Pass, Explained: page + "#" + c.anchor}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	t := &trial{ctx: ctx, plugin: plugin, quiet: quiet}
	defer t.close()
	defer func() {
		switch o := recover().(type) {
		case nil:
		case outcome:
			r.Outcome, r.Came = Fail, o.err.Error()
			if why := (*untestedError)(nil); errors.As(o.err, &why) || errors.Is(o.err, ErrCannotPlay) {
				r.Outcome = NotTested
			} else {
				r.Came += t.lastWords()
			}
		default:
			panic(o)
		}
	}()
	c.run(t)
	return r
}
