package host

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/config"
	"github.com/deskhost/deskhost/host/internal/desk"
)

// An operator who does not wait for a desk that is busy leaves it as its mark in the
// data folder says, and not the other way round.
func TestVerbsOfWhoHasGone(t *testing.T) {
	plugins, store := t.TempDir(), t.TempDir()
	marks := disabledDesks(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		folder, err := catalog.OpenFolder(plugins, store, catalog.Usual, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		for _, test := range []struct {
			verb     func(*Host) error
			disabled bool
		}{
			{func(h *Host) error { return h.verbs().Disable(gone, "support") }, true},
			{func(h *Host) error { return h.verbs().Enable(gone, "support") }, false},
		} {
			h := &Host{disabled: marks}
			s := newServed(config.Desk{Name: "support"}, desk.Options{
				Name: "support", Source: desk.Source{Plugin: "gone", Folder: folder}, Disabled: marks.has("support"),
				Limits: desk.DefaultLimits(), Log: hclog.NewNullLogger(),
			})
			h.desks.set([]*served{s})
			answered := make(chan error, 1)
			go func() { answered <- test.verb(h) }()
			synctest.Wait() // The desk does not yet run, and so cannot be told.
			s.start(t.Context(), hclog.NewNullLogger())
			<-answered // There is no plugin, so that of Enable is an error.
			synctest.Wait()
			if is := s.Status().State == desk.StateDisabled; is != test.disabled || marks.has("support") != test.disabled {
				t.Errorf("disabled %t and marked %t, want %t", is, marks.has("support"), test.disabled)
			}
			s.end()
		}
	})
}

// Of two operators at the same moment, one who disables a desk and one who enables
// it, either has the last word, with the desk and with its mark in the data folder.
func TestVerbsAtTheSameMoment(t *testing.T) {
	plugins, store := t.TempDir(), t.TempDir()
	marks := disabledDesks(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		folder, err := catalog.OpenFolder(plugins, store, catalog.Usual, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		h := &Host{disabled: marks}
		s := newServed(config.Desk{Name: "support"}, desk.Options{
			Name: "support", Source: desk.Source{Plugin: "gone", Folder: folder},
			Limits: desk.DefaultLimits(), Log: hclog.NewNullLogger(),
		})
		h.desks.set([]*served{s})
		s.start(t.Context(), hclog.NewNullLogger())
		defer s.end()
		for range 500 {
			var operators sync.WaitGroup
			operators.Go(func() { _ = h.verbs().Disable(t.Context(), "support") })
			operators.Go(func() { _ = h.verbs().Enable(t.Context(), "support") }) // fails, there is no plugin
			operators.Wait()
			synctest.Wait()
			if is, marked := s.Status().State == desk.StateDisabled, marks.has("support"); is != marked {
				t.Fatalf("disabled %t and marked %t", is, marked)
			}
		}
	})
}
