package desktest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/deskhost/deskhost/sdk/desktest"
)

// toldScript notes what it is asked to play.
type toldScript struct{ told []string }

func (s *toldScript) note(format string, args ...any) error {
	s.told = append(s.told, fmt.Sprintf(format, args...))
	return nil
}

func (s *toldScript) AgentJoins(_ context.Context, chat string) error {
	return s.note("%s joins", chat)
}
func (s *toldScript) AgentSays(_ context.Context, chat, text string) error {
	return s.note("%s says %q", chat, text)
}
func (s *toldScript) AgentEnds(context.Context, string) error {
	return errors.New("the chat's agent has gone home")
}

func (s *toldScript) Heard(_ context.Context, chat string) ([]string, error) {
	return []string{chat, "“2 & 3”\n"}, nil
}

func (s *toldScript) FailNextCall(context.Context, desktest.Call) error {
	return desktest.ErrCannotPlay
}

func (s *toldScript) StallNextCall(_ context.Context, call desktest.Call, late time.Duration) error {
	return s.note("%s takes %s", call, late)
}

func TestScriptOverHTTP(t *testing.T) {
	t.Parallel()
	behind := &toldScript{}
	server := httptest.NewServer(desktest.ScriptHandler(behind))
	defer server.Close()
	script, ctx := desktest.ScriptAt(server.URL), t.Context()

	if err := errors.Join(script.AgentJoins(ctx, "c-1"), script.AgentSays(ctx, "c-1", "<Grüße>"),
		script.StallNextCall(ctx, desktest.CallSend, 1500*time.Millisecond)); err != nil {
		t.Error(err)
	}
	if want := []string{"c-1 joins", `c-1 says "<Grüße>"`, "send takes 1.5s"}; !reflect.DeepEqual(behind.told, want) {
		t.Errorf("it was asked to play %q", behind.told)
	}
	if heard, err := script.Heard(ctx, "c-1"); err != nil || !reflect.DeepEqual(heard, []string{"c-1", "“2 & 3”\n"}) {
		t.Errorf("heard %q, %v", heard, err)
	}
	if err := script.FailNextCall(ctx, desktest.CallEnd); !errors.Is(err, desktest.ErrCannotPlay) {
		t.Errorf("what it cannot play: %v", err)
	}
	if err := script.AgentEnds(ctx, "c-1"); err == nil || !strings.Contains(err.Error(), "gone home") || !strings.Contains(err.Error(), server.URL) {
		t.Errorf("what went wrong: %v", err)
	}
}

func TestScriptHandlerRefuses(t *testing.T) {
	t.Parallel()
	handler := desktest.ScriptHandler(&toldScript{})
	for name, c := range map[string]struct {
		method, mime, body string
		want               int
	}{
		"a GET":           {http.MethodGet, "application/json", "", http.StatusMethodNotAllowed},
		"a form":          {http.MethodPost, "application/x-www-form-urlencoded", "do=heard", http.StatusUnsupportedMediaType},
		"no JSON":         {http.MethodPost, "application/json", "heard", http.StatusBadRequest},
		"an unknown word": {http.MethodPost, "application/json; charset=utf-8", `{"do": "dance"}`, http.StatusNotImplemented},
	} {
		r := httptest.NewRequestWithContext(t.Context(), c.method, "/script", strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.mime)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// TestScriptAtWhatIsNone tells a server that is no script from one that cannot play.
func TestScriptAtWhatIsNone(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer server.Close()
	if err := desktest.ScriptAt(server.URL).AgentJoins(t.Context(), "c-1"); err == nil || !strings.Contains(err.Error(), "<html>") {
		t.Errorf("a web page: %v", err)
	}
	server.Close()
	if err := desktest.ScriptAt(server.URL).AgentJoins(t.Context(), "c-1"); err == nil || errors.Is(err, desktest.ErrCannotPlay) {
		t.Errorf("nobody there: %v", err)
	}
}
