// Package twiliotest is a Twilio account that lives on its own: the parts of the
// Flex, Conversations, TaskRouter and media APIs that a chat needs, webhooks that
// are signed as Twilio signs them, and agents whom a test, a script or a person
// plays. It is stricter than the vendor: a parameter that it does not know is
// refused, and an agent can only come where one was called. What goes wrong at
// the real service goes wrong here on demand: see [Fault] and [Webhooks].
//
// It owns the vendor's side of the conversations, in memory, and serves them over
// HTTP, every product under a prefix of its own: /flex, /conversations,
// /taskrouter and /media. The page on which a person plays the agents is at
// /console/. It knows nothing of the adapter, which tests hold to it.
// The command in its folder simulator runs it as a process.
package twiliotest

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// What a simulator is configured with where Options leave it out. They are no
// secrets: they open nothing but a simulator.
const (
	AccountSid     = "AC00000000000000000000000000000001"
	AuthToken      = "12345"
	APIKeySid      = "SK00000000000000000000000000000001"
	APIKeySecret   = "67890"
	ChatServiceSid = "IS00000000000000000000000000000001"
	AddressSid     = "IG00000000000000000000000000000001"
	WorkspaceSid   = "WS00000000000000000000000000000001"
	WorkflowSid    = "WW00000000000000000000000000000001"
	TaskQueueSid   = "WQ00000000000000000000000000000001"
)

// Options of a simulator. The zero value is ready to use.
type Options struct {
	// AuthToken signs webhooks. It is also the password of the account's sid.
	AuthToken string
	// Greeting is what the Studio flow of the address says when the first
	// message of a customer reaches it; nothing if empty.
	Greeting string
	// NoMediaProperties has the participants of an interaction's channel tell
	// their types only. The vendor's OpenAPI description knows no more of them; its
	// library for agents' pages shows who each is in the conversation.
	NoMediaProperties bool
	// RetryAfter is the pause before a webhook that failed is sent again, twice
	// as long each time; a second if zero.
	RetryAfter time.Duration
	// Log is told of webhooks that fail. Nothing is logged if it is nil.
	Log hclog.Logger
}

// Simulator is a running account. It is an http.Handler, and safe for use by
// several goroutines.
type Simulator struct {
	opts    Options
	routes  *http.ServeMux
	hooks   *http.Client
	ctx     context.Context // ends when the simulator is closed
	cancel  context.CancelFunc
	senders sync.WaitGroup
	// slots bounds the webhooks under way.
	slots chan struct{}

	// mu guards all that follows, and what it leads to. It is held for steps in
	// memory only.
	mu            sync.Mutex
	closed        bool
	conversations map[string]*conversation // by sid and by unique name
	all           []*conversation          // in the order in which they were made
	chats         map[string][]*conversation
	users         map[string]*user // by identity
	interactions  map[string]*interaction
	tasks         map[string]*task
	media         map[string]media
	workers       int
	faults        []*Fault
	webhooks      Webhooks
	fired         int    // webhooks, for those that are lost
	foreign       string // origin of next_page_url
	// pending counts webhooks that are not settled; idle is closed when it
	// comes to nothing.
	pending int
	idle    chan struct{}
}

// New returns a running simulator.
func New(opts Options) *Simulator {
	opts.AuthToken = cmp.Or(opts.AuthToken, AuthToken)
	opts.RetryAfter = cmp.Or(opts.RetryAfter, time.Second)
	if opts.Log == nil {
		opts.Log = hclog.NewNullLogger()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Simulator{
		opts:          opts,
		hooks:         hookClient(),
		ctx:           ctx,
		cancel:        cancel,
		slots:         make(chan struct{}, maxDeliveries),
		conversations: map[string]*conversation{},
		chats:         map[string][]*conversation{},
		users:         map[string]*user{},
		interactions:  map[string]*interaction{},
		tasks:         map[string]*task{},
		media:         map[string]media{},
		workers:       len(agents),
	}
	for _, a := range append(agents, supervisor) {
		s.user(a.identity).FriendlyName = a.name
	}
	s.routes = s.handler()
	return s
}

// Close stops all webhooks and waits for those under way. Calls that wait are
// answered.
func (s *Simulator) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.senders.Wait()
	s.hooks.CloseIdleConnections()
}

// ServeHTTP serves the APIs, the agents' page at /console/, and /script.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.routes.ServeHTTP(w, r) }

// SetWorkers sets how many agents are available.
func (s *Simulator) SetWorkers(available int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers = available
}

// newSid makes an identifier of the vendor's form.
func newSid(prefix string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + hex.EncodeToString(b[:])
}
