//go:build unix

package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

// patience bounds one measurement.
const patience = 2 * time.Minute

// path is an open way from the plugin to sockets, ready to be measured.
type path struct {
	arrivals chan arrival
	sockets  int
	begin    func(command) error
}

// arrival is one event at one socket, or the end of a socket.
type arrival struct {
	delay time.Duration
	err   error
}

// dial opens a socket.
func dial(url string, protocols []string) (*websocket.Conn, error) {
	dialer := websocket.Dialer{Subprotocols: protocols, ReadBufferSize: 1024, WriteBufferSize: 256}
	conn, resp, err := dialer.Dial(url, nil)
	if err != nil {
		if resp != nil {
			err = fmt.Errorf("%w: %s", err, resp.Status)
		}
		return nil, fmt.Errorf("open %s: %w", url, err)
	}
	return conn, nil
}

// listen reads a socket until it fails, as all do when their server ends. Only
// what the bench plugin sent counts.
func (p *path) listen(conn *websocket.Conn) {
	go func() {
		defer conn.Close()
		var buf bytes.Buffer
		for {
			_, r, err := conn.NextReader()
			if err == nil {
				buf.Reset()
				_, err = buf.ReadFrom(r)
			}
			if err != nil {
				p.arrivals <- arrival{err: err}
				return
			}
			if at, ok := sentAt(buf.Bytes()); ok {
				p.arrivals <- arrival{delay: time.Duration(time.Now().UnixNano() - at)}
			}
		}
	}()
}

// sentAt finds the time in an event's text.
func sentAt(message []byte) (nanos int64, ok bool) {
	_, rest, ok := bytes.Cut(message, []byte(`"t=`))
	if !ok {
		return 0, false
	}
	digits, _, _ := bytes.Cut(rest, []byte(" "))
	nanos, err := strconv.ParseInt(string(digits), 10, 64)
	return nanos, err == nil
}

// measure has the plugin emit, and returns how long it took until all had
// arrived, and how long each was on its way, sorted.
func (p *path) measure(c command) (took time.Duration, delays []time.Duration, err error) {
	total := c.Events * p.sockets
	delays = make([]time.Duration, 0, total)
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	begin := time.Now()
	if err := p.begin(c); err != nil {
		return 0, nil, err
	}
	for len(delays) < total {
		select {
		case a := <-p.arrivals:
			if a.err != nil {
				return 0, nil, fmt.Errorf("a socket has failed: %w", a.err)
			}
			delays = append(delays, a.delay)
		case <-timeout.C:
			return 0, nil, errors.New("events are missing: " + strconv.Itoa(total-len(delays)))
		}
	}
	took = time.Since(begin)
	slices.Sort(delays)
	return took, delays, nil
}
