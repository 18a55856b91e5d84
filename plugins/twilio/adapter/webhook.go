package adapter

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/deskhost/deskhost/plugins/twilio/client"
)

const (
	// webhookPath is where Twilio calls, behind the desk's webhook address.
	webhookPath = "/conversations"
	// answerTime is within what the host, and behind it Twilio, waits for.
	answerTime = 3500 * time.Millisecond
)

// ServeHTTP takes what Twilio tells of conversations. A 200 says that the host
// has it; after a 5xx Twilio tells again, and the conversation is read anyway.
func (d *Desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != webhookPath || d.webhookURL == "":
		http.NotFound(w, r)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "Twilio calls with POST.", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "The body cannot be read.", http.StatusBadRequest)
		return
	}
	form, ok := d.signed(r, body)
	if !ok {
		d.refused()
		http.Error(w, "The signature is wrong.", http.StatusForbidden)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	if err := d.hint(ctx, form.Get("ConversationSid"), messageOf(form)); err != nil {
		d.log.Debug("a webhook was put off", "event", form.Get("EventType"), "error", err)
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Not now; deliver again.", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// refused logs a wrong signature, once a minute: anybody can call.
func (d *Desk) refused() {
	d.mu.Lock()
	due := time.Since(d.refusedAt) > time.Minute
	if due {
		d.refusedAt = time.Now()
	}
	d.mu.Unlock()
	if due {
		d.log.Warn("a webhook was refused: its signature is not that of auth_token over the address and the body; "+
			"if it came from Twilio, check auth_token, and that public_url is the address that Twilio calls", "expected_address", d.webhookURL)
	}
}

// signed returns the fields of a webhook that Twilio has signed. The address is
// the configured one: a Host header is written by whoever calls.
func (d *Desk) signed(r *http.Request, body []byte) (url.Values, bool) {
	signature := r.Header.Get("X-Twilio-Signature")
	address := d.webhookBase + r.URL.EscapedPath()
	if r.URL.RawQuery != "" {
		address += "?" + r.URL.RawQuery
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/json" {
		var fields map[string]any
		if !client.ValidBody(d.config.AuthToken, signature, address, body) || json.Unmarshal(body, &fields) != nil {
			return nil, false
		}
		form := url.Values{}
		for name, value := range fields {
			switch value := value.(type) {
			case string:
				form.Set(name, value)
			case float64:
				form.Set(name, strconv.FormatFloat(value, 'f', -1, 64))
			}
		}
		return form, true
	}
	form, err := url.ParseQuery(string(body))
	return form, err == nil && client.ValidForm(d.config.AuthToken, signature, address, form)
}

// messageOf returns the message that a webhook brings; nil if it is of something
// else, or not whole.
func messageOf(form url.Values) *client.Message {
	index, err := strconv.Atoi(form.Get("Index"))
	if form.Get("EventType") != "onMessageAdded" || form.Get("MessageSid") == "" || form.Get("Author") == "" || err != nil || index < 0 {
		return nil
	}
	m := &client.Message{
		SID:            form.Get("MessageSid"),
		Index:          index,
		Author:         form.Get("Author"),
		Body:           form.Get("Body"),
		Attributes:     form.Get("Attributes"),
		ParticipantSID: form.Get("ParticipantSid"),
		DateCreated:    client.Time{Time: client.ParseTime(form.Get("DateCreated"))},
	}
	if media := form.Get("Media"); media != "" {
		_ = m.Media.UnmarshalJSON([]byte(media)) // never fails
	}
	return m
}
