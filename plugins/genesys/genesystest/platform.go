package genesystest

import (
	"math"
	"net/http"
	"net/url"
	"time"
)

const (
	// perMinute is how many calls an OAuth client may make in a minute.
	perMinute = 300
	// perChat is how long a chat takes an agent, in the estimates.
	perChat = 2 * time.Minute
)

// callCount counts the calls of the OAuth client in a minute.
type callCount struct {
	since time.Time
	n     int
}

func (s *Server) platformRoutes() {
	s.routes.HandleFunc("POST /oauth/token", s.serve("token", s.serveToken))
	s.routes.HandleFunc("POST /api/v2/signeddata", s.serve("signeddata", s.client(s.serveSignedData)))
	s.routes.HandleFunc("GET /api/v2/routing/queues/{id}/estimatedwaittime", s.serve("availability", s.client(s.serveWaitTime)))
	s.routes.HandleFunc("POST /api/v2/analytics/queues/observations/query", s.serve("availability", s.client(s.serveObservations)))
	s.routes.HandleFunc("POST /api/v2/webdeployments/token/oauthcodegrantjwtexchange", s.serve("exchange", s.serveExchange))
	s.routes.HandleFunc("POST /api/v2/webdeployments/token/refresh", s.serve("exchange", s.serveRefresh))
	// What is published does not say which method this takes.
	s.routes.HandleFunc("/api/v2/webdeployments/token/revoke", s.serve("exchange", s.serveRevoke))
	s.routes.HandleFunc("/api/", s.serve("", func(*http.Request, []byte) (any, error) { return nil, errNotFound }))
}

func (s *Server) serveToken(r *http.Request, body []byte) (any, error) {
	form, err := url.ParseQuery(string(body))
	id, secret, _ := r.BasicAuth()
	refuse := func(status int, what string) (any, error) {
		const why = "client authentication failed"
		return &answer{status, map[string]string{"error": what, "description": why, "error_description": why}}, nil
	}
	switch {
	case err != nil || form.Get("grant_type") != "client_credentials":
		return refuse(http.StatusBadRequest, "unsupported_grant_type")
	case id != s.options.ClientID || secret != s.options.ClientSecret:
		return refuse(http.StatusUnauthorized, "invalid_client")
	}
	token, expires := s.tokens.issue("access", id, "")
	return map[string]any{
		"access_token": token, "token_type": "bearer", "expires_in": int(expires.Sub(s.options.Now()).Seconds()),
	}, nil
}

// client lets only the OAuth client in, and not too often.
func (s *Server) client(h endpoint) endpoint {
	return func(r *http.Request, body []byte) (any, error) {
		if _, err := s.tokens.bearer(r, "access"); err != nil {
			return nil, err
		}
		if err := s.calls.add(s.options.Now()); err != nil {
			return nil, err
		}
		return h(r, body)
	}
}

func (c *callCount) add(now time.Time) error {
	if now.Sub(c.since) >= time.Minute {
		*c = callCount{since: now}
	}
	c.n++
	if c.n > perMinute {
		return errTooMany(int(math.Ceil((time.Minute - now.Sub(c.since)).Seconds())))
	}
	return nil
}

// serveSignedData signs what is known of a user, for Web Chat.
func (s *Server) serveSignedData(r *http.Request, body []byte) (any, error) {
	var user map[string]any
	if err := readJSON(body, &user); err != nil {
		return nil, err
	}
	token, _ := s.tokens.issue("signed", "user", "")
	return map[string]string{"jwt": token}, nil
}

// signedIn tells whether a token is one of a signed-in user.
func (s *Server) signedIn(token string) bool {
	_, err := s.tokens.read(token, "signed")
	return err == nil
}

// waiting counts the conversations that no agent has taken yet.
func (s *Server) waiting() (n int) {
	for _, c := range s.all {
		if !c.over && c.agent == "" {
			n++
		}
	}
	return n
}

func (s *Server) serveWaitTime(r *http.Request, body []byte) (any, error) {
	if r.PathValue("id") != s.options.QueueID {
		return nil, errNotFound
	}
	seconds := s.waiting() * int(perChat.Seconds()) / max(s.onQueue, 1)
	return map[string]any{"results": []map[string]any{
		{"intent": "ALL", "formula": "BEST", "estimatedWaitTimeSeconds": seconds},
	}}, nil
}

// serveObservations answers the query for the one queue that there is.
func (s *Server) serveObservations(r *http.Request, body []byte) (any, error) {
	var query struct {
		Filter struct {
			Type       string `json:"type"`
			Predicates []struct {
				Dimension string `json:"dimension"`
				Value     string `json:"value"`
			} `json:"predicates"`
		} `json:"filter"`
		Metrics []string `json:"metrics"`
	}
	if err := readJSON(body, &query); err != nil {
		return nil, err
	}
	if len(query.Filter.Predicates) == 0 || len(query.Metrics) == 0 || query.Filter.Type != "or" && query.Filter.Type != "and" {
		return nil, badRequest("filter: want a type and predicates; metrics: want at least one")
	}
	type object = map[string]any
	results := []object{}
	for _, p := range query.Filter.Predicates {
		if p.Dimension != "queueId" || p.Value != s.options.QueueID {
			continue
		}
		data := []object{}
		count := func(metric, qualifier string, n int) {
			if n > 0 { // what is none is left out
				data = append(data, object{"metric": metric, "qualifier": qualifier, "stats": object{"count": n}})
			}
		}
		for _, metric := range query.Metrics {
			switch metric {
			case "oOnQueueUsers":
				count(metric, "IDLE", s.onQueue)
			case "oUserRoutingStatuses":
				count(metric, "IDLE", s.onQueue)
				count(metric, "OFF_QUEUE", max(len(s.options.Agents)-s.onQueue, 0))
			case "oWaiting":
				count(metric, "", s.waiting())
			}
		}
		results = append(results, object{"group": object{"queueId": p.Value, "mediaType": "message"}, "data": data})
	}
	return object{"results": results}, nil
}

// serveExchange takes any authorization code of the page's sign-in, but each once.
func (s *Server) serveExchange(r *http.Request, body []byte) (any, error) {
	var req struct {
		DeploymentID string `json:"deploymentId"`
		OAuth        struct {
			Code string `json:"code"`
		} `json:"oauth"`
	}
	if err := readJSON(body, &req); err != nil {
		return nil, err
	}
	switch {
	case req.DeploymentID != s.options.Deployment:
		return nil, errNotFound
	case req.OAuth.Code == "" || s.codes[req.OAuth.Code]:
		return nil, errCredentials
	default:
		s.codes[req.OAuth.Code] = true
		token, _ := s.tokens.issue("signed", "user", "")
		refresh, _ := s.tokens.issue("refresh", "user", newID())
		return map[string]string{"jwt": token, "refreshToken": refresh}, nil
	}
}

func (s *Server) serveRefresh(r *http.Request, body []byte) (any, error) {
	var req struct {
		RefreshToken string `json:"refreshToken"`
	}
	if err := readJSON(body, &req); err != nil {
		return nil, err
	}
	c, err := s.tokens.read(req.RefreshToken, "refresh")
	if err == nil && s.codes[c.Member] {
		err = errCredentials
	}
	if err != nil {
		return nil, err
	}
	token, _ := s.tokens.issue("signed", "user", "")
	return map[string]string{"jwt": token}, nil
}

// serveRevoke ends a refresh token.
func (s *Server) serveRevoke(r *http.Request, body []byte) (any, error) {
	var req struct {
		RefreshToken string `json:"refreshToken"`
	}
	if err := readJSON(body, &req); err != nil {
		return nil, err
	}
	c, err := s.tokens.read(req.RefreshToken, "refresh")
	if err != nil {
		return nil, err
	}
	s.codes[c.Member] = true
	return nil, nil
}
