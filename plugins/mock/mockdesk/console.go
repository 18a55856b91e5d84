package mockdesk

import (
	"cmp"
	"context"
	"embed"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/deskhost/deskhost/plugins/internal/console"
)

// The samples that commands.json and the console link to. They lie under
// /console/, which a browser reaches wherever it reaches the page.
//
//go:embed samples
var samples embed.FS

const (
	// stateWait is how long a request for the state waits for something new:
	// well under the four seconds that a forwarded request has.
	stateWait = 2500 * time.Millisecond
	// stateList bounds the conversations in a state.
	stateList = 100
)

// deskState is the desk as programs see it that play the agent.
type deskState struct {
	Version       uint64              `json:"version"`
	Conversations []conversationState `json:"conversations"`
	Open          *conversationState  `json:"open,omitempty"`
}

type conversationState struct {
	Key      string    `json:"key"`
	Name     string    `json:"name"`
	State    string    `json:"state"` // "waiting", "connected" or "ended"
	Typing   bool      `json:"typing"`
	UserRead uint64    `json:"user_read"`
	Started  time.Time `json:"started"`
}

// console serves the agents' page, and what programs play agents by.
func (d *Desk) console(m *http.ServeMux) {
	m.Handle("/console/", http.StripPrefix("/console", d.page()))
	m.Handle("GET /console/samples/", http.StripPrefix("/console/", http.FileServerFS(samples)))
	m.HandleFunc("GET /console", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "console/")
		w.WriteHeader(http.StatusFound)
	})
	m.Handle("GET /{$}", http.RedirectHandler("console/", http.StatusFound))
	m.HandleFunc("GET /console/api/state", d.serve("", d.serveState))
	m.HandleFunc("POST /console/api/conversations/{key}", d.serve("", d.serveSteps))
	m.HandleFunc("PUT /console/api/faults", d.serve("", d.serveFaults))
}

// serveState answers once there is something newer than the version that the
// caller has. It tells of the conversations that were started last, and of the
// one with the key.
func (d *Desk) serveState(r *http.Request, _ []byte) (any, error) {
	q := r.URL.Query()
	have, _ := strconv.ParseUint(q.Get("version"), 10, 64)
	d.awaitChange(r.Context(), have)

	d.mu.Lock()
	defer d.mu.Unlock()
	s := &deskState{Version: d.version, Conversations: []conversationState{}}
	latest := d.latest()
	for _, c := range latest[:min(len(latest), stateList)] {
		s.Conversations = append(s.Conversations, c.shown())
	}
	if c := d.conversations[q.Get("key")]; c != nil {
		open := c.shown()
		s.Open = &open
	}
	return s, nil
}

// awaitChange returns when the desk's version is another than the one given,
// or after stateWait.
func (d *Desk) awaitChange(ctx context.Context, have uint64) {
	changed, stop := d.listen()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, stateWait)
	defer cancel()
	for {
		d.mu.Lock()
		same := d.version == have && !d.closed
		d.mu.Unlock()
		if !same {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (c *conversation) state() string {
	switch {
	case c.over:
		return console.Ended
	case c.agent != nil:
		return console.Connected
	default:
		return console.Waiting
	}
}

// name is what the customer is called, if anything.
func (c *conversation) name() string { return cmp.Or(c.context.User.Name, c.context.User.ID) }

func (c *conversation) shown() conversationState {
	return conversationState{
		Key: c.key, Name: c.name(), State: c.state(), Typing: c.userTyping, UserRead: c.userRead, Started: c.started,
	}
}

// latest returns all conversations, the latest first. The lock is held.
func (d *Desk) latest() []*conversation {
	return slices.SortedFunc(maps.Values(d.conversations), func(a, b *conversation) int { return b.started.Compare(a.started) })
}

func (d *Desk) serveSteps(r *http.Request, body []byte) (any, error) {
	var req struct {
		Agent string `json:"agent"`
		Do    []Step `json:"do"`
	}
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return nothing{}, d.perform(r.PathValue("key"), req.Agent, req.Do)
}

// serveFaults puts others in the place of the script's faults. First and
// every count from now on.
func (d *Desk) serveFaults(_ *http.Request, body []byte) (any, error) {
	var faults Faults
	if err := decode(body, &faults); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return nothing{}, d.setFaults(faults)
}

// setFaults puts faults in the place of those there are. The lock is held.
func (d *Desk) setFaults(faults Faults) error {
	if err := faults.check(); err != nil {
		return invalid(err.Error())
	}
	d.faults = faults
	clear(d.calls)
	return nil
}
