package schema

import (
	"slices"
	"strings"
	"testing"
)

const example = `{
	"type": "object",
	"properties": {
		"url": {"type": "string", "format": "uri", "description": "where the vendor's API is"},
		"region": {"enum": ["eu", "us"]},
		"key": {"type": "string", "pattern": "^k-[a-z]+$"},
		"limits": {"$ref": "#/$defs/limits"},
		"agents": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
		"a/b": {"type": "boolean"},
		"either": {"oneOf": [{"type": "string"}, {"type": "integer"}]}
	},
	"required": ["url"],
	"additionalProperties": false,
	"$defs": {"limits": {"type": "object", "properties": {"chats": {"type": "integer", "minimum": 1, "description": "chats at once"}}}}
}`

func TestValidate(t *testing.T) {
	tests := []struct {
		name, config string
		want         []string
	}{
		{"fits", `{"url":"https://x","region":"eu","key":"k-abc","limits":{"chats":1},"agents":["a"],"either":1}`, nil},
		{"missing", `{}`, []string{`"url" is missing (where the vendor's API is)`}},
		{"unknown and wrong type", `{"url":1,"ulr":"s3cret"}`, []string{
			"/ulr: there is no such setting", "/url: has to be of type string, and is of type number (where the vendor's API is)"}},
		{"enum", `{"url":"x","region":"s3cret"}`, []string{`/region: has to be one of "eu", "us"`}},
		{"pattern", `{"url":"x","key":"s3cret"}`, []string{"/key: has to match the pattern ^k-[a-z]+$"}},
		{"behind a reference", `{"url":"x","limits":{"chats":0}}`, []string{"/limits/chats: has to be at least 1 (chats at once)"}},
		{"item", `{"url":"x","agents":["a",2]}`, []string{"/agents/1: has to be of type string, and is of type number"}},
		{"items", `{"url":"x","agents":["a","b","c"]}`, []string{"/agents: has to have at most 2 items"}},
		{"escaped pointer", `{"url":"x","a/b":"s3cret"}`, []string{"/a~1b: has to be of type boolean, and is of type string"}},
		{"alternatives", `{"url":"x","either":["s3cret"]}`, []string{"/either: has to fit one of the alternatives in the plugin's schema"}},
		{"no object", `"s3cret"`, []string{"the configuration has to be an object"}},
		{"no JSON", `{"url":s3cret`, []string{"the configuration is not valid JSON"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			problems, err := Validate(example, []byte(test.config))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range problems {
				got = append(got, p.String())
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
			if strings.Contains(strings.Join(got, " "), "s3cret") {
				t.Error("a problem tells a value")
			}
		})
	}
}

func TestEmptySchemaTakesAnyObject(t *testing.T) {
	if problems, err := Validate("", []byte(`{"a":1}`)); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func TestUnusableSchemas(t *testing.T) {
	for schema, want := range map[string]string{
		`{`:                "not valid JSON",
		`{"type":"objet"}`: "not valid",
		`{"$ref":"https://example.com/schema.json"}`: "a schema has to hold all that it needs",
		`{"$ref":"file:///etc/hostname"}`:            "a schema has to hold all that it needs",
	} {
		if _, err := Validate(schema, []byte(`{}`)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", schema, err, want)
		}
	}
}
