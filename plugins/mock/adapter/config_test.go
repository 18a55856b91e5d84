package adapter_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/deskhost/deskhost/plugins/mock/adapter"
	"github.com/deskhost/deskhost/plugins/mock/mockdesk"
)

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(adapter.Plugin("1.0.0").ConfigSchema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("config.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A config that the host's schema lets pass is one that the desk takes, and the
// other way round; an error names the key.
func TestSchemaAndDeskAgree(t *testing.T) {
	s := schema(t)
	for config, key := range map[string]string{
		`{}`: "",
		`{"console": true, "online": null, "join_delay_ms": 0, "typing_ms": 0, "answer": ""}`:                                         "",
		`{"agents": [{"id": "b", "nickname": "Bo", "avatar_url": "https://example.com/b.png", "bot": true}]}`:                         "",
		`{"queue": {"position": 3, "wait_minutes": 5, "step_ms": 100, "message": "Soon"}, "leave_after": 2, "end_after": 3}`:          "",
		`{"on_start": [{"wait_ms": 5}, {"availability": {"position": 1}}, {"join": "grace"}, {"say": "Hi"}]}`:                         "",
		`{"rules": [{"when": "x*", "do": [{"message": [{"type": "link", "url": "{desk}a"}]}, {"leave": true}, {"end": ""}]}]}`:        "",
		`{"calls": {"send": {"fail": "unknown", "every": 3, "delay_ms": 5}, "start": {"fail": "refused", "user_message": "Closed"}}}`: "",
		`{"dedupe": false, "feed": {"duplicate_every": 2, "swap_every": 3}}`:                                                          "",

		`{"colour": 1}`:                             "colour",
		`{"console": "yes"}`:                        "console",
		`{"online": "maybe"}`:                       "online",
		`{"join_delay_ms": -1}`:                     "join_delay_ms",
		`{"typing_ms": 1.5}`:                        "typing_ms",
		`{"typing_ms": 1e12}`:                       "typing_ms",
		`{"queue": {"position": -2}}`:               "queue",
		`{"leave_after": -1}`:                       "leave_after",
		`{"agents": [{"id": "a"}]}`:                 "agents",
		`{"agents": [{"id": "", "nickname": "A"}]}`: "agents",
		`{"agents": [{"id": "a", "nickname": "A", "avatar_url": "data:x"}]}`:                       "agents",
		`{"rules": [{"when": " ", "do": [{"leave": true}]}]}`:                                      "rules",
		`{"rules": [{"when": "x", "do": []}]}`:                                                     "rules",
		`{"rules": [{"when": "x", "do": [{}]}]}`:                                                   "rules",
		`{"rules": [{"when": "x", "do": [{"leave": true, "read": true}]}]}`:                        "rules",
		`{"rules": [{"when": "x", "do": [{"shout": "x"}]}]}`:                                       "do",
		`{"rules": [{"when": "x", "do": [{"message": [{"type": "image", "url": "file:///x"}]}]}]}`: "rules",
		`{"rules": [{"when": "x", "do": [{"message": [{"type": "quick_replies"}]}]}]}`:             "rules",
		`{"on_start": [{"trouble": {"kind": "flood"}}]}`:                                           "on_start",
		`{"calls": {"dance": {"fail": "retry"}}}`:                                                  "calls",
		`{"calls": {"send": {"fail": "always"}}}`:                                                  "calls",
		`{"dedupe": 1}`:                      "dedupe",
		`{"feed": {"swap_every": -1}}`:       "feed",
		`{"calls": {"send": {"first": -1}}}`: "calls",
	} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(config))
		if err != nil {
			t.Fatalf("%s: %v", config, err)
		}
		bySchema := s.Validate(value)
		_, byDesk := mockdesk.ParseScript([]byte(config))
		if (key == "") != (bySchema == nil) || (key == "") != (byDesk == nil) {
			t.Errorf("%s\nschema: %v\ndesk: %v", config, bySchema, byDesk)
			continue
		}
		if key != "" && !strings.Contains(bySchema.Error(), key) {
			t.Errorf("%s: the schema's error does not name %s: %v", config, key, bySchema)
		}
	}
}

func TestURLStandsAlone(t *testing.T) {
	s := schema(t)
	for config, ok := range map[string]bool{
		`{"url": "http://127.0.0.1:9000"}`:                  true,
		`{"url": "https://desk.example.com/base"}`:          true,
		`{"url": "127.0.0.1:9000"}`:                         false,
		`{"url": ""}`:                                       false,
		`{"url": "http://127.0.0.1:9000", "console": true}`: false,
	} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(config))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(value); (err == nil) != ok {
			t.Errorf("%s: %v", config, err)
		}
	}
}

// Every option has a description for the operator, and does not go with url.
func TestSchemaDescribesEveryOption(t *testing.T) {
	var doc struct {
		Properties map[string]struct {
			Description string `json:"description"`
		} `json:"properties"`
		Dependent struct {
			URL struct {
				Properties map[string]bool `json:"properties"`
			} `json:"url"`
		} `json:"dependentSchemas"` //nolint:tagliatelle // JSON Schema names it
	}
	if err := json.Unmarshal([]byte(adapter.Plugin("1.0.0").ConfigSchema), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Properties) == 0 {
		t.Fatal("no options")
	}
	for name, p := range doc.Properties {
		if p.Description == "" {
			t.Errorf("%s has no description", name)
		}
		if allowed, listed := doc.Dependent.URL.Properties[name]; name != "url" && (allowed || !listed) {
			t.Errorf("%s is allowed beside url", name)
		}
	}
}
