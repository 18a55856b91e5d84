package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
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

// jwks are the public keys of a file, by their ids.
func jwks(t *testing.T, file string, ids ...string) {
	t.Helper()
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = `{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "` + id + `",
			"x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`
	}
	if err := os.WriteFile(file, []byte(`{"keys": [`+strings.Join(keys, ",")+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A key that is taken out of the file holds no longer than a reload, which touches the
// door for nothing else.
func TestKeysAreReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	h := &Host{log: hclog.NewNullLogger(), roster: newRoster(desk.Source{}, desk.DefaultLimits, hclog.NewNullLogger())}
	c := &config.Config{Limits: config.DefaultLimits(), Identity: config.Identity{JWKSFile: file}}
	jwks(t, file, "old")
	verifier, err := loadVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	before := &loaded{config: c, verifier: verifier}
	prepare := func() (door bool) {
		t.Helper()
		next := *c
		verifier, made, err := h.prepare(t.Context(), before, &next)
		if err != nil {
			t.Fatal(err)
		}
		before = &loaded{config: &next, verifier: verifier}
		return made != nil
	}
	if prepare() {
		t.Error("another door for the same keys")
	}
	jwks(t, file, "old", "new")
	if !prepare() {
		t.Error("no other door for one key more")
	}
	jwks(t, file, "new")
	if !prepare() || prepare() {
		t.Error("no other door for one key less, or two")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.prepare(t.Context(), before, c); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("without the file: %v", err)
	}
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
