//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// page is a session of the real host, and its calls, bare: nothing is repeated.
type page struct{ url, token string }

func (s *server) session() (page, error) {
	var made struct {
		ID    string `json:"session_id"`
		Token string `json:"token"`
	}
	err := post(s.url+"/v1/sessions", "", struct{}{}, &made)
	return page{s.url + "/v1/sessions/" + made.ID, made.Token}, err
}

func (p page) socket() (*websocket.Conn, error) {
	return dial("ws"+strings.TrimPrefix(p.url, "http")+"/events", []string{"deskhost.v1", "bearer." + p.token})
}

// chat opens the page's chat.
func (p page) chat() (id string, err error) {
	var made struct {
		ID string `json:"chat_id"`
	}
	err = post(p.url+"/chat", p.token, map[string]any{"id": "c"}, &made)
	return made.ID, err
}

// chat opens a session and its chat, which no socket follows.
func (s *server) chat() (p page, id string, err error) {
	if p, err = s.session(); err == nil {
		id, err = p.chat()
	}
	return p, id, err
}

// open opens a session, a socket and a chat for each page.
func (s *server) open(sockets int) (*path, error) {
	p := &path{arrivals: make(chan arrival, 1<<16), sockets: sockets}
	if s.subject == floorSubject {
		p.begin = func(c command) error { return post(s.url+"/go", "", c, nil) }
		return p, each(sockets, func(i int) error {
			conn, err := dial(fmt.Sprintf("ws%s/chats/%d", strings.TrimPrefix(s.url, "http"), i), nil)
			if err != nil {
				return err
			}
			if _, _, err := conn.ReadMessage(); err != nil { // that the chat is open
				return fmt.Errorf("the floor's chat %d: %w", i, err)
			}
			p.listen(conn)
			return nil
		})
	}
	pages := make([]page, sockets)
	err := each(sockets, func(i int) (err error) {
		if pages[i], err = s.session(); err != nil {
			return err
		}
		conn, err := pages[i].socket()
		if err != nil {
			return err
		}
		p.listen(conn)
		_, err = pages[i].chat()
		return err
	})
	runs := 0
	p.begin = func(c command) error {
		runs++
		return pages[0].say(fmt.Sprint(runs), c.text())
	}
	return p, err
}

// say sends a user's message and awaits that it is taken.
func (p page) say(id, text string) error {
	return post(p.url+"/messages", p.token, floorPost{id, text}, nil)
}

// chats opens chats that no socket follows, and returns how a message is sent
// in each. The bench plugin only takes the message.
func (s *server) chats(n int) ([]sender, error) {
	senders := make([]sender, n)
	return senders, each(n, func(i int) error {
		p := page{url: fmt.Sprintf("%s/chats/%d", s.url, i)}
		if s.subject != floorSubject {
			var err error
			if p, _, err = s.chat(); err != nil {
				return err
			}
		}
		sent := 0
		senders[i] = func() error {
			sent++
			return p.say(fmt.Sprint(sent), command{Padding: padding}.text())
		}
		return nil
	})
}

// each does something n times, a few at a time.
func each(n int, do func(i int) error) error {
	var all errgroup.Group
	all.SetLimit(16)
	for i := range n {
		all.Go(func() error { return do(i) })
	}
	return all.Wait()
}

// httpClient keeps a connection for each of many callers.
var httpClient = &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 4096}}

// post sends JSON and reads the answer, which must be a success.
func post(url, token string, body, answer any) error {
	return call(httpClient, http.MethodPost, url, token, body, answer)
}

// call makes a call, with a body unless that is nil, and reads the answer, which
// must be a success, into what may be nil.
func call(client *http.Client, method, url, token string, body, answer any) error {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, url, content)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return errors.New(method + " " + req.URL.Path + ": " + resp.Status + ": " + string(text))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}
