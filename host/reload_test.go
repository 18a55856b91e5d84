package host

import (
	"context"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/config"
	"github.com/deskhost/deskhost/host/internal/desk"
)

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
