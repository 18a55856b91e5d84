//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/desk"
	"github.com/deskhost/deskhost/host/internal/process"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// floor is the least that can stand between a plugin and a page: events are
// acknowledged unread and go to the socket of their chat.
type floor struct {
	ready chan desk.Generation

	mu    sync.RWMutex
	conns map[string]*conn
}

// conn is a socket with a writer of its own.
type conn struct{ send chan []byte }

// floorMessage is about what a page gets from the real host.
type floorMessage struct {
	Seq    uint64 `json:"seq"`
	Type   string `json:"type"`
	ChatID string `json:"chat_id"`
	From   string `json:"from"`
	ID     string `json:"id"`
	Text   string `json:"text"`
}

// floorPost is a user's message.
type floorPost struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

var quiet = hclog.New(&hclog.LoggerOptions{Level: hclog.Warn})

// deskSource is the bench plugin for a desk of this process, with dir/data for its files.
func deskSource(dir string) (source desk.Source, err error) {
	source.Plugin = pluginName
	if source.RunDir, err = process.PrepareRunDir(filepath.Join(dir, "data")); err != nil {
		return source, err
	}
	source.Folder, err = catalog.OpenFolder(filepath.Join(dir, "plugins.d"), filepath.Join(dir, "data", "store"), catalog.AtOnce, quiet)
	return source, err
}

// idle serves a socket over which nothing is ever said.
func idle(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{ReadBufferSize: 256, WriteBufferSize: 1024, WriteBufferPool: &idleBuffers}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	defer ws.Close()
	_, _, _ = ws.NextReader() // ends with the socket
}

var idleBuffers sync.Pool

// runFloor serves until it is asked to end.
func runFloor(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	f := &floor{ready: make(chan desk.Generation, 1), conns: make(map[string]*conn)}
	source, err := deskSource(dir)
	if err != nil {
		return err
	}
	d := desk.New(desk.Options{Name: pluginName, Source: source, Limits: desk.DefaultLimits(), Log: quiet, Handler: f})
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	var g desk.Generation
	select {
	case g = <-f.ready:
	case <-time.After(30 * time.Second):
		return fmt.Errorf("the floor's desk is not ready: %s", d.Status().LastError)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /chats/{chat}", func(w http.ResponseWriter, r *http.Request) { f.serve(w, r, g) })
	mux.HandleFunc("GET /idle", idle)
	mux.HandleFunc("POST /chats/{chat}/messages", func(w http.ResponseWriter, r *http.Request) {
		var m floorPost
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if _, err := g.SendMessageToAgent(r.Context(), &deskv1.SendMessageToAgentRequest{ChatId: r.PathValue("chat"), MessageId: m.ID, Attempt: 1, Text: m.Text}); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"seq": 1, "status": "delivered"}) // the client tells of a broken connection
	})
	mux.HandleFunc("POST /go", func(w http.ResponseWriter, r *http.Request) {
		var c command
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if _, err := g.SendMessageToAgent(r.Context(), &deskv1.SendMessageToAgentRequest{ChatId: "0", MessageId: "m", Attempt: 1, Text: c.text()}); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("floor at http://%s\n", listener.Addr())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	_ = server.Serve(listener) // ends with ctx
	return <-done
}

// serve opens a page's socket and its chat.
func (f *floor) serve(w http.ResponseWriter, r *http.Request, g desk.Generation) {
	up := websocket.Upgrader{ReadBufferSize: 256, WriteBufferSize: 1024}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	defer ws.Close()
	c := &conn{send: make(chan []byte, 1024)}
	chat := r.PathValue("chat")
	f.mu.Lock()
	f.conns[chat] = c
	f.mu.Unlock()
	if _, err := g.StartChat(context.Background(), &deskv1.StartChatRequest{ChatId: chat, Attempt: 1}); err != nil {
		return
	}
	// The chat is open: the page may be counted on.
	if ws.WriteMessage(websocket.TextMessage, []byte("{}")) != nil {
		return
	}
	for message := range c.send {
		if ws.WriteMessage(websocket.TextMessage, message) != nil {
			return
		}
	}
}

// Ready implements desk.Handler.
func (f *floor) Ready(g desk.Generation) { f.ready <- g }

// Fits implements desk.Handler.
func (f *floor) Fits(desk.Generation) error { return nil }

// Chats implements desk.Handler: there is one generation.
func (f *floor) Chats(string, uint64) int { return 0 }

// Down implements desk.Handler.
func (f *floor) Down(desk.Generation, error) {}

// Events implements desk.Handler.
func (f *floor) Events(g desk.Generation, events []*deskv1.Event) {
	for _, ev := range events {
		f.mu.RLock()
		c := f.conns[ev.GetChatId()]
		f.mu.RUnlock()
		message, err := json.Marshal(floorMessage{
			Seq: ev.GetSeq(), Type: "message", ChatID: ev.GetChatId(), From: "agent", ID: ev.GetEventId(),
			Text: ev.GetMessageToUser().GetParts()[0].GetText().GetText(),
		})
		if err == nil {
			c.send <- message
		}
		g.Settle(ev.GetSeq(), nil)
	}
}
