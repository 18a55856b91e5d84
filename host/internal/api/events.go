package api

import (
	"context"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gorilla/websocket"

	"github.com/deskhost/deskhost/host/internal/problem"
	"github.com/deskhost/deskhost/host/internal/session"
)

const eventsPath = sessionPath + "/events"

// registerEvents adds the one call that huma does not serve.
func (a *API) registerEvents() {
	event := a.schema(reflect.TypeFor[Event]())
	a.huma.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "get-events", Method: http.MethodGet, Path: eventsPath,
		Summary:  "Replay entries, then go on live",
		Security: withToken,
		Parameters: []*huma.Param{
			{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}, Description: "The session's id."},
			{Name: "after", In: "query", Schema: afterSchema(), Description: "Replay begins behind this seq; 0 if left out."},
			{Name: "Last-Event-ID", In: "header", Schema: afterSchema(), Description: "As after, for a stream that comes back."},
		},
		Responses: map[string]*huma.Response{
			"101": {Description: "A WebSocket with the subprotocol " + subprotocol + "; each text message is an Event."},
			"200": {
				Description: "A stream of server-sent events; the data of each is an Event.",
				Content:     map[string]*huma.MediaType{eventStream: {Schema: event}},
			},
			"default": a.problemResponse(),
		},
	})
	a.mux.HandleFunc("GET "+eventsPath, a.events)
}

func afterSchema() *huma.Schema {
	zero := 0.0
	return &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &zero}
}

const (
	// subprotocol names the form of what a socket carries.
	subprotocol = "deskhost.v1"
	// tokenProtocol begins the subprotocol by which a browser sends its token.
	tokenProtocol = "bearer."
	eventStream   = "text/event-stream"
)

// events opens a socket or a stream. All that can be refused is refused before
// the connection changes its protocol, so that the client can read why.
func (a *API) events(w http.ResponseWriter, r *http.Request) {
	socket := websocket.IsWebSocketUpgrade(r)
	if !socket && !strings.Contains(r.Header.Get("Accept"), eventStream) {
		problem.New(http.StatusNotAcceptable, codeNotAcceptable,
			"Events come on a WebSocket or, with Accept: text/event-stream, as server-sent events.").Write(w)
		return
	}
	sub, err := a.subscription(r, socket)
	if err != nil {
		a.problemOf(err).Write(w)
		return
	}
	at, p := a.listeners.enter(sub.ref.ID, address(r, a.proxies))
	if p != nil {
		p.Write(w)
		return
	}
	if socket {
		a.serveSocket(w, r, sub, at)
	} else {
		a.serveStream(w, r, sub, at)
	}
}

// subscription is what a request for events asks for.
type subscription struct {
	ref   session.Ref
	after uint64
}

func (a *API) subscription(r *http.Request, socket bool) (subscription, error) {
	target := Target{ID: r.PathValue("id"), Authorization: r.Header.Get("Authorization")}
	if socket {
		versioned := false
		for _, p := range websocket.Subprotocols(r) {
			if token, ok := strings.CutPrefix(p, tokenProtocol); ok {
				target.Authorization = "Bearer " + token
			}
			versioned = versioned || p == subprotocol
		}
		if !versioned {
			return subscription{}, problem.New(http.StatusBadRequest, codeBadRequest, "Ask for the WebSocket subprotocol "+subprotocol+".")
		}
	}
	ref, err := target.ref()
	if err != nil {
		return subscription{}, err
	}
	// The id is kept for as long as the client listens. A copy does not keep the
	// request line, of which the id is a part.
	ref.ID = strings.Clone(ref.ID)
	sub := subscription{ref: ref}
	after := r.URL.Query().Get("after")
	if last := r.Header.Get("Last-Event-ID"); last != "" && !socket {
		after = last
	}
	if after != "" {
		if sub.after, err = strconv.ParseUint(after, 10, 64); err != nil {
			return subscription{}, problem.New(http.StatusBadRequest, codeBadRequest, "after and Last-Event-ID are whole numbers from 0.")
		}
	}
	return sub, nil
}

// subscribe opens the feed of a subscription.
func (a *API) subscribe(r *http.Request, sub subscription, wake func()) (session.Feed, error) {
	ctx, cancel := context.WithTimeout(r.Context(), a.limits.Call)
	defer cancel()
	return a.sessions.Subscribe(ctx, sub.ref, sub.after, wake)
}

// maxPull is how much news is taken from a feed at a time.
const maxPull = 64
