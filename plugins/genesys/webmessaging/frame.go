package webmessaging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
)

// Codes of replies that say that the session is gone.
const (
	CodeSessionExpired  = 4006
	CodeSessionNotFound = 4007
)

// CodeTooManyRequests is the vendor's own code for it; a reply may have 429 as well.
const CodeTooManyRequests = 4029

// request is a frame that a guest sends.
type request struct {
	Action       string    `json:"action"`
	DeploymentID string    `json:"deploymentId,omitempty"`
	Token        string    `json:"token"`
	StartNew     *bool     `json:"startNew,omitempty"`
	Data         *signIn   `json:"data,omitempty"`
	CloseAll     bool      `json:"closeAllConnections,omitempty"`
	Message      *outgoing `json:"message,omitempty"`
	TracingID    string    `json:"tracingId,omitempty"`
}

type signIn struct {
	Code string `json:"code"`
}

// outgoing is the message of a request: a text or an event.
type outgoing struct {
	Type    string           `json:"type"`
	Text    string           `json:"text,omitempty"`
	Content *[]struct{}      `json:"content,omitempty"`
	Channel *outgoingChannel `json:"channel,omitempty"`
	Events  []outgoingEvent  `json:"events,omitempty"`
}

type outgoingChannel struct {
	Metadata struct {
		CustomAttributes map[string]string `json:"customAttributes"`
	} `json:"metadata"`
}

type outgoingEvent struct {
	EventType string        `json:"eventType"`
	Typing    *eventSetting `json:"typing,omitempty"`
	Presence  *eventSetting `json:"presence,omitempty"`
}

type eventSetting struct {
	Type string `json:"type"`
}

func configureRequest(deploymentID, token, signInToken string) *request {
	startNew := false
	r := &request{Action: "configureSession", DeploymentID: deploymentID, Token: token, StartNew: &startNew}
	if signInToken != "" {
		r.Action, r.Data = "configureAuthenticatedSession", &signIn{signInToken}
	}
	return r
}

func textRequest(token, tracingID, text string, attributes map[string]string) *request {
	m := &outgoing{Type: "Text", Text: text, Content: &[]struct{}{}}
	if len(attributes) > 0 {
		m.Channel = new(outgoingChannel)
		m.Channel.Metadata.CustomAttributes = attributes
	}
	return &request{Action: "onMessage", Token: token, TracingID: tracingID, Message: m}
}

func eventRequest(token string, e outgoingEvent) *request {
	return &request{Action: "onMessage", Token: token, Message: &outgoing{Type: "Event", Events: []outgoingEvent{e}}}
}

func typingRequest(token string) *request {
	return eventRequest(token, outgoingEvent{EventType: "Typing", Typing: &eventSetting{"On"}})
}

func clearRequest(token, tracingID string) *request {
	r := eventRequest(token, outgoingEvent{EventType: "Presence", Presence: &eventSetting{"Clear"}})
	r.TracingID = tracingID
	return r
}

func closeRequest(token string) *request {
	return &request{Action: "closeSession", Token: token, CloseAll: true}
}

func jwtRequest(token string) *request { return &request{Action: "getJwt", Token: token} }

// Reply is a frame of the vendor. At most one of its parts is set; none for the
// classes that this client has no use for.
type Reply struct {
	Class string
	// TracingID is that of the request which it answers, if any.
	TracingID string
	// Failed is set if a request was not served.
	Failed  *cloud.Error
	Session *Session
	Message *Message
	JWT     *JWT
	Closed  *ClosedError
}

// Session answers the configuring of a session, and its closing.
type Session struct {
	Connected bool `json:"connected"`
	// New is true if there was no session with the token.
	New bool `json:"newSession"`
	// ReadOnly is true if the conversation has ended.
	ReadOnly bool `json:"readOnly"`
	// MaxAttributeBytes bounds the custom attributes of a message.
	MaxAttributeBytes int `json:"maxCustomDataBytes"`
}

// JWT opens the session's history.
type JWT struct {
	Token string `json:"jwt"`
	// Expires is in seconds since 1970.
	Expires int64 `json:"exp"`
}

// ClosedError says that the vendor closes the connection. Without a reason there are
// too many of the session.
type ClosedError struct {
	Reason     string `json:"reason"`
	ReasonCode string `json:"reasonCode"`
}

// Error returns what the vendor says.
func (e *ClosedError) Error() string {
	return fmt.Sprintf("Genesys closes the connection, with the reason %q", e.Reason)
}

// Message is one of a conversation, from the socket or the history.
type Message struct {
	ID        string `json:"id"`
	Type      string `json:"type"` // "Text", "Structured" or "Event"
	Text      string `json:"text"`
	Direction string `json:"direction"` // "Inbound" is from the user
	Channel   struct {
		Time cloud.Time `json:"time"`
		From struct {
			Nickname string `json:"nickname"`
			Image    string `json:"image"`
		} `json:"from"`
	} `json:"channel"`
	Content           []Content `json:"content"`
	Events            []Event   `json:"events"`
	OriginatingEntity string    `json:"originatingEntity"` // "Human" or "Bot"
	Metadata          struct {
		ReadOnly Truth `json:"readOnly"`
	} `json:"metadata"`
}

// Inbound tells whether the message is the user's own.
func (m *Message) Inbound() bool { return m.Direction == "Inbound" }

// Content is a piece of a structured message.
type Content struct {
	ContentType string `json:"contentType"`
	Attachment  *struct {
		Filename  string `json:"filename"`
		MediaType string `json:"mediaType"` // "Image", "Video", "Audio" or "File"
		FileSize  int64  `json:"fileSize"`
		MIME      string `json:"mime"`
		URL       string `json:"url"`
	} `json:"attachment"`
	QuickReply *struct {
		Text    string `json:"text"`
		Payload string `json:"payload"`
	} `json:"quickReply"`
}

// Event is what a message of the type Event tells.
type Event struct {
	EventType string `json:"eventType"` // "Typing" or "Presence"
	Typing    struct {
		Type     string `json:"type"`     // "On" or "Off"
		Duration int64  `json:"duration"` // milliseconds
	} `json:"typing"`
	Presence struct {
		Type string `json:"type"` // "Join", "Disconnect" or "Clear"
	} `json:"presence"`
}

// Truth is a bool that may be written as a string.
type Truth bool

// UnmarshalJSON takes true and "true" for true.
func (t *Truth) UnmarshalJSON(text []byte) error {
	*t = Truth(strings.Trim(string(text), `"`) == "true")
	return nil
}

// Decode reads a frame. The body of a reply is a text or an object, so it is
// looked at once the class and the code are known.
func Decode(frame []byte) (*Reply, error) {
	var envelope struct {
		Class     string          `json:"class"`
		Code      int             `json:"code"`
		Body      json.RawMessage `json:"body"`
		TracingID string          `json:"tracingId"`
	}
	if err := json.Unmarshal(frame, &envelope); err != nil {
		return nil, fmt.Errorf("a frame is not understood: %w", err)
	}
	r := &Reply{Class: envelope.Class, TracingID: envelope.TracingID}
	if envelope.Code != 0 && envelope.Code != http.StatusOK {
		r.Failed = failed(envelope.Code, envelope.Body)
		return r, nil
	}
	var into any
	switch envelope.Class {
	case "SessionResponse":
		r.Session = new(Session)
		into = r.Session
	case "StructuredMessage":
		r.Message = new(Message)
		into = r.Message
	case "JwtResponse":
		r.JWT = new(JWT)
		into = r.JWT
	case "ConnectionClosedEvent":
		r.Closed = new(ClosedError)
		if json.Unmarshal(envelope.Body, r.Closed) == nil && r.Closed.Reason == "" {
			r.Closed.Reason = r.Closed.ReasonCode
		}
		return r, nil
	case "SessionExpiredEvent":
		r.Failed = &cloud.Error{Status: CodeSessionExpired, Message: "the session has expired", Sent: true}
		return r, nil
	default:
		return r, nil
	}
	if err := json.Unmarshal(envelope.Body, into); err != nil {
		return nil, fmt.Errorf("the body of a %s is not understood: %w", envelope.Class, err)
	}
	return r, nil
}

// failed reads the body of a reply whose code is an error.
func failed(code int, body json.RawMessage) *cloud.Error {
	e := &cloud.Error{Status: code, Sent: true}
	var told struct {
		RetryAfter float64 `json:"retryAfter"` // seconds
		ErrorCode  int     `json:"errorCode"`
		Message    string  `json:"errorMessage"`
	}
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		if json.Unmarshal(body, &told) == nil {
			e.Message = told.Message
			if told.RetryAfter > 0 && told.RetryAfter < 3600 {
				e.RetryAfter = time.Duration(told.RetryAfter * float64(time.Second))
			}
		}
		return e
	}
	_ = json.Unmarshal(body, &e.Message) // a body that is no text explains nothing
	return e
}
