package twiliotest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/deskhost/deskhost/sdk/desktest"
)

// step is what a script asks for.
type step struct {
	Do     string        `json:"do"`
	ChatID string        `json:"chat_id"`
	Text   string        `json:"text"`
	Call   desktest.Call `json:"call"`
	LateMs int           `json:"late_ms"`
	// Times is how often a fault happens, or how many indexes are left out.
	Times int `json:"times"`
	// Status and Code are a fault's.
	Status int `json:"status"`
	Code   int `json:"code"`
	// Every loses each so many-th webhook.
	Every int `json:"every"`
}

// script plays the desk as a POST tells it: the words of sdk/desktest and those
// of this desk.
//
//	agent_joins, agent_says, agent_ends, heard, fail_next_call, stall_next_call
//	transfer          "text": "join_first" has the next agent join before the other leaves
//	agent_leaves      with nobody to follow
//	park              the same, and the customer's next message calls an agent
//	agent_reads       all that was said
//	supervisor_joins
//	bot_says, system_says, last_words   "text"; with last words the end overtakes the message
//	remove            the conversation is gone: 404
//	hole              "times": so many indexes are left out
//	fault             "call", "status", "code", "times", "late_ms"; with "text": "done" the call is carried
//	                  out all the same, with "cut" too, and the connection is closed in place of the answer
//	lose_webhooks     "every": 2 loses every second, 1 all
//	double_webhooks, shuffle_webhooks, late_webhooks ("late_ms"), forge_webhooks, silent_ends
//	good_webhooks     as they should be again
//	workers           "times": so many are available
//	foreign_pages     "text": the origin that next_page_url names
//
// The answer is 200 with {"heard": […]} or {}, 501 where a word is not known,
// else 400 with what is wrong.
func (s *Simulator) script(w http.ResponseWriter, r *http.Request) {
	var st step
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxForm)).Decode(&st); err != nil {
		http.Error(w, "no JSON: "+err.Error(), http.StatusBadRequest)
		return
	}
	heard, err := s.playStep(r, &st)
	switch {
	case errors.Is(err, desktest.ErrCannotPlay):
		http.Error(w, err.Error(), http.StatusNotImplemented)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(struct {
			Heard []string `json:"heard,omitempty"`
		}{heard})
	}
}

func (s *Simulator) playStep(r *http.Request, st *step) (heard []string, err error) {
	late := time.Duration(st.LateMs) * time.Millisecond
	switch st.Do {
	case "agent_joins":
		return nil, s.AgentJoins(r.Context(), st.ChatID)
	case "agent_says":
		return nil, s.AgentSays(r.Context(), st.ChatID, st.Text)
	case "agent_ends":
		return nil, s.AgentEnds(r.Context(), st.ChatID)
	case "heard":
		return s.Heard(r.Context(), st.ChatID)
	case "fail_next_call":
		return nil, s.FailNextCall(r.Context(), st.Call)
	case "stall_next_call":
		return nil, s.StallNextCall(r.Context(), st.Call, late)
	case "transfer":
		return nil, s.Transfer(st.ChatID, st.Text == "join_first")
	case "agent_leaves":
		return nil, s.AgentLeaves(st.ChatID)
	case "park":
		return nil, s.Park(st.ChatID)
	case "agent_reads":
		return nil, s.AgentReads(st.ChatID)
	case "supervisor_joins":
		return nil, s.SupervisorJoins(st.ChatID)
	case "bot_says":
		return nil, s.BotSays(st.ChatID, st.Text)
	case "system_says":
		return nil, s.SystemSays(st.ChatID, st.Text)
	case "last_words":
		return nil, s.LastWords(st.ChatID, st.Text)
	case "remove":
		return nil, s.Remove(st.ChatID)
	case "hole":
		return nil, s.SkipIndexes(st.ChatID, st.Times)
	case "workers":
		s.SetWorkers(st.Times)
	case "foreign_pages":
		s.SetForeignPages(st.Text)
	case "fault":
		s.Fail(Fault{
			Call: st.Call, Times: st.Times, Status: st.Status, Code: st.Code, Late: late,
			Done: st.Text == "done" || st.Text == "cut", Cut: st.Text == "cut",
		})
	default:
		return nil, s.spoilWebhooks(st)
	}
	return nil, nil
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
		s.webhooks.Late = time.Duration(st.LateMs) * time.Millisecond
	case "forge_webhooks":
		s.webhooks.WrongSignature = true
	case "silent_ends":
		s.webhooks.SilentEnds = true
	case "good_webhooks":
		s.webhooks = Webhooks{}
	default:
		return fmt.Errorf("%w: %q", desktest.ErrCannotPlay, st.Do)
	}
	return nil
}
