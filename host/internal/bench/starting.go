//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/deskhost/deskhost/host/internal/bench/usage"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// starting measures how long a desk takes from nothing to ready: process,
// handshake, Describe, Configure, stream. A running host does it again and again
// when its desk, which has no chats, is reloaded. The floor is go-plugin's client
// as it comes, with mutual TLS, up to the answer to Describe.
type starting struct{ starts int }

func (m *starting) measure(r *run) error {
	var hosts []*server
	defer func() { stopAll(hosts) }()
	for _, subject := range r.hosts() {
		s, err := r.startOne(subject)
		if err != nil {
			return err
		}
		hosts = append(hosts, s)
	}
	at := row{What: "start of a desk to ready", Unit: "ms", Aim: "1.5 x floor"}
	for round := range r.rounds {
		for range m.starts {
			p, took, err := startBare(r.plugins)
			if err != nil {
				return err
			}
			if err := p.close(); err != nil {
				return err
			}
			r.note(at, floorSubject, round, milliseconds(took))
			for _, s := range hosts {
				began := time.Now()
				if err := s.reload(); err != nil {
					return err
				}
				r.note(at, s.subject, round, milliseconds(time.Since(began)))
				if _, err := s.awaitDesk(serves(0, 1)); err != nil { // that the one before has ended
					return err
				}
			}
		}
	}
	return nil
}

// barePlugin is a plugin's process held by go-plugin alone.
type barePlugin struct {
	client *goplugin.Client
	pid    int
	// stdin is the other end of the plugin's standard input, with which it ends.
	stdin *os.File
}

func (p barePlugin) close() error {
	p.client.Kill()
	return p.stdin.Close()
}

// startBare starts the bench plugin, in a folder, by go-plugin alone.
func startBare(folder string) (p barePlugin, took time.Duration, err error) {
	// go-plugin's client hands its own standard input on.
	own := os.Stdin
	defer func() { os.Stdin = own }()
	read, write, err := os.Pipe()
	if err != nil {
		return p, 0, err
	}
	defer read.Close()
	os.Stdin, p.stdin = read, write
	began := time.Now()
	cmd := exec.Command(filepath.Join(folder, deskv1.FilePrefix+pluginName))
	p.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: deskv1.MagicCookieKey, MagicCookieValue: deskv1.MagicCookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{deskv1.ProtocolVersion: {"desk": barePluginSet{}}},
		Cmd:              cmd,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		Logger:           hclog.NewNullLogger(),
	})
	err = func() error {
		protocol, err := p.client.Client()
		if err != nil {
			return err
		}
		raw, err := protocol.Dispense("desk")
		if err != nil {
			return err
		}
		conn, ok := raw.(*grpc.ClientConn)
		if !ok {
			return fmt.Errorf("go-plugin dispensed a %T", raw)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err = deskv1.NewDeskServiceClient(conn).Describe(ctx, &deskv1.DescribeRequest{})
		return err
	}()
	took = time.Since(began)
	if err != nil {
		return p, 0, errors.Join(fmt.Errorf("bare go-plugin: %w", err), p.close())
	}
	p.pid = cmd.Process.Pid
	return p, took, nil
}

// barePluginSet hands out the connection itself.
type barePluginSet struct {
	goplugin.NetRPCUnsupportedPlugin
}

// GRPCServer implements goplugin.GRPCPlugin; no plugin is served here.
func (barePluginSet) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return errors.New("no plugin is served here")
}

// GRPCClient implements goplugin.GRPCPlugin.
func (barePluginSet) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

// moreDesks measures the memory of another desk of the same plugin: its process,
// and what the host has for it. The floor is another process of bare go-plugin,
// without what its client takes.
type moreDesks struct{ more int }

func (m *moreDesks) measure(r *run) error {
	for round := range r.rounds {
		if err := m.floor(r, round); err != nil {
			return err
		}
		for _, subject := range r.hosts() {
			if err := m.host(r, subject, round); err != nil {
				return err
			}
		}
	}
	return nil
}

// another is the row of both.
var another = row{What: "memory of one more desk", Unit: "MB", Aim: "6 MB"}

func (m *moreDesks) floor(r *run, round int) (err error) {
	var pids []int
	var one float64
	for i := range 1 + m.more {
		p, _, err := startBare(r.plugins)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.close()) }()
		pids = append(pids, p.pid)
		if i == 0 {
			if one, err = usage.Memory(pids...); err != nil {
				return err
			}
		}
	}
	all, err := usage.Memory(pids...)
	r.note(another, floorSubject, round, (all-one)/1e6/float64(m.more))
	return err
}

func (m *moreDesks) host(r *run, subject string, round int) error {
	var sums [2]float64
	for i, desks := range []int{1, 1 + m.more} {
		s, err := r.startHost(subject, r.plugins, benchDesks(desks))
		if err != nil {
			return err
		}
		sums[i], err = s.settled(desks)
		s.stop()
		if err != nil {
			return err
		}
	}
	r.note(another, subject, round, (sums[1]-sums[0])/1e6/float64(m.more))
	return nil
}

// settled is the memory of a host and its plugins once all desks are ready. The
// host has said that it is ready, which each desk then is or has failed to get.
func (s *server) settled(desks int) (float64, error) {
	pids := usage.Family(s.cmd.Process.Pid)
	if len(pids) != 1+desks {
		return 0, fmt.Errorf("a host with %d desks has %d processes", desks, len(pids))
	}
	return usage.Memory(pids...)
}
