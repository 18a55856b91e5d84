package adapter_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/deskhost/deskhost/plugins/twilio/adapter"
	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

func TestSchema(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(adapter.Plugin("1.0.0").ConfigSchema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("config.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	const (
		account = `"account_sid": "` + twiliotest.AccountSid + `", "auth_token": "x"`
		space   = `"workspace_sid": "` + twiliotest.WorkspaceSid + `"`
	)
	for config, ok := range map[string]bool{
		`{` + account + `, ` + webChats + `}`:                                                                       true,
		`{` + account + `, ` + routed + `, ` + space + `}`:                                                          true,
		`{` + account + `, ` + webChats + `, "urls": {"flex": "http://127.0.0.1:1/flex"}}`:                          true,
		`{` + account + `, ` + webChats + `, "api_key_sid": "` + twiliotest.APIKeySid + `", "api_key_secret": "y"}`: true,
		`{` + account + `}`:                 false,
		`{` + account + `, ` + routed + `}`: false,
		`{` + account + `, ` + routed + `, ` + space + `, ` + webChats + `}`:                  false,
		`{` + account + `, ` + webChats + `, "api_key_sid": "` + twiliotest.APIKeySid + `"}`:  false,
		`{` + account + `, ` + webChats + `, "queue_sid": "` + twiliotest.TaskQueueSid + `"}`: false,
		`{` + account + `, ` + webChats + `, "end": "never"}`:                                 false,
		`{` + account + `, ` + webChats + `, "colour": 1}`:                                    false,
		`{` + account + `, ` + webChats + `, "urls": {"flex": "https://a@b"}}`:                false,
		`{"auth_token": "x", ` + webChats + `}`:                                               false,
	} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(config))
		if err != nil {
			t.Fatalf("%s: %v", config, err)
		}
		if err := schema.Validate(value); (err == nil) != ok {
			t.Errorf("%s: %v", config, err)
		}
	}
}

// Every setting has a description, and the default that the adapter uses.
func TestDefaults(t *testing.T) {
	var doc struct {
		Properties map[string]struct {
			Description string `json:"description"`
			Default     any    `json:"default"`
		} `json:"properties"`
	}
	if err := json.Unmarshal([]byte(adapter.Plugin("1.0.0").ConfigSchema), &doc); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(adapter.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	var used map[string]any
	if err := json.Unmarshal(text, &used); err != nil {
		t.Fatal(err)
	}
	for key, p := range doc.Properties {
		if p.Description == "" {
			t.Errorf("%s has no description", key)
		}
		if p.Default != nil && used[key] != p.Default {
			t.Errorf("%s is %v by default, and its schema says %v", key, used[key], p.Default)
		}
		if _, known := used[key]; !known {
			t.Errorf("%s is not read", key)
		}
	}
}

// What cannot work is refused at once, with the key and what to do; what may
// work later is tried again.
func TestConfigure(t *testing.T) {
	a := newAccount(t)
	good := string(a.config(webChats, byWebhooks))
	no := strings.Repeat("9", 32)
	for what, c := range map[string]struct {
		config string
		kind   sdk.FailureKind
		says   []string
	}{
		"token":     {strings.Replace(good, twiliotest.AuthToken+`"`, `wrong"`, 1), sdk.Invalid, []string{"auth_token", "console"}},
		"address":   {strings.Replace(good, twiliotest.AddressSid, "IG"+no, 1), sdk.Invalid, []string{"address_sid", "IG" + no, "console"}},
		"workspace": {strings.Replace(good, twiliotest.WorkspaceSid, "WS"+no, 1), sdk.Invalid, []string{"workspace_sid", "WS" + no}},
		"queue":     {strings.Replace(good, twiliotest.TaskQueueSid, "WQ"+no, 1), sdk.Invalid, []string{"queue_sid", "WQ" + no}},
		"workflow":  {strings.Replace(string(a.config(routed)), twiliotest.WorkflowSid, "WW"+no, 1), sdk.Invalid, []string{"interaction.workflow_sid", "WW" + no}},
		"neither":   {string(a.config(byWebhooks)), sdk.Invalid, []string{"address_sid", "interaction"}},
		"url":       {strings.ReplaceAll(good, `"http://`, `"ftp://`), sdk.Invalid, []string{"urls.conversations"}},
		"no JSON":   {`[]`, sdk.Invalid, nil},
		"network":   {strings.ReplaceAll(good, a.url, "http://127.0.0.1:1"), sdk.Retry, nil},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			d := adapter.New(desktest.NewHost(t))
			err := d.Configure(t.Context(), &sdk.ConfigureRequest{Config: json.RawMessage(c.config)})
			wantKind(t, err, c.kind)
			for _, says := range c.says {
				if err == nil || !strings.Contains(err.Error(), says) {
					t.Errorf("%v does not name %s", err, says)
				}
			}
			if err != nil && strings.Contains(err.Error(), twiliotest.AuthToken) {
				t.Errorf("it tells the token: %v", err)
			}
		})
	}
}
