package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk mounts a disk of a few megabytes.
type smallDisk struct {
	t      *testing.T
	folder string
}

func mountSmallDisk(t *testing.T) *smallDisk {
	t.Helper()
	folder := t.TempDir()
	if err := unix.Mount("none", folder, "tmpfs", 0, "size=256m"); err != nil {
		t.Skipf("this needs the right to mount a disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return &smallDisk{t, folder}
}

// leave fills the disk until only so many bytes are free.
func (d *smallDisk) leave(free uint64) {
	d.t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(d.folder, &s); err != nil {
		d.t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(d.folder, fmt.Sprint("filler-", time.Now().UnixNano())))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if size := s.Bavail*uint64(s.Bsize) - free; size > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(size)); err != nil {
			d.t.Fatal(err)
		}
	}
}

// clear removes what leave made.
func (d *smallDisk) clear() {
	d.t.Helper()
	fillers, err := filepath.Glob(filepath.Join(d.folder, "filler-*"))
	if err != nil || len(fillers) == 0 {
		d.t.Fatal("no filler", err)
	}
	for _, file := range fillers {
		if err := os.Remove(file); err != nil {
			d.t.Fatal(err)
		}
	}
}

// TestFullDisk fills the disk under a conversation: first to where nothing new is
// taken, then to the last byte.
func TestFullDisk(t *testing.T) {
	const reserve = 32 << 20
	disk := mountSmallDisk(t)
	d := StartDesk(t)
	settings := d.Settings()
	settings["data_dir"] = filepath.Join(disk.folder, "data")
	settings["limits"] = Unlimited(map[string]any{"disk_reserve": "32MiB"})
	h := NewHost(t, settings)
	h.Start()
	p := h.Open(nil)
	chat := p.Start("c1")
	p.Await("the agent", Of("agent_joined"))
	p.Send("m1", "there is room")

	// until sends messages until the host answers one of them so.
	sent := 0
	until := func(statuses ...int) Answer {
		t.Helper()
		for deadline := time.Now().Add(Patience); time.Now().Before(deadline); sent++ {
			answer := p.Call(http.MethodPost, "/messages", map[string]any{"id": fmt.Sprint("try-", sent), "text": "is there room?"})
			if slices.Contains(statuses, answer.Status) {
				return answer
			}
		}
		t.Fatalf("the host does not come to answer %v", statuses)
		return Answer{}
	}
	stored := func() (s struct{ Storage struct{ Full bool } }) {
		h.Admin("/readyz", &s)
		return s
	}
	disk.leave(reserve - 4<<20)
	if answer := until(http.StatusInsufficientStorage); answer.Text("code") != "storage_full" {
		t.Errorf("the host answers %+v", answer)
	}
	if !stored().Storage.Full {
		t.Error("/readyz does not tell that the disk is full")
	}
	if answer, err := callOnce(t.Context(), h.url, "", http.MethodPost, "/v1/sessions", map[string]any{}); err != nil || answer.Status != http.StatusInsufficientStorage {
		t.Errorf("a new session is answered %+v, %v", answer, err)
	}
	if answer := p.Call(http.MethodPost, "/typing", map[string]any{"typing": true}); answer.Status != http.StatusNoContent {
		t.Errorf("typing is answered %+v", answer)
	}
	d.Await("that the user types", chat, func(c Console) bool { return c.Typing })
	disk.clear()
	until(http.StatusOK, http.StatusAccepted)
	if stored().Storage.Full {
		t.Error("/readyz tells that the disk is full while there is room")
	}

	// The same with no reserve to speak of.
	h.Stop()
	text, err := os.ReadFile(h.File)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.File, []byte(strings.Replace(string(text), `"32MiB"`, "1", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Start()
	p.Send("m2", "no reserve")
	disk.leave(1 << 20)
	url, process := h.url, h.down() // it will die by itself
	var taken []string
	filling := strings.Repeat("x", 30<<10)
	for n := range 1000 {
		id := fmt.Sprint("full-", n)
		answer, err := callOnce(t.Context(), url, p.Token, http.MethodPost, "/v1/sessions/"+p.SessionID+"/messages", map[string]any{"id": id, "text": id + " " + filling})
		if err != nil || answer.Status != http.StatusOK && answer.Status != http.StatusAccepted {
			break
		}
		taken = append(taken, id)
	}
	if code := process.Wait(); code != 1 {
		t.Errorf("the host ended with exit code %d", code)
	}
	for _, want := range []string{"the journal cannot be written any more", "no space left on device", "what was acknowledged is kept"} {
		if !strings.Contains(lastLine(process.Stderr()), want) {
			t.Errorf("the last line does not tell %q: %s", want, lastLine(process.Stderr()))
		}
	}
	disk.clear()
	h.Start()
	p.Send("m3", "it goes on")
	p.Await("what was sent last", func(e Entry) bool { return e.ID == "m3" && e.From == "user" })
	d.Await("the last message", chat, func(Console) bool {
		texts := d.UserTexts(chat)
		return texts[len(texts)-1] == "it goes on"
	})
	var got []string
	for _, e := range p.Entries() { // each once and in order: the page sees to that
		if e.Type == "message" && e.From == "user" {
			got = append(got, e.ID)
		}
	}
	texts := d.UserTexts(chat)
	for _, id := range taken {
		if !slices.Contains(got, id) {
			t.Errorf("message %s was taken, and the page does not have it", id)
		}
		if n := len(slices.DeleteFunc(slices.Clone(texts), func(text string) bool { return !strings.HasPrefix(text, id+" ") })); n != 1 {
			t.Errorf("message %s was taken, and the desk has it %d times", id, n)
		}
	}
	t.Logf("%d messages were taken before the disk was full", len(taken))
	h.Stop()
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
