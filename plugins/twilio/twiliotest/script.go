package twiliotest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/deskhost/deskhost/sdk/desktest"
)

// step is what a script asks for in a word of this desk's own.
type step struct {
	Do     string        `json:"do"`
	ChatID string        `json:"chat_id"`
	Text   string        `json:"text"`
	Call   desktest.Call `json:"call"`
	LateMS int64         `json:"late_ms"`
	// Times is how often a fault happens, how many indexes are left out, or how
	// many agents are available.
	Times int `json:"times"`
	// Status, Code and RetryAfterS are a fault's.
	Status      int   `json:"status"`
	Code        int   `json:"code"`
	RetryAfterS int64 `json:"retry_after_s"`
	// Every loses each so many-th webhook.
	Every int `json:"every"`
}

// script plays the desk as a POST tells it: in the words of sdk/desktest, and in
// those of this desk.
//
//	transfer          "text": "join_first" has the next agent join before the other leaves
//	agent_leaves      with nobody to follow
//	park              the same, and the customer's next message calls an agent
//	agent_reads       all that was said
//	supervisor_joins
//	bot_says, system_says, last_words   "text"; with last words the end overtakes the message
//	remove            the conversation is gone: 404
//	hole              "times": so many indexes are left out
//	workers           "times": so many are available
//	foreign_pages     "text": the origin that next_page_url names
//	fault             "call", "status", "code", "retry_after_s", "times", "late_ms"; with "text": "done" the call is carried
//	                  out all the same, with "cut" too, and the connection is closed in place of the answer
//	lose_webhooks     "every": 2 loses every second, 1 all
//	double_webhooks, shuffle_webhooks, late_webhooks ("late_ms"), forge_webhooks, silent_ends
//	good_webhooks     as they should be again
//
// The answers are the same for all: 200 with an object, 501 for a word that
// nobody knows, another status for what went wrong.
func (s *Simulator) script(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	var st step
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	err = desktest.ErrCannotPlay
	if kind == "application/json" && json.Unmarshal(body, &st) == nil {
		err = s.playOwn(&st)
	}
	switch {
	case errors.Is(err, desktest.ErrCannotPlay): // nor is it refused here: this answers whatever it is
		r.Body = io.NopCloser(bytes.NewReader(body))
		desktest.ScriptHandler(s).ServeHTTP(w, r)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}\n")
	}
}

// playOwn does what a word of this desk's own asks for.
func (s *Simulator) playOwn(st *step) error {
	late := time.Duration(st.LateMS) * time.Millisecond
	switch st.Do {
	case "transfer":
		return s.Transfer(st.ChatID, st.Text == "join_first")
	case "agent_leaves":
		return s.AgentLeaves(st.ChatID)
	case "park":
		return s.Park(st.ChatID)
	case "agent_reads":
		return s.AgentReads(st.ChatID)
	case "supervisor_joins":
		return s.SupervisorJoins(st.ChatID)
	case "bot_says":
		return s.BotSays(st.ChatID, st.Text)
	case "system_says":
		return s.SystemSays(st.ChatID, st.Text)
	case "last_words":
		return s.LastWords(st.ChatID, st.Text)
	case "remove":
		return s.Remove(st.ChatID)
	case "hole":
		return s.SkipIndexes(st.ChatID, st.Times)
	case "workers":
		s.SetWorkers(st.Times)
	case "foreign_pages":
		s.SetForeignPages(st.Text)
	case "fault":
		s.Fail(Fault{
			Call: st.Call, Times: st.Times, Status: st.Status, Code: st.Code, Late: late, RetryAfter: time.Duration(st.RetryAfterS) * time.Second,
			Done: st.Text == "done" || st.Text == "cut", Cut: st.Text == "cut",
		})
	default:
		return s.spoilWebhooks(st)
	}
	return nil
}

// spoilWebhooks adds to what goes wrong with webhooks.
func (s *Simulator) spoilWebhooks(st *step) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch st.Do {
	case "lose_webhooks":
		s.webhooks.Lose = max(st.Every, 1)
	case "double_webhooks":
		s.webhooks.Double = true
	case "shuffle_webhooks":
		s.webhooks.Shuffle = true
	case "late_webhooks":
		s.webhooks.Late = time.Duration(st.LateMS) * time.Millisecond
	case "forge_webhooks":
		s.webhooks.WrongSignature = true
	case "silent_ends":
		s.webhooks.SilentEnds = true
	case "good_webhooks":
		s.webhooks = Webhooks{}
	default:
		return desktest.ErrCannotPlay
	}
	return nil
}
