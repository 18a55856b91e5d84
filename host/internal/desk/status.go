package desk

import (
	"errors"
	"slices"
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
	// StateHandingOver: another generation serves the desk, and this one's chats
	// go over to it one by one. It is a state of generations, not of desks.
	StateHandingOver State = "handing_over"
	// StateDraining: the generation keeps its chats until they end; or it flushes what it has, and ends.
	StateDraining State = "draining"
	// StateBackingOff: the last generation ended, or did not start; another
	// follows after a wait.
	StateBackingOff State = "backing_off"
	// StateFailed is the same, but an operator has to change something first.
	StateFailed State = "failed"
	// StateQuarantined: it crashed too often; a start is tried now and then.
	StateQuarantined State = "quarantined"
	// StateDisabled: an operator has turned the desk off.
	StateDisabled State = "disabled"
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
	// Generations are the processes that have chats or may take them, the one that
	// serves the desk first, then those that it has replaced, newest first.
	Generations []GenerationStatus `json:"generations,omitempty"`
	// Pid is 0 while no process is ready. Generation counts the processes that
	// were started, Restarts those after the first.
	Pid        int    `json:"pid,omitempty"`
	Generation uint64 `json:"generation"`
	Restarts   uint64 `json:"restarts"`
	// Crashes counts the processes that ended by themselves, before they were
	// ready or after.
	Crashes uint64 `json:"crashes"`
	// NextStart is when the next process is started, if none is ready.
	NextStart *time.Time `json:"next_start,omitempty"`
	// Waiting says what the replacement of the process waits for.
	Waiting string `json:"waiting,omitempty"`
	// PluginProblem is why the file in the plugin folder is not what runs.
	PluginProblem string `json:"plugin_problem,omitempty"`
	// LastError is why the latest start failed, or the latest generation ended.
	LastError string `json:"last_error,omitempty"`
}

// GenerationStatus is one of a desk's processes.
type GenerationStatus struct {
	Number  uint64    `json:"number"`
	State   State     `json:"state"`
	Since   time.Time `json:"since"`
	Pid     int       `json:"pid"`
	Version string    `json:"version"`
	SHA256  string    `json:"sha256"`
	// Chats is how many it has now.
	Chats int `json:"chats"`
	// MemoryBytes is what it and its children have resident, CPUSeconds the
	// processor time that they have used, both of a second ago; 0 where the system
	// does not tell.
	MemoryBytes int64   `json:"memory_bytes,omitempty"`
	CPUSeconds  float64 `json:"cpu_seconds,omitempty"`

	proc live
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

// note changes what is told beside the state. Like all of the following, it is
// called by the goroutine of Run alone.
func (d *Desk) note(change func(*Status)) {
	s := *d.status.Load()
	change(&s)
	d.status.Store(&s)
}

// publish changes the state.
func (d *Desk) publish(state State, change func(*Status)) {
	d.note(func(s *Status) {
		s.State, s.Since = state, time.Now()
		s.NextStart, s.Waiting = nil, ""
		if change != nil {
			change(s)
		}
	})
}

// starting tells of a start, beside the generation that serves if there is one.
func (d *Desk) starting(number uint64, serves *running) {
	d.note(func(s *Status) { s.Restarts, s.Waiting = number-1, "" })
	if serves == nil {
		d.publish(StateStarting, func(s *Status) { s.Generation = number })
	}
	d.opts.Log.Debug("desk starting", "generation", number)
}

// generations tells which processes there are.
func (d *Desk) generations(g *running, older []*running) {
	var all []GenerationStatus
	add := func(of *running, state State, since time.Time) {
		all = append(all, GenerationStatus{
			Number: of.number, State: state, Since: since, Pid: of.proc.Pid(),
			Version: of.describe.GetVersion(), SHA256: of.plugin.SHA256, proc: of.proc,
		})
	}
	if g != nil {
		add(g, StateReady, g.readyAt)
	}
	for _, of := range slices.Backward(older) {
		state := StateDraining
		if g != nil && Has(of, deskv1.Capability_CAPABILITY_RESUME) && Has(g, deskv1.Capability_CAPABILITY_RESUME) {
			state = StateHandingOver
		}
		add(of, state, of.replacedAt)
	}
	d.note(func(s *Status) { s.Generations = all })
}

func (d *Desk) ready(g *running, older []*running) {
	d.current.Store(g)
	d.generations(g, older)
	d.publish(StateReady, func(s *Status) {
		s.Generation = g.number
		s.File, s.SHA256, s.Pid = g.plugin.File, g.plugin.SHA256, g.proc.Pid()
		s.Version, s.Title = g.describe.GetVersion(), g.describe.GetTitle()
		s.SendDedupe, s.Replay = SendDedupeName(g.describe.GetSendDedupe()), ReplayName(g.describe.GetReplay())
		s.Capabilities = CapabilityNames(g.describe.GetCapabilities())
	})
	d.settle()
	d.opts.Log.Info("desk ready", "plugin", g.plugin.Name, "version", g.describe.GetVersion(),
		"generation", g.number, "pid", g.proc.Pid(), "sha256", g.plugin.SHA256)
}

// kept tells that a generation which was to take over did not come to that.
func (d *Desk) kept(cause error) {
	d.note(func(s *Status) { s.LastError = cause.Error() })
	d.opts.Log.Error("desk keeps its process, the new one is not fit to take its place", "generation", d.status.Load().Generation, "cause", cause)
}

func (d *Desk) draining(cause error) {
	d.current.Store(nil)
	d.publish(StateDraining, func(s *Status) { s.Generations = nil })
	d.opts.Log.Info("desk draining", "cause", cause)
}

func (d *Desk) crashed(cause error) {
	d.note(func(s *Status) { s.Crashes, s.LastError = s.Crashes+1, cause.Error() })
}

func (d *Desk) waiting(state State, cause error, next time.Time) {
	d.publish(state, func(s *Status) { s.Pid, s.LastError, s.NextStart = 0, cause.Error(), &next })
	d.settle()
	d.opts.Log.Error("desk down", "state", state, "cause", cause, "next_start_in", time.Until(next).Round(time.Millisecond))
}

func (d *Desk) disabled() {
	d.publish(StateDisabled, func(s *Status) { s.Pid = 0 })
	d.settle()
	d.opts.Log.Info("desk disabled")
}

func (d *Desk) stopped() {
	d.publish(StateStopped, func(s *Status) { s.Pid = 0 })
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
