package desk

import (
	"errors"
	"strings"
	"time"

	"github.com/deskhost/deskhost/host/internal/catalog"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// State is where a desk stands in its life.
type State string

// The states of a desk.
const (
	// StateStarting: a process is being taken to ready.
	StateStarting State = "starting"
	// StateReady: a generation serves the desk.
	StateReady State = "ready"
	// StateDraining: the host stops, and the generation flushes what it has.
	StateDraining State = "draining"
	// StateBackingOff: the last generation ended, or did not start; another
	// follows after a wait.
	StateBackingOff State = "backing_off"
	// StateFailed is the same, but an operator has to change something first.
	StateFailed State = "failed"
	// StateStopped: the host has stopped the desk.
	StateStopped State = "stopped"
)

// Status is how a desk is, for operators.
type Status struct {
	Name  string    `json:"name"`
	State State     `json:"state"`
	Since time.Time `json:"since"`
	// Plugin is the plugin's name; File and what follows are those of the latest
	// generation that was ready.
	Plugin       string   `json:"plugin"`
	File         string   `json:"file,omitempty"`
	SHA256       string   `json:"sha256,omitempty"`
	Version      string   `json:"version,omitempty"`
	Title        string   `json:"title,omitempty"`
	SendDedupe   string   `json:"send_dedupe,omitempty"`
	Replay       string   `json:"replay,omitempty"`
	Capabilities []string `json:"capabilities,omitempty"`
	// Pid is 0 while no process is ready. Generation counts the processes that
	// were started, Restarts those after the first.
	Pid        int    `json:"pid,omitempty"`
	Generation uint64 `json:"generation"`
	Restarts   uint64 `json:"restarts"`
	// LastError is why the latest start failed, or the latest generation ended.
	LastError string `json:"last_error,omitempty"`
}

// operatorError marks an error that waiting does not cure.
type operatorError struct{ error }

func (e operatorError) Unwrap() error { return e.error }

// needsOperator tells whether somebody has to change something.
func needsOperator(err error) bool {
	var problem *catalog.ProblemError
	var marked operatorError
	return errors.As(err, &problem) || errors.As(err, &marked)
}

// publish changes the state. Only the goroutine of Run calls it.
func (d *Desk) publish(state State, change func(*Status)) {
	s := d.Status()
	s.State, s.Since = state, time.Now()
	if change != nil {
		change(&s)
	}
	d.status.Store(&s)
}

func (d *Desk) starting(number uint64) {
	d.publish(StateStarting, func(s *Status) {
		s.Generation, s.Restarts = number, number-1
	})
	d.opts.Log.Debug("desk starting", "plugin", d.opts.Source.Plugin, "generation", number)
}

func (d *Desk) ready(g *running) {
	d.current.Store(g)
	d.publish(StateReady, func(s *Status) {
		s.File, s.SHA256, s.Pid = g.plugin.File, g.plugin.SHA256, g.proc.Pid()
		s.Version, s.Title = g.describe.GetVersion(), g.describe.GetTitle()
		s.SendDedupe, s.Replay = SendDedupeName(g.describe.GetSendDedupe()), ReplayName(g.describe.GetReplay())
		s.Capabilities = CapabilityNames(g.describe.GetCapabilities())
	})
	d.settle()
	d.opts.Log.Info("desk ready", "plugin", g.plugin.Name, "version", g.describe.GetVersion(),
		"generation", g.number, "pid", g.proc.Pid(), "sha256", g.plugin.SHA256)
}

func (d *Desk) draining() {
	d.current.Store(nil)
	d.publish(StateDraining, nil)
	d.opts.Log.Debug("desk draining")
}

func (d *Desk) waiting(cause error, pause time.Duration) {
	state := StateBackingOff
	if needsOperator(cause) {
		state = StateFailed
	}
	d.publish(state, func(s *Status) { s.Pid, s.LastError = 0, cause.Error() })
	d.settle()
	d.opts.Log.Error("desk down", "state", state, "cause", cause, "next_start_in", pause.Round(time.Millisecond))
}

func (d *Desk) stopped(cause error) {
	d.publish(StateStopped, func(s *Status) {
		s.Pid = 0
		if cause != nil && !errors.Is(cause, errHostStops) {
			s.LastError = cause.Error()
		}
	})
	d.settle()
	d.opts.Log.Info("desk stopped")
}

// SendDedupeName is the word for how a plugin keeps messages from doubling:
// none, key or lookup.
func SendDedupeName(s deskv1.SendDedupe) string {
	if s == deskv1.SendDedupe_SEND_DEDUPE_UNSPECIFIED {
		s = deskv1.SendDedupe_SEND_DEDUPE_NONE
	}
	return word(s.String(), "SEND_DEDUPE_")
}

// ReplayName is the word for how a plugin catches up: none, cursor or webhook.
func ReplayName(r deskv1.Replay) string {
	if r == deskv1.Replay_REPLAY_UNSPECIFIED {
		r = deskv1.Replay_REPLAY_NONE
	}
	return word(r.String(), "REPLAY_")
}

// CapabilityNames are the words for what a plugin can do beyond what all can:
// availability, update_state, user_typing, user_read, resume, http.
func CapabilityNames(capabilities []deskv1.Capability) []string {
	names := make([]string, len(capabilities))
	for i, c := range capabilities {
		names[i] = word(c.String(), "CAPABILITY_")
	}
	return names
}

func word(enum, prefix string) string { return strings.ToLower(strings.TrimPrefix(enum, prefix)) }
