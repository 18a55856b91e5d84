package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/deskhost/deskhost/host/internal/problem"
)

// describe registers every call with the mux and returns the OpenAPI document
// that was made of their types.
func (a *API) describe(version string) ([]byte, error) {
	config := huma.DefaultConfig("deskhost", version)
	config.Info.Description = "The API of chat widgets. docs/http-api.md tells what each call means."
	// What a newer page sends to an older host does no harm, and what a newer
	// host answers must not break an older page.
	config.AllowAdditionalPropertiesByDefault = true
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil // They would add $schema to every answer.
	config.Formats = map[string]huma.Format{
		"application/json": huma.DefaultJSONFormat,
		"json":             huma.DefaultJSONFormat, // What ends in +json: problems.
	}
	config.Transformers = []huma.Transformer{strip}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		bearerScheme: {Type: "http", Scheme: "bearer", Description: "The token that POST /v1/sessions answered with."},
	}
	a.huma = humago.New(a.mux, config)

	a.registerCalls()
	a.registerEvents()
	return json.Marshal(a.huma.OpenAPI())
}

const bearerScheme = "token"

// withToken is the security requirement of every call but the first.
var withToken = []map[string][]string{{bearerScheme: {}}}

// register adds one call: its deadline, its problems and its description.
func register[I, O any](a *API, op huma.Operation, fn func(context.Context, *I) (*O, error)) {
	op.MaxBodyBytes = -1    // readBody has bounded it,
	op.BodyReadTimeout = -1 // and has read it.
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["default"] = a.problemResponse()
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		ctx, cancel := context.WithTimeout(ctx, a.limits.Call)
		defer cancel()
		out, err := fn(ctx, in)
		if err != nil {
			return nil, a.problemOf(err)
		}
		return out, nil
	})
}

func (a *API) problemResponse() *huma.Response {
	return &huma.Response{
		Description: "A problem document.",
		Content: map[string]*huma.MediaType{
			problem.ContentType: {Schema: a.schema(reflect.TypeFor[problem.Problem]())},
		},
	}
}

// schema returns a reference to the schema of a type.
func (a *API) schema(t reflect.Type) *huma.Schema {
	return a.huma.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

// perClient is a middleware that takes one from a client's allowance.
func perClient[K comparable](r *rates[K], key func(*http.Request) K) huma.Middlewares {
	return huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		req, w := humago.Unwrap(ctx)
		if wait := r.take(key(req)); wait > 0 {
			tooMany(wait).Write(w)
			return
		}
		next(ctx)
	}}
}
