package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/admin"
	"github.com/deskhost/deskhost/host/internal/config"
	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/session"
)

// desks are the desks that are served. A reload of the configuration adds some
// and removes others.
type desks struct {
	mu  sync.RWMutex
	all []*served // in the order of the configuration
}

// served is one desk and the goroutine that runs it.
type served struct {
	*desk.Desk

	config config.Desk
	stop   context.CancelFunc
	ended  chan struct{}
	// marking is held while the mark that the desk is disabled, and the desk with it,
	// changes: two operators at the same moment must not leave the two apart.
	marking *sync.Mutex
}

// list returns the desks of this moment.
func (d *desks) list() []*served {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.all)
}

// find returns a desk, nil if there is none of that name.
func (d *desks) find(name string) *served {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, s := range d.all {
		if s.config.Name == name {
			return s
		}
	}
	return nil
}

// of returns the configurations of the desks that use a plugin.
func (d *desks) of(plugin string) (users []config.Desk) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, s := range d.all {
		if s.config.Plugin == plugin {
			users = append(users, s.config)
		}
	}
	return users
}

// copies are the hashes of the plugins' copies that the desks need.
func (d *desks) copies() (all []string) {
	for _, s := range d.list() {
		all = append(all, s.Copies()...)
	}
	return all
}

// set says which desks there are from now on.
func (d *desks) set(all []*served) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = all
}

// Current implements [webhook.Desks].
func (d *desks) Current(name string) (desk.Generation, bool) {
	found := d.find(name)
	if found == nil {
		return nil, false
	}
	return found.Current(), true
}

// newServed makes a desk that does not run yet.
func newServed(c config.Desk, opts desk.Options) *served {
	return &served{Desk: desk.New(opts), config: c, ended: make(chan struct{}), marking: new(sync.Mutex)}
}

// start runs the desk until ctx ends or it is removed.
func (s *served) start(ctx context.Context, log hclog.Logger) {
	ctx, s.stop = context.WithCancel(ctx)
	go func() {
		defer close(s.ended)
		if err := s.Run(ctx); err != nil {
			log.Error("desk did not end well", "desk", s.config.Name, "error", err)
		}
	}()
}

// end stops the desk and waits until no process of it is left.
func (s *served) end() {
	s.stop()
	<-s.ended
}

// disable marks the desk, and turns it off. The mark comes first: a host that dies
// in between does as it was told.
func (s *served) disable(ctx context.Context, marks disabledDesks) error {
	s.marking.Lock()
	defer s.marking.Unlock()
	if err := marks.add(s.config.Name); err != nil {
		return err
	}
	return s.Disable(ctx)
}

// enable undoes disable, and waits for the outcome of the start.
func (s *served) enable(ctx context.Context, marks disabledDesks) error {
	s.marking.Lock()
	var started func(context.Context) error
	err := marks.remove(s.config.Name)
	if err == nil {
		started, err = s.BeginEnable(ctx)
	}
	s.marking.Unlock()
	if err != nil {
		return err
	}
	return started(ctx)
}

// states is what operators are told of each desk.
func (d *desks) states(chats map[string]session.DeskChats) []admin.Desk {
	all := d.list()
	states := make([]admin.Desk, len(all))
	for i, s := range all {
		status := s.Status()
		states[i] = admin.Desk{Status: status, Chats: chats[status.Name].Open, ChatsAway: chats[status.Name].Away}
		select {
		case <-s.Settled():
			states[i].Settled = true
		default:
		}
	}
	return states
}

// disabledDesks remembers in the data folder which desks an operator has turned
// off: a desk that was taken out of service must not come back with a restart.
// Each is an empty file of the desk's name.
type disabledDesks string

func (d disabledDesks) has(name string) bool {
	_, err := os.Stat(filepath.Join(string(d), name))
	return err == nil
}

func (d disabledDesks) add(name string) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(string(d), name), nil, 0o600)
}

func (d disabledDesks) remove(name string) error {
	if err := os.Remove(filepath.Join(string(d), name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
