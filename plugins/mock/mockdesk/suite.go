package mockdesk

import (
	"net/http"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/deskapi"
)

// serveSuite is the desk's end of a conformance suite's script, as
// docs/write-a-plugin.md describes it: the first agent does what it is told.
func (d *Desk) serveSuite(_ *http.Request, body []byte) (any, error) {
	var req struct {
		Do     string `json:"do"`
		ChatID string `json:"chat_id"`
		Text   string `json:"text"`
		Call   string `json:"call"`
		LateMS int64  `json:"late_ms"`
	}
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	agent := d.script.Agents[0].ID
	var answer struct {
		Heard []string `json:"heard,omitempty"`
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	switch req.Do {
	case "agent_joins":
		err = d.perform(req.ChatID, agent, []Step{{Join: &agent}})
	case "agent_says":
		err = d.perform(req.ChatID, agent, []Step{{Say: req.Text}})
	case "agent_ends":
		reason := "Goodbye."
		err = d.perform(req.ChatID, agent, []Step{{End: &reason}})
	case "heard":
		answer.Heard, err = d.heard(req.ChatID)
	case "fail_next_call":
		err = d.faultOnce(req.Call, &Fault{Fail: "busy", First: 1})
	case "stall_next_call":
		err = d.faultOnce(req.Call, &Fault{late: Millis(time.Duration(req.LateMS) * time.Millisecond), First: 1})
	default:
		err = newProblem(http.StatusNotImplemented, deskapi.CodeInvalid, "this desk cannot play that")
	}
	return answer, err
}

// heard returns what the user wrote.
func (d *Desk) heard(key string) (texts []string, err error) {
	c := d.conversations[key]
	if c == nil {
		return nil, errUnknown
	}
	for _, e := range c.events {
		if e.Type == deskapi.UserMessage {
			texts = append(texts, e.Text)
		}
	}
	return texts, nil
}

// faultOnce has the next call of a kind go wrong, and no other.
func (d *Desk) faultOnce(call string, fault *Fault) error {
	return d.setFaults(Faults{Calls: map[string]*Fault{call: fault}, Feed: d.faults.Feed})
}
