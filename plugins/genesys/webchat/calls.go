// Package webchat speaks Genesys Cloud's Web Chat guest API, version 2, as a
// vendor's client would. The vendor has retired it in favour of web messaging;
// older installations still have it.
//
// It keeps no state and tries nothing twice; it knows nothing of deskhost.
// Package adapter is its caller.
package webchat

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
)

const (
	// MaxBodyRunes is how many characters a message may have.
	MaxBodyRunes = 4000
	// pageSize is how much is asked for at once.
	pageSize = 100
)

// Kinds of message bodies. A member writes standard ones and notices.
const (
	BodyStandard = "standard"
	BodyNotice   = "notice"
)

// Client calls the API. It is safe for concurrent use.
type Client struct {
	cloud *cloud.Client
	// silence is after how long without a sign of life a stream is lost.
	silence time.Duration
}

// New returns a client.
func New(c *cloud.Client, silence time.Duration) *Client {
	return &Client{cloud: c, silence: silence}
}

// CreateRequest opens a conversation.
type CreateRequest struct {
	OrganizationID string        `json:"organizationId"`
	DeploymentID   string        `json:"deploymentId"`
	RoutingTarget  RoutingTarget `json:"routingTarget"`
	MemberInfo     MemberInfo    `json:"memberInfo"`
	// MemberAuthToken is that of a signed-in user.
	MemberAuthToken string `json:"memberAuthToken,omitempty"`
}

// RoutingTarget is where a conversation goes.
type RoutingTarget struct {
	TargetType    string   `json:"targetType"`
	TargetAddress string   `json:"targetAddress"`
	Skills        []string `json:"skills,omitempty"`
	Language      string   `json:"language,omitempty"`
	Priority      int      `json:"priority,omitempty"`
}

// MemberInfo says who the user is.
type MemberInfo struct {
	DisplayName  string            `json:"displayName"`
	CustomFields map[string]string `json:"customFields,omitempty"`
}

// Conversation is what the user's member of a conversation needs to take part.
type Conversation struct {
	ID     string `json:"id"`
	JWT    string `json:"jwt"`
	Stream string `json:"eventStreamUri"`
	Member struct {
		ID string `json:"id"`
	} `json:"member"`
}

// Member is somebody in a conversation.
type Member struct {
	ID          string `json:"id"`
	Role        string `json:"role"`  // "AGENT", "CUSTOMER", "WORKFLOW" or "ACD"
	State       string `json:"state"` // "CONNECTED", "DISCONNECTED" or "ALERTING"
	DisplayName string `json:"displayName"`
	AvatarURL   string `json:"avatarImageUrl"`
}

// Message is one of a conversation, from the stream or the history.
type Message struct {
	ID     string `json:"id"`
	Sender struct {
		ID string `json:"id"`
	} `json:"sender"`
	Body     string     `json:"body"`
	BodyType string     `json:"bodyType"` // "standard", "notice", "member-join" or "member-leave"
	Time     cloud.Time `json:"timestamp"`
}

// Create opens a conversation. It is not routed before its stream is attached,
// so one that nobody knows of does no harm.
func (c *Client) Create(ctx context.Context, req *CreateRequest) (*Conversation, error) {
	conv := new(Conversation)
	return conv, c.cloud.Call(ctx, http.MethodPost, c.conversations(), "", req, conv)
}

// Send writes a message as the user and returns it as the vendor has it.
func (c *Client) Send(ctx context.Context, conv *Conversation, body, bodyType string) (*Message, error) {
	m := new(Message)
	out := struct {
		Body     string `json:"body"`
		BodyType string `json:"bodyType"`
	}{body, bodyType}
	return m, c.cloud.Call(ctx, http.MethodPost, c.self(conv, "messages"), conv.JWT, out, m)
}

// Typing tells that the user types.
func (c *Client) Typing(ctx context.Context, conv *Conversation) error {
	return c.cloud.Call(ctx, http.MethodPost, c.self(conv, "typing"), conv.JWT, nil, nil)
}

// Leave takes the user out of the conversation, which ends it.
func (c *Client) Leave(ctx context.Context, conv *Conversation) error {
	return c.cloud.Call(ctx, http.MethodDelete, c.self(conv), conv.JWT, nil, nil)
}

// Member returns somebody in the conversation.
func (c *Client) Member(ctx context.Context, conv *Conversation, id string) (*Member, error) {
	m := new(Member)
	return m, c.cloud.Call(ctx, http.MethodGet, c.conversations(conv.ID, "members", id), conv.JWT, nil, m)
}

// Members returns everybody in the conversation.
func (c *Client) Members(ctx context.Context, conv *Conversation) ([]Member, error) {
	var page struct {
		Entities []Member `json:"entities"`
	}
	u := c.conversations(conv.ID, "members")
	u.RawQuery = url.Values{"pageSize": {strconv.Itoa(pageSize)}, "pageNumber": {"1"}}.Encode()
	return page.Entities, c.cloud.Call(ctx, http.MethodGet, u, conv.JWT, nil, &page)
}

// Messages returns those behind a message, oldest first; all of them if after is
// empty. There may be more if more is true.
func (c *Client) Messages(ctx context.Context, conv *Conversation, after string) (messages []Message, more bool, err error) {
	var page struct {
		Entities []Message `json:"entities"`
	}
	query := url.Values{"sortOrder": {"ascending"}, "maxResults": {strconv.Itoa(pageSize)}}
	if after != "" {
		query.Set("after", after)
	}
	u := c.conversations(conv.ID, "messages")
	u.RawQuery = query.Encode()
	// The reply's link to the next page is not followed: it may lead anywhere.
	err = c.cloud.Call(ctx, http.MethodGet, u, conv.JWT, nil, &page)
	return page.Entities, len(page.Entities) >= pageSize, err
}

func (c *Client) conversations(more ...string) *url.URL {
	u := c.cloud.At.API.JoinPath("api/v2/webchat/guest/conversations")
	for _, m := range more {
		u = u.JoinPath(url.PathEscape(m))
	}
	return u
}

// self is the user's own member.
func (c *Client) self(conv *Conversation, more ...string) *url.URL {
	return c.conversations(append([]string{conv.ID, "members", conv.Member.ID}, more...)...)
}
