package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

type kind string

const (
	kindNull   kind = "nothing"
	kindBool   kind = "true or false"
	kindNumber kind = "a number"
	kindText   kind = "a text"
	kindList   kind = "a list"
	kindMap    kind = "a mapping"
)

// value is a value of the file with its place, references replaced.
type value struct {
	at   Position
	kind kind
	// text is what a scalar says, scalar what it is as JSON.
	text   string
	scalar any
	// secret is set if text came, in part, from a reference.
	secret bool
	fields []field
	items  []*value
}

type field struct {
	name  string
	at    Position
	value *value
}

// reader turns a file into a Config and gathers its problems.
type reader struct {
	file     string
	dir      string
	problems Problems
}

func (r *reader) problemf(at Position, key, format string, args ...any) {
	r.problems = append(r.problems, Problem{at, key, fmt.Sprintf(format, args...)})
}

// failf is problemf for a fault that leaves nothing else to look for.
func (r *reader) failf(at Position, key, format string, args ...any) error {
	r.problemf(at, key, format, args...)
	return r.problems
}

func (r *reader) position(t *token.Token) Position {
	if t == nil || t.Position == nil {
		return Position{File: r.file}
	}
	return Position{r.file, t.Position.Line, t.Position.Column}
}

// parse returns the file's mapping, or nil after a fault that hides the rest.
func (r *reader) parse(source []byte) *value {
	// Duplicates are left to convert, which names both places.
	file, err := parser.ParseBytes(source, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		at, text := Position{File: r.file}, err.Error()
		if where, ok := errors.AsType[yaml.Error](err); ok {
			at, text = r.position(where.GetToken()), where.GetMessage()
		}
		r.problemf(at, "", "not valid YAML: %s", text)
		return nil
	}
	var root *value
	for _, document := range file.Docs {
		if document.Body == nil || document.Body.Type() == ast.CommentType {
			continue
		}
		v := r.convert("", document.Body)
		if root != nil {
			r.problemf(v.at, "", "a second document begins here; the file must hold one")
			return nil
		}
		root = v
	}
	if root == nil {
		root = &value{at: Position{File: r.file}, kind: kindMap}
	}
	if root.kind != kindMap {
		r.problemf(root.at, "", "found %s where the keys of the configuration belong, such as `desks:`", root.kind)
		return nil
	}
	return root
}

// convert turns a YAML node into a value. What it cannot use is a problem and
// becomes null, so that the rest of the file is still looked at.
func (r *reader) convert(key string, node ast.Node) *value {
	v := &value{kind: kindNull}
	if node == nil {
		v.at = Position{File: r.file}
		return v
	}
	v.at = r.position(node.GetToken())
	switch n := node.(type) {
	case *ast.NullNode:
	case *ast.BoolNode:
		v.kind, v.text, v.scalar = kindBool, n.Token.Value, n.Value
	case *ast.IntegerNode:
		v.kind, v.text, v.scalar = kindNumber, fmt.Sprint(n.Value), n.Value
	case *ast.FloatNode:
		v.kind, v.text, v.scalar = kindNumber, n.Token.Value, n.Value
	case *ast.StringNode:
		r.setText(v, key, n.Value)
	case *ast.LiteralNode:
		r.setText(v, key, n.Value.Value)
	case *ast.MappingNode:
		v.kind = kindMap
		for _, entry := range n.Values {
			r.addField(v, key, entry)
		}
		if len(v.fields) > 0 && !n.IsFlowStyle {
			v.at = v.fields[0].at
		}
	case *ast.MappingValueNode:
		v.kind = kindMap
		r.addField(v, key, n)
		v.at = r.position(n.Key.GetToken())
	case *ast.SequenceNode:
		v.kind = kindList
		for i, item := range n.Values {
			v.items = append(v.items, r.convert(fmt.Sprintf("%s[%d]", key, i), item))
		}
	case *ast.AnchorNode, *ast.AliasNode:
		r.problemf(v.at, key, "anchors and aliases (& and *) are not supported; write the value out, in quotes if it is a text")
		v.kind = kindInvalid
	case *ast.TagNode:
		r.problemf(v.at, key, "tags (!) are not supported; write the value without, in quotes if it is a text")
		v.kind = kindInvalid
	default:
		r.problemf(v.at, key, "found %s, which cannot be used here", strings.ToLower(node.Type().String()))
		v.kind = kindInvalid
	}
	return v
}

// kindInvalid is what a problem was already reported for.
const kindInvalid kind = "invalid"

func (r *reader) addField(v *value, key string, entry *ast.MappingValueNode) {
	at := r.position(entry.Key.GetToken())
	scalar, ok := entry.Key.(ast.ScalarNode)
	if !ok || entry.Key.Type() == ast.MergeKeyType {
		r.problemf(at, key, "merge keys and keys that are not plain words are not supported; write the keys out")
		return
	}
	name := fmt.Sprint(scalar.GetValue())
	path := join(key, name)
	for _, f := range v.fields {
		if f.name == name {
			r.problemf(at, path, "given twice, the first time on line %d; remove one", f.at.Line)
			return
		}
	}
	v.fields = append(v.fields, field{name, at, r.convert(path, entry.Value)})
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// setText makes v a text and replaces the references in it.
func (r *reader) setText(v *value, key, text string) {
	v.kind = kindText
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		if !found {
			out.WriteString(text)
			break
		}
		if escaped, ok := strings.CutSuffix(before, "$"); ok {
			out.WriteString(escaped + "${")
			text = rest
			continue
		}
		out.WriteString(before)
		reference, after, closed := strings.Cut(rest, "}")
		if !closed {
			r.problemf(v.at, key, "a reference that begins with ${ has no }; write $${ where the text itself is meant")
			v.kind = kindInvalid
			return
		}
		secret, fault := r.resolve(reference)
		if fault != "" {
			r.problemf(v.at, key, "%s", fault)
			v.kind = kindInvalid
			return
		}
		out.WriteString(secret)
		v.secret = true
		text = after
	}
	v.text, v.scalar = out.String(), out.String()
}

// resolve returns what a reference stands for, or what is wrong with it.
func (r *reader) resolve(reference string) (secret, fault string) {
	scheme, name, _ := strings.Cut(reference, ":")
	switch scheme {
	case "env":
		secret, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Sprintf("the environment variable %s is not set", name)
		}
		return secret, ""
	case "file":
		data, err := os.ReadFile(r.absolute(name))
		if err != nil {
			return "", fmt.Sprintf("the file %s cannot be read: %v", name, errors.Unwrap(err))
		}
		return strings.TrimRight(string(data), "\r\n"), ""
	default:
		return "", "only ${env:NAME} and ${file:PATH} are known; write $${ where the text itself is meant"
	}
}

func (r *reader) absolute(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(r.dir, path)
}
