// Package genesystest is a simulator of Genesys Cloud, as far as a chat's guest
// meets it: Web Messaging (a socket and a history call), the older Web Chat (calls
// and an event stream), and the calls of an OAuth client about queues. It is
// written from what the vendor publishes and was never compared with the live
// service. Where that leaves a choice it takes the stricter one.
//
// It owns the conversations, for as long as it runs and in memory only, and the
// agents, whom a test plays by [Server.Do], a program by POST /script, and a
// person on the page at /console/. It knows nothing of deskhost but the name of
// the attribute by which a chat's conversation is found. Tests import it, and
// the simulator command serves it.
package genesystest

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// ChatIDAttribute names the custom attribute (Web Messaging) or custom field (Web
// Chat) that holds the id by which [Act] names a conversation.
const ChatIDAttribute = "deskhost_chat_id"

// nameAttribute names the custom attribute that an organisation's flow would call
// the customer by, who has no name in Web Messaging.
const nameAttribute = "user_name"

// Options are an organisation with one deployment and one queue. The zero value
// is one that works; [Options.Deployment] and the like say what its ids are.
type Options struct {
	// Deployment is the id of the deployment, OrganizationID that of the
	// organisation. By default both are made-up UUIDs that do not change.
	Deployment     string
	OrganizationID string
	// Queue and QueueID name the queue; by default "Support" and a UUID.
	Queue   string
	QueueID string
	// Origins are those that the deployment is restricted to. None: any, and none
	// is as good.
	Origins []string
	// ClientID and ClientSecret are those of the OAuth client; by default
	// "client" and "secret".
	ClientID     string
	ClientSecret string
	// RequireAuth has Web Chat refuse guests without a memberAuthToken, and Web
	// Messaging those whose session is not an authenticated one.
	RequireAuth bool
	// Inactive is a deployment that was switched off.
	Inactive bool
	// DisconnectType is what the guest of Web Messaging is told when the agent
	// ends: "ReadOnly" (the default), "Send" (told, but may write on), or "None".
	DisconnectType string
	// NoClear forbids guests to clear a conversation.
	NoClear bool
	// NullTimes has the history of Web Messaging come without times.
	NullTimes bool
	// NoNicknames has agents of Web Messaging come without their names, as where a
	// deployment hides them.
	NoNicknames bool
	// Agents are the names of those who can be played; by default Ada and Grace.
	Agents []string
	// OnQueue is how many agents are there at first; by default 2. Less than 0: none.
	OnQueue int
	// SessionLife is how long a session of Web Messaging lasts after the last
	// message; by default 15 minutes.
	SessionLife time.Duration
	// TokenLife is for how long JWTs and access tokens are good; by default 1 hour.
	TokenLife time.Duration
	// Heartbeat is how often an event stream of Web Chat says that it lives; by
	// default every 30 s.
	Heartbeat time.Duration
	// StreamURL is where event streams of Web Chat are said to be, as in
	// wss://streaming.example.com; by default, where the simulator is.
	StreamURL string
	// MaxSockets is how many connections a session of Web Messaging may have; by
	// default 5. One more closes the oldest.
	MaxSockets int
	// Now tells the time by which tokens expire and messages are limited; by
	// default [time.Now].
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	text := func(at *string, value string) {
		if *at == "" {
			*at = value
		}
	}
	text(&o.Deployment, "c1f5bd2c-9b6c-4b6f-8a51-0d5f8a7f3c01")
	text(&o.OrganizationID, "7a9d2f4e-36c3-4f58-9a43-54c5a1e0b902")
	text(&o.Queue, "Support")
	text(&o.QueueID, "0f4b4c66-8d0e-4d6f-bb0c-6b7b3f1f2a03")
	text(&o.ClientID, "client")
	text(&o.ClientSecret, "secret")
	text(&o.DisconnectType, "ReadOnly")
	life := func(at *time.Duration, value time.Duration) {
		if *at == 0 {
			*at = value
		}
	}
	life(&o.SessionLife, 15*time.Minute)
	life(&o.TokenLife, time.Hour)
	life(&o.Heartbeat, 30*time.Second)
	if len(o.Agents) == 0 {
		o.Agents = []string{"Ada", "Grace"}
	}
	if o.OnQueue == 0 {
		o.OnQueue = 2
	}
	if o.MaxSockets == 0 {
		o.MaxSockets = 5
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Server is a running simulator. All of it lies under one base URL: the socket
// of Web Messaging at /v1, the API under /api/v2, the login at /oauth/token, the
// deployment's public configuration under /webdeployments.
type Server struct {
	options  Options
	routes   *http.ServeMux
	upgrader websocket.Upgrader
	done     chan struct{} // closed by Close
	serving  sync.WaitGroup

	// mu guards all that follows, and the conversations. It is held for steps in
	// memory, and over the answer to a socket's handshake.
	mu       sync.Mutex
	closed   bool
	sockets  map[*socket]struct{}
	all      []*conversation // oldest first
	byID     map[string]*conversation
	byChat   map[string]*conversation
	sessions map[string]*session // of Web Messaging, by token
	streams  map[string]*chatGuest
	faults   map[string][]fault
	onQueue  int
	stamped  time.Time // the latest time that was told
	tokens   *tokens
	codes    map[string]bool // of sign-ins and refresh tokens that are used up
	calls    callCount
	files    map[string]*file
}

// New returns a simulator. Close ends it.
func New(options Options) *Server {
	s := &Server{
		options:  options.withDefaults(),
		done:     make(chan struct{}),
		sockets:  map[*socket]struct{}{},
		byID:     map[string]*conversation{},
		byChat:   map[string]*conversation{},
		sessions: map[string]*session{},
		streams:  map[string]*chatGuest{},
		faults:   map[string][]fault{},
		codes:    map[string]bool{},
		files:    map[string]*file{},
	}
	s.onQueue = max(s.options.OnQueue, 0)
	s.tokens = newTokens(s.options.Now, s.options.TokenLife)
	s.upgrader = websocket.Upgrader{
		ReadBufferSize: 1024, WriteBufferSize: 1024, WriteBufferPool: &sync.Pool{},
		// The simulator looks at the origin itself.
		CheckOrigin: func(*http.Request) bool { return true },
	}
	s.routes = http.NewServeMux()
	s.routes.HandleFunc("POST /script", s.serveScript)
	s.messagingRoutes()
	s.chatRoutes()
	s.platformRoutes()
	s.fileRoutes()
	s.consoleRoutes()
	return s
}

// Options returns what the simulator was made with, defaults filled in.
func (s *Server) Options() Options { return s.options }

// ServeHTTP serves all of the simulator.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.routes.ServeHTTP(w, r) }

// Close cuts all connections and waits for whoever served them.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
		for _, x := range s.sessions {
			x.expiry.Stop()
		}
		for k := range s.sockets {
			k.cut()
		}
	}
	s.mu.Unlock()
	s.serving.Wait()
}

// allowed tells whether pages of a request's origin may use the deployment.
func (s *Server) allowed(r *http.Request) bool {
	return len(s.options.Origins) == 0 || slices.Contains(s.options.Origins, r.Header.Get("Origin"))
}

// base is the URL by which a request has reached the simulator, with another
// scheme for sockets.
func base(r *http.Request, plain, secure string) string {
	scheme := plain
	if r.TLS != nil {
		scheme = secure
	}
	return scheme + "://" + r.Host
}

// newID returns a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

func isUUID(text string) bool {
	parts := strings.Split(text, "-")
	if len(parts) != 5 {
		return false
	}
	for i, n := range []int{8, 4, 4, 4, 12} {
		if _, err := hex.DecodeString(parts[i]); err != nil || len(parts[i]) != n {
			return false
		}
	}
	return true
}

// stamp writes the time as the vendor does. No two are the same, so that times
// tell the order of what agents say, who are not as quick as scripts.
func (s *Server) stamp() string {
	now := s.options.Now().Truncate(time.Millisecond)
	if !now.After(s.stamped) {
		now = s.stamped.Add(time.Millisecond)
	}
	s.stamped = now
	return now.UTC().Format("2006-01-02T15:04:05.000Z")
}
