package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/deskhost/deskhost/host/internal/session"
)

// constants returns the values of the string constants in a file whose names
// begin with prefix, as far as they are literals.
func constants(t *testing.T, file, prefix string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) != 1 {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			value, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, value)
		}
		return true
	})
	return values
}

// Each code of session has a status, and docs/http-api.md names each code that
// can be answered.
func TestCodesAreMappedAndDocumented(t *testing.T) {
	ofSession := constants(t, "../session/api.go", "Code")
	own := constants(t, "errors.go", "code")
	if len(ofSession) != len(statuses) || len(own) == 0 {
		t.Errorf("%d codes of session, %d statuses", len(ofSession), len(statuses))
	}
	for _, code := range ofSession {
		if statuses[session.Code(code)] == 0 {
			t.Errorf("%s has no status", code)
		}
	}
	doc, err := os.ReadFile("../../../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "## Errors")
	if !ok {
		t.Fatal("docs/http-api.md has no section on errors")
	}
	for _, code := range append(ofSession, own...) {
		if !strings.Contains(table, "`"+code+"`") {
			t.Errorf("docs/http-api.md does not name %s", code)
		}
	}
}
