//go:build unix

package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// drop renames another build of a program into a plugin folder.
func drop(t testing.TB, program, build, file string) {
	t.Helper()
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	built := filepath.Join(t.TempDir(), "built")
	if err := os.WriteFile(built, append(content, build...), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(built, file); err != nil {
		t.Fatal(err)
	}
}

// awaitDesk waits until a desk is as wanted.
func awaitDesk(t testing.TB, h *Host, name string, want func(Desk) bool) Desk {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for give := time.Now().Add(Patience); ; <-tick.C {
		d := h.Desk(name)
		if want(d) {
			return d
		}
		if time.Now().After(give) {
			t.Fatalf("desk %+v", d)
		}
	}
}

func handedOver(generation uint64) func(Desk) bool {
	return func(d Desk) bool {
		return d.State == "ready" && d.Generation == generation && len(d.Generations) == 1
	}
}

// TestPluginReplaced replaces a plugin under people who talk: by a new file, by a
// reload, while it is being handed over once more, and by one that is no good.
func TestPluginReplaced(t *testing.T) {
	const pages = 40
	desk := StartDesk(t)
	settings := desk.Settings()
	dir := t.TempDir()
	file, mock := filepath.Join(dir, "deskhost-plugin-mock"), filepath.Join(PluginDir(), "deskhost-plugin-mock")
	drop(t, mock, "", file)
	settings["plugin_dir"] = dir
	h := NewHost(t, settings)
	h.Start()
	others := talkMeanwhile(t, h, desk, pages)

	others.await(pages)
	drop(t, mock, "another build", file)
	d := awaitDesk(t, h, "support", handedOver(2))
	if d.Generations[0].Chats != pages || d.Chats != pages {
		t.Errorf("desk %+v", d)
	}
	others.await(pages)

	h.CLI("plugin", "reload", "support")
	h.CLI("plugin", "reload", "support")
	awaitDesk(t, h, "support", handedOver(4))
	others.await(pages)

	// A plugin that cannot resume takes no chat from one that can.
	drop(t, Plugin("fault"), "", file)
	d = awaitDesk(t, h, "support", func(d Desk) bool { return d.Generation == 5 })
	if len(d.Generations) != 2 || d.Generations[1].Chats != pages {
		t.Errorf("desk %+v", d)
	}
	others.await(pages)
	drop(t, mock, "yet another build", file)
	awaitDesk(t, h, "support", handedOver(6))
	others.await(pages)

	for _, p := range others.pages {
		for _, e := range p.Entries() {
			if e.Type == "desk_away" || e.Type == "chat_ended" {
				t.Errorf("page %s got %s", p.SessionID, p.story())
			}
		}
	}
	others.end()
	h.Stop()
}
