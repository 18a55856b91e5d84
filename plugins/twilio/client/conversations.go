package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"golang.org/x/time/rate"
)

const (
	// pageSize is the most that Twilio lists at once.
	pageSize = 100
	// firstPage is how many messages are asked for where few are expected.
	firstPage = 20
	// maxPages bounds a list, whose pages name each other.
	maxPages = 200
	// Twilio takes 30 writes a second of a conversation: 25 and 5 at once are no
	// more in any second.
	writesPerSecond = 25
	writesAtOnce    = 5
)

// States of a conversation.
const (
	Active   = "active"
	Inactive = "inactive"
	Closed   = "closed"
)

// Conversation is one conversation. It is safe for concurrent use.
type Conversation struct {
	// SID is the conversation's, CH….
	SID string

	c      *Client
	writes *rate.Limiter
}

// Conversation returns the conversation with the SID, without asking for it.
func (c *Client) Conversation(sid string) *Conversation {
	return &Conversation{SID: sid, c: c, writes: rate.NewLimiter(writesPerSecond, writesAtOnce)}
}

// Message is one message of a conversation.
type Message struct {
	SID string `json:"sid"`
	// Index grows in the conversation, with holes.
	Index  int    `json:"index"`
	Author string `json:"author"`
	Body   string `json:"body"`
	// Attributes is JSON.
	Attributes string `json:"attributes"`
	// ParticipantSID is the author's, MB…, if the author was a participant.
	ParticipantSID string    `json:"participant_sid"`
	DateCreated    Time      `json:"date_created"`
	Media          MediaList `json:"media"`
}

// Media is a file in a message.
type Media struct {
	Filename string `json:"filename"`
}

// MediaList are the files of a message. What is no such list is none.
type MediaList []Media

// UnmarshalJSON never fails: a message is worth more than its files.
func (l *MediaList) UnmarshalJSON(b []byte) error {
	var list []Media
	if json.Unmarshal(b, &list) == nil {
		*l = list
	}
	return nil
}

// Time is a time as Twilio writes it; zero if it is not understood.
type Time struct{ time.Time }

// UnmarshalJSON never fails.
func (t *Time) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		t.Time = ParseTime(text)
	}
	return nil
}

// ParseTime reads a time as Twilio writes it; zero if it is not understood.
func ParseTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Participant is somebody in a conversation.
type Participant struct {
	// SID is MB….
	SID string `json:"sid"`
	// Identity is empty for somebody who writes by text message.
	Identity string `json:"identity"`
	// Attributes is JSON.
	Attributes string `json:"attributes"`
	// LastReadMessageIndex is nil if nothing was read.
	LastReadMessageIndex *int `json:"last_read_message_index"`
}

// meta is the part of a list that tells where it goes on.
type meta struct {
	NextPageURL string `json:"next_page_url"`
}

// next is the query of the next page; nil at the end. The rest of the address
// is not used, so that credentials go nowhere else.
func (m meta) next() url.Values {
	u, err := url.Parse(m.NextPageURL)
	if err != nil || m.NextPageURL == "" {
		return nil
	}
	return u.Query()
}

func (v *Conversation) at(path ...string) *url.URL {
	return at(v.c.conversations, append([]string{"v1", "Conversations", v.SID}, path...)...)
}

// write makes a request within the conversation's limit.
func (v *Conversation) write(ctx context.Context, r request, answer any) error {
	if err := v.writes.Wait(ctx); err != nil {
		return &Error{Err: err, write: true}
	}
	return v.c.call(ctx, r, answer)
}

func (v *Conversation) post(ctx context.Context, u *url.URL, form url.Values, answer any) error {
	return v.write(ctx, request{method: http.MethodPost, url: u, form: form}, answer)
}

// State returns whether the conversation is active, inactive or closed.
func (v *Conversation) State(ctx context.Context) (string, error) {
	var is struct {
		State string `json:"state"`
	}
	err := v.c.get(ctx, v.at(), nil, &is)
	return is.State, err
}

// Close closes the conversation for good.
func (v *Conversation) Close(ctx context.Context) error {
	return v.post(ctx, v.at(), url.Values{"State": {Closed}}, nil)
}

// Send writes a message of the customer, and calls webhooks and flows for it:
// without them no agent is ever called.
func (v *Conversation) Send(ctx context.Context, author, body, attributes string) (*Message, error) {
	form := url.Values{"Author": {author}, "Body": {body}, "Attributes": {attributes}}
	m := new(Message)
	return m, v.write(ctx, request{method: http.MethodPost, url: v.at("Messages"), form: form, webhooks: true}, m)
}

// MessagesSince returns the messages with an index above last, oldest first.
func (v *Conversation) MessagesSince(ctx context.Context, last int) ([]Message, error) {
	var found []Message
	err := v.newestFirst(ctx, firstPage, func(m *Message) bool {
		if m.Index <= last {
			return false
		}
		found = append(found, *m)
		return true
	})
	slices.Reverse(found)
	return found, err
}

// Find returns the newest message for which is holds, nil if there is none. It
// does not look at those from before since, if they have a time.
func (v *Conversation) Find(ctx context.Context, since time.Time, is func(*Message) bool) (found *Message, err error) {
	err = v.newestFirst(ctx, pageSize, func(m *Message) bool {
		if is(m) {
			found = m
			return false
		}
		return m.DateCreated.IsZero() || !m.DateCreated.Before(since)
	})
	return found, err
}

// newestFirst hands the messages over until there is no more, or more says so. A
// conversation of too many pages is an error, and so are pages that name each other:
// the oldest would be passed over.
func (v *Conversation) newestFirst(ctx context.Context, size int, more func(*Message) bool) error {
	query := url.Values{"Order": {"desc"}, "PageSize": {strconv.Itoa(size)}}
	lowest := 0
	for n := 0; query != nil && n < maxPages; n++ {
		var page struct {
			Messages []Message `json:"messages"`
			Meta     meta      `json:"meta"`
		}
		if err := v.c.get(ctx, v.at("Messages"), query, &page); err != nil {
			return err
		}
		before := lowest
		for i := range page.Messages {
			m := &page.Messages[i]
			// A message that comes while pages are read shifts what is on them.
			if (n > 0 || i > 0) && m.Index >= lowest {
				continue
			}
			lowest = m.Index
			if !more(m) {
				return nil
			}
		}
		query = page.Meta.next()
		if query != nil && n > 0 && len(page.Messages) > 0 && lowest == before {
			return &Error{Sent: true, Err: fmt.Errorf("a page of the messages of conversation %s has none that those before it lack, and names another", v.SID)}
		}
	}
	if query != nil {
		return &Error{Sent: true, Err: fmt.Errorf("conversation %s has more than %d pages of messages to read", v.SID, maxPages)}
	}
	return nil
}

// Participants returns who is in the conversation.
func (v *Conversation) Participants(ctx context.Context) ([]Participant, error) {
	var all []Participant
	query := url.Values{"PageSize": {strconv.Itoa(pageSize)}}
	for n := 0; query != nil && n < maxPages; n++ {
		var page struct {
			Participants []Participant `json:"participants"`
			Meta         meta          `json:"meta"`
		}
		if err := v.c.get(ctx, v.at("Participants"), query, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Participants...)
		query = page.Meta.next()
	}
	return all, nil
}

// Participant returns a participant, by SID or identity.
func (v *Conversation) Participant(ctx context.Context, who string) (*Participant, error) {
	p := new(Participant)
	return p, v.c.get(ctx, v.at("Participants", who), nil, p)
}

// AddParticipant adds somebody; whoever is there already is no error.
func (v *Conversation) AddParticipant(ctx context.Context, identity string) error {
	err := v.post(ctx, v.at("Participants"), url.Values{"Identity": {identity}}, nil)
	if err != nil && As(err).Exists() {
		return nil
	}
	return err
}

// SetRead says that a participant has read all messages up to an index.
func (v *Conversation) SetRead(ctx context.Context, who string, index int) error {
	return v.post(ctx, v.at("Participants", who), url.Values{"LastReadMessageIndex": {strconv.Itoa(index)}}, nil)
}

// SetAttributes replaces the attributes of a participant, which are JSON.
func (v *Conversation) SetAttributes(ctx context.Context, who, attributes string) error {
	return v.post(ctx, v.at("Participants", who), url.Values{"Attributes": {attributes}}, nil)
}

// RemoveParticipant removes somebody.
func (v *Conversation) RemoveParticipant(ctx context.Context, who string) error {
	return v.write(ctx, request{method: http.MethodDelete, url: v.at("Participants", who)}, nil)
}

// Webhook is a webhook of one conversation.
type Webhook struct {
	// SID is WH….
	SID           string `json:"sid"`
	Configuration struct {
		URL string `json:"url"`
	} `json:"configuration"`
}

// Filters are the events for which a conversation's webhook is called.
var Filters = []string{
	"onMessageAdded", "onParticipantAdded", "onParticipantRemoved", "onParticipantUpdated",
	"onConversationStateUpdated", "onConversationRemoved",
}

// AddWebhook has Twilio call an address for what happens in the conversation,
// and returns the webhook's SID. What happened before is not told.
func (v *Conversation) AddWebhook(ctx context.Context, address string) (string, error) {
	var w Webhook
	err := v.post(ctx, v.at("Webhooks"), url.Values{
		"Target":                {"webhook"},
		"Configuration.Url":     {address},
		"Configuration.Method":  {"post"},
		"Configuration.Filters": Filters,
	}, &w)
	return w.SID, err
}

// MoveWebhook has Twilio call another address.
func (v *Conversation) MoveWebhook(ctx context.Context, sid, address string) error {
	return v.post(ctx, v.at("Webhooks", sid), url.Values{"Configuration.Url": {address}}, nil)
}

// Webhooks returns the webhooks of the conversation, of which there are a few.
func (v *Conversation) Webhooks(ctx context.Context) ([]Webhook, error) {
	var page struct {
		Webhooks []Webhook `json:"webhooks"`
	}
	err := v.c.get(ctx, v.at("Webhooks"), nil, &page)
	return page.Webhooks, err
}

// CreateConversation makes a conversation with attributes, which are JSON.
func (c *Client) CreateConversation(ctx context.Context, name, attributes string) (*Conversation, error) {
	var made struct {
		SID string `json:"sid"`
	}
	err := c.post(ctx, at(c.conversations, "v1", "Conversations"), url.Values{"FriendlyName": {name}, "Attributes": {attributes}}, &made)
	if err == nil && made.SID == "" {
		err = errNoSID
	}
	if err != nil {
		return nil, err
	}
	return c.Conversation(made.SID), nil
}

// FindConversation returns a conversation that is not closed and has a
// participant of that identity, nil if there is none.
func (c *Client) FindConversation(ctx context.Context, identity string) (*Conversation, error) {
	query := url.Values{"Identity": {identity}, "PageSize": {"50"}}
	for n := 0; query != nil && n < maxPages; n++ {
		var page struct {
			Conversations []struct {
				SID   string `json:"conversation_sid"`
				State string `json:"conversation_state"`
			} `json:"conversations"`
			Meta meta `json:"meta"`
		}
		if err := c.get(ctx, at(c.conversations, "v1", "ParticipantConversations"), query, &page); err != nil {
			if As(err).NotFound() {
				return nil, nil // nobody has had this identity
			}
			return nil, err
		}
		for _, found := range page.Conversations {
			if found.State != Closed && found.SID != "" {
				return c.Conversation(found.SID), nil
			}
		}
		query = page.Meta.next()
	}
	return nil, nil
}

// Address fails if the account has no address (IG…) for conversations of that SID.
func (c *Client) Address(ctx context.Context, sid string) error {
	return c.get(ctx, at(c.conversations, "v1", "Configuration", "Addresses", sid), nil, nil)
}

// DisplayName returns the friendly name of a user; empty if there is none.
func (c *Client) DisplayName(ctx context.Context, identity string) (string, error) {
	var user struct {
		FriendlyName string `json:"friendly_name"`
	}
	err := c.get(ctx, at(c.conversations, "v1", "Users", identity), nil, &user)
	if err != nil && As(err).NotFound() {
		return "", nil
	}
	return user.FriendlyName, err
}
