package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
	"github.com/deskhost/deskhost/host/internal/problem"
	"github.com/deskhost/deskhost/host/internal/session"
)

// The session's path, below which all its calls lie.
const sessionPath = "/v1/sessions/{id}"

func (a *API) registerCalls() {
	byAddress := func(r *http.Request) netip.Prefix { return address(r, a.proxies) }
	seed := maphash.MakeSeed()
	// Not the id itself: whatever is sent in its place, of any length, would be kept.
	bySession := func(r *http.Request) uint64 { return maphash.String(seed, r.PathValue("id")) }

	register(a, huma.Operation{
		OperationID: "create-session", Method: http.MethodPost, Path: "/v1/sessions",
		Summary: "Make a session", DefaultStatus: http.StatusCreated,
		Middlewares: perClient(a.creates, byAddress),
	}, a.create)
	register(a, huma.Operation{
		OperationID: "get-session", Method: http.MethodGet, Path: sessionPath,
		Summary: "Tell a session's state", Security: withToken,
	}, a.info)
	register(a, huma.Operation{
		OperationID: "update-session", Method: http.MethodPatch, Path: sessionPath,
		Summary: "Change what is known of the user", Security: withToken,
	}, a.update)
	register(a, huma.Operation{
		OperationID: "delete-session", Method: http.MethodDelete, Path: sessionPath,
		Summary: "Forget a session; an open chat is ended first", Security: withToken,
	}, a.remove)
	register(a, huma.Operation{
		OperationID: "get-availability", Method: http.MethodGet, Path: sessionPath + "/availability",
		Summary: "Tell whether any agents are online", Security: withToken,
	}, a.availability)
	register(a, huma.Operation{
		OperationID: "start-chat", Method: http.MethodPost, Path: sessionPath + "/chat",
		Summary: "Ask for an agent", Security: withToken, DefaultStatus: http.StatusCreated,
		Middlewares: perClient(a.chats, bySession),
	}, a.startChat)
	register(a, huma.Operation{
		OperationID: "end-chat", Method: http.MethodDelete, Path: sessionPath + "/chat",
		Summary: "End the open chat, if any", Security: withToken,
	}, a.endChat)
	sent := a.schema(reflect.TypeFor[sent]())
	register(a, huma.Operation{
		OperationID: "send-message", Method: http.MethodPost, Path: sessionPath + "/messages",
		Summary: "Send a message to the agent", Security: withToken,
		Middlewares: perClient(a.messages, bySession),
		Responses: map[string]*huma.Response{
			"200": {Description: "The outcome is known."},
			"202": {
				Description: "The host has the message; a message_status entry will tell the outcome.",
				Content:     map[string]*huma.MediaType{"application/json": {Schema: sent}},
			},
		},
	}, a.sendMessage)
	register(a, huma.Operation{
		OperationID: "set-typing", Method: http.MethodPost, Path: sessionPath + "/typing",
		Summary: "Tell the agent whether the user types", Security: withToken,
	}, a.typing)
	register(a, huma.Operation{
		OperationID: "mark-read", Method: http.MethodPost, Path: sessionPath + "/read",
		Summary: "Tell the agent that the user has read all messages", Security: withToken,
	}, a.read)
	register(a, huma.Operation{
		OperationID: "get-transcript", Method: http.MethodGet, Path: sessionPath + "/transcript",
		Summary: "What both sides said", Security: withToken,
		Responses: map[string]*huma.Response{"200": {
			Description: "OK",
			Content:     map[string]*huma.MediaType{"application/json": {Schema: a.schema(reflect.TypeFor[transcript]())}},
		}},
	}, a.transcript)
}

// Target names the session of a call and carries the right to use it.
type Target struct {
	ID            string `path:"id" doc:"The session's id."`
	Authorization string `header:"Authorization" hidden:"true"`
}

func (t Target) ref() (session.Ref, error) {
	scheme, token, _ := strings.Cut(t.Authorization, " ")
	if token = strings.TrimSpace(token); token == "" || !strings.EqualFold(scheme, "Bearer") {
		return session.Ref{}, tokenMissing()
	}
	return session.Ref{ID: t.ID, Token: token}, nil
}

func tokenMissing() *problem.Problem {
	return problem.New(http.StatusUnauthorized, codeTokenMissing, "This call needs the session's token, as Authorization: Bearer.")
}

// object is a JSON object that is passed on as it came, less its white space and
// with U+FFFD for what is not UTF-8, as it is in every other text of a request.
type object struct{ json.RawMessage }

// Schema describes the object to huma.
func (object) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

// compact returns the object, or nil if there was none.
func (o object) compact() (json.RawMessage, error) {
	if len(o.RawMessage) == 0 || string(o.RawMessage) == "null" {
		return nil, nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, o.RawMessage); err != nil {
		return nil, fmt.Errorf("compact an object of a request: %w", err)
	}
	return bytes.ToValidUTF8(b.Bytes(), []byte("\ufffd")), nil
}

// user is what a page tells of its user.
type user struct {
	ID         string            `json:"id,omitempty" maxLength:"256"`
	Name       string            `json:"name,omitempty" maxLength:"256"`
	Attributes map[string]string `json:"attributes,omitempty" maxProperties:"32" doc:"Keys of at most 64 bytes, values of at most 512."`
}

// check holds the limits that a schema cannot tell. They keep small what is
// written with every change of a session.
func (u *user) check() error {
	for k, v := range u.Attributes {
		if k == "" || len(k) > 64 || len(v) > 512 {
			return invalid(problem.Fault{
				Location: "body.user.attributes",
				Message:  "expected keys of 1 to 64 bytes and values of at most 512 bytes",
			})
		}
	}
	return nil
}

// identify returns the user of a request: whom its identity token names, or
// else, unverified, whom the page names. Neither gives nil.
func (a *API) identify(token string, u *user) (*session.User, error) {
	if u != nil {
		if err := u.check(); err != nil {
			return nil, err
		}
	}
	if token == "" {
		if u == nil {
			return nil, nil
		}
		return &session.User{ID: u.ID, Name: u.Name, Attributes: u.Attributes}, nil
	}
	if a.identity == nil {
		return nil, problem.New(http.StatusUnauthorized, codeIdentityInvalid, "This host is not configured to check identity tokens.")
	}
	who, err := a.identity.Verify(token, time.Now())
	if err != nil {
		return nil, problem.New(http.StatusUnauthorized, codeIdentityInvalid, err.Error())
	}
	verified := &session.User{ID: who.ID, Verified: true, Name: who.Name}
	if u != nil {
		verified.Attributes = u.Attributes
		if verified.Name == "" {
			verified.Name = u.Name
		}
	}
	return verified, nil
}

func identityRequired() *problem.Problem {
	return problem.New(http.StatusForbidden, codeIdentityRequired, "This host takes users with an identity_token only.")
}

// capabilities is what a session's desk can do.
type capabilities struct {
	Availability bool `json:"availability"`
	UpdateState  bool `json:"update_state"`
	UserTyping   bool `json:"user_typing"`
	UserRead     bool `json:"user_read"`
}

func capabilitiesOf(c session.Capabilities) capabilities {
	return capabilities{c.Availability, c.UpdateState, c.UserTyping, c.UserRead}
}

type createInput struct {
	Body struct {
		Desk               string `json:"desk,omitempty" maxLength:"128" doc:"A desk's name; without it the default desk."`
		User               *user  `json:"user,omitempty"`
		Locale             string `json:"locale,omitempty" maxLength:"64" doc:"BCP 47, such as en-GB."`
		AssistantSessionID string `json:"assistant_session_id,omitempty" maxLength:"256"`
		IdentityToken      string `json:"identity_token,omitempty" maxLength:"8192" doc:"A JWT that says who the user is."`
	} `nameHint:"CreateSession"`
}

type created struct {
	SessionID    string       `json:"session_id"`
	Token        string       `json:"token" doc:"For Authorization: Bearer. It is not shown again."`
	ExpiresAt    time.Time    `json:"expires_at"`
	Capabilities capabilities `json:"capabilities"`
}

type createOutput struct{ Body created }

func (a *API) create(ctx context.Context, in *createInput) (*createOutput, error) {
	if a.identityRequired && in.Body.IdentityToken == "" {
		return nil, identityRequired()
	}
	who, err := a.identify(in.Body.IdentityToken, in.Body.User)
	if err != nil {
		return nil, err
	}
	req := session.CreateRequest{
		Desk:    in.Body.Desk,
		Context: session.Context{Locale: in.Body.Locale, AssistantSessionID: in.Body.AssistantSessionID},
	}
	if who != nil {
		req.Context.UserID, req.Context.UserVerified = who.ID, who.Verified
		req.Context.UserName, req.Context.UserAttributes = who.Name, who.Attributes
	}
	c, err := a.sessions.Create(ctx, req)
	if err != nil {
		return nil, err
	}
	return &createOutput{created{c.ID, c.Token, instant(c.ExpiresAt), capabilitiesOf(c.Capabilities)}}, nil
}

// instant is a time as answers tell it.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

type info struct {
	SessionID    string       `json:"session_id"`
	Desk         string       `json:"desk"`
	ExpiresAt    time.Time    `json:"expires_at"`
	LastSeq      uint64       `json:"last_seq" doc:"The seq of the latest entry; 0 with none."`
	Capabilities capabilities `json:"capabilities"`
	Chat         *chat        `json:"chat,omitempty" doc:"The open chat."`
}

type chat struct {
	ChatID      string    `json:"chat_id"`
	ID          string    `json:"id" doc:"The page's own id of its request."`
	State       string    `json:"state" enum:"starting,waiting,connected"`
	RequestedAt time.Time `json:"requested_at"`
	Agent       *agent    `json:"agent,omitempty"`
	DeskAway    bool      `json:"desk_away" doc:"The desk does not serve the chat at the moment."`
}

type infoInput struct{ Target }

type infoOutput struct{ Body info }

func (a *API) info(ctx context.Context, in *infoInput) (*infoOutput, error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	i, err := a.sessions.Info(ctx, ref)
	if err != nil {
		return nil, err
	}
	out := info{
		SessionID: i.ID, Desk: i.Desk, ExpiresAt: instant(i.ExpiresAt), LastSeq: i.LastSeq,
		Capabilities: capabilitiesOf(i.Capabilities),
	}
	if c := i.Chat; c != nil {
		out.Chat = &chat{
			ChatID: c.ID, ID: c.RequestID, State: c.State, RequestedAt: instant(c.RequestedAt), DeskAway: c.DeskAway,
		}
		if c.Agent != nil {
			out.Chat.Agent = &agent{c.Agent.GetId(), c.Agent.GetNickname(), c.Agent.GetAvatarUrl(), c.Agent.GetBot()}
		}
	}
	return &infoOutput{out}, nil
}

type updateInput struct {
	Target
	Body struct {
		User               *user   `json:"user,omitempty" doc:"Replaces all that was known of the user."`
		Locale             *string `json:"locale,omitempty" maxLength:"64"`
		AssistantSessionID *string `json:"assistant_session_id,omitempty" maxLength:"256"`
		IdentityToken      string  `json:"identity_token,omitempty" maxLength:"8192"`
	} `nameHint:"UpdateSession"`
}

func (a *API) update(ctx context.Context, in *updateInput) (*struct{}, error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	if a.identityRequired && in.Body.User != nil && in.Body.IdentityToken == "" {
		return nil, identityRequired()
	}
	who, err := a.identify(in.Body.IdentityToken, in.Body.User)
	if err != nil {
		return nil, err
	}
	return nil, a.sessions.Update(ctx, ref, session.Update{
		User: who, Locale: in.Body.Locale, AssistantSessionID: in.Body.AssistantSessionID,
	})
}

type removeInput struct{ Target }

func (a *API) remove(ctx context.Context, in *removeInput) (*struct{}, error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	return nil, a.sessions.Delete(ctx, ref)
}

type availability struct {
	Online      *bool   `json:"online" doc:"null: nobody knows."`
	WaitMinutes *uint32 `json:"wait_minutes,omitempty"`
	Position    *uint32 `json:"position,omitempty"`
	Message     string  `json:"message,omitempty" doc:"May be shown to the user."`
}

type availabilityInput struct{ Target }

type availabilityOutput struct{ Body availability }

func (a *API) availability(ctx context.Context, in *availabilityInput) (*availabilityOutput, error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	v, err := a.sessions.Availability(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &availabilityOutput{availability(*v)}, nil
}

// maxIDBytes bounds the ids that pages make.
const maxIDBytes = 128

func checkID(id string) error {
	if len(id) > maxIDBytes {
		return invalid(problem.Fault{Location: "body.id", Message: "expected at most 128 bytes"})
	}
	return nil
}

type startInput struct {
	Target
	Body struct {
		ID             string        `json:"id" minLength:"1" maxLength:"128" doc:"Made by the page; at most 128 bytes. The same id, the same answer."`
		ConnectMessage object        `json:"connect_message,omitzero" doc:"The message by which the assistant asked for an agent, as it came."`
		Text           string        `json:"text,omitempty" doc:"What the agent should read first."`
		History        []historyItem `json:"history,omitempty" nullable:"false" maxItems:"1000" doc:"The conversation so far, oldest first."`
		SignInToken    string        `json:"sign_in_token,omitempty" maxLength:"8192" doc:"The desk's own; it is not kept."`
	} `nameHint:"StartChat"`
}

type historyItem struct {
	From string    `json:"from" enum:"user,assistant"`
	Text string    `json:"text"`
	Time time.Time `json:"time,omitzero"`
}

type started struct {
	ChatID string `json:"chat_id"`
}

type startOutput struct{ Body started }

func (a *API) startChat(ctx context.Context, in *startInput) (*startOutput, error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	if err := checkID(in.Body.ID); err != nil {
		return nil, err
	}
	req := session.StartRequest{ID: in.Body.ID, Text: in.Body.Text, SignInToken: in.Body.SignInToken}
	if req.ConnectMessage, err = in.Body.ConnectMessage.compact(); err != nil {
		return nil, err
	}
	for _, h := range in.Body.History {
		req.History = append(req.History, session.HistoryItem(h))
	}
	chatID, err := a.sessions.StartChat(ctx, ref, req)
	if err != nil {
		return nil, err
	}
	return &startOutput{started{chatID}}, nil
}

type endInput struct {
	Target

	ChatID string `query:"chat_id" maxLength:"128" doc:"The chat to end; if another is open, that goes on. Empty: whichever is open."`
}

func (a *API) endChat(ctx context.Context, in *endInput) (*struct{}, error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	return nil, a.sessions.EndChat(ctx, ref, in.ChatID)
}

type sendInput struct {
	Target
	Body struct {
		ID     string `json:"id" minLength:"1" maxLength:"128" doc:"Made by the page, unique in the chat; at most 128 bytes. The same id, the same answer."`
		ChatID string `json:"chat_id,omitempty" doc:"The chat that the message is for. Without it, the open one."`
		Text   string `json:"text" doc:"Not empty."`
		Data   object `json:"data,omitzero" doc:"Anything for pages and desks that know each other."`
	} `nameHint:"SendMessage"`
}

type sent struct {
	Seq    uint64 `json:"seq" doc:"The seq of the message's entry."`
	Status string `json:"status" enum:"accepted,delivered,failed,unknown"`
	Reason string `json:"reason,omitempty" doc:"With failed and unknown."`
}

type sendOutput struct {
	Status int
	Body   sent
}

func (a *API) sendMessage(ctx context.Context, in *sendInput) (*sendOutput, error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	if err := checkID(in.Body.ID); err != nil {
		return nil, err
	}
	if strings.TrimSpace(in.Body.Text) == "" {
		return nil, problem.New(http.StatusUnprocessableEntity, codeTextEmpty, "A message needs some text.")
	}
	msg := session.Message{ID: in.Body.ID, ChatID: in.Body.ChatID, Text: in.Body.Text}
	if msg.Data, err = in.Body.Data.compact(); err != nil {
		return nil, err
	}
	s, err := a.sessions.SendMessage(ctx, ref, msg)
	if err != nil {
		return nil, err
	}
	status, known := outcomes[s.Status]
	if !known {
		return &sendOutput{http.StatusAccepted, sent{Seq: s.Seq, Status: "accepted"}}, nil
	}
	return &sendOutput{http.StatusOK, sent{s.Seq, status, s.Reason}}, nil
}

// outcomes names the known outcomes of a message.
var outcomes = map[recordv1.OutState]string{
	recordv1.OutState_OUT_STATE_DELIVERED: "delivered",
	recordv1.OutState_OUT_STATE_FAILED:    "failed",
	recordv1.OutState_OUT_STATE_UNKNOWN:   "unknown",
}

type typingInput struct {
	Target
	Body struct {
		Typing bool `json:"typing"`
	} `nameHint:"SetTyping"`
}

func (a *API) typing(ctx context.Context, in *typingInput) (*struct{}, error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	return nil, a.sessions.Typing(ctx, ref, in.Body.Typing)
}

type readInput struct{ Target }

func (a *API) read(ctx context.Context, in *readInput) (*struct{}, error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	return nil, a.sessions.Read(ctx, ref)
}

// transcript describes the answer that transcriptWriter writes.
type transcript struct {
	Entries []Event `json:"entries" nullable:"false"`
}

type transcriptInput struct{ Target }

type transcriptOutput struct{ Body func(huma.Context) }

// transcriptTimeout bounds the answer as a whole.
const transcriptTimeout = time.Minute

// transcript streams, so that a long conversation is never held in memory.
func (a *API) transcript(_ context.Context, in *transcriptInput) (*transcriptOutput, error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	return &transcriptOutput{func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		ctx, cancel := context.WithTimeout(r.Context(), transcriptTimeout)
		defer cancel()

		out := transcriptWriter{w: w, control: http.NewResponseController(w), timeout: a.limits.SocketWrite}
		err := a.sessions.Transcript(ctx, ref, func(e *recordv1.Entry) bool { return out.entry(e) == nil })
		switch {
		case err == nil && out.err == nil:
			out.end()
		case !out.begun:
			a.problemOf(err).Write(w)
		default:
			// Too late for a problem: a broken answer must not look whole.
			a.log.Debug("transcript broke off", "error", err, "write", out.err)
			panic(http.ErrAbortHandler)
		}
	}}, nil
}

// transcriptWriter writes a transcript piece by piece.
type transcriptWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	buf     []byte
	begun   bool
	err     error
}

// pieceBytes is how much is gathered before it is written.
const pieceBytes = 32 << 10

func (t *transcriptWriter) entry(e *recordv1.Entry) error {
	if len(t.buf) == 0 && !t.begun {
		t.buf = append(t.buf, `{"entries":[`...)
	} else {
		t.buf = append(t.buf, ',')
	}
	t.buf = appendEntry(t.buf, e)
	if len(t.buf) >= pieceBytes {
		t.flush()
	}
	return t.err
}

func (t *transcriptWriter) end() {
	if len(t.buf) == 0 && !t.begun {
		t.buf = append(t.buf, `{"entries":[`...)
	}
	t.buf = append(t.buf, "]}\n"...)
	t.flush()
}

func (t *transcriptWriter) flush() {
	if !t.begun {
		t.begun = true
		t.w.Header().Set("Content-Type", "application/json")
	}
	_ = t.control.SetWriteDeadline(time.Now().Add(t.timeout))
	_, t.err = t.w.Write(t.buf)
	t.buf = t.buf[:0]
}
