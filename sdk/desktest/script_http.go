package desktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
)

// maxScriptBytes bounds a request to a script and its answer.
const maxScriptBytes = 4 << 20

// The words of a script over HTTP: what the desk is to do.
const (
	doAgentJoins    = "agent_joins"
	doAgentSays     = "agent_says"
	doAgentEnds     = "agent_ends"
	doHeard         = "heard"
	doFailNextCall  = "fail_next_call"
	doStallNextCall = "stall_next_call"
)

// scriptRequest is what is posted to a script.
type scriptRequest struct {
	Do     string `json:"do"`
	ChatID string `json:"chat_id,omitempty"`
	Text   string `json:"text,omitempty"`
	Call   Call   `json:"call,omitempty"`
	LateMS int64  `json:"late_ms,omitempty"`
}

type scriptAnswer struct {
	Heard []string `json:"heard,omitempty"`
}

// httpScript is the script at a URL.
type httpScript string

// ScriptAt returns the script that is played at a URL, in any language: each of
// its methods is a POST of a JSON object, as docs/write-a-plugin.md describes.
// [ScriptHandler] is the other side.
func ScriptAt(url string) Script { return httpScript(url) }

func (s httpScript) AgentJoins(ctx context.Context, chatID string) error {
	_, err := s.play(ctx, scriptRequest{Do: doAgentJoins, ChatID: chatID})
	return err
}

func (s httpScript) AgentSays(ctx context.Context, chatID, text string) error {
	_, err := s.play(ctx, scriptRequest{Do: doAgentSays, ChatID: chatID, Text: text})
	return err
}

func (s httpScript) AgentEnds(ctx context.Context, chatID string) error {
	_, err := s.play(ctx, scriptRequest{Do: doAgentEnds, ChatID: chatID})
	return err
}

func (s httpScript) Heard(ctx context.Context, chatID string) ([]string, error) {
	return s.play(ctx, scriptRequest{Do: doHeard, ChatID: chatID})
}

func (s httpScript) FailNextCall(ctx context.Context, call Call) error {
	_, err := s.play(ctx, scriptRequest{Do: doFailNextCall, Call: call})
	return err
}

func (s httpScript) StallNextCall(ctx context.Context, call Call, late time.Duration) error {
	_, err := s.play(ctx, scriptRequest{Do: doStallNextCall, Call: call, LateMS: late.Milliseconds()})
	return err
}

func (s httpScript) play(ctx context.Context, what scriptRequest) (heard []string, err error) {
	body, err := json.Marshal(what)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, string(s), bytes.NewReader(body)) //nolint:gosec // as below
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req) //nolint:gosec // whoever runs the suite names the address
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxScriptBytes))
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotImplemented:
		return nil, fmt.Errorf("%s: %w", what.Do, ErrCannotPlay)
	default:
		return nil, fmt.Errorf("the script at %s answers %s with %s: %.500s", s, what.Do, resp.Status, strings.TrimSpace(string(text)))
	}
	var answer scriptAnswer
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("the script at %s answers %s with what is no JSON object: %.100q", s, what.Do, text)
	}
	return answer.Heard, nil
}

// ScriptHandler serves a script to [ScriptAt]: a simulator written in Go mounts
// it, so that "deskhost plugin verify --script" can play its agents. Who reaches
// it is an agent, so keep it to loopback.
func ScriptHandler(script Script) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "want POST", http.StatusMethodNotAllowed)
			return
		}
		// No web page of another origin can send this type unasked.
		if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
			http.Error(w, "want Content-Type: application/json", http.StatusUnsupportedMediaType)
			return
		}
		var what scriptRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxScriptBytes)).Decode(&what); err != nil {
			http.Error(w, "want a JSON object with a word in do", http.StatusBadRequest)
			return
		}
		heard, err := what.playedBy(r.Context(), script)
		switch {
		case errors.Is(err, ErrCannotPlay):
			http.Error(w, what.Do+": "+err.Error(), http.StatusNotImplemented)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(scriptAnswer{heard}) // the caller has gone if this fails
		}
	})
}

func (r *scriptRequest) playedBy(ctx context.Context, script Script) (heard []string, err error) {
	switch r.Do {
	case doAgentJoins:
		return nil, script.AgentJoins(ctx, r.ChatID)
	case doAgentSays:
		return nil, script.AgentSays(ctx, r.ChatID, r.Text)
	case doAgentEnds:
		return nil, script.AgentEnds(ctx, r.ChatID)
	case doHeard:
		return script.Heard(ctx, r.ChatID)
	case doFailNextCall:
		return nil, script.FailNextCall(ctx, r.Call)
	case doStallNextCall:
		return nil, script.StallNextCall(ctx, r.Call, time.Duration(r.LateMS)*time.Millisecond)
	default:
		return nil, ErrCannotPlay
	}
}
