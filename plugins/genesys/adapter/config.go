package adapter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/plugins/genesys/webchat"
)

// The modes: which of the vendor's guest APIs is spoken.
const (
	modeMessaging = "webmessaging"
	modeChat      = "webchat"
)

// config is the desk's configuration; config.schema.json explains it.
type config struct {
	Mode           string   `json:"mode"`
	Region         string   `json:"region"`
	APIURL         string   `json:"api_url"`
	WebsocketURL   string   `json:"websocket_url"`
	LoginURL       string   `json:"login_url"`
	CDNURL         string   `json:"cdn_url"`
	DeploymentID   string   `json:"deployment_id"`
	OrganizationID string   `json:"organization_id"`
	Queue          string   `json:"queue"`
	Skills         []string `json:"skills"`
	Language       string   `json:"language"`
	Priority       int      `json:"priority"`
	QueueID        string   `json:"queue_id"`
	Origin         string   `json:"origin"`
	SignIn         bool     `json:"sign_in"`
	OAuth          *struct {
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
	} `json:"oauth"`
	Proxy    string `json:"proxy"`
	Timeouts struct {
		Connect   duration `json:"connect"`
		Answer    duration `json:"answer"`
		Reconnect duration `json:"reconnect"`
	} `json:"timeouts"`
}

// duration is written as in "8s".
type duration time.Duration

// UnmarshalJSON reads what time.ParseDuration does.
func (d *duration) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	parsed, err := time.ParseDuration(s)
	if err != nil || parsed <= 0 {
		return fmt.Errorf("%q is no length of time; write one such as 500ms, 8s or 5m", s)
	}
	*d = duration(parsed)
	return nil
}

// readConfig reads what the schema has let pass, with defaults filled in.
func readConfig(text json.RawMessage) (*config, error) {
	c := &config{Mode: modeMessaging}
	c.Timeouts.Connect, c.Timeouts.Answer, c.Timeouts.Reconnect = duration(8*time.Second), duration(10*time.Second), duration(5*time.Minute)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("the configuration is not understood: %w", err)
	}
	switch {
	case c.Mode != modeMessaging && c.Mode != modeChat:
		return nil, fmt.Errorf("mode: %q is none; write %s or %s", c.Mode, modeMessaging, modeChat)
	case c.Region == "" && c.APIURL == "":
		return nil, fmt.Errorf("region: missing; write your organisation's, such as mypurecloud.de")
	case c.DeploymentID == "":
		return nil, fmt.Errorf("deployment_id: missing; Admin > Message > Messenger Deployments shows it")
	case c.Mode == modeChat && c.OrganizationID == "":
		return nil, fmt.Errorf("organization_id: missing; Admin > Account Settings > Organization shows it")
	case c.Mode == modeChat && c.Queue == "":
		return nil, fmt.Errorf("queue: missing; write the name of the queue that chats go to")
	case (c.OAuth == nil) != (c.QueueID == ""):
		return nil, fmt.Errorf("oauth and queue_id: one is of no use without the other; give both, or neither")
	}
	return c, nil
}

// webchat is the request for a conversation of Web Chat with somebody of a name.
func (c *config) webchat(name string) *webchat.CreateRequest {
	return &webchat.CreateRequest{
		OrganizationID: c.OrganizationID,
		DeploymentID:   c.DeploymentID,
		RoutingTarget: webchat.RoutingTarget{
			TargetType: "QUEUE", TargetAddress: c.Queue,
			Skills: c.Skills, Language: c.Language, Priority: c.Priority,
		},
		MemberInfo: webchat.MemberInfo{DisplayName: name},
	}
}

// client returns the way to the configured addresses.
func (c *config) client() (*cloud.Client, error) {
	var at cloud.Endpoints
	api := c.APIURL
	if c.Region != "" {
		at = cloud.InRegion(c.Region)
	} else {
		// A service of one address, as a simulator is.
		if c.WebsocketURL == "" {
			c.WebsocketURL = "ws" + strings.TrimPrefix(api, "http")
		}
		if c.LoginURL == "" {
			c.LoginURL = api
		}
		if c.CDNURL == "" {
			c.CDNURL = api
		}
	}
	for _, a := range []struct {
		key, address string
		into         **url.URL
	}{
		{"api_url", c.APIURL, &at.API},
		{"websocket_url", c.WebsocketURL, &at.Sockets},
		{"login_url", c.LoginURL, &at.Login},
		{"cdn_url", c.CDNURL, &at.CDN},
	} {
		if a.address == "" {
			continue
		}
		u, err := url.Parse(strings.TrimSuffix(a.address, "/"))
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("%s: %q is no address; write one such as https://api.mypurecloud.de", a.key, a.address)
		}
		*a.into = u
	}
	var proxy *url.URL
	if c.Proxy != "" {
		var err error
		// The address may hold a password, which url.Parse quotes.
		if proxy, err = url.Parse(c.Proxy); err != nil || proxy.Host == "" {
			return nil, fmt.Errorf("proxy: this is no address; write one such as http://proxy.example.com:3128")
		}
	}
	return cloud.New(at, c.Origin, proxy), nil
}
