//go:build unix

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// reload changes some settings and tells the running host, which takes them a
// moment later.
func (h *Host) reload(changes map[string]any) {
	h.t.Helper()
	h.Configure(changes)
	if err := h.process.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		h.t.Fatal(err)
	}
}

// TestDeskRemovedAndAddedAgain takes a desk that has chats out of the
// configuration, and puts it back for one of them.
func TestDeskRemovedAndAddedAgain(t *testing.T) {
	vendor := StartDesk(t)
	desk := func(name string) map[string]any {
		return map[string]any{"name": name, "plugin": "mock", "config": map[string]any{"url": vendor.URL}}
	}
	support, sales := []any{desk("support")}, []any{desk("support"), desk("sales")}
	h := NewHost(t, map[string]any{"desks": sales, "default_desk": "support"})
	h.Start()
	stays, goes, waits := h.Open(nil), h.Open(map[string]any{"desk": "sales"}), h.Open(map[string]any{"desk": "sales"})
	kept, moved := stays.Start("c1"), goes.Start("c1")
	pid := h.Desk("support").PID
	mustTalk := func(p *Page, from, to int) {
		t.Helper()
		if err := talk(p, from, to); err != nil {
			t.Fatal(err)
		}
	}
	mustTalk(stays, 0, 2)
	mustTalk(goes, 0, 2)

	h.reload(map[string]any{"desks": support})
	goes.Await("that the desk is away", Of("desk_away"))
	if status := goes.Send("m2", "message 2"); status != "accepted" {
		t.Errorf("a message to the desk that is gone is %q", status)
	}
	if answer := waits.Call(http.MethodPost, "/chat", map[string]any{"id": "c1"}); answer.Text("code") != "desk_unknown" {
		t.Errorf("a chat with the desk that is gone is answered %d %v", answer.Status, answer.Body)
	}
	mustTalk(stays, 2, 4)

	h.reload(map[string]any{"desks": sales})
	goes.Await("that the desk is back", Of("desk_back"))
	goes.Await("the answer", AgentSays("You said: message 2"))
	waits.Start("c1")
	mustTalk(goes, 3, 5)
	mustTalk(stays, 4, 6)

	// Its time is up while it is gone once more.
	h.reload(map[string]any{"desks": support, "limits": Unlimited(map[string]any{"desk_away_limit": "1s"})})
	goes.Await("the end", func(e Entry) bool { return e.Type == "chat_ended" && e.Reason == "desk_away" })
	if d := h.Desk("support"); d.PID != pid || d.Generation != 1 || d.Chats != 1 {
		t.Errorf("the desk that did not change is %+v", d)
	}
	mustTalk(stays, 6, 8)
	for p, chat := range map[*Page]string{stays: kept, goes: moved} {
		messages := map[*Page]int{stays: 8, goes: 5}[p]
		if err := checkTalk(p, vendor, chat, messages); err != nil {
			t.Error(err)
		}
	}
	h.Stop()
}

// code makes a session with some headers and returns the code of the refusal, or
// "" with the session's token.
func (h *Host) code(request string, headers ...string) string {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.url+"/v1/sessions", bytes.NewReader([]byte(request)))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := httpClient.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct{ Code string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		h.t.Fatal(err)
	}
	return answer.Code
}

// TestDoorIsChangedUnderPages changes who may come in, and how much of, while
// somebody talks: origins, identity, limits.
func TestDoorIsChangedUnderPages(t *testing.T) {
	vendor := StartDesk(t)
	h := NewHost(t, vendor.Settings())
	h.Start()
	p := h.Open(nil)
	chat := p.Start("c1")
	pid, said := h.Desk("support").PID, 0
	keys := filepath.Join(t.TempDir(), "keys.json")
	const jwks = `{"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256",
		"x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}`
	if err := os.WriteFile(keys, []byte(jwks), 0o600); err != nil {
		t.Fatal(err)
	}
	const shop, other = "https://shop.example", "https://other.example"
	wants := func(what, want, request string, headers ...string) {
		t.Helper()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for give := time.Now().Add(Patience); h.code(request, headers...) != want; <-tick.C {
			if time.Now().After(give) {
				t.Fatalf("%s is never answered %q", what, want)
			}
		}
		if err := talk(p, said, said+2); err != nil {
			t.Fatal(err)
		}
		said += 2
	}
	wants("a page of the shop", "origin_not_allowed", "{}", "Origin", shop)
	h.reload(map[string]any{"origins": []any{shop}})
	wants("a page of the shop, now allowed", "", "{}", "Origin", shop)
	wants("a page from elsewhere", "origin_not_allowed", "{}", "Origin", other)
	h.reload(map[string]any{"origins": []any{other}})
	wants("a page of the shop, no more allowed", "origin_not_allowed", "{}", "Origin", shop)

	const ann = `{"user": {"id": "ann"}}`
	wants("a user without proof", "", ann)
	h.reload(map[string]any{"identity": map[string]any{"jwks_file": keys, "required": true}})
	wants("a user without proof, now needed", "identity_required", ann)
	h.reload(map[string]any{"identity": map[string]any{}})
	wants("a user without proof, no more needed", "", ann)

	h.reload(map[string]any{"limits": Unlimited(map[string]any{"sessions_per_minute": 1})})
	wants("one session too many", "too_many_requests", "{}")
	h.reload(map[string]any{"limits": Unlimited(nil)})
	wants("as many sessions as one likes", "", "{}")

	if d := h.Desk("support"); d.PID != pid || d.Generation != 1 {
		t.Errorf("the desk has been touched: %+v", d)
	}
	if err := checkTalk(p, vendor, chat, said); err != nil {
		t.Error(err)
	}
	h.Stop()
}

// TestSignalForEveryProcess ends host and plugins at once, as a service manager
// does, in the order that is worst: plugins that heed the signal at once and as
// the contract wants have it before the host.
func TestSignalForEveryProcess(t *testing.T) {
	good := StartDesk(t)
	h := faultyHost(t, good, map[string]string{"mild": "", "meek": ""}, Patience/2)
	h.Start()
	p := h.Open(nil)
	chat := p.Start("c1")
	if err := talk(p, 0, 3); err != nil {
		t.Fatal(err)
	}
	pids := []int{h.Desk("support").PID, h.Desk("mild").PID, h.Desk("meek").PID, h.process.PID()}
	h.down()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	if code := h.process.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if starts := strings.Count(h.Log(), "desk ready"); starts != 3 {
		t.Errorf("%d starts, want 3", starts)
	}
	h.Start()
	if err := talk(p, 3, 6); err != nil {
		t.Fatal(err)
	}
	if err := checkTalk(p, good, chat, 6); err != nil {
		t.Error(err)
	}
	h.Stop()
}

// TestPluginThatFailedOnceIsAskedAgain has a plugin that cannot say what it is at
// first, for a reason that passes.
func TestPluginThatFailedOnceIsAskedAgain(t *testing.T) {
	h := faultyHost(t, StartDesk(t), nil, Patience/2)
	passed := filepath.Join(t.TempDir(), "passed")
	script := fmt.Sprintf("#!/bin/bash\n[ -e %s ] || { echo no room >&2; exit 1; }\nexec -a deskhost-plugin-late %s\n", passed, Plugin("fault"))
	dir, _ := h.settings["plugin_dir"].(string)
	if err := os.WriteFile(filepath.Join(dir, "deskhost-plugin-late"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	h.Start()
	awaitPlugin := func(want func(problem, version string) bool) {
		t.Helper()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for give := time.Now().Add(Patience); ; <-tick.C {
			var answer struct {
				Plugins []struct{ Name, Version, Problem string }
			}
			h.Admin("/v1/plugins", &answer)
			for _, p := range answer.Plugins {
				if p.Name == "late" && want(p.Problem, p.Version) {
					return
				}
			}
			if time.Now().After(give) {
				t.Fatalf("the plugins are %+v", answer.Plugins)
			}
		}
	}
	awaitPlugin(func(problem, _ string) bool { return strings.Contains(problem, "no room") })
	if err := os.WriteFile(passed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	awaitPlugin(func(problem, version string) bool { return problem == "" && version == "6.6.6" })
	h.Stop()
}
