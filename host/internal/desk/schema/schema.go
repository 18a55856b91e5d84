// Package schema holds a desk's configuration to the JSON Schema of its plugin.
//
// It owns how a mismatch is worded: what a configuration holds may be a secret,
// so no value of it appears in a problem. It knows nothing of desks or files;
// the desk package calls it before Configure, and the configuration's checks
// call it to point at a line.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// Problem is one way in which a configuration does not fit.
type Problem struct {
	// Pointer is the JSON pointer of the value that is wrong, or of the object
	// that lacks one; empty for the configuration itself.
	Pointer string
	// Message says what is expected there. It holds no value of the
	// configuration.
	Message string
}

// String returns pointer and message.
func (p Problem) String() string {
	if p.Pointer == "" {
		return p.Message
	}
	return p.Pointer + ": " + p.Message
}

// location is what the schema is called inside the compiler.
const location = "plugin-schema:config"

// Validate checks a configuration, which must be a JSON object, against a
// schema of the 2020-12 draft. An empty schema allows any object. The error is
// that of a schema which cannot be used. Nothing is ever loaded from elsewhere.
func Validate(schema string, config []byte) ([]Problem, error) {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(config))
	if err != nil {
		// The error would quote the configuration.
		return []Problem{{Message: "the configuration is not valid JSON"}}, nil //nolint:nilerr // a problem, not an unusable schema
	}
	if _, ok := value.(map[string]any); !ok {
		return []Problem{{Message: "the configuration has to be an object"}}, nil
	}
	if strings.TrimSpace(schema) == "" {
		return nil, nil
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		return nil, fmt.Errorf("the schema is not valid JSON: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(noLoader{})
	if err := compiler.AddResource(location, doc); err != nil {
		return nil, fmt.Errorf("the schema cannot be read: %w", err)
	}
	compiled, err := compiler.Compile(location)
	if err != nil {
		return nil, fmt.Errorf("the schema is not valid: %w", err)
	}
	err = compiled.Validate(value)
	var invalid *jsonschema.ValidationError
	if err == nil || !errors.As(err, &invalid) {
		return nil, err
	}
	var problems []Problem
	collect(invalid, doc, &problems)
	slices.SortStableFunc(problems, func(a, b Problem) int { return strings.Compare(a.Pointer, b.Pointer) })
	return slices.Compact(problems), nil
}

// noLoader refuses references out of the schema.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("it refers to %s; a schema has to hold all that it needs", url)
}

// collect finds the innermost causes. Of alternatives the outer one is told,
// since none of the inner ones has to be mended.
func collect(e *jsonschema.ValidationError, doc any, problems *[]Problem) {
	switch e.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf, *kind.Not, *kind.Contains:
	default:
		if len(e.Causes) > 0 {
			for _, cause := range e.Causes {
				collect(cause, doc, problems)
			}
			return
		}
	}
	at := pointer(e.InstanceLocation)
	if k, ok := e.ErrorKind.(*kind.AdditionalProperties); ok {
		for _, name := range k.Properties {
			*problems = append(*problems, Problem{at + pointer([]string{name}), "there is no such setting"})
		}
		return
	}
	if k, ok := e.ErrorKind.(*kind.Required); ok {
		for _, name := range k.Missing {
			*problems = append(*problems, Problem{at, fmt.Sprintf("%q is missing%s", name, description(doc, e.SchemaURL, "properties", name))})
		}
		return
	}
	*problems = append(*problems, Problem{at, expectation(e.ErrorKind) + description(doc, e.SchemaURL)})
}

// expectation says what would have fitted.
func expectation(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return fmt.Sprintf("has to be of type %s, and is of type %s", strings.Join(k.Want, " or "), k.Got)
	case *kind.Enum:
		return "has to be one of " + values(k.Want)
	case *kind.Const:
		return "has to be " + values([]any{k.Want})
	case *kind.Format:
		return fmt.Sprintf("has to be a valid %s", k.Want)
	case *kind.Pattern:
		return fmt.Sprintf("has to match the pattern %s", k.Want)
	case *kind.MinLength:
		return fmt.Sprintf("has to be at least %d characters long", k.Want)
	case *kind.MaxLength:
		return fmt.Sprintf("has to be at most %d characters long", k.Want)
	case *kind.Minimum:
		return "has to be at least " + k.Want.RatString()
	case *kind.Maximum:
		return "has to be at most " + k.Want.RatString()
	case *kind.ExclusiveMinimum:
		return "has to be more than " + k.Want.RatString()
	case *kind.ExclusiveMaximum:
		return "has to be less than " + k.Want.RatString()
	case *kind.MultipleOf:
		return "has to be a multiple of " + k.Want.RatString()
	case *kind.MinItems:
		return fmt.Sprintf("has to have at least %d items", k.Want)
	case *kind.MaxItems:
		return fmt.Sprintf("has to have at most %d items", k.Want)
	case *kind.UniqueItems:
		return fmt.Sprintf("has two equal items, %d and %d", k.Duplicates[0], k.Duplicates[1])
	case *kind.AnyOf, *kind.OneOf:
		return "has to fit one of the alternatives in the plugin's schema"
	case *kind.FalseSchema:
		return "is not allowed here"
	default:
		return fmt.Sprintf("does not fit the rule %q of the plugin's schema", strings.Join(k.KeywordPath(), "/"))
	}
}

// values renders what a schema asks for.
func values(want []any) string {
	all := make([]string, len(want))
	for i, v := range want {
		b, err := json.Marshal(v)
		if err != nil {
			b = []byte(fmt.Sprint(v))
		}
		all[i] = string(b)
	}
	return strings.Join(all, ", ")
}

// description quotes what the schema says about a place in it.
func description(doc any, schemaURL string, below ...string) string {
	_, fragment, _ := strings.Cut(schemaURL, "#")
	path := below
	if fragment != "" {
		path = append(unpointer(fragment), below...)
	}
	for _, step := range path {
		switch at := doc.(type) {
		case map[string]any:
			doc = at[step]
		default:
			return ""
		}
	}
	object, _ := doc.(map[string]any)
	text, _ := object["description"].(string)
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

var (
	escape   = strings.NewReplacer("~", "~0", "/", "~1")
	unescape = strings.NewReplacer("~1", "/", "~0", "~")
)

// pointer writes a JSON pointer.
func pointer(path []string) string {
	var b strings.Builder
	for _, step := range path {
		b.WriteString("/" + escape.Replace(step))
	}
	return b.String()
}

// unpointer reads one.
func unpointer(p string) []string {
	steps := strings.Split(strings.TrimPrefix(p, "/"), "/")
	for i := range steps {
		steps[i] = unescape.Replace(steps[i])
	}
	return steps
}
