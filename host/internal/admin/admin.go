// Package admin is the operators' door: health, metrics, the state of desks
// and plugins, a status page for people, and the control socket.
//
// It owns its paths and shapes and who may read them. The listener changes
// nothing; what does is asked for over the control socket. It shows and does
// through the functions in [Options] and [Verbs], so it owns neither sessions
// nor desks. The host package serves it on a listener of its own, never on the
// widgets'.
package admin

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/deskhost/deskhost/host/internal/desk"
)

// Desk is a desk's status with what is known outside of it.
type Desk struct {
	desk.Status
	// Chats is how many conversations are open.
	Chats int `json:"chats"`
	// ChatsAway is how many of them no process serves at this moment.
	ChatsAway int `json:"chats_away"`
	// Settled is true once the desk has been ready or has failed its first start.
	Settled bool `json:"settled"`
}

// Memory is what the desk's processes have resident, for a person; empty if that
// is not known.
func (d Desk) Memory() string {
	var all int64
	for _, g := range d.Generations {
		all += g.MemoryBytes
	}
	if all == 0 {
		return ""
	}
	return fmt.Sprintf("%d MiB", all>>20)
}

// Notes are what a person should know of the desk beside its state.
func (d Desk) Notes() []string {
	failed := d.LastError
	if failed != "" && d.State == desk.StateReady {
		failed = "ready; the last failure was: " + failed
	}
	notes := slices.DeleteFunc([]string{d.Waiting, d.PluginProblem, failed}, func(s string) bool { return s == "" })
	for _, g := range d.Generations {
		what := "still has %d of %d chats, which go over to the newest one by one"
		switch {
		case g.State == desk.StateReady, g.Chats == 0:
			continue
		case g.State == desk.StateDraining:
			what = "keeps %d of %d chats until they end"
		}
		notes = append(notes, fmt.Sprintf("generation %d (version %s, pid %d) "+what, g.Number, g.Version, g.Pid, g.Chats, d.Chats))
	}
	return notes
}

// brief is the beginning of a note: the page is to be taken in at a glance, and
// what a plugin wrote at its end can be long.
func brief(note string) string {
	const most = 3
	lines := strings.SplitAfterN(note, "\n", most+1)
	if len(lines) <= most {
		return note
	}
	return strings.Join(lines[:most], "") + "  … the log and deskhost plugin list have all of it"
}

// Plugin is one file of the plugin folder.
type Plugin struct {
	Name    string    `json:"name"`
	File    string    `json:"file"`
	Size    int64     `json:"size"`
	ModTime time.Time `json:"modified"`
	SHA256  string    `json:"sha256,omitempty"`
	// Title and Version are what the plugin said of itself when it was asked.
	Title   string `json:"title,omitempty"`
	Version string `json:"version,omitempty"`
	// Problem says why the file cannot be run; empty if it can.
	Problem string `json:"problem,omitempty"`
	// Desks are the names of the desks that use it.
	Desks []string `json:"desks"`
}

// Config is how the configuration stands.
type Config struct {
	// Loaded is when the one that holds was read.
	Loaded time.Time
	// Problem says that the file as it is now was not taken, or not all of it, and
	// why; empty if it was.
	Problem string
}

// Storage is how the journal's disk stands.
type Storage struct {
	// Journal is how many bytes the journal takes, Free how many are left.
	Journal uint64 `json:"journal_bytes"`
	Free    uint64 `json:"free_bytes"`
	// Reserve is limits.disk_reserve. Below it Full is set: nothing new is begun.
	Reserve uint64 `json:"reserve_bytes"`
	Full    bool   `json:"full"`
	// Problem is why Free is not known; empty if it is.
	Problem string `json:"problem,omitempty"`
}

// Options is what the door shows and to whom.
type Options struct {
	Version string
	// Started is when the host was.
	Started time.Time
	// Token, if set, must come with every request but /healthz: as a bearer
	// token or, for browsers, as the password of basic authentication.
	Token   string
	Desks   func() []Desk
	Plugins func() []Plugin
	Storage func() Storage
	// Config tells of the latest look at the configuration file.
	Config func() Config
	Log    hclog.Logger
}

type handler struct {
	Options
	tokenSHA256 [sha256.Size]byte
}

// New returns the handler.
func New(o Options) http.Handler {
	h := &handler{Options: o, tokenSHA256: sha256.Sum256([]byte(o.Token))}
	inner := http.NewServeMux()
	inner.HandleFunc("GET /readyz", h.ready)
	inner.HandleFunc("GET /v1/desks", h.desks)
	inner.HandleFunc("GET /v1/plugins", h.plugins)
	inner.Handle("GET /metrics", promhttp.HandlerFor(newRegistry(o), promhttp.HandlerOpts{}))
	inner.HandleFunc("GET /{$}", h.page)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.Handle("/", h.guard(inner))
	return mux
}

// guard lets only operators through. A page elsewhere that had its own name
// resolve to this machine (DNS rebinding) sends that name as Host; it can know
// neither the token nor, without one, use an address in place of a name.
func (h *handler) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case h.Token != "" && !h.mayRead(r):
			w.Header().Set("WWW-Authenticate", `Basic realm="deskhost"`)
			http.Error(w, "The token is missing or wrong: send admin.token as a bearer token, or as a password.", http.StatusUnauthorized)
		case h.Token == "" && !plainHost(r.Host):
			http.Error(w, "This listener is reached by an IP address or as localhost, not by another name.", http.StatusMisdirectedRequest)
		default:
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			next.ServeHTTP(w, r)
		}
	})
}

func (h *handler) mayRead(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		_, token, _ = r.BasicAuth()
	}
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], h.tokenSHA256[:]) == 1
}

// plainHost tells whether a Host header holds an address or localhost.
func plainHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")) != nil
}

// ready answers 200 once each desk has either been ready or failed its first
// start: from then on the host does all that it can.
func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	desks := h.Desks()
	status, word := http.StatusOK, "ready"
	for _, d := range desks {
		if !d.Settled {
			status, word = http.StatusServiceUnavailable, "starting"
		}
	}
	states := map[string]desk.State{}
	for _, d := range desks {
		states[d.Name] = d.State
	}
	writeJSON(w, status, map[string]any{"status": word, "desks": states, "storage": h.Storage()})
}

func (h *handler) desks(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"desks": h.Desks()})
}

func (h *handler) plugins(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"plugins": h.Plugins()})
}

//go:embed status.html
var statusSource string

var statusPage = template.Must(template.New("status").Funcs(template.FuncMap{
	"megabytes": func(bytes uint64) uint64 { return bytes >> 20 },
	"brief":     brief,
}).Parse(statusSource))

func (h *handler) page(w http.ResponseWriter, _ *http.Request) {
	var page strings.Builder
	err := statusPage.Execute(&page, map[string]any{
		"Version": cmp.Or(h.Version, "unknown"),
		"Started": h.Started.UTC().Format(time.RFC3339),
		"Desks":   h.Desks(),
		"Plugins": h.Plugins(),
		"Storage": h.Storage(),
		"Config":  h.Config(),
	})
	if err != nil {
		h.Log.Error("status page", "error", err)
		http.Error(w, "The page cannot be shown; the log tells why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	_, _ = w.Write([]byte(page.String()))
}

// writeJSON answers; a client that has gone is no fault of ours.
func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(body)
}
