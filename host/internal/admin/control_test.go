package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

func TestControl(t *testing.T) {
	var asked []string
	verb := func(name string) func(context.Context, string) error {
		return func(_ context.Context, desk string) error {
			asked = append(asked, name+" "+desk)
			switch desk {
			case "support":
				return nil
			case "sales":
				return errors.New("the plugin does not start")
			}
			return ErrNoDesk
		}
	}
	h := NewControl(options(support, sales), Verbs{
		Plugin: func(_ context.Context, name string) (any, error) {
			if name != "mock" {
				return nil, errors.New("no such plugin")
			}
			return map[string]string{"name": name}, nil
		},
		Reload: verb("reload"), Disable: verb("disable"), Enable: verb("enable"),
	})
	for _, test := range []struct {
		method, path string
		status       int
		body         string // "" for any
	}{
		{http.MethodGet, "/v1/desks", http.StatusOK, ""},
		{http.MethodGet, "/v1/plugins", http.StatusOK, ""},
		{http.MethodGet, "/v1/plugins/mock", http.StatusOK, `{"name":"mock"}`},
		{http.MethodGet, "/v1/plugins/gone", http.StatusConflict, `{"error":"no such plugin"}`},
		{http.MethodPost, "/v1/desks/support/reload", http.StatusOK, ""},
		{http.MethodPost, "/v1/desks/sales/enable", http.StatusConflict, `{"error":"the plugin does not start"}`},
		{http.MethodPost, "/v1/desks/gone/disable", http.StatusNotFound, `{"error":"` + ErrNoDesk.Error() + `"}`},
		{http.MethodPost, "/v1/desks/support/explode", http.StatusNotFound, "-"},
		{http.MethodGet, "/v1/desks/support/disable", http.StatusMethodNotAllowed, "-"},
	} {
		t.Run(test.method+test.path, func(t *testing.T) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(test.method, "http://deskhost"+test.path, nil))
			if w.Code != test.status {
				t.Fatalf("got %d %s", w.Code, w.Body)
			}
			if test.body != "-" {
				if got := compact(t, w.Body.String()); test.body != "" && got != test.body {
					t.Errorf("got %s", got)
				}
			}
		})
	}
	if want := []string{"reload support", "enable sales", "disable gone"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}
