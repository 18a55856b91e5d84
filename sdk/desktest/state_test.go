package desktest_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// keyName is a plugin whose desk wants a key of its own with each start and each
// message. The plugin makes one, and has the host store it before it is used.
const keyName = "key"

// theStart is what a key is for that is not for a message.
const theStart = "start"

// keyDesk is its adapter.
type keyDesk struct {
	host   sdk.Host
	vendor string

	mu sync.Mutex
	// keys are the chats' resume states: the key of the start, and of each message by its id.
	keys map[string]map[string]string
}

func (d *keyDesk) Configure(_ context.Context, req *sdk.ConfigureRequest) error {
	return json.Unmarshal(req.Config, &struct {
		URL *string `json:"url"`
	}{&d.vendor})
}

func (d *keyDesk) StartChat(ctx context.Context, req *sdk.StartChatRequest) (*sdk.StartChatResponse, error) {
	if err := d.ResumeChat(ctx, &sdk.ResumeChatRequest{ChatID: req.ChatID, State: req.State}); err != nil {
		return nil, err
	}
	return nil, d.post(ctx, req.ChatID, theStart, "")
}
func (d *keyDesk) EndChat(context.Context, *sdk.EndChatRequest) error { return nil }

func (d *keyDesk) SendMessageToAgent(ctx context.Context, req *sdk.SendMessageRequest) (*sdk.SendMessageResponse, error) {
	return nil, d.post(ctx, req.ChatID, req.MessageID, req.Text)
}

func (d *keyDesk) post(ctx context.Context, chat, what, text string) error {
	key, err := d.key(ctx, chat, what)
	if err != nil {
		return err
	}
	form := url.Values{"chat": {chat}, "key": {key}, "text": {text}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.vendor+"?"+form.Encode(), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// key is that of the start or of a message. The host has it.
func (d *keyDesk) key(ctx context.Context, chat, what string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.keys[chat] == nil {
		d.keys[chat] = map[string]string{}
	}
	key, ok := d.keys[chat][what]
	if ok {
		return key, nil
	}
	key = rand.Text()
	d.keys[chat][what] = key
	state, err := json.Marshal(d.keys[chat])
	if err != nil {
		return "", err
	}
	return key, d.host.Emit(ctx, &sdk.Event{
		ChatID: chat, State: &sdk.ResumeState{Data: state, Format: 1}, Payload: sdk.StateSaved{},
	})
}

func (d *keyDesk) ResumeChat(_ context.Context, req *sdk.ResumeChatRequest) error {
	if req.State == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	keys := map[string]string{}
	d.keys[req.ChatID] = keys
	return json.Unmarshal(req.State.Data, &keys)
}

func (d *keyDesk) QuiesceChat(context.Context, *sdk.QuiesceChatRequest) (*sdk.QuiesceChatResponse, error) {
	return nil, nil
}

func serveKey() {
	sdk.Serve(sdk.Plugin{
		Name: keyName, Version: "1.0.0", ConfigSchema: `{"type": "object"}`, SendDedupe: sdk.DedupeByKey, StateFormats: []uint32{1},
		New: func(host sdk.Host) sdk.Desk { return &keyDesk{host: host, keys: map[string]map[string]string{}} },
	})
}

// keyVendor is the desk itself.
type keyVendor struct {
	toldScript

	// vague is a desk that tells of any conversation that nobody has said anything.
	vague bool

	mu    sync.Mutex
	keys  map[string]bool
	begun map[string]int // conversations of a chat
	heard map[string][]string
	late  map[desktest.Call]time.Duration // of the next answer
}

func (v *keyVendor) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	chat, key, text, call := r.FormValue("chat"), r.FormValue("key"), r.FormValue("text"), desktest.CallSend
	v.mu.Lock()
	if text == "" {
		call = desktest.CallStart
	}
	switch {
	case v.keys[key]:
	case call == desktest.CallStart:
		v.begun[chat]++
	default:
		v.heard[chat] = append(v.heard[chat], text)
	}
	v.keys[key] = true
	late := v.late[call]
	delete(v.late, call)
	v.mu.Unlock()
	select {
	case <-time.After(late):
	case <-r.Context().Done():
	}
}

func (v *keyVendor) Heard(_ context.Context, chat string) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := v.begun[chat]; n > 1 || n == 0 && !v.vague {
		return nil, fmt.Errorf("the chat has %d conversations", n)
	}
	return slices.Clone(v.heard[chat]), nil
}

func (v *keyVendor) AgentSays(context.Context, string, string) error { return desktest.ErrCannotPlay }

func (v *keyVendor) StallNextCall(_ context.Context, call desktest.Call, late time.Duration) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.late[call] = late
	return nil
}

// checkKey has a check made with a plugin that keeps its keys in the state.
func checkKey(t *testing.T, vendor *keyVendor, name string) desktest.Result {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), deskv1.FilePrefix+keyName)
	if err := os.Symlink(self, file); err != nil {
		t.Fatal(err)
	}
	vendor.keys, vendor.begun = map[string]bool{}, map[string]int{}
	vendor.heard, vendor.late = map[string][]string{}, map[desktest.Call]time.Duration{}
	server := httptest.NewServer(vendor)
	defer server.Close()
	r, err := desktest.Check(t.Context(), desktest.Plugin{
		File: file, Config: json.RawMessage(fmt.Sprintf(`{"url": %q}`, server.URL)), Script: vendor,
	}, name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestTheNextProcessHasTheLatestState has a new process handed what the one
// before has saved up to its last moment, as by a host.
func TestTheNextProcessHasTheLatestState(t *testing.T) {
	for name, want := range map[string]desktest.Outcome{
		"message/send_dedupe": desktest.Pass, "fault/killed_sending": desktest.Pass,
		"fault/killed_starting": desktest.NotTested, // to its end, where the agent would say something
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if r := checkKey(t, &keyVendor{}, name); r.Outcome != want {
				t.Errorf("%s: %s", r.Outcome, r.Came)
			}
		})
	}
}

// TestACallThatIsStalledLaterIsNoFault kills a process before its call reaches the
// desk, which stalls the next process's call then.
func TestACallThatIsStalledLaterIsNoFault(t *testing.T) {
	t.Parallel()
	if r := checkKey(t, &keyVendor{vague: true}, "fault/killed_starting"); r.Outcome != desktest.NotTested {
		t.Errorf("%s: %s", r.Outcome, r.Came)
	}
}
