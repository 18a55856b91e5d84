package host

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/config"
	"github.com/deskhost/deskhost/host/internal/desk"
)

// A configuration that is changed while the host starts is taken once it has.
func TestReloadWaitsForTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Host{log: hclog.NewNullLogger(), began: make(chan struct{})}
		reloaded := make(chan error, 1)
		go func() {
			reloaded <- h.Reload(context.Background(), func() (*config.Config, error) { return nil, errors.New("loaded") })
		}()
		synctest.Wait()
		select {
		case err := <-reloaded:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
		h.config.Store(&loaded{config: &config.Config{}})
		h.running = t.Context()
		close(h.began)
		if err := <-reloaded; err == nil || err.Error() != "loaded" {
			t.Errorf("told %v", err)
		}
	})
}

// TestOneDeskThatCannotChange: the others get what the configuration says.
func TestOneDeskThatCannotChange(t *testing.T) {
	folder, err := catalog.OpenFolder(t.TempDir(), t.TempDir(), catalog.Usual, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	h := &Host{
		log: hclog.NewNullLogger(), running: running,
		source: desk.Source{Folder: folder, RunDir: t.TempDir()}, disabled: disabledDesks(t.TempDir()),
	}
	t.Cleanup(func() {
		stop()
		for _, s := range h.desks.list() {
			<-s.ended
		}
	})
	named := func(plugin string, names ...string) *config.Config {
		c := &config.Config{}
		for _, name := range names {
			c.Desks = append(c.Desks, config.Desk{Name: name, Plugin: plugin})
			if err := h.disabled.add(name); err != nil { // a disabled desk has no process
				t.Fatal(err)
			}
		}
		return c
	}
	if err := h.changeDesks(t.Context(), named("old", "ended", "changed", "removed")); err != nil {
		t.Fatal(err)
	}
	h.desks.find("ended").end()
	removed := h.desks.find("removed")

	err = h.changeDesks(t.Context(), named("new", "ended", "changed", "added"))
	if err == nil || !strings.Contains(err.Error(), `desk "ended" goes on as it was`) || strings.Contains(err.Error(), "changed") {
		t.Errorf("it says %v", err)
	}
	for name, want := range map[string]string{"ended": "old", "changed": "new", "added": "new"} {
		s := h.desks.find(name)
		if s == nil || s.config.Plugin != want || s.Status().Plugin != want {
			t.Errorf("%s: %+v, want plugin %s", name, s, want)
		}
	}
	if h.desks.find("removed") != nil {
		t.Error("a desk that was removed is still there")
	}
	select {
	case <-removed.ended:
	default:
		t.Error("a desk that was removed still runs")
	}
}
