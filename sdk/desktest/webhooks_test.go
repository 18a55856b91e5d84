package desktest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// The names of plugins whose desk speaks by webhooks: one that lets it forget
// what the host has, one that lets it forget at once, and one that names a
// delivery anew in each process.
const (
	hookName    = "hook"
	hastyName   = "hook-hasty"
	changesName = "hook-changes-ids"
)

// hookDesk is a desk that speaks by webhooks.
type hookDesk struct {
	host sdk.Host
	name string
	// vendor is where the desk is, base is where the host is.
	vendor, base string
}

func (d *hookDesk) Configure(_ context.Context, req *sdk.ConfigureRequest) error {
	d.base = req.WebhookBaseURL
	return json.Unmarshal(req.Config, &struct {
		URL *string `json:"url"`
	}{&d.vendor})
}

func (d *hookDesk) StartChat(ctx context.Context, req *sdk.StartChatRequest) (*sdk.StartChatResponse, error) {
	state := &sdk.ResumeState{Data: []byte("{}"), Format: 1}
	return &sdk.StartChatResponse{State: state}, d.ResumeChat(ctx, &sdk.ResumeChatRequest{ChatID: req.ChatID})
}

// ResumeChat tells the desk where to deliver to.
func (d *hookDesk) ResumeChat(ctx context.Context, req *sdk.ResumeChatRequest) error {
	form := url.Values{"chat": {req.ChatID}, "to": {d.base}}
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

func (d *hookDesk) QuiesceChat(context.Context, *sdk.QuiesceChatRequest) (*sdk.QuiesceChatResponse, error) {
	return nil, nil
}
func (d *hookDesk) EndChat(context.Context, *sdk.EndChatRequest) error { return nil }
func (d *hookDesk) SendMessageToAgent(context.Context, *sdk.SendMessageRequest) (*sdk.SendMessageResponse, error) {
	return nil, nil
}

func (d *hookDesk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := said(r.FormValue("chat"), r.FormValue("id"), r.FormValue("text"))
	if d.name == changesName {
		e.ID += fmt.Sprint("-", os.Getpid())
	}
	ctx := r.Context()
	if d.name == hastyName {
		go d.host.Emit(context.WithoutCancel(ctx), e)
		return
	}
	if err := d.host.Emit(ctx, e); err != nil {
		http.Error(w, "Try again.", http.StatusServiceUnavailable)
	}
}

func serveHook(name string) {
	sdk.Serve(sdk.Plugin{
		Name: name, Version: "1.0.0", ConfigSchema: `{"type": "object"}`, Replay: sdk.ReplayByWebhook, StateFormats: []uint32{1},
		New: func(host sdk.Host) sdk.Desk { return &hookDesk{host: host, name: name} },
	})
}

// hookVendor is the desk itself. It delivers what an agent says until that is
// accepted, or the test ends.
type hookVendor struct {
	toldScript

	ctx       context.Context //nolint:containedctx // it is the vendor's life
	delivered sync.WaitGroup
	mu        sync.Mutex
	to        map[string]string
}

func (v *hookVendor) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.to[r.FormValue("chat")] = r.FormValue("to")
}

func (v *hookVendor) AgentSays(_ context.Context, chat, text string) error {
	v.mu.Lock()
	to := v.to[chat]
	v.mu.Unlock()
	form := url.Values{"chat": {chat}, "id": {"id-of-" + text}, "text": {text}}
	v.delivered.Go(func() {
		for v.ctx.Err() == nil {
			resp, err := http.PostForm(to, form)
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode < http.StatusMultipleChoices {
					return
				}
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-v.ctx.Done():
			}
		}
	})
	return nil
}

func TestReplayByWebhook(t *testing.T) {
	for name, came := range map[string]string{hookName: "", hastyName: "answered with a 2xx", changesName: "another event_id"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), deskv1.FilePrefix+name)
			if err := os.Symlink(self, file); err != nil {
				t.Fatal(err)
			}
			vendor := &hookVendor{ctx: t.Context(), to: map[string]string{}}
			t.Cleanup(vendor.delivered.Wait)
			server := httptest.NewServer(vendor)
			defer server.Close()
			r, err := desktest.Check(t.Context(), desktest.Plugin{
				File: file, Config: json.RawMessage(fmt.Sprintf(`{"url": %q}`, server.URL)), Script: vendor,
			}, "resume/replay")
			if err != nil {
				t.Fatal(err)
			}
			if (r.Outcome == desktest.Pass) != (came == "") || !strings.Contains(r.Came, came) {
				t.Errorf("%s: %s", r.Outcome, r.Came)
			}
		})
	}
}
