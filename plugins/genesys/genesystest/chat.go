package genesystest

import (
	"cmp"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// maxBody bounds the text of a message of Web Chat in characters.
const maxBody = 4000

// The roles and states of a member.
const (
	roleCustomer = "CUSTOMER"
	roleAgent    = "AGENT"
	roleACD      = "ACD"

	stateConnected    = "CONNECTED"
	stateDisconnected = "DISCONNECTED"
	stateAlerting     = "ALERTING"
)

// member is one who takes part in a conversation of Web Chat.
type member struct {
	ID           string            `json:"id"`
	DisplayName  string            `json:"displayName,omitempty"`
	FirstName    string            `json:"firstName,omitempty"`
	LastName     string            `json:"lastName,omitempty"`
	Email        string            `json:"email,omitempty"`
	PhoneNumber  string            `json:"phoneNumber,omitempty"`
	AvatarURL    string            `json:"avatarImageUrl,omitempty"`
	Role         string            `json:"role"`
	JoinDate     string            `json:"joinDate,omitempty"`
	LeaveDate    string            `json:"leaveDate,omitempty"`
	Authed       bool              `json:"authenticatedGuest"`
	CustomFields map[string]string `json:"customFields,omitempty"`
	State        string            `json:"state"`
}

type reference struct {
	ID    string `json:"id"`
	State string `json:"state,omitempty"`
}

// chatMessage is a message of Web Chat.
type chatMessage struct {
	ID           string    `json:"id"`
	Conversation reference `json:"conversation"`
	Sender       reference `json:"sender"`
	Body         string    `json:"body"`
	BodyType     string    `json:"bodyType,omitempty"`
	Timestamp    string    `json:"timestamp"`
}

// chatEvent is a frame of an event stream.
type chatEvent struct {
	TopicName string         `json:"topicName"`
	Version   string         `json:"version,omitempty"`
	EventBody any            `json:"eventBody"`
	Metadata  *chatEventMeta `json:"metadata,omitempty"`
}

type chatEventMeta struct {
	CorrelationID string `json:"CorrelationId"`
	Type          string `json:"type"`
}

type memberChange struct {
	Conversation reference `json:"conversation"`
	Member       reference `json:"member"`
	Timestamp    string    `json:"timestamp"`
}

// heartbeat is what an idle event stream says.
const heartbeat = `{"topicName":"channel.metadata","eventBody":{"message":"WebSocket Heartbeat"}}`

// chatGuest is a guest of Web Chat with its conversation. The server's lock
// guards it.
type chatGuest struct {
	s       *Server
	c       *conversation
	stream  string // the secret part of the event stream's address
	sockets []*socket
	own     *member
	acd     *member // from the first event stream on
	members []*member
	log     []*chatMessage

	disorder[*chatEvent]
}

func (s *Server) chatRoutes() {
	const base = "/api/v2/webchat/guest/conversations"
	s.routes.HandleFunc("POST "+base, s.serve(callStart, s.serveCreate))
	on := func(method, path, kind string, h func(r *http.Request, body []byte, g *chatGuest) (any, error)) {
		s.routes.HandleFunc(method+" "+base+"/{conversation}"+path, s.serve(kind, s.guest(h)))
	}
	on("GET", "/members", "members", s.serveMembers)
	on("GET", "/members/{member}", "members", s.serveMember)
	on("DELETE", "/members/{member}", callEnd, s.serveLeave)
	on("POST", "/members/{member}/messages", callSend, s.serveSend)
	on("POST", "/members/{member}/typing", "typing", s.serveTyping)
	on("GET", "/messages", "history", s.serveMessages)
	on("GET", "/messages/{message}", "history", s.serveMessage)
	s.routes.HandleFunc("GET /webchat/streams/{stream}", s.call("connect", s.serveStream))
}

type createRequest struct {
	OrganizationID string `json:"organizationId"`
	DeploymentID   string `json:"deploymentId"`
	RoutingTarget  *struct {
		TargetType    string   `json:"targetType"`
		TargetAddress string   `json:"targetAddress"`
		Skills        []string `json:"skills"`
		Language      string   `json:"language"`
		Priority      int      `json:"priority"`
	} `json:"routingTarget"`
	MemberInfo *struct {
		DisplayName  string            `json:"displayName"`
		FirstName    string            `json:"firstName"`
		LastName     string            `json:"lastName"`
		Email        string            `json:"email"`
		PhoneNumber  string            `json:"phoneNumber"`
		AvatarURL    string            `json:"avatarImageUrl"`
		CustomFields map[string]string `json:"customFields"`
	} `json:"memberInfo"`
	MemberAuthToken string `json:"memberAuthToken"`
}

func (s *Server) refuseCreate(r *http.Request, req *createRequest) error {
	switch {
	case !s.allowed(r):
		return errOrigin
	case req.OrganizationID == "" || req.DeploymentID == "" || req.RoutingTarget == nil || req.MemberInfo == nil || req.MemberInfo.DisplayName == "":
		return badRequest("organizationId, deploymentId, routingTarget and memberInfo.displayName are required.")
	case req.OrganizationID != s.options.OrganizationID:
		return newError(http.StatusBadRequest, "chat.deployment.organization.mismatch", "The deployment is not one of the organization.")
	case req.DeploymentID != s.options.Deployment:
		return newError(http.StatusBadRequest, "chat.deployment.not.found", "There is no such deployment.")
	case s.options.Inactive:
		return newError(http.StatusBadRequest, "chat.deployment.disabled", "The deployment is disabled.")
	case s.options.RequireAuth && req.MemberAuthToken == "":
		return newError(http.StatusBadRequest, "chat.deployment.require.auth", "The deployment requires authentication.")
	case req.MemberAuthToken != "" && !s.signedIn(req.MemberAuthToken):
		return newError(http.StatusBadRequest, "chat.deployment.invalid.auth", "The memberAuthToken is not valid.")
	case req.RoutingTarget.TargetType != "QUEUE":
		return badRequest("routingTarget.targetType must be QUEUE.")
	case req.RoutingTarget.TargetAddress != s.options.Queue:
		return newError(http.StatusBadRequest, "chat.error.invalid.queue", "There is no such queue.")
	}
	return nil
}

func (s *Server) serveCreate(r *http.Request, body []byte) (any, error) {
	var req createRequest
	if err := readJSON(body, &req); err != nil {
		return nil, err
	}
	if err := s.refuseCreate(r, &req); err != nil {
		return nil, err
	}
	m := req.MemberInfo
	g := &chatGuest{s: s, stream: rand.Text(), own: &member{
		ID: newID(), DisplayName: m.DisplayName, FirstName: m.FirstName, LastName: m.LastName, Email: m.Email, PhoneNumber: m.PhoneNumber,
		AvatarURL: m.AvatarURL, Role: roleCustomer, JoinDate: s.stamp(), Authed: req.MemberAuthToken != "",
		CustomFields: m.CustomFields, State: stateConnected,
	}}
	g.members = []*member{g.own}
	g.c = s.open("Web Chat", m.DisplayName, base(r, "http", "https"), m.CustomFields, g)
	s.streams[g.stream] = g
	jwt, _ := s.tokens.issue("chat", g.c.id, g.own.ID)
	return map[string]any{
		"id": g.c.id, "jwt": jwt, "member": reference{ID: g.own.ID},
		"eventStreamUri": cmp.Or(s.options.StreamURL, base(r, "ws", "wss")) + "/webchat/streams/" + g.stream,
	}, nil
}

// serveStream attaches an event stream. The first one begins the routing.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	g := s.streams[r.PathValue("stream")]
	gone := g == nil || g.c.over
	s.mu.Unlock()
	if gone {
		writeError(w, errNotFound)
		return
	}
	s.serveSocket(w, r, []byte(heartbeat),
		func(k *socket) {
			g.sockets = append(g.sockets, k)
			if g.c.over { // since we looked
				k.finish()
				return
			}
			if g.acd == nil {
				g.change(g.own)
				g.acd = g.enter(roleACD, "", stateConnected)
				g.c.note("", "", "Waiting in the queue")
			}
		},
		func(*socket, []byte) {}, // a guest has nothing to say there
		func(k *socket) {
			g.sockets = slices.DeleteFunc(g.sockets, func(other *socket) bool { return other == k })
		})
}

// guest finds the conversation of a call.
func (s *Server) guest(h func(r *http.Request, body []byte, g *chatGuest) (any, error)) endpoint {
	return func(r *http.Request, body []byte) (any, error) {
		g, err := s.guestOf(r)
		if err != nil {
			return nil, err
		}
		return h(r, body, g)
	}
}

func (s *Server) guestOf(r *http.Request) (*chatGuest, error) {
	if !s.allowed(r) {
		return nil, errOrigin
	}
	claims, err := s.tokens.bearer(r, "chat")
	if err != nil {
		return nil, err
	}
	if claims.Subject != r.PathValue("conversation") {
		return nil, errForbidden
	}
	c := s.byID[claims.Subject]
	if c == nil {
		return nil, errNotFound
	}
	g, ok := c.guest.(*chatGuest)
	if !ok {
		return nil, errNotFound
	}
	return g, nil
}

// may tells why a guest may not do what a call asks as a member.
func (g *chatGuest) may(r *http.Request) error {
	switch {
	case r.PathValue("member") != g.own.ID:
		return errForbidden
	case g.c.over:
		return newError(http.StatusBadRequest, "chat.error.conversation.state", "The conversation is over.")
	case g.own.State != stateConnected:
		return newError(http.StatusBadRequest, "chat.error.member.state", "The member is not connected.")
	}
	return nil
}

func (s *Server) serveMembers(r *http.Request, body []byte, g *chatGuest) (any, error) {
	shown := []*member{}
	for _, m := range g.members {
		if r.URL.Query().Get("excludeDisconnectedMembers") != "true" || m.State != stateDisconnected {
			shown = append(shown, m)
		}
	}
	size, number := queryInt(r, "pageSize", 25), queryInt(r, "pageNumber", 1)
	if size < 1 || number < 1 {
		return nil, badRequest("pageSize and pageNumber must be 1 or more.")
	}
	total := len(shown)
	from := min((number-1)*size, total)
	return map[string]any{
		"entities": shown[from:min(from+size, total)], "pageSize": size, "pageNumber": number, "total": total, "pageCount": (total + size - 1) / size,
	}, nil
}

func (s *Server) serveMember(r *http.Request, body []byte, g *chatGuest) (any, error) {
	at := slices.IndexFunc(g.members, func(m *member) bool { return m.ID == r.PathValue("member") })
	if at < 0 {
		return nil, errNotFound
	}
	return g.members[at], nil
}

func (s *Server) serveLeave(r *http.Request, body []byte, g *chatGuest) (any, error) {
	if err := g.may(r); err != nil {
		return nil, err
	}
	g.c.finish("Ended by the customer")
	g.close()
	return nil, nil
}

func (s *Server) serveSend(r *http.Request, body []byte, g *chatGuest) (any, error) {
	var req struct {
		Body     string `json:"body"`
		BodyType string `json:"bodyType"`
	}
	err := g.may(r)
	if err == nil {
		err = readJSON(body, &req)
	}
	switch {
	case err != nil:
	case req.Body == "" || utf8.RuneCountInString(req.Body) > maxBody:
		err = badRequest("body must have 1 to 4000 characters.")
	case req.BodyType != "" && req.BodyType != "standard" && req.BodyType != "notice":
		err = badRequest("bodyType must be standard or notice.")
	}
	if err != nil {
		return nil, err
	}
	if req.BodyType == "" {
		req.BodyType = "standard"
	}
	if req.BodyType == "standard" {
		g.c.heard(req.Body)
	} else {
		g.c.note("", "", "The customer's side notes: "+req.Body)
	}
	return g.write(g.own, req.BodyType, req.Body), nil
}

func (s *Server) serveTyping(r *http.Request, body []byte, g *chatGuest) (any, error) {
	if err := g.may(r); err != nil {
		return nil, err
	}
	g.c.typed = time.Now()
	return g.types(g.own), nil
}

// serveMessages pages through what was said, by the ids of messages.
func (s *Server) serveMessages(r *http.Request, body []byte, g *chatGuest) (any, error) {
	q := r.URL.Query()
	from, to := 0, len(g.log)
	place := func(id string) int {
		return slices.IndexFunc(g.log, func(m *chatMessage) bool { return m.ID == id })
	}
	if id := q.Get("after"); id != "" {
		from = place(id) + 1
		if from == 0 {
			return nil, badRequest("after must be the id of a message.")
		}
	}
	if id := q.Get("before"); id != "" {
		if to = place(id); to < 0 {
			return nil, badRequest("before must be the id of a message.")
		}
	}
	limit := queryInt(r, "maxResults", 100)
	order := q.Get("sortOrder")
	if limit < 1 || limit > 100 || order != "" && order != "ascending" && order != "descending" {
		return nil, badRequest("maxResults must be 1 to 100, sortOrder ascending or descending.")
	}
	found := append([]*chatMessage{}, g.log[min(from, to):to]...)
	edge := "after"
	if order == "descending" {
		slices.Reverse(found)
		edge = "before"
	}
	page := map[string]any{"pageSize": limit, "selfUri": r.URL.RequestURI()}
	if len(found) > limit {
		found = found[:limit]
		next := *r.URL
		q.Set(edge, found[limit-1].ID)
		next.RawQuery = q.Encode()
		page["next"] = next.RequestURI()
	}
	page["entities"] = found
	return page, nil
}

func (s *Server) serveMessage(r *http.Request, body []byte, g *chatGuest) (any, error) {
	for _, m := range g.log {
		if m.ID == r.PathValue("message") {
			return m, nil
		}
	}
	return nil, errNotFound
}

func (g *chatGuest) message(from *member, kind, body string) *chatMessage {
	return &chatMessage{
		ID: newID(), Conversation: reference{ID: g.c.id}, Sender: reference{ID: from.ID}, Body: body, BodyType: kind,
		Timestamp: g.s.stamp(),
	}
}

// write adds a message to the log and tells the streams.
func (g *chatGuest) write(from *member, kind, body string) *chatMessage {
	m := g.message(from, kind, body)
	g.log = append(g.log, m)
	g.tell("messages", "message", m)
	return m
}

// typingIndicator is what is told of one who types.
type typingIndicator struct {
	ID           string    `json:"id"`
	Conversation reference `json:"conversation"`
	Sender       reference `json:"sender"`
	Timestamp    string    `json:"timestamp"`
}

func (g *chatGuest) types(from *member) *typingIndicator {
	t := &typingIndicator{newID(), reference{ID: g.c.id}, reference{ID: from.ID}, g.s.stamp()}
	g.tell("messages", "typing-indicator", t)
	return t
}

// enter adds a member.
func (g *chatGuest) enter(role, name, state string) *member {
	m := &member{ID: newID(), DisplayName: name, Role: role, State: state, JoinDate: g.s.stamp()}
	g.members = append(g.members, m)
	g.change(m)
	return m
}

// to changes a member's state.
func (g *chatGuest) to(m *member, state string) {
	if m == nil || m.State == state {
		return
	}
	m.State = state
	if state == stateDisconnected {
		m.LeaveDate = g.s.stamp()
	}
	g.change(m)
}

// change tells of a member's state. That an agent is connected is told twice, as
// the vendor does.
func (g *chatGuest) change(m *member) {
	times := 1
	if m.Role == roleAgent && m.State == stateConnected {
		times = 2
	}
	for range times {
		g.tell("members", "member-change", memberChange{
			Conversation: reference{ID: g.c.id}, Member: reference{ID: m.ID, State: m.State}, Timestamp: g.s.stamp(),
		})
	}
}

func (g *chatGuest) tell(topic, kind string, body any) {
	e := &chatEvent{
		TopicName: "v2.conversations.chats." + g.c.id + "." + topic, Version: "2", EventBody: body,
		Metadata: &chatEventMeta{CorrelationID: newID(), Type: kind},
	}
	for _, e := range g.ordered(e) {
		for range g.times() {
			for _, k := range g.sockets {
				k.push(e)
			}
		}
	}
}

// agent returns the member that an agent is now.
func (g *chatGuest) agent(name string) *member {
	for _, m := range slices.Backward(g.members) {
		if m.Role == roleAgent && m.DisplayName == name && m.State != stateDisconnected {
			return m
		}
	}
	return nil
}

// close puts the guest out and ends the streams.
func (g *chatGuest) close() {
	for _, m := range g.members {
		if m != g.own {
			g.to(m, stateDisconnected)
		}
	}
	g.to(g.own, stateDisconnected)
	for _, k := range g.sockets {
		k.finish()
	}
}

// What agents do, told as Web Chat does.

func (g *chatGuest) ready() error {
	if g.acd == nil {
		return errNotRouted
	}
	return nil
}

func (g *chatGuest) alerted(agent string) { g.enter(roleAgent, agent, stateAlerting) }

func (g *chatGuest) joined(agent string) {
	m := g.agent(agent)
	g.to(g.acd, stateDisconnected)
	g.to(m, stateConnected)
	g.write(m, "member-join", "")
}

func (g *chatGuest) left(agent string) {
	m := g.agent(agent)
	g.to(m, stateDisconnected)
	g.write(m, "member-leave", "")
}

func (g *chatGuest) typing(agent string, on bool) {
	if m := g.agent(agent); on && m != nil { // there is no end of typing, it runs out
		g.types(m)
	}
}

func (g *chatGuest) said(agent string, m *said) {
	lines := []string{}
	if m.text != "" {
		lines = append(lines, m.text)
	}
	lines = append(lines, m.replies...)
	if m.file != nil {
		lines = append(lines, m.fileURL)
	}
	g.write(g.agent(agent), "standard", strings.Join(lines, "\n"))
}

func (g *chatGuest) ended() { g.close() }

func (g *chatGuest) connections() []*socket { return slices.Clone(g.sockets) }

func (g *chatGuest) spoil(a *Act) {
	switch a.Do {
	case "expire", "read_only":
		g.c.finish("Ended by the desk")
		g.close()
	case "notice":
		g.c.note("agent", "", a.Text)
		from := g.acd
		if from == nil {
			from = g.own
		}
		g.write(from, "notice", a.Text)
	case "shuffle":
		g.shuffle = max(a.N, 1)
	case "repeat":
		g.repeat = max(a.N, 1)
	}
}
