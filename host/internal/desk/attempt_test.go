package desk

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// before says what each start does first; it may fail.
func (h *haunted) before(first func(ctx context.Context, number uint64, config string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.first = first
}

// reconfigure changes the desk's configuration, and who hears of it.
func (h *haunted) reconfigure(config string, handler Handler) {
	h.t.Helper()
	opts := h.desk.opts
	opts.Config, opts.Handler = []byte(config), handler
	if err := h.desk.Reconfigure(h.t.Context(), opts); err != nil {
		h.t.Fatal(err)
	}
}

func TestConfigurationCorrectedWhileTheWrongOneIsTried(t *testing.T) {
	var last string
	haunt(t, func(h *haunted) {
		h.heal()
		h.before(func(_ context.Context, _ uint64, config string) error {
			if last = config; config == "wrong" {
				time.Sleep(30 * time.Second)
				return errors.New("wrong configuration")
			}
			return nil
		})
	}, func(h *haunted) {
		time.Sleep(time.Second)
		h.reconfigure("wrong", deaf{})
		time.Sleep(10 * time.Second)
		h.reconfigure("right", deaf{})
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := h.desk.Status(); last != "right" || s.State != StateReady {
			t.Errorf("started with %q last, status %+v", last, s)
		}
	})
}

func TestReloadIsToldOfItsOwnStart(t *testing.T) {
	haunt(t, func(h *haunted) {
		h.heal()
		h.before(func(_ context.Context, number uint64, _ string) error {
			switch number {
			case 2:
				time.Sleep(5 * time.Second)
			case 3:
				return errors.New("the newest is broken")
			}
			return nil
		})
	}, func(h *haunted) {
		time.Sleep(time.Second)
		first := make(chan error, 1)
		go func() { first <- h.desk.Reload(context.Background()) }()
		time.Sleep(time.Second)
		if err := h.desk.Reload(h.t.Context()); err == nil {
			t.Error("the second was told that all is well")
		}
		if err := <-first; err != nil {
			t.Errorf("the first was told %v", err)
		}
	})
}

func TestStatusWhileTheSuccessorOfALostProcessStarts(t *testing.T) {
	haunt(t, func(h *haunted) {
		h.heal()
		h.before(func(_ context.Context, number uint64, _ string) error {
			if number == 2 {
				time.Sleep(25 * time.Second)
			}
			return nil
		})
	}, func(h *haunted) {
		time.Sleep(time.Second)
		reloaded := make(chan error, 1)
		go func() { reloaded <- h.desk.Reload(context.Background()) }()
		time.Sleep(time.Second)
		h.crash()
		time.Sleep(time.Second)
		if s := h.desk.Status(); s.State != StateStarting || s.Pid != 0 || len(s.Generations) != 0 || s.Crashes != 1 {
			t.Errorf("status %+v", s)
		}
		if err := <-reloaded; err != nil {
			t.Error(err)
		}
	})
}

func TestDisabledAndEnabledDuringAStart(t *testing.T) {
	haunt(t, func(h *haunted) {
		h.heal()
		h.before(func(ctx context.Context, number uint64, _ string) error {
			if number == 1 {
				<-ctx.Done()
				time.Sleep(time.Second) // until it is killed
			}
			return ctx.Err()
		})
	}, func(h *haunted) {
		time.Sleep(time.Second)
		if err := h.desk.Disable(h.t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := h.desk.Enable(h.t.Context()); err != nil {
			t.Error(err)
		}
		if s := h.desk.Status(); s.State != StateReady || s.Crashes != 0 || s.LastError != "" {
			t.Errorf("status %+v", s)
		}
	})
}

// clinging is a handler whose chats never leave their generation.
type clinging struct{ deaf }

func (clinging) Chats(string, uint64) int { return 1 }

func TestHandOverIsNotUndoneAfterHours(t *testing.T) {
	configs := map[uint64]string{}
	haunt(t, func(h *haunted) {
		h.heal()
		h.before(func(_ context.Context, number uint64, config string) error {
			configs[number] = config
			return nil
		})
		h.mu.Lock()
		h.resumes = true
		h.mu.Unlock()
	}, func(h *haunted) {
		time.Sleep(time.Second)
		h.reconfigure("old", clinging{})
		time.Sleep(5 * time.Hour)
		h.reconfigure("new", clinging{})
		time.Sleep(3 * time.Hour)
		h.crash()
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := h.desk.Status(); configs[s.Generation] != "new" || s.State != StateReady {
			t.Errorf("configuration %q, status %+v", configs[s.Generation], s)
		}
	})
}

func TestReloadOfADeskThatIsDisabledMeanwhileIsAnswered(t *testing.T) {
	haunt(t, func(h *haunted) {
		h.heal()
		h.before(func(ctx context.Context, number uint64, _ string) error {
			if number == 2 {
				<-ctx.Done()
			}
			return ctx.Err()
		})
	}, func(h *haunted) {
		time.Sleep(time.Second)
		outcomes := make(chan error, 2)
		for range 2 { // the second comes while the start for the first is under way
			go func() { outcomes <- h.desk.Reload(context.Background()) }()
			synctest.Wait()
		}
		if err := h.desk.Disable(h.t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-outcomes; !errors.Is(err, errDisabled) {
				t.Errorf("told %v", err)
			}
		}
	})
}

// A desk that is on, and down, is not started sooner for being enabled: whoever asks
// is told at once, and why it is down.
func TestEnableOfADeskThatIsDownIsAnswered(t *testing.T) {
	haunt(t, func(*haunted) {}, func(h *haunted) {
		h.after(20*time.Second, StateQuarantined, 5)
		began := time.Now()
		err := h.desk.Enable(h.t.Context())
		if err == nil || !strings.Contains(err.Error(), "it crashed") || time.Since(began) > 0 {
			t.Errorf("told %v after %s", err, time.Since(began))
		}
		h.after(0, StateQuarantined, 5)
	})
}

func TestEnableDuringAStartIsToldOfIt(t *testing.T) {
	haunt(t, func(h *haunted) {
		h.before(func(context.Context, uint64, string) error {
			time.Sleep(5 * time.Second)
			return errors.New("no licence")
		})
	}, func(h *haunted) {
		time.Sleep(time.Second)
		err := h.desk.Enable(h.t.Context())
		if err == nil || !strings.Contains(err.Error(), "no licence") || time.Since(h.began) != 5*time.Second {
			t.Errorf("told %v after %s", err, time.Since(h.began))
		}
	})
}

// The copy that a desk goes back to, when the newest does not start, is one that it
// needs, and so is that of a process which still has chats.
func TestCopiesAreThoseThatMayStart(t *testing.T) {
	haunt(t, func(h *haunted) { h.heal() }, func(h *haunted) {
		folder := h.desk.opts.Source.Folder
		newest := func() string { return folder.Files()[0].Copy.SHA256 }
		build := func(content string) string {
			t.Helper()
			if err := os.WriteFile(folder.Files()[0].File, []byte("#!/bin/sh\n"+content), 0o755); err != nil {
				t.Fatal(err)
			}
			folder.Look(time.Now())
			time.Sleep(time.Minute)
			folder.Look(time.Now())
			time.Sleep(time.Minute)
			return newest()
		}
		want := func(what string, hashes ...string) {
			t.Helper()
			slices.Sort(hashes)
			got := slices.Compact(slices.Sorted(slices.Values(h.desk.Copies())))
			if !slices.Equal(got, hashes) {
				t.Errorf("%s: the desk needs %v, want %v", what, got, hashes)
			}
		}
		time.Sleep(time.Minute)
		first := newest()
		want("started", first)
		h.before(func(context.Context, uint64, string) error { return errors.New("a broken build") })
		build("broken")
		want("a broken build", first, build("broken again"))
		h.before(nil)
		h.reconfigure("another", clinging{})
		time.Sleep(time.Minute)
		good := newest()
		want("the processes' chats stay where they are", first, good)
		want("one more", first, good, build("better"))
		time.Sleep(5 * time.Hour)
		want("all have had their time", newest())
	})
}
