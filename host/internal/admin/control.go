package admin

import (
	"context"
	"errors"
	"net/http"
)

// Verbs are what operators may do, by way of a socket that only the host's user
// can open.
type Verbs struct {
	// Plugin is what a plugin says of itself, as JSON is made of it.
	Plugin func(ctx context.Context, name string) (any, error)
	// Reload, Disable and Enable do it to the desk of a name.
	Reload, Disable, Enable func(ctx context.Context, desk string) error
}

// ErrNoDesk is the error of a verb for a desk that there is not.
var ErrNoDesk = errors.New("there is no desk of this name; `deskhost plugin list` tells the desks")

// NewControl returns the handler of the control socket. It shows what the
// operators' listener does, and has the verbs beside it. It checks nobody's
// identity: who can open the socket may do all of this.
func NewControl(o Options, v Verbs) http.Handler {
	h := &handler{Options: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/desks", h.desks)
	mux.HandleFunc("GET /v1/plugins", h.plugins)
	mux.HandleFunc("GET /v1/plugins/{name}", func(w http.ResponseWriter, r *http.Request) {
		info, err := v.Plugin(r.Context(), r.PathValue("name"))
		if err != nil {
			refuse(w, err)
			return
		}
		writeJSON(w, http.StatusOK, info)
	})
	for name, do := range map[string]func(context.Context, string) error{
		"reload": v.Reload, "disable": v.Disable, "enable": v.Enable,
	} {
		mux.HandleFunc("POST /v1/desks/{desk}/"+name, func(w http.ResponseWriter, r *http.Request) {
			desk := r.PathValue("desk")
			o.Log.Info("an operator asks", "verb", name, "desk", desk)
			if err := do(r.Context(), desk); err != nil {
				refuse(w, err)
				return
			}
			for _, d := range h.Desks() {
				if d.Name == desk {
					writeJSON(w, http.StatusOK, d)
					return
				}
			}
			refuse(w, ErrNoDesk) // It was removed in the meantime.
		})
	}
	return mux
}

// refuse tells why a request was not fulfilled.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusConflict
	if errors.Is(err, ErrNoDesk) {
		status = http.StatusNotFound
	}
	writeJSON(w, status, map[string]string{"error": err.Error()})
}
