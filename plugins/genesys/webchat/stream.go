package webchat

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
)

// Event is a frame of a conversation's event stream. At most one of its parts is
// set; none for heartbeats, and for what this client has no use for.
type Event struct {
	Message *Message
	// Typing is who types.
	Typing *Message
	Change *MemberChange
}

// MemberChange says that somebody came, went, or is being called. It does not
// say who that is: ask for the member.
type MemberChange struct {
	Member struct {
		ID    string `json:"id"`
		State string `json:"state"`
	} `json:"member"`
	Time cloud.Time `json:"timestamp"`
}

// DecodeEvent reads a frame.
func DecodeEvent(frame []byte) (*Event, error) {
	var envelope struct {
		Topic    string          `json:"topicName"`
		Body     json.RawMessage `json:"eventBody"`
		Metadata struct {
			Type string `json:"type"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(frame, &envelope); err != nil {
		return nil, fmt.Errorf("a frame is not understood: %w", err)
	}
	if !strings.HasPrefix(envelope.Topic, "v2.conversations.chats.") {
		return &Event{}, nil
	}
	e := new(Event)
	var into any
	switch envelope.Metadata.Type {
	case "message":
		e.Message = new(Message)
		into = e.Message
	case "typing-indicator":
		e.Typing = new(Message)
		into = e.Typing
	case "member-change":
		e.Change = new(MemberChange)
		into = e.Change
	default:
		return e, nil
	}
	if err := json.Unmarshal(envelope.Body, into); err != nil {
		return nil, fmt.Errorf("the body of a %s is not understood: %w", envelope.Metadata.Type, err)
	}
	return e, nil
}

// Stream is the event stream of a conversation. One goroutine reads it.
type Stream struct{ socket *cloud.Socket }

// Attach opens the conversation's event stream.
func (c *Client) Attach(ctx context.Context, conv *Conversation) (*Stream, error) {
	socket, err := c.cloud.DialNamed(ctx, conv.Stream, c.silence)
	if err != nil {
		return nil, err
	}
	return &Stream{socket}, nil
}

// Read returns the next event. A frame that is not understood is an error, after
// which reading may go on; any other is of the type [cloud.Error] and ends the
// stream.
func (s *Stream) Read() (*Event, error) {
	frame, err := s.socket.Read()
	if err != nil {
		return nil, err
	}
	return DecodeEvent(frame)
}

// Ping asks for a sign of life, for which it waits no longer than within.
func (s *Stream) Ping(within time.Duration) error { return s.socket.Ping(within) }

// Close ends the stream; the conversation lives on.
func (s *Stream) Close() { s.socket.Close() }
