package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/deskhost/deskhost/host/internal/problem"
)

// origins are the origins whose pages may call.
type origins struct {
	any     bool
	allowed map[string]bool
}

func parseOrigins(list []string) (origins, error) {
	o := origins{allowed: map[string]bool{}}
	for _, s := range list {
		if s == "*" {
			o.any = true
			continue
		}
		u, err := url.Parse(s)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || s != u.Scheme+"://"+u.Host {
			return origins{}, fmt.Errorf("origin %q: expected a scheme and a host with nothing behind them, such as https://www.example.com", s)
		}
		o.allowed[strings.ToLower(s)] = true
	}
	return o, nil
}

// admit answers a request that comes from a foreign page, or is a preflight,
// and says that it did. Otherwise it sets the headers that let the page read
// the answer. A request without an Origin does not come from a foreign page.
func (o origins) admit(w http.ResponseWriter, r *http.Request) (done bool) {
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	if !o.may(origin, r.Host) {
		problem.New(http.StatusForbidden, codeOriginNotAllowed,
			"Pages of this origin may not use the host. An operator lists the allowed ones under origins.").Write(w)
		return true
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "Retry-After")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID")
	h.Set("Access-Control-Max-Age", "7200")
	w.WriteHeader(http.StatusNoContent)
	return true
}

func (o origins) may(origin, host string) bool {
	if o.any || o.allowed[strings.ToLower(origin)] {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}
