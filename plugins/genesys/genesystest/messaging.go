package genesystest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// maxAttributes bounds the custom attributes of a message, as JSON.
	maxAttributes = 2048
	// maxText bounds the text of a message in characters.
	maxText = 4096
	// perSecond is how many onMessage a session may do in a second.
	perSecond = 2
)

// session is a guest of Web Messaging, known by the token that it made up. The
// server's lock guards it.
type session struct {
	s            *Server
	token        string
	base         string        // the simulator's URL, as the guest reaches it
	conversation *conversation // from the first message, or Join, on
	sockets      []*socket     // oldest first
	history      []*structured // oldest first
	readOnly     bool
	// gone is set when the session is over: expired, closed or cleared.
	gone   int // the code that says so
	signed bool
	expiry *time.Timer
	until  time.Time
	recent []time.Time // of the latest onMessage

	disorder[*reply]
}

func (s *Server) messagingRoutes() {
	s.routes.HandleFunc("GET /v1", s.call("connect", s.serveMessagingSocket))
	s.routes.HandleFunc("GET /webdeployments/v1/deployments/{id}/config.json", s.serve("config", s.serveConfig))
	s.routes.HandleFunc("GET /api/v2/webmessaging/messages", s.serve("history", s.serveMessagingHistory))
}

// serveConfig is the deployment's public configuration, as on the vendor's CDN.
func (s *Server) serveConfig(r *http.Request, body []byte) (any, error) {
	if r.PathValue("id") != s.options.Deployment {
		return nil, errNotFound
	}
	type object = map[string]any
	status := "Active"
	if s.options.Inactive {
		status = "Inactive"
	}
	disconnect := object{"enabled": s.options.DisconnectType != "None"}
	if s.options.DisconnectType != "None" {
		disconnect["type"] = s.options.DisconnectType
	}
	return object{
		"id": s.options.Deployment, "version": "1", "status": status,
		"languages": []string{"en-us"}, "defaultLanguage": "en-us",
		"auth": object{"enabled": s.options.RequireAuth},
		"messenger": object{
			"enabled": true,
			"apps": object{"conversations": object{
				"enabled": true, "showAgentTypingIndicator": true, "showUserTypingIndicator": true,
				"autoStart": object{"enabled": false}, "markdown": object{"enabled": true},
				"conversationDisconnect": disconnect,
				"conversationClear":      object{"enabled": !s.options.NoClear},
			}},
			"fileUpload": object{
				"enableAttachments": true,
				"modes":             []object{{"fileTypes": []string{"*/*"}, "maxFileSizeKB": maxFileKB}},
			},
		},
	}, nil
}

func (s *Server) serveMessagingSocket(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Query().Get("deploymentId") != s.options.Deployment:
		http.Error(w, "no such deployment", http.StatusForbidden)
		return
	case !s.allowed(r):
		http.Error(w, "the deployment is restricted to other origins", http.StatusForbidden)
		return
	}
	at := base(r, "http", "https")
	s.serveSocket(w, r, nil, func(*socket) {},
		func(k *socket, frame []byte) { s.act(k, frame, at) },
		func(k *socket) {
			if k.session != nil {
				k.session.drop(k)
			}
		})
}

// drop forgets a connection that belongs to the session.
func (x *session) drop(k *socket) {
	k.session = nil
	x.sockets = slices.DeleteFunc(x.sockets, func(other *socket) bool { return other == k })
}

// act does what a frame asks for.
func (s *Server) act(k *socket, frame []byte, at string) {
	var r request
	if err := json.Unmarshal(frame, &r); err != nil {
		k.push(failure(400, "the frame is not the JSON that is expected: "+err.Error(), ""))
		return
	}
	met := s.hit(r.kind())
	if met != nil && met.late > 0 && !s.stall(met.late) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if met != nil && met.fails() {
		k.push(met.frame(r.TracingID))
		return
	}
	if met != nil && met.lost {
		// What is asked for is done, and nobody learns of it.
		k.lost.Store(true)
		defer k.cut()
	}
	if refused := s.perform(k, &r, at); refused != nil {
		k.push(refused)
	}
}

// kind is the name by which faults know the request.
func (r *request) kind() string {
	switch r.Action {
	case "configureSession", "configureAuthenticatedSession":
		return callStart
	case "closeSession":
		return callEnd
	case "getJwt":
		return "jwt"
	case "onMessage":
		switch m := r.Message; {
		case m == nil:
		case m.Type == "Text":
			return callSend
		case m.presence() == "Clear":
			return callEnd
		case m.typing():
			return "typing"
		}
	}
	return r.Action
}

func (m *guestMessage) presence() string {
	for _, e := range m.Events {
		if e.EventType == "Presence" && e.Presence != nil {
			return e.Presence.Type
		}
	}
	return ""
}

func (m *guestMessage) typing() bool {
	return slices.ContainsFunc(m.Events, func(e messageEvent) bool { return e.EventType == "Typing" })
}

func (s *Server) perform(k *socket, r *request, at string) (refused *reply) {
	if !isUUID(r.Token) {
		return failure(400, "token: want a UUID", r.TracingID)
	}
	switch r.Action {
	case "configureSession", "configureAuthenticatedSession":
		return s.configure(k, r, at)
	}
	x := s.sessions[r.Token]
	if x == nil || k.session != x && x.gone == 0 {
		return failure(4007, "session not found error message", r.TracingID)
	}
	if x.gone != 0 {
		text := map[int]string{4006: "session expired error message", 4007: "session not found error message"}[x.gone]
		return failure(x.gone, text, r.TracingID)
	}
	switch r.Action {
	case "onMessage":
		return x.onMessage(r)
	case "echo":
		if r.Message == nil {
			return failure(4020, "message: missing parameter", r.TracingID)
		}
		k.push(x.echo(&structured{Type: "Text", Text: r.Message.Text}, r.TracingID))
		return nil
	case "getJwt":
		jwt, exp := s.tokens.issue("messaging", x.token, "")
		k.push(response("JwtResponse", jwtBody{jwt, exp.Unix()}, r.TracingID))
		return nil
	case "closeSession":
		x.close(k, r)
		return nil
	case "onAttachment":
		return x.onAttachment(k, r)
	case "deleteAttachment":
		return x.deleteAttachment(r)
	default:
		return failure(400, "unknown action", r.TracingID)
	}
}

func (s *Server) configure(k *socket, r *request, at string) (refused *reply) {
	signed := r.Action == "configureAuthenticatedSession"
	switch {
	case r.DeploymentID == "":
		return failure(4020, "deploymentId: missing parameter", r.TracingID)
	case r.DeploymentID != s.options.Deployment:
		return failure(403, "deploymentId: no such deployment", r.TracingID)
	case s.options.Inactive:
		return failure(403, "the deployment is not active", r.TracingID)
	case signed && !s.signedIn(r.Data.Code):
		return failure(401, "data.code: the JWT is not valid", r.TracingID)
	case !signed && s.options.RequireAuth:
		return failure(401, "the deployment wants authenticated sessions", r.TracingID)
	}
	x := s.sessions[r.Token]
	if x != nil && x.signed && !signed && x.gone == 0 {
		return failure(4017, "an authenticated session cannot be downgraded", r.TracingID)
	}
	cleared := x != nil && x.gone == 0 && r.StartNew
	if cleared {
		x.over(4007)
	}
	fresh := x == nil || x.gone != 0
	if fresh {
		x = &session{s: s, token: r.Token, base: at}
		s.sessions[r.Token] = x
		x.expiry = time.AfterFunc(s.options.SessionLife, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !s.closed && !s.options.Now().Before(x.until) {
				x.expire()
			}
		})
		x.live()
	}
	if signed && !x.signed {
		x.signed = true
		x.dismiss(closedBody{Reason: "signedIn"}, func(other *socket) bool { return other != k })
	}
	if k.session != x {
		if k.session != nil {
			k.session.drop(k)
		}
		k.session = x
		x.sockets = append(x.sockets, k)
	}
	if len(x.sockets) > s.options.MaxSockets {
		oldest := x.sockets[0]
		x.dismiss(closedBody{}, func(k *socket) bool { return k == oldest })
	}
	body := sessionBody{
		Connected: true, NewSession: fresh, ReadOnly: x.readOnly, MaxCustomDataBytes: maxAttributes, ClearedExistingSession: cleared,
		AllowedMedia: &allowedMedia{}, BlockedExtensions: []string{".exe"},
		DurationSeconds: int(s.options.SessionLife.Seconds()), ExpirationDate: x.until.Unix(),
	}
	body.AllowedMedia.Inbound.FileTypes = []fileType{{"*/*"}}
	body.AllowedMedia.Inbound.MaxFileSizeKB = maxFileKB
	k.push(response("SessionResponse", body, r.TracingID))
	return nil
}

// live puts off the end of the session.
func (x *session) live() {
	x.until = x.s.options.Now().Add(x.s.options.SessionLife)
	x.expiry.Reset(x.s.options.SessionLife)
}

func (x *session) onMessage(r *request) (refused *reply) {
	m := r.Message
	if m == nil {
		return failure(4020, "message: missing parameter", r.TracingID)
	}
	if wait := x.limited(); wait > 0 {
		return tooMany(wait, r.TracingID)
	}
	attributes, refused := m.attributes(r.TracingID)
	if refused != nil {
		return refused
	}
	switch {
	case m.Type == "Text":
		return x.text(r, attributes)
	case m.Type == "Event" && len(m.Events) == 1:
		return x.event(r, attributes)
	default:
		return failure(400, "message: want a Text, or an Event with one event", r.TracingID)
	}
}

func (x *session) text(r *request, attributes map[string]string) (refused *reply) {
	m := r.Message
	text := m.Text
	for i := range m.Content {
		if b := m.Content[i].ButtonResponse; b != nil && text == "" {
			text = b.Text
		}
	}
	switch {
	case x.readOnly:
		return failure(400, "the conversation is read-only", r.TracingID)
	case text == "" && len(m.Content) == 0:
		return failure(4020, "message.text: missing parameter", r.TracingID)
	case utf8.RuneCountInString(text) > maxText:
		return failure(4011, "message too long", r.TracingID)
	}
	files, refused := x.attached(m, r.TracingID)
	if refused != nil {
		return refused
	}
	x.begin(attributes)
	x.live()
	shown := text
	for _, f := range files {
		shown = strings.TrimPrefix(shown+" ["+f.name+"]", " ")
	}
	x.conversation.heard(shown)
	x.send(x.echo(&structured{Type: "Text", Text: text, Content: m.Content}, r.TracingID))
	return nil
}

func (x *session) event(r *request, attributes map[string]string) (refused *reply) {
	e := r.Message.Events[0]
	switch {
	case e.EventType == "Typing" && e.Typing != nil:
		if c := x.conversation; c != nil && !c.over {
			c.typed = time.Time{}
			if e.Typing.Type != "Off" {
				c.typed = time.Now()
			}
		}
		return nil // it is not echoed
	case e.EventType != "Presence" || e.Presence == nil:
		return failure(400, "message.events: want Typing or Presence", r.TracingID)
	}
	switch e.Presence.Type {
	case "Join":
		if x.readOnly {
			return failure(400, "the conversation is read-only", r.TracingID)
		}
		x.begin(attributes)
		x.live()
		x.send(x.echo(&structured{Type: "Event", Events: r.Message.Events}, r.TracingID))
	case "Clear":
		if x.s.options.NoClear {
			return failure(403, "conversationClear is not enabled in the deployment", r.TracingID)
		}
		x.send(x.echo(&structured{Type: "Event", Events: r.Message.Events}, r.TracingID))
		x.over(4007)
	default:
		return failure(400, "message.events: want Presence Join or Clear", r.TracingID)
	}
	return nil
}

// begin opens the conversation, if none is going on.
func (x *session) begin(attributes map[string]string) {
	if x.conversation == nil || x.conversation.over {
		x.conversation = x.s.open("Web Messaging", "", x.base, nil, x)
	}
	x.s.know(x.conversation, attributes)
}

// limited counts a message, and tells how many seconds it comes too early.
func (x *session) limited() (wait int) {
	now := x.s.options.Now()
	x.recent = slices.DeleteFunc(x.recent, func(t time.Time) bool { return now.Sub(t) >= time.Second })
	if len(x.recent) >= perSecond {
		return 1
	}
	x.recent = append(x.recent, now)
	return 0
}

func tooMany(wait int, tracingID string) *reply {
	return &reply{"response", "TooManyRequestsErrorMessage", 429, tooManyBody{
		RetryAfter: wait, ErrorCode: 4029, ErrorMessage: "Message rate too high for this session",
	}, tracingID}
}

func (m *guestMessage) attributes(tracingID string) (attributes map[string]string, refused *reply) {
	for key, raw := range m.Channel.Metadata {
		if key == "customAttributes" {
			if err := json.Unmarshal(raw, &attributes); err != nil {
				return nil, failure(400, "message.channel.metadata.customAttributes: want strings only", tracingID)
			}
			if len(raw) > maxAttributes {
				return nil, failure(4013, "custom attributes too large", tracingID)
			}
			continue
		}
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, failure(400, "message.channel.metadata: want strings only", tracingID)
		}
	}
	return attributes, nil
}

// echo is the guest's own message as it comes back.
func (x *session) echo(m *structured, tracingID string) *reply {
	now := x.s.stamp()
	m.ID, m.Direction = newID(), "Inbound"
	m.Channel = &messageChannel{Time: &now, MessageID: newID()}
	m.Metadata = map[string]string{"correlationId": newID()}
	f := notice("StructuredMessage", m)
	f.TracingID = tracingID
	return f
}

// outbound is a message of the desk's.
func (x *session) outbound(agent string, m *structured) *reply {
	now := x.s.stamp()
	m.ID, m.Direction = newID(), "Outbound"
	m.Channel = &messageChannel{Time: &now, Type: "Private"}
	if agent != "" {
		m.OriginatingEntity = "Human"
		if !x.s.options.NoNicknames {
			m.Channel.From = &messageFrom{Nickname: agent}
		}
	}
	return notice("StructuredMessage", m)
}

// send keeps a message in the history and tells it to all connections.
func (x *session) send(f *reply) {
	if m, ok := f.Body.(*structured); ok && (len(m.Events) == 0 || m.Events[0].EventType != "Typing") {
		x.history = append(x.history, m)
	}
	for _, f := range x.ordered(f) {
		x.pass(f)
	}
}

func (x *session) pass(f *reply) {
	for range x.times() {
		for _, k := range x.sockets {
			k.push(f)
		}
	}
}

// dismiss closes some of the session's connections, saying why.
func (x *session) dismiss(why closedBody, which func(*socket) bool) {
	for _, k := range slices.Clone(x.sockets) {
		if which(k) {
			k.push(notice("ConnectionClosedEvent", why))
			k.finish()
			x.drop(k)
		}
	}
}

// close is the guest's end of one connection, or of the session.
func (x *session) close(k *socket, r *request) {
	body := sessionBody{ReadOnly: x.readOnly, MaxCustomDataBytes: maxAttributes}
	sockets := []*socket{k}
	if r.CloseAllConnections {
		sockets = slices.Clone(x.sockets)
		x.over(4007)
	}
	for _, other := range sockets {
		if other == k {
			k.push(response("SessionResponse", body, r.TracingID))
		} else {
			other.push(response("SessionResponse", body, ""))
			other.finish()
		}
		x.drop(other)
	}
}

// over ends the session; code says so to whoever still uses it.
func (x *session) over(code int) {
	x.gone = code
	x.expiry.Stop()
	if c := x.conversation; c != nil && !c.over {
		how := "Ended by the customer"
		if code == 4006 {
			how = "The session expired"
		}
		c.finish(how)
	}
}

func (x *session) expire() {
	if x.gone != 0 {
		return
	}
	x.over(4006)
	for _, k := range x.sockets {
		k.push(response("SessionExpiredEvent", struct{}{}, ""))
	}
}

// What agents do, told as Web Messaging does: nobody hears of one who joins,
// leaves, or is handed the conversation.

func (x *session) ready() error   { return nil }
func (x *session) alerted(string) {}
func (x *session) joined(string)  {}
func (x *session) left(string)    {}

func (x *session) typing(_ string, on bool) {
	if on { // there is no end of typing, it runs out
		x.send(x.outbound("", &structured{Type: "Event", Events: []messageEvent{
			{EventType: "Typing", Typing: &typingEvent{Type: "On", Duration: 5000}},
		}}))
	}
}

func (x *session) said(agent string, m *said) {
	out := &structured{Type: "Text", Text: m.text}
	if len(m.replies) > 0 {
		out.Type = "Structured"
		for _, r := range m.replies {
			out.Content = append(out.Content, messageContent{
				ContentType: "QuickReply", QuickReply: &quickReply{Text: r, Payload: r, Action: "Message"},
			})
		}
	}
	if m.file != nil {
		out.Content = append(out.Content, messageContent{ContentType: "Attachment", Attachment: m.file.attachment(m.fileURL)})
	}
	f := x.outbound(agent, out)
	if len(m.replies) > 0 {
		out.OriginatingEntity = "Bot" // people at the desk cannot send these
	}
	x.live()
	x.send(f)
}

func (x *session) ended() {
	if kind := x.s.options.DisconnectType; kind != "None" {
		x.disconnect(kind == "ReadOnly")
	}
}

func (x *session) disconnect(readOnly bool) {
	x.readOnly = readOnly
	x.send(x.outbound("", &structured{Type: "Event", Metadata: map[string]string{"readOnly": strconv.FormatBool(readOnly)}, Events: []messageEvent{
		{EventType: "Presence", Presence: &presenceEvent{Type: "Disconnect"}},
	}}))
}

func (x *session) connections() []*socket { return slices.Clone(x.sockets) }

func (x *session) spoil(a *Act) {
	switch a.Do {
	case "expire":
		x.expire()
	case "read_only":
		x.conversation.finish("Ended by the desk")
		x.disconnect(true)
	case "notice":
		x.conversation.note("agent", "", a.Text)
		x.send(x.outbound("", &structured{Type: "Text", Text: a.Text, OriginatingEntity: "Bot"}))
	case "shuffle":
		x.shuffle = max(a.N, 1)
	case "repeat":
		x.repeat = max(a.N, 1)
	}
}

func (s *Server) serveMessagingHistory(r *http.Request, body []byte) (any, error) {
	if !s.allowed(r) {
		return nil, errOrigin
	}
	claims, err := s.tokens.bearer(r, "messaging")
	if err != nil {
		return nil, err
	}
	x := s.sessions[claims.Subject]
	if x == nil {
		return nil, errNotFound
	}
	size, number := queryInt(r, "pageSize", 25), queryInt(r, "pageNumber", 1)
	if size < 1 || size > 100 || number < 1 {
		return nil, badRequest("pageSize: want 1 to 100; pageNumber: want 1 or more")
	}
	// The newest come first.
	page := historyPage{Entities: []*structured{}, PageSize: size, PageNumber: number, Total: len(x.history)}
	page.PageCount = (page.Total + size - 1) / size
	for i := len(x.history) - 1 - (number-1)*size; i >= 0 && len(page.Entities) < size; i-- {
		m := x.history[i]
		if s.options.NullTimes {
			timeless, channel := *m, *m.Channel
			channel.Time, timeless.Channel = nil, &channel
			m = &timeless
		}
		page.Entities = append(page.Entities, m)
	}
	return page, nil
}
