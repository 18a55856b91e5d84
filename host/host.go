// Package host puts a deskhost together from its parts and runs it.
//
// It owns the data folder, the listeners, the control socket, which desks there
// are, and the order in which parts start, change and stop. What the parts do is
// theirs: it has no rule of a session, a desk or an answer in it. Command
// deskhost is its only caller.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/admin"
	"github.com/deskhost/deskhost/host/internal/api"
	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/config"
	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/identity"
	"github.com/deskhost/deskhost/host/internal/journal"
	"github.com/deskhost/deskhost/host/internal/journal/pebble"
	"github.com/deskhost/deskhost/host/internal/process"
	"github.com/deskhost/deskhost/host/internal/session"
	"github.com/deskhost/deskhost/host/internal/webhook"
	"github.com/deskhost/deskhost/host/internal/wirelog"
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
	// bodyTimeout bounds how long an operator may take to send a body, which no call
	// wants; answerTimeout how long from the headers on until the answer has been read.
	bodyTimeout   = 10 * time.Second
	answerTimeout = time.Minute
	// maxHeaderBytes leaves room for a token and what proxies add.
	maxHeaderBytes = 32 << 10
	// writeBuffer is how much the system may hold for a client that does not read.
	// By itself it would take megabytes for each.
	writeBuffer = 64 << 10
	// For development a desk that is down is started again after devBackoff at
	// first. Nothing waits longer than devPatience: neither that, in quarantine too,
	// nor a process that another has replaced for the end of its chats. Else the
	// fifth build with an open chat would wait for the first one's.
	devBackoff, devPatience = 100 * time.Millisecond, 2 * time.Second
)

// Options are what a host is made of.
type Options struct {
	Config  *config.Config
	Version string
	Log     hclog.Logger
	// Dev is for who writes a plugin: a file that a build has just written is taken
	// at once, a desk that is down is started again soon, and each call and event
	// is told in the log.
	Dev bool
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
	storage  *storage
	sessions *session.Service
	source   desk.Source // of every desk, but for what its configuration says
	roster   *roster
	desks    desks
	disabled disabledDesks
	api      atomic.Pointer[api.API]

	widgets   door
	operators door
	control   door
	folder    io.Closer // that the control socket is in

	// changing is held while the configuration changes.
	changing sync.Mutex
	running  context.Context //nolint:containedctx // it is that of Run; nil before and after
	began    chan struct{}   // closed once running is set
	config   atomic.Pointer[loaded]
	retiring sync.WaitGroup // doors that a reload has replaced
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
	h = &Host{opts: opts, log: opts.Log, began: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.release())
			h = nil
		}
	}()

	verifier, err := loadVerifier(c)
	if err != nil {
		return h, err
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
	if h.control.listener, h.folder, err = listenControl(c.DataDir); err != nil {
		return h, err
	}
	h.disabled = disabledDesks(h.data.folder("disabled"))
	pace := catalog.Usual
	if opts.Dev {
		pace = catalog.AtOnce
	}
	plugins, err := catalog.OpenFolder(c.PluginDir, h.data.folder("plugins"), pace, h.log.Named("plugins"))
	if err != nil {
		return h, err
	}
	h.source = desk.Source{Folder: plugins, RunDir: run}
	h.config.Store(&loaded{config: c, verifier: verifier, at: time.Now()})
	// As a reload has them.
	limits := func() desk.Limits { return deskLimits(h.config.Load().config.Limits) }
	h.roster = newRoster(h.source, limits, h.log.Named("plugins"))
	if err := h.checkDesks(ctx); err != nil {
		return h, err
	}
	store, err := pebble.Open(h.data.folder("journal"), pebble.Options{Log: h.log.Named("journal")})
	if err != nil {
		return h, err
	}
	h.journal = journal.New(store)
	h.storage = &storage{
		free: store.FreeSpace,
		used: store.DiskUsage,
		// As a reload has it.
		reserve: func() uint64 { return uint64(h.config.Load().config.Limits.DiskReserve) },
		log:     h.log.Named("journal"),
	}
	h.storage.look()
	if err := h.assemble(verifier); err != nil {
		return h, err
	}
	return h, nil
}

// checkDesks logs the problems of desks, and fails if no desk is without.
func (h *Host) checkDesks(ctx context.Context) error {
	c := h.opts.Config
	byDesk, err := h.roster.check(ctx, c.Desks, deskLimits(c.Limits))
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(byDesk, func(p config.Problems) bool { return len(p) == 0 }) {
		return slices.Concat(byDesk...)
	}
	for i, problems := range byDesk {
		for _, p := range problems {
			h.log.Error("a desk cannot be served; the others are", "desk", c.Desks[i].Name, "problem", p)
		}
	}
	return nil
}

// assemble makes the parts above the journal.
func (h *Host) assemble(verifier api.Verifier) error {
	c := h.opts.Config
	var err error
	h.sessions, err = session.New(session.Options{
		Journal:     h.journal,
		Desks:       deskNames(c),
		DefaultDesk: c.DefaultDesk,
		Limits:      sessionLimits(c.Limits),
		KeepExpired: c.Retention.ClosedSessions,
		Full:        h.storage.full,
		Log:         h.log.Named("session"),
	})
	if err != nil {
		return err
	}
	var all []*served
	for _, d := range c.Desks {
		all = append(all, newServed(d, h.deskOptions(c, d)))
	}
	h.desks.set(all)
	made, err := h.newAPI(c, verifier)
	if err != nil {
		return err
	}
	h.api.Store(made)
	h.widgets.server = h.server(h.route(webhook.New(webhook.Options{Desks: &h.desks, Pages: c.Demo, Log: h.log.Named("webhook")})))
	shown := admin.Options{
		Version: h.opts.Version,
		Started: time.Now(),
		Token:   c.Admin.Token,
		Desks:   func() []admin.Desk { return h.desks.states(h.sessions.OpenChats()) },
		Plugins: func() []admin.Plugin { return h.roster.list(h.desks.of) },
		Storage: h.storage.state,
		Config:  h.configState,
		Log:     h.log.Named("admin"),
	}
	h.operators.server = h.operatorsServer(admin.New(shown))
	h.control.server = h.controlServer(admin.NewControl(shown, h.verbs()))
	return nil
}

// deskOptions are what a configuration says of one of its desks.
func (h *Host) deskOptions(c *config.Config, d config.Desk) desk.Options {
	source := h.source
	source.Plugin, source.SHA256, source.User = d.Plugin, d.SHA256, d.User
	opts := desk.Options{
		Name:           d.Name,
		Source:         source,
		Config:         d.Config,
		WebhookBaseURL: webhookURL(c.PublicURL, d.Name),
		Disabled:       h.disabled.has(d.Name),
		Limits:         deskLimits(c.Limits),
		Log:            h.log.Named("desk." + d.Name),
		Handler:        h.sessions,
	}
	if h.opts.Dev {
		opts.Tap = wirelog.Wrap
		l := &opts.Limits
		l.BackoffMin, l.BackoffMax, l.QuarantineProbe, l.DrainLimit = devBackoff, devPatience, devPatience, devPatience
	}
	return opts
}

// newAPI makes the widgets' door as a configuration wants it.
func (h *Host) newAPI(c *config.Config, verifier api.Verifier) (*api.API, error) {
	var demo, carbon fs.FS
	if c.Demo {
		demo, carbon = web.Demo(), web.Carbon()
	}
	return api.New(api.Options{
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
}

// loadVerifier reads the keys of identity tokens; nil if there are none.
func loadVerifier(c *config.Config) (api.Verifier, error) {
	if c.Identity.JWKSFile == "" {
		return nil, nil
	}
	keys, err := identity.Load(c.Identity.JWKSFile)
	if err != nil {
		return nil, err
	}
	return keys, nil
}

func deskNames(c *config.Config) []string {
	names := make([]string, len(c.Desks))
	for i, d := range c.Desks {
		names[i] = d.Name
	}
	return names
}

func (h *Host) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext:       boundWrites,
		ErrorLog:          h.log.Named("http").StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// operatorsServer gives up whoever does not read an answer, too: who knows no token
// is answered as well.
func (h *Host) operatorsServer(handler http.Handler) *http.Server {
	s := h.controlServer(handler)
	s.WriteTimeout = answerTimeout
	return s
}

// controlServer gives up a body that does not come: the server would wait for its
// end. A call may take as long as a desk does; a deadline for reading anything else
// would cancel it.
func (h *Host) controlServer(handler http.Handler) *http.Server {
	return h.server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		handler.ServeHTTP(w, r)
	}))
}

// boundWrites limits what a connection holds of what is written to it.
func boundWrites(ctx context.Context, c net.Conn) context.Context {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(writeBuffer) // it costs memory otherwise, and no more
	}
	return ctx
}

// route sends webhooks past the API's mux, which would redirect paths that it
// finds unclean.
func (h *Host) route(webhooks http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.EscapedPath(), webhook.Prefix) {
			webhooks.ServeHTTP(w, r)
			return
		}
		h.api.Load().ServeHTTP(w, r)
	})
}

// Run serves until ctx ends, then stops in order and returns nil: no new calls,
// those under way awaited, open chats parked for the next start, plugins
// drained and ended, the journal closed. It returns an error if the host had to
// end by itself. It is called once.
func (h *Host) Run(ctx context.Context) error {
	running, stop := context.WithCancel(context.Background())
	defer stop()
	doors := []door{h.widgets, h.operators, h.control}
	failed := make(chan error, len(doors))
	var servers, watchers sync.WaitGroup
	for _, d := range h.desks.list() {
		d.start(running, h.log)
	}
	h.changing.Lock()
	h.running = running
	h.changing.Unlock()
	close(h.began)
	for _, door := range doors {
		servers.Go(func() {
			if err := door.server.Serve(door.listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serving on %s: %w", door.listener.Addr(), err)
			}
		})
	}
	watchers.Go(func() { h.source.Folder.Watch(running, h.desks.copies) })
	watchers.Go(func() { h.roster.watch(running, h.desks.of) })
	watchers.Go(func() { h.announce(running) })
	watchers.Go(func() { h.storage.watch(running) })

	var cause error
	select {
	case <-ctx.Done():
		h.log.Info("stopping")
	case cause = <-h.sessions.Failed():
		cause = fmt.Errorf("the journal cannot be written any more, so the host ends; what was acknowledged is kept: %w", cause)
	case cause = <-failed:
	}

	// First of all: a signal for the whole service may end the plugins too.
	for _, d := range h.desks.list() {
		d.StartNoMore()
	}
	_ = h.control.server.Close() // Who waits for a desk is told that the host ends.
	h.changing.Lock()
	h.running = nil
	h.changing.Unlock()
	h.park()
	stop()
	for _, d := range h.desks.list() {
		<-d.ended
	}
	watchers.Wait()
	_ = h.operators.server.Close() // It only shows; nobody is owed an answer.
	servers.Wait()
	h.retiring.Wait()
	if err := h.release(); cause == nil {
		cause = err // Of two errors the first tells more.
	}
	return cause
}

// announce calls Ready once every desk has settled.
func (h *Host) announce(running context.Context) {
	for _, d := range h.desks.list() {
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
		if err := h.api.Load().Close(ctx); err != nil {
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
	for _, door := range []door{h.widgets, h.operators, h.control} {
		if door.listener == nil {
			continue
		}
		// A server that has run has closed it.
		if err := door.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if h.folder != nil {
		errs = append(errs, h.folder.Close())
	}
	if h.data != nil {
		errs = append(errs, h.data.close())
	}
	return errors.Join(errs...)
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
	limits.DrainLimit = l.DrainLimit
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
