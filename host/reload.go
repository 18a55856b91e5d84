package host

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/deskhost/deskhost/host/internal/admin"
	"github.com/deskhost/deskhost/host/internal/api"
	"github.com/deskhost/deskhost/host/internal/config"
)

// loaded is the configuration that holds.
type loaded struct {
	config   *config.Config
	verifier api.Verifier // of the keys that config names, as they were then
	at       time.Time
	// problem says that a later one was refused, or who does not go by this one,
	// and why.
	problem string
}

// configState is for operators.
func (h *Host) configState() admin.Config {
	l := h.config.Load()
	return admin.Config{Loaded: l.at, Problem: l.problem}
}

// errStops is the answer to changes once the host ends.
var errStops = errors.New("the host stops; nothing was changed")

// Reload takes the configuration that load reads. Only what it changes is
// touched: a desk is started, ended, or gets a new process; the widgets' door is
// replaced if its settings differ. If anything is wrong, nothing changes, and the
// error says why. A desk that cannot be told its part then goes on as it was, and
// all else is changed: that is logged and shown, and the next Reload tells the
// desk again. What only a restart can change is logged. Before Run it waits.
func (h *Host) Reload(ctx context.Context, load func() (*config.Config, error)) error {
	select {
	case <-h.began:
	case <-ctx.Done():
		return ctx.Err()
	}
	h.changing.Lock()
	defer h.changing.Unlock()
	if h.running == nil {
		return errStops
	}
	before := h.config.Load()
	next, err := load()
	var verifier api.Verifier
	var door *api.API
	if err == nil {
		verifier, door, err = h.prepare(ctx, before, next)
	}
	if err != nil {
		h.config.Store(&loaded{before.config, before.verifier, before.at, "not taken, the one before holds: " + err.Error()})
		return err
	}
	taken := &loaded{config: next, verifier: verifier, at: time.Now()}
	h.sessions.Reconfigure(deskNames(next), next.DefaultDesk, sessionLimits(next.Limits))
	if err := h.changeDesks(ctx, next); err != nil {
		taken.problem = "taken in part: " + err.Error()
		h.log.Error("configuration taken in part", "file", next.File, "problem", err)
	} else {
		h.log.Info("configuration taken", "file", next.File, "desks", len(next.Desks))
	}
	if door != nil {
		h.replaceDoor(door)
	}
	h.config.Store(taken)
	return nil
}

// prepare makes sure that one configuration can follow another. It returns its
// verifier, and another door for widgets if they need one.
func (h *Host) prepare(ctx context.Context, before *loaded, next *config.Config) (api.Verifier, *api.API, error) {
	if keys := keepFixed(before.config, next); len(keys) > 0 {
		h.log.Warn("some settings are taken at the next start only", "keys", strings.Join(keys, ", "))
	}
	var unlike []config.Desk // new or changed
	for _, d := range next.Desks {
		if !slices.ContainsFunc(before.config.Desks, d.Same) {
			unlike = append(unlike, d)
		}
	}
	byDesk, err := h.roster.check(ctx, unlike, deskLimits(next.Limits))
	if err != nil {
		return nil, nil, err
	}
	if problems := slices.Concat(byDesk...); len(problems) > 0 {
		problems.Sort()
		return nil, nil, problems
	}
	// Its file may hold other keys under the same name.
	verifier, err := loadVerifier(next)
	if err != nil {
		return nil, nil, err
	}
	if sameDoor(before.config, next) && reflect.DeepEqual(before.verifier, verifier) {
		return verifier, nil, nil
	}
	door, err := h.newAPI(next, verifier)
	return verifier, door, err
}

// changeDesks has the desks be those of a configuration. The error names each
// that goes on as it was.
func (h *Host) changeDesks(ctx context.Context, next *config.Config) error {
	var all, added []*served
	var failed []error
	for _, d := range next.Desks {
		s := h.desks.find(d.Name)
		if s == nil {
			s = newServed(d, h.deskOptions(next, d))
			added = append(added, s)
		} else if err := s.Reconfigure(ctx, h.deskOptions(next, d)); err != nil {
			failed = append(failed, fmt.Errorf("desk %q goes on as it was: %w", d.Name, err))
			all = append(all, s)
			continue
		}
		all = append(all, &served{Desk: s.Desk, config: d, stop: s.stop, ended: s.ended, marking: s.marking})
	}
	before := h.desks.list()
	h.desks.set(all)
	for _, s := range added {
		h.log.Info("desk added to the configuration", "desk", s.config.Name)
		h.desks.find(s.config.Name).start(h.running, h.log)
	}
	for _, s := range before {
		if !slices.ContainsFunc(next.Desks, func(d config.Desk) bool { return d.Name == s.config.Name }) {
			h.log.Info("desk removed from the configuration", "desk", s.config.Name)
			s.end()
		}
	}
	return errors.Join(failed...)
}

// replaceDoor has new calls and sockets come through another door. Those of the
// one before come back by themselves.
func (h *Host) replaceDoor(door *api.API) {
	old := h.api.Swap(door)
	h.retiring.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), parkTimeout)
		defer cancel()
		if err := old.Close(ctx); err != nil {
			h.log.Warn("sockets had to be cut", "error", err)
		}
	})
}

// sameDoor tells whether two configurations want the same of the widgets' door.
func sameDoor(a, b *config.Config) bool {
	return slices.Equal(a.Origins, b.Origins) && a.Identity == b.Identity && apiLimits(a.Limits) == apiLimits(b.Limits)
}

// keepFixed sets what cannot change while the host runs to what it is, and
// returns the keys of what should have.
func keepFixed(before, next *config.Config) (keys []string) {
	for key, of := range map[string]func(*config.Config) any{
		"listen":     func(c *config.Config) any { return &c.Listen },
		"admin":      func(c *config.Config) any { return &c.Admin },
		"data_dir":   func(c *config.Config) any { return &c.DataDir },
		"plugin_dir": func(c *config.Config) any { return &c.PluginDir },
		"demo":       func(c *config.Config) any { return &c.Demo },
		"retention":  func(c *config.Config) any { return &c.Retention },
	} {
		from, to := reflect.ValueOf(of(before)).Elem(), reflect.ValueOf(of(next)).Elem()
		if !from.Equal(to) {
			to.Set(from)
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// verbs are what operators may do over the control socket.
func (h *Host) verbs() admin.Verbs {
	with := func(do func(context.Context, *served) error) func(context.Context, string) error {
		return func(ctx context.Context, name string) error {
			s := h.desks.find(name)
			if s == nil {
				return admin.ErrNoDesk
			}
			return do(ctx, s)
		}
	}
	return admin.Verbs{
		Plugin: h.pluginInfo,
		Reload: with(func(ctx context.Context, s *served) error { return s.Reload(ctx) }),
		// Also if who asked goes: a desk that is busy does it behind that.
		Disable: with(func(ctx context.Context, s *served) error {
			return s.disable(context.WithoutCancel(ctx), h.disabled)
		}),
		Enable: with(func(ctx context.Context, s *served) error {
			return s.enable(context.WithoutCancel(ctx), h.disabled)
		}),
	}
}

// pluginInfo is what a plugin says of itself, with the desks that use it.
func (h *Host) pluginInfo(ctx context.Context, name string) (any, error) {
	users, user := h.desks.of(name), ""
	if len(users) > 0 {
		user = users[0].User
	}
	info, err := h.roster.info(ctx, name, user)
	if err != nil {
		return nil, err
	}
	for _, d := range h.desks.states(h.sessions.OpenChats()) {
		if d.Plugin == name {
			info.Desks = append(info.Desks, d)
		}
	}
	return info, nil
}
