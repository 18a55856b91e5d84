package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what one client may ask of the host. A rate allows as many at
// once as in a minute; 0 means no limit.
type Limits struct {
	// RequestsPerMinute counts every request of an address.
	RequestsPerMinute int
	// SessionsPerMinute counts the sessions that an address makes.
	SessionsPerMinute int
	// ChatsPerMinute and MessagesPerMinute count what a session asks for.
	ChatsPerMinute    int
	MessagesPerMinute int
	// SocketsPerSession and SocketsPerAddress count open event sockets and
	// streams.
	SocketsPerSession int
	SocketsPerAddress int
	// BodyBytes bounds the body of a request.
	BodyBytes int64
	// Call bounds every call but event sockets. It must be above the session
	// service's own limits, or a start answers before its outcome is known.
	Call time.Duration
	// SocketWrite is how long a slow reader may block one write.
	SocketWrite time.Duration
	// PingInterval is the time between pings on a socket; one that has answered
	// none of the last two is dropped when the next is due.
	PingInterval time.Duration
}

// DefaultLimits returns the limits that a host has unless configured otherwise.
func DefaultLimits() Limits {
	return Limits{
		RequestsPerMinute: 1200,
		SessionsPerMinute: 60,
		ChatsPerMinute:    10,
		MessagesPerMinute: 120,
		SocketsPerSession: 8,
		SocketsPerAddress: 200,
		BodyBytes:         256 << 10,
		Call:              15 * time.Second,
		SocketWrite:       10 * time.Second,
		PingInterval:      30 * time.Second,
	}
}

// maxRates bounds how many clients a generation of rates remembers.
const maxRates = 16384

// rates holds a rate for each of the latest clients, by address or session.
// There are two generations of them: when the recent one is full it becomes the
// older one, and who has been quiet since before that one began is forgotten.
// By then, most likely, they have got their allowance back.
type rates[K comparable] struct {
	perMinute int

	mu            sync.Mutex
	recent, older map[K]*rate.Limiter
}

func newRates[K comparable](perMinute int) *rates[K] {
	return &rates[K]{perMinute: perMinute, recent: map[K]*rate.Limiter{}}
}

// take counts one request of a client. It returns 0, or how long the client has
// to wait before it may try again.
func (r *rates[K]) take(key K) time.Duration {
	if r.perMinute <= 0 {
		return 0
	}
	reservation := r.limiter(key).Reserve()
	wait := reservation.Delay()
	if wait > 0 {
		reservation.Cancel()
	}
	return wait
}

func (r *rates[K]) limiter(key K) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.recent[key]
	if ok {
		return l
	}
	if l, ok = r.older[key]; !ok {
		l = rate.NewLimiter(rate.Limit(r.perMinute)/60, r.perMinute)
	}
	if len(r.recent) >= maxRates {
		r.older, r.recent = r.recent, map[K]*rate.Limiter{}
	}
	r.recent[key] = l
	return l
}

// address returns whom a request is counted for: an IPv4 address or an IPv6
// /64, since whoever has one address of a /64 has them all. It is the address
// of the connection, or if that is a proxy's, the last one in X-Forwarded-For
// that is not.
func address(r *http.Request, proxies []netip.Prefix) netip.Prefix {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	at, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && within(at, proxies); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		at = hop
	}
	at = at.Unmap().WithZone("")
	bits := 32
	if at.Is6() {
		bits = 64
	}
	p, _ := at.Prefix(bits) // Both lengths are valid for their family.
	return p
}

func within(at netip.Addr, networks []netip.Prefix) bool {
	for _, n := range networks {
		if n.Contains(at.Unmap()) {
			return true
		}
	}
	return false
}
