//go:build unix

package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// wires are the connections between the users and the host. They can be cut.
type wires struct {
	http *http.Client // for calls

	mu   sync.Mutex
	open map[*wire]struct{}
}

// wire is one connection.
type wire struct {
	net.Conn

	all *wires
	// left is how many bytes may come or go before it breaks; negative: any.
	left atomic.Int64
}

func newWires() *wires {
	w := &wires{open: map[*wire]struct{}{}}
	w.http = &http.Client{Transport: &http.Transport{DialContext: w.dial, MaxIdleConnsPerHost: 256, IdleConnTimeout: 20 * time.Second}}
	return w
}

func (w *wires) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: patience / 6}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &wire{Conn: conn, all: w}
	c.left.Store(-1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[c] = struct{}{}
	return c, nil
}

// cut breaks a part of the connections: at once, or within their next bytes.
func (w *wires) cut(rng *rand.Rand, part float64, middle bool) {
	w.mu.Lock()
	var chosen []*wire
	for c := range w.open {
		if rng.Float64() < part {
			chosen = append(chosen, c)
		}
	}
	w.mu.Unlock()
	for _, c := range chosen {
		if middle {
			c.left.Store(rng.Int64N(300))
		} else {
			c.snap()
		}
	}
}

var errCut = errors.New("the connection was cut")

// snap ends a connection as a fallen network does: nothing that is still on its
// way arrives.
func (c *wire) snap() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it may be closed already
	}
	_ = c.Close()
}

// allowed returns how many of n bytes pass.
func (c *wire) allowed(n int) int {
	left := c.left.Load()
	if left < 0 {
		return n
	}
	n = min(n, int(left))
	c.left.Store(left - int64(n))
	return n
}

func (c *wire) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if pass := c.allowed(n); pass < n {
		c.snap()
		return pass, errCut
	}
	return n, err
}

func (c *wire) Write(b []byte) (int, error) {
	pass := c.allowed(len(b))
	n, err := c.Conn.Write(b[:pass])
	if err == nil && pass < len(b) {
		// What has passed is to arrive before the end does.
		_ = c.Close()
		return n, errCut
	}
	return n, err
}

func (c *wire) Close() error {
	c.all.mu.Lock()
	delete(c.all.open, c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}
