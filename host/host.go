// Package host puts a deskhost together from its parts and runs it.
//
// It owns the data folder, the listeners, and the order in which parts start
// and stop. What the parts do is theirs: it has no rule of a session, a desk or
// an answer in it. Command deskhost is its only caller.
package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/admin"
	"github.com/deskhost/deskhost/host/internal/api"
	"github.com/deskhost/deskhost/host/internal/config"
	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/identity"
	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/journal/pebble"
	"github.com/deskhost/deskhost/host/internal/process"
	"github.com/deskhost/deskhost/host/internal/session"
	"github.com/deskhost/deskhost/host/internal/webhook"
	"github.com/deskhost/deskhost/host/web"
)

const (
	// parkTimeout is how long calls under way may take once the host stops.
	// The desks then have their own time to drain.
	parkTimeout = 5 * time.Second
	// headerTimeout bounds how long a client may take to send headers,
	// idleTimeout how long an unused connection is kept.
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// maxHeaderBytes leaves room for a token and what proxies add.
	maxHeaderBytes = 32 << 10
)

// Options are what a host is made of.
type Options struct {
	Config  *config.Config
	Version string
	Log     hclog.Logger
	// Ready, if set, is called once, with the addresses that are listened on,
	// when each desk has been ready or has failed its first start.
	Ready func(widgets, operators net.Addr)
}

// Host is a host whose parts are in place. New makes it, Run runs and ends it.
type Host struct {
	opts Options
	log  hclog.Logger

	data     *dataDir
	journal  *journal.Journal
	sessions *session.Service
	desks    []*desk.Desk
	api      *api.API

	widgets   door
	operators door
}

// door is a listener with its server.
type door struct {
	listener net.Listener
	server   *http.Server
}

// New takes the data folder and the addresses, checks the plugins and opens the
// journal. Nothing is served before Run.
//
// A desk whose plugin cannot be used, or whose configuration does not fit it,
// is a mistake that the operator should see at once: if no desk is left, New
// fails with a [config.Problems]. Beside a desk that can serve, the mistake is
// only logged and shown: after a power loss at night one missing file must not
// keep the other desks' chats down. Such a desk is tried again by itself.
func New(ctx context.Context, opts Options) (h *Host, err error) {
	c := opts.Config
	h = &Host{opts: opts, log: opts.Log}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.release())
			h = nil
		}
	}()

	var verifier api.Verifier
	if c.Identity.JWKSFile != "" {
		keys, err := identity.Load(c.Identity.JWKSFile)
		if err != nil {
			return h, err
		}
		verifier = keys
	}
	if h.data, err = openDataDir(c.DataDir); err != nil {
		return h, err
	}
	if h.widgets.listener, err = listen("listen", c.Listen); err != nil {
		return h, err
	}
	if h.operators.listener, err = listen("admin.listen", c.Admin.Listen); err != nil {
		return h, err
	}
	if lacking := process.Lacking(); len(lacking) > 0 {
		h.log.Warn("plugins are less apart on this system than on Linux", "lacking", lacking)
	}
	run, err := process.PrepareRunDir(c.DataDir)
	if err != nil {
		return h, err
	}
	source := desk.Source{PluginDir: c.PluginDir, StoreDir: h.data.folder("plugins"), RunDir: run}
	if err := h.checkDesks(ctx, source); err != nil {
		return h, err
	}
	store, err := pebble.Open(h.data.folder("journal"), pebble.Options{Log: h.log.Named("journal")})
	if err != nil {
		return h, err
	}
	h.journal = journal.New(store)
	if err := h.assemble(source, verifier); err != nil {
		return h, err
	}
	return h, nil
}

// checkDesks logs the problems of desks, and fails if no desk is without.
func (h *Host) checkDesks(ctx context.Context, source desk.Source) error {
	byDesk, err := checkDesks(ctx, h.opts.Config, source, h.log.Named("check"))
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(byDesk, func(p config.Problems) bool { return len(p) == 0 }) {
		return slices.Concat(byDesk...)
	}
	for i, problems := range byDesk {
		for _, p := range problems {
			h.log.Error("a desk cannot be served; the others are", "desk", h.opts.Config.Desks[i].Name, "problem", p)
		}
	}
	return nil
}

// assemble makes the parts above the journal.
func (h *Host) assemble(source desk.Source, verifier api.Verifier) error {
	c := h.opts.Config
	var names []string
	for _, d := range c.Desks {
		names = append(names, d.Name)
	}
	var err error
	h.sessions, err = session.New(session.Options{
		Journal:     h.journal,
		Desks:       names,
		DefaultDesk: c.DefaultDesk,
		Limits:      sessionLimits(c.Limits),
		Log:         h.log.Named("session"),
	})
	if err != nil {
		return err
	}
	byName := desks{}
	for _, d := range c.Desks {
		source.Plugin, source.SHA256, source.User = d.Plugin, d.SHA256, d.User
		made := desk.New(desk.Options{
			Name:           d.Name,
			Source:         source,
			Config:         d.Config,
			WebhookBaseURL: webhookURL(c.PublicURL, d.Name),
			Limits:         deskLimits(c.Limits),
			Log:            h.log.Named("desk." + d.Name),
			Handler:        h.sessions,
		})
		h.desks = append(h.desks, made)
		byName[d.Name] = made
	}
	var demo, carbon fs.FS
	if c.Demo {
		demo, carbon = web.Demo(), web.Carbon()
	}
	h.api, err = api.New(api.Options{
		Sessions:         h.sessions,
		Origins:          c.Origins,
		Limits:           apiLimits(c.Limits),
		Identity:         verifier,
		IdentityRequired: c.Identity.Required,
		Bridge:           web.Bridge(),
		Demo:             demo,
		Carbon:           carbon,
		Version:          h.opts.Version,
		Log:              h.log.Named("api"),
	})
	if err != nil {
		return err
	}
	h.widgets.server = h.server(route(h.api, webhook.New(webhook.Options{Desks: byName, Pages: c.Demo, Log: h.log.Named("webhook")})))
	h.operators.server = h.server(admin.New(admin.Options{
		Version: h.opts.Version,
		Started: time.Now(),
		Token:   c.Admin.Token,
		Desks:   h.deskStates,
		Plugins: func() ([]admin.Plugin, error) { return Plugins(c) },
		Log:     h.log.Named("admin"),
	}))
	return nil
}

func (h *Host) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          h.log.Named("http").StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// route sends webhooks past the API's mux, which would redirect paths that it
// finds unclean.
func route(widgets, webhooks http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.EscapedPath(), webhook.Prefix) {
			webhooks.ServeHTTP(w, r)
			return
		}
		widgets.ServeHTTP(w, r)
	})
}

// Run serves until ctx ends, then stops in order and returns nil: no new calls,
// those under way awaited, open chats parked for the next start, plugins
// drained and ended, the journal closed. It returns an error if the host had to
// end by itself. It is called once.
func (h *Host) Run(ctx context.Context) error {
	running, stop := context.WithCancel(context.Background())
	defer stop()
	failed := make(chan error, len(h.desks)+2)
	var desks, servers, announcing sync.WaitGroup
	for _, d := range h.desks {
		desks.Go(func() {
			if err := d.Run(running); err != nil {
				h.log.Error("desk did not end well", "desk", d.Status().Name, "error", err)
			}
		})
	}
	for _, door := range []door{h.widgets, h.operators} {
		servers.Go(func() {
			if err := door.server.Serve(door.listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serving on %s: %w", door.listener.Addr(), err)
			}
		})
	}
	announcing.Go(func() { h.announce(running) })

	var cause error
	select {
	case <-ctx.Done():
		h.log.Info("stopping")
	case cause = <-h.sessions.Failed():
		cause = fmt.Errorf("the journal cannot be written any more, so the host ends; what was acknowledged is kept: %w", cause)
	case cause = <-failed:
	}

	h.park()
	stop()
	desks.Wait()
	announcing.Wait()
	_ = h.operators.server.Close() // It only shows; nobody is owed an answer.
	servers.Wait()
	if err := h.release(); cause == nil {
		cause = err // Of two errors the first tells more.
	}
	return cause
}

// announce calls Ready once every desk has settled.
func (h *Host) announce(running context.Context) {
	for _, d := range h.desks {
		select {
		case <-d.Settled():
		case <-running.Done():
			return
		}
	}
	if h.opts.Ready != nil {
		h.opts.Ready(h.widgets.listener.Addr(), h.operators.listener.Addr())
	}
}

// park ends the widgets' door and what is under way behind it.
func (h *Host) park() {
	ctx, cancel := context.WithTimeout(context.Background(), parkTimeout)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() {
		if err := h.widgets.server.Shutdown(ctx); err != nil {
			_ = h.widgets.server.Close() // Cuts who still waits.
		}
	})
	all.Go(func() {
		if err := h.api.Close(ctx); err != nil {
			h.log.Warn("sockets had to be cut", "error", err)
		}
	})
	all.Go(func() { h.sessions.Park(ctx) })
	all.Wait()
}

// release gives back what New took, as far as it came. Nothing runs any more.
func (h *Host) release() error {
	var errs []error
	if h.sessions != nil {
		h.sessions.Close()
	}
	if h.journal != nil {
		errs = append(errs, h.journal.Close())
	}
	for _, door := range []door{h.widgets, h.operators} {
		if door.listener == nil {
			continue
		}
		// A server that has run has closed it.
		if err := door.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if h.data != nil {
		errs = append(errs, h.data.close())
	}
	return errors.Join(errs...)
}

func (h *Host) deskStates() []admin.Desk {
	chats := h.sessions.Chats()
	states := make([]admin.Desk, len(h.desks))
	for i, d := range h.desks {
		status := d.Status()
		states[i] = admin.Desk{Status: status, Chats: chats[status.Name]}
		select {
		case <-d.Settled():
			states[i].Settled = true
		default:
		}
	}
	return states
}

// listen opens the address that a key of the configuration names.
func listen(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: address %s is in use by another program; stop that one, or set %s to another address", key, address, key)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: address %s cannot be listened on: %w", key, address, err)
	}
	return l, nil
}

// desks finds desks for webhooks.
type desks map[string]*desk.Desk

// Current implements [webhook.Desks].
func (d desks) Current(name string) (desk.Generation, bool) {
	found, known := d[name]
	if !known {
		return nil, false
	}
	return found.Current(), true
}

// webhookURL is where vendors reach a desk; empty if they cannot.
func webhookURL(publicURL, name string) string {
	if publicURL == "" {
		return ""
	}
	return publicURL + webhook.Prefix + name + "/"
}

func sessionLimits(l config.Limits) session.Limits {
	return session.Limits{
		SessionTTL:       l.SessionTTL,
		StartTimeout:     l.StartTimeout,
		SendWait:         l.SendWait,
		MessageWait:      l.MessageWait,
		AbandonWaiting:   l.AbandonWaiting,
		AbandonConnected: l.AbandonConnected,
		JoinTimeout:      l.JoinTimeout,
		DeskAwayLimit:    l.DeskAwayLimit,
		EndRetry:         l.EndRetry,
		TextBytes:        int(l.TextBytes),
		QueuedMessages:   l.QueuedMessages,
	}
}

func deskLimits(l config.Limits) desk.Limits {
	limits := desk.DefaultLimits()
	limits.Process = process.Limits{
		Memory:    l.PluginMemory,
		OpenFiles: l.PluginOpenFiles,
		Nice:      l.PluginNice,
		LogLines:  l.PluginLogLines,
		LogBytes:  l.PluginLogBytes,
	}
	limits.StartTimeout, limits.ConfigureTimeout = l.PluginStartTimeout, l.PluginStartTimeout
	limits.CallsInFlight, limits.Window = l.PluginCalls, uint32(l.PluginEvents)
	limits.HealthInterval, limits.HealthTimeout = l.PluginHealthInterval, l.PluginHealthInterval/2
	return limits
}

func apiLimits(l config.Limits) api.Limits {
	limits := api.DefaultLimits()
	limits.RequestsPerMinute = l.RequestsPerMinute
	limits.SessionsPerMinute = l.SessionsPerMinute
	limits.ChatsPerMinute = l.ChatsPerMinute
	limits.MessagesPerMinute = l.MessagesPerMinute
	limits.SocketsPerSession = l.SocketsPerSession
	limits.SocketsPerAddress = l.SocketsPerAddress
	limits.BodyBytes = l.BodyBytes
	// A call outlives what it waits for, so that its answer tells the outcome.
	limits.Call = max(limits.Call, l.StartTimeout+limits.Call/3, l.SendWait+limits.Call/3)
	return limits
}
