package genesystest

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"time"
)

// Act is one thing that a script has the desk do, or go wrong about.
//
// With a chat, named by ChatID (the custom attribute deskhost_chat_id, or the
// conversation's own id):
//
//	agent_joins     an agent takes it: Agent, or the one whom a transfer named, or the first
//	agent_says      an agent writes Text, and joins first if need be
//	agent_typing    the agent types; with "on": false no longer (Web Messaging has no word for that)
//	agent_leaves    the agent leaves, the conversation goes on
//	agent_ends      the agent ends the conversation
//	transfer        the agent leaves and another, Agent, is called, who joins by agent_joins or agent_says
//	quick_replies   the desk asks Text with Replies to choose from (Web Chat: they are lines of the text)
//	attachment      an agent sends the file Name with Text in it (Web Chat: as a link)
//	notice          a line of the desk's own that no agent wrote: Text
//	heard           returns what the customer wrote
//	expire          the session expires (Web Messaging), or the customer is put out (Web Chat)
//	read_only       the conversation ends as if the agent had, for Web Messaging whatever the deployment says
//	shuffle         the next N frames come in reverse, once there are N
//	repeat          the next N frames come twice
//
// With a chat or, without ChatID, with all of them:
//
//	cut             their connections are cut
//	lose_socket     their connections go dead without being closed
//	too_many        their connections are closed because there are too many (Web Messaging)
//
// Without a chat:
//
//	agents_on_queue N agents are there
//	expire_tokens   JWTs and access tokens issued so far have expired
//	rate_limit      the next N calls of the kind Call are answered with 429 and "retry after" RetryAfter seconds
//	fail_next_call  the next N calls of the kind Call are refused with Status (default 429) and, where the API has one, Code
//	stall_next_call the next N calls of the kind Call are answered LateMS later
//	lose_answer     the next N calls of the kind Call are done, but cut off before their answer
//
// N is 1 if left out, and 0 for agents_on_queue. Kinds of calls are start, send and end, and besides:
// connect (a socket), jwt, history, members, typing, token, availability,
// config, exchange, signeddata, file, upload. In Web Messaging start is
// configureSession, send is onMessage with a text, and end is closeSession or a
// Presence Clear.
type Act struct {
	Do         string   `json:"do"`
	ChatID     string   `json:"chat_id"`
	Agent      string   `json:"agent"`
	Text       string   `json:"text"`
	On         *bool    `json:"on"`
	Replies    []string `json:"replies"`
	Name       string   `json:"name"`
	N          int      `json:"n"`
	Call       string   `json:"call"`
	LateMS     int64    `json:"late_ms"`
	Status     int      `json:"status"`
	Code       string   `json:"code"`
	RetryAfter int      `json:"retry_after"`
}

// errCannotPlay says that a word is not known.
var errCannotPlay = errors.New("the simulator cannot play this")

var callKinds = []string{
	callStart, callSend, callEnd, "connect", "jwt", "history", "members", "typing", "token", "availability",
	"config", "exchange", "signeddata", "file", "upload",
}

// serveScript plays the [Act] that is posted as a JSON object. It answers 200
// with {} or {"heard": […]}, 501 to a word that it does not know, and an error's
// text with any other status. Who reaches it is an agent: keep it to loopback.
func (s *Server) serveScript(w http.ResponseWriter, r *http.Request) {
	// No web page of another origin can send this type unasked.
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
		http.Error(w, "want Content-Type: application/json", http.StatusUnsupportedMediaType)
		return
	}
	var a Act
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxFrame)).Decode(&a); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	heard, err := s.play(&a)
	switch {
	case errors.Is(err, errCannotPlay):
		http.Error(w, a.Do+": "+err.Error(), http.StatusNotImplemented)
	case err != nil:
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		answer := map[string][]string{}
		if len(heard) > 0 {
			answer["heard"] = heard
		}
		(&written{status: http.StatusOK, body: encode(answer)}).write(w)
	}
}

// Do has the desk do something.
func (s *Server) Do(a Act) error {
	_, err := s.play(&a)
	return err
}

// Heard returns what the customer wrote in a chat, as the agent sees it.
func (s *Server) Heard(chatID string) ([]string, error) {
	return s.play(&Act{Do: "heard", ChatID: chatID})
}

func (s *Server) play(a *Act) (heard []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch a.Do {
	case "agents_on_queue":
		s.onQueue = max(a.N, 0)
		return nil, nil
	case "expire_tokens":
		s.tokens.expire()
		return nil, nil
	case "rate_limit", "fail_next_call", "stall_next_call", "lose_answer":
		return nil, s.spoil(a)
	case "cut", "lose_socket", "too_many":
		return nil, s.unplug(a)
	}
	if !slices.Contains(chatWords, a.Do) {
		return nil, errCannotPlay
	}
	c, err := s.find(a.ChatID)
	if err != nil {
		return nil, err
	}
	if a.Do == "heard" {
		for _, e := range c.log {
			if e.From == "customer" {
				heard = append(heard, e.Text)
			}
		}
		return heard, nil
	}
	return nil, s.playAgent(c, a)
}

var chatWords = []string{
	"agent_joins", "agent_says", "agent_typing", "agent_leaves", "agent_ends", "transfer", "quick_replies", "attachment",
	"notice", "heard", "expire", "read_only", "shuffle", "repeat",
}

func (s *Server) playAgent(c *conversation, a *Act) error {
	switch a.Do {
	case "agent_joins":
		return s.join(c, a.Agent)
	case "agent_says":
		return s.say(c, a.Agent, &said{text: a.Text})
	case "quick_replies":
		return s.say(c, a.Agent, &said{text: a.Text, replies: a.Replies})
	case "attachment":
		f := s.sent(a.Name, []byte(a.Text))
		return s.say(c, a.Agent, &said{file: f, fileURL: f.url(c.base)})
	case "agent_typing":
		if err := s.join(c, a.Agent); err != nil {
			return err
		}
		c.guest.typing(c.agent, a.On == nil || *a.On)
		return nil
	case "agent_leaves":
		if c.agent == "" {
			return errNoAgent
		}
		c.leave()
		return nil
	case "transfer":
		return s.transfer(c, a.Agent)
	case "agent_ends":
		return c.end()
	}
	if c.over {
		return errOver
	}
	c.guest.spoil(a)
	return nil
}

// spoil plans a fault of the next calls of a kind.
func (s *Server) spoil(a *Act) error {
	if !slices.Contains(callKinds, a.Call) {
		return fmt.Errorf("call: there is no kind %q; there are %q", a.Call, callKinds)
	}
	f := fault{after: max(a.RetryAfter, 1)}
	switch a.Do {
	case "stall_next_call":
		f.late = time.Duration(a.LateMS) * time.Millisecond
	case "lose_answer":
		f.lost = true
	default:
		f.status, f.code = a.Status, a.Code
		if a.Do == "rate_limit" || f.status == 0 {
			f.status = http.StatusTooManyRequests
		}
	}
	for range max(a.N, 1) {
		s.faults[a.Call] = append(s.faults[a.Call], f)
	}
	return nil
}

// unplug does something to the connections of one chat, or of all.
func (s *Server) unplug(a *Act) error {
	var sockets []*socket
	if a.ChatID == "" {
		for k := range s.sockets {
			sockets = append(sockets, k)
		}
	} else {
		c, err := s.find(a.ChatID)
		if err != nil {
			return err
		}
		sockets = c.guest.connections()
	}
	for _, k := range sockets {
		switch {
		case a.Do == "cut":
			k.cut()
		case a.Do == "lose_socket":
			k.lost.Store(true)
		case k.session != nil:
			k.session.dismiss(closedBody{}, func(other *socket) bool { return other == k })
		}
	}
	return nil
}
