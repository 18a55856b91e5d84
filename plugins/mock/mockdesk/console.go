package mockdesk

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/deskapi"
)

// The console's page and the samples that commands.json links to. All of it
// lies under /console/ and has relative links only, so that it works behind
// any prefix.
//
//go:embed console
var consoleFiles embed.FS

const (
	// consoleWait is how long a poll waits for something new: well under the
	// four seconds that a forwarded request has.
	consoleWait = 2500 * time.Millisecond
	// consoleList bounds the conversations in the list.
	consoleList = 100
	// consoleBytes bounds the encoded events of one answer.
	consoleBytes = 256 << 10
)

// consoleState is what the page shows.
type consoleState struct {
	Version       uint64           `json:"version"`
	Online        *bool            `json:"online"`
	Agents        []deskapi.Agent  `json:"agents"`
	Waiting       int              `json:"waiting"`
	Connected     int              `json:"connected"`
	Ended         int              `json:"ended"`
	Conversations []consoleSummary `json:"conversations"`
	Open          *consoleOpen     `json:"open,omitempty"`
}

// consoleSummary is a line of the list.
type consoleSummary struct {
	Key     string         `json:"key"`
	Name    string         `json:"name"`
	State   string         `json:"state"` // "waiting", "connected" or "ended"
	Agent   *deskapi.Agent `json:"agent,omitempty"`
	Next    *deskapi.Agent `json:"next,omitempty"`
	Manual  bool           `json:"manual"`
	Typing  bool           `json:"typing"`
	Unread  int            `json:"unread"`
	Preview string         `json:"preview"`
	Started time.Time      `json:"started"`
	Changed time.Time      `json:"changed"`
}

// consoleOpen is the conversation that the page has open.
type consoleOpen struct {
	consoleSummary

	ID       string            `json:"id"`
	Context  deskapi.Context   `json:"context"`
	UserRead uint64            `json:"user_read"`
	Events   []json.RawMessage `json:"events"`
	More     bool              `json:"more"`
}

func (d *Desk) console(m *http.ServeMux) {
	files, err := fs.Sub(consoleFiles, "console")
	if err != nil {
		panic(err) // the name is a constant
	}
	m.Handle("GET /console/", http.StripPrefix("/console/", http.FileServerFS(files)))
	m.HandleFunc("GET /console", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "console/")
		w.WriteHeader(http.StatusFound)
	})
	m.Handle("GET /{$}", http.RedirectHandler("console/", http.StatusFound))
	m.HandleFunc("GET /console/api/state", d.serve("", d.serveConsoleState))
	m.HandleFunc("POST /console/api/conversations/{key}", d.serve("", d.serveConsoleDo))
	m.HandleFunc("PUT /console/api/online", d.serve("", d.serveConsoleOnline))
	m.HandleFunc("PUT /console/api/faults", d.serve("", d.serveConsoleFaults))
}

// serveConsoleState answers once there is something newer than the version
// that the page has. It sends the events of the open conversation behind the
// seq that the page has.
func (d *Desk) serveConsoleState(r *http.Request, _ []byte) (any, error) {
	q := r.URL.Query()
	have, _ := strconv.ParseUint(q.Get("version"), 10, 64)
	after, _ := strconv.ParseUint(q.Get("after"), 10, 64)
	d.awaitChange(r.Context(), have)

	d.mu.Lock()
	defer d.mu.Unlock()
	s := &consoleState{Version: d.version, Online: d.online, Agents: d.script.Agents}
	all := make([]*conversation, 0, len(d.conversations))
	for _, c := range d.conversations {
		all = append(all, c)
		switch c.state() {
		case "waiting":
			s.Waiting++
		case "connected":
			s.Connected++
		default:
			s.Ended++
		}
	}
	slices.SortFunc(all, func(a, b *conversation) int {
		if a.over != b.over {
			if a.over {
				return 1
			}
			return -1
		}
		if a.over {
			return b.changed.Compare(a.changed)
		}
		return b.started.Compare(a.started)
	})
	s.Conversations = []consoleSummary{}
	for _, c := range all[:min(len(all), consoleList)] {
		s.Conversations = append(s.Conversations, c.summary())
	}
	if c := d.conversations[q.Get("key")]; c != nil {
		s.Open = c.console(after)
	}
	return s, nil
}

// awaitChange returns when the desk's version is another than the one given,
// or after consoleWait.
func (d *Desk) awaitChange(ctx context.Context, have uint64) {
	changed, stop := d.listen()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, consoleWait)
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
		return "ended"
	case c.agent != nil:
		return "connected"
	default:
		return "waiting"
	}
}

func (c *conversation) summary() consoleSummary {
	name := c.context.User.Name
	if name == "" {
		name = c.context.User.ID
	}
	preview := []rune(c.preview)
	return consoleSummary{
		Key: c.key, Name: name, State: c.state(), Agent: c.agent, Next: c.next, Manual: c.manual,
		Typing: c.userTyping, Unread: c.unread, Preview: string(preview[:min(len(preview), 120)]),
		Started: c.started, Changed: c.changed,
	}
}

func (c *conversation) console(after uint64) *consoleOpen {
	o := &consoleOpen{
		consoleSummary: c.summary(), ID: c.id, Context: c.context, UserRead: c.userRead, Events: []json.RawMessage{},
	}
	h := c.history(after, maxHistory)
	size := 0
	for i := range h.Events {
		e := h.Events[i]
		raw, err := json.Marshal(e)
		if len(raw) > consoleBytes && e.Start != nil {
			// A long history alone can be more than one answer holds.
			e.Start = &deskapi.StartRequest{Text: e.Start.Text}
			raw, err = json.Marshal(e)
		}
		if size += len(raw); err != nil || i > 0 && size > consoleBytes {
			h.More = true
			break
		}
		o.Events = append(o.Events, raw)
	}
	o.More = h.More
	return o
}

func (d *Desk) serveConsoleDo(r *http.Request, body []byte) (any, error) {
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

func (d *Desk) serveConsoleOnline(_ *http.Request, body []byte) (any, error) {
	var req struct {
		Online *bool `json:"online"`
	}
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.online = req.Online
	d.change()
	return nothing{}, nil
}

// serveConsoleFaults puts others in the place of the script's faults. First and
// every count from now on.
func (d *Desk) serveConsoleFaults(_ *http.Request, body []byte) (any, error) {
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
