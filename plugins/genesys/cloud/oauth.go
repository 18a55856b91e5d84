package cloud

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// renewBefore is how long before its end a token is not used any more.
const renewBefore = time.Minute

// OAuth calls the vendor's platform API with client credentials. It is safe for
// concurrent use.
type OAuth struct {
	client     *Client
	id, secret string

	mu    sync.Mutex
	token string
	until time.Time
}

// NewOAuth returns an access that asks for its first token when it needs it.
func NewOAuth(c *Client, id, secret string) *OAuth {
	return &OAuth{client: c, id: id, secret: secret}
}

// Login asks for a new token.
func (o *OAuth) Login(ctx context.Context) error {
	// The two are form-encoded first, as RFC 6749 has it.
	basic := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(o.id) + ":" + url.QueryEscape(o.secret)))
	header := http.Header{
		"Authorization": {"Basic " + basic},
		"Content-Type":  {"application/x-www-form-urlencoded"},
		"Accept":        {"application/json"},
	}
	var granted struct {
		Token     string `json:"access_token"`
		ExpiresIn int64  `json:"expires_in"` // seconds
	}
	asked := time.Now()
	err := o.client.do(ctx, http.MethodPost, o.client.At.Login.JoinPath("oauth/token"), header, []byte("grant_type=client_credentials"), &granted)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.token, o.until = granted.Token, asked.Add(time.Duration(granted.ExpiresIn)*time.Second-renewBefore)
	return nil
}

// call makes a request with a token, a new one if the last one is not taken any more.
func (o *OAuth) call(ctx context.Context, method string, u *url.URL, body, answer any) error {
	for second := false; ; second = true {
		o.mu.Lock()
		token, fresh := o.token, time.Now().Before(o.until)
		o.mu.Unlock()
		if !fresh {
			if err := o.Login(ctx); err != nil {
				return err
			}
			o.mu.Lock()
			token = o.token
			o.mu.Unlock()
		}
		err := o.client.Call(ctx, method, u, token, body, answer)
		if e, ok := err.(*Error); !ok || e.Status != http.StatusUnauthorized || second { //nolint:errorlint // Call returns nothing else
			return err
		}
		o.mu.Lock()
		o.until = time.Time{}
		o.mu.Unlock()
	}
}

// AgentsOnQueue counts the agents who are on a queue, busy ones included.
func (o *OAuth) AgentsOnQueue(ctx context.Context, queueID string) (int, error) {
	type predicate struct {
		Dimension string `json:"dimension"`
		Value     string `json:"value"`
	}
	type filter struct {
		Type       string      `json:"type"`
		Predicates []predicate `json:"predicates"`
	}
	query := struct {
		Filter  filter   `json:"filter"`
		Metrics []string `json:"metrics"`
	}{filter{"or", []predicate{{"queueId", queueID}}}, []string{"oOnQueueUsers"}}
	var answer struct {
		Results []struct {
			Data []struct {
				Metric    string `json:"metric"`
				Qualifier string `json:"qualifier"`
				Stats     struct {
					Count float64 `json:"count"`
				} `json:"stats"`
			} `json:"data"`
		} `json:"results"`
	}
	u := o.client.At.API.JoinPath("api/v2/analytics/queues/observations/query")
	if err := o.call(ctx, http.MethodPost, u, query, &answer); err != nil {
		return 0, err
	}
	n := 0
	for _, r := range answer.Results {
		for _, d := range r.Data {
			if d.Metric == "oOnQueueUsers" && d.Qualifier != "OFF_QUEUE" {
				n += int(d.Stats.Count)
			}
		}
	}
	return n, nil
}

// EstimatedWait is how long a user would wait on a queue; negative if the vendor
// cannot tell.
func (o *OAuth) EstimatedWait(ctx context.Context, queueID string) (time.Duration, error) {
	var answer struct {
		Results []struct {
			Seconds *float64 `json:"estimatedWaitTimeSeconds"`
		} `json:"results"`
	}
	u := o.client.At.API.JoinPath("api/v2/routing/queues", url.PathEscape(queueID), "estimatedwaittime")
	if err := o.call(ctx, http.MethodGet, u, nil, &answer); err != nil {
		return -1, err
	}
	for _, r := range answer.Results {
		if r.Seconds != nil && *r.Seconds >= 0 {
			return time.Duration(*r.Seconds * float64(time.Second)), nil
		}
	}
	return -1, nil
}
