package twiliotest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// maxForm bounds the body of a call that is no upload.
const maxForm = 256 << 10

// request is a call that was found to be in order.
type request struct {
	*http.Request
	// form holds the parameters: of the body, or of the query of a GET.
	form url.Values
	// origin is where the caller reached the simulator, for links in answers.
	origin string
}

// webhooksEnabled tells whether the call may fire webhooks and Studio flows.
func (r *request) webhooksEnabled() bool { return r.Header.Get("X-Twilio-Webhook-Enabled") == "true" }

// handle carries out a call, with the simulator locked, and returns the status
// and what becomes the answer's JSON.
type handle func(r *request) (int, any)

// failure is the answer to a call that was not carried out.
type failure struct {
	Code     int    `json:"code"`
	Message  string `json:"message"`
	MoreInfo string `json:"more_info"`
	Status   int    `json:"status"`
}

// Codes of failures.
const (
	codeInvalid           = 20001
	codeUnauthorized      = 20003
	codeNotFound          = 20404
	codeTooMany           = 20429
	codeUniqueNameTaken   = 50353
	codeClosed            = 50377
	codeParticipantExists = 50433
)

func fail(status, code int, format string, args ...any) (int, any) {
	return status, failure{
		Code: code, Message: fmt.Sprintf(format, args...), MoreInfo: fmt.Sprintf("https://www.twilio.com/docs/errors/%d", code), Status: status,
	}
}

func invalid(format string, args ...any) (int, any) {
	return fail(http.StatusBadRequest, codeInvalid, format, args...)
}

func (r *request) notFound() (int, any) {
	return fail(http.StatusNotFound, codeNotFound, "The requested resource %s was not found", r.URL.Path)
}

// handler returns the routes of all APIs. A call takes the parameters that are
// listed with it and no others.
func (s *Simulator) handler() *http.ServeMux {
	mux := http.NewServeMux()
	route := func(pattern string, call Call, do handle, parameters ...string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, call, do, parameters) })
	}
	page := func(parameters ...string) []string { return append(parameters, "PageSize", "Page", "PageToken") }

	route("POST /flex/v2/WebChats", CallStart, s.createWebChat,
		"AddressSid", "ChatFriendlyName", "CustomerFriendlyName", "PreEngagementData", "Identity")
	route("POST /flex/v1/Interactions", "", s.createInteraction, "Channel", "Routing")
	route("GET /flex/v1/Interactions/{sid}", "", s.fetchInteraction)
	route("GET /flex/v1/Interactions/{interaction}/Channels/{sid}", "", s.fetchChannel)
	route("POST /flex/v1/Interactions/{interaction}/Channels/{sid}", CallEnd, s.updateChannel, "Status")
	route("GET /flex/v1/Interactions/{interaction}/Channels/{sid}/Participants", "", s.listChannelParticipants, page()...)

	const one = "/conversations/v1/Conversations/{conversation}"
	route("POST /conversations/v1/Conversations", CallStart, s.createConversation, "FriendlyName", "UniqueName", "Attributes", "State")
	route("GET "+one, "", s.fetchConversation)
	route("POST "+one, CallEnd, s.updateConversation, "FriendlyName", "UniqueName", "Attributes", "State")
	route("DELETE "+one, CallEnd, s.deleteConversation)
	route("POST "+one+"/Participants", "", s.createParticipant, "Identity", "Attributes", "RoleSid")
	route("GET "+one+"/Participants", "", s.listParticipants, page()...)
	route("GET "+one+"/Participants/{participant}", "", s.fetchParticipant)
	route("POST "+one+"/Participants/{participant}", "", s.updateParticipant, "Attributes", "RoleSid", "LastReadMessageIndex")
	route("DELETE "+one+"/Participants/{participant}", CallEnd, s.deleteParticipant)
	route("POST "+one+"/Messages", CallSend, s.createMessage, "Author", "Body", "Attributes", "MediaSid")
	route("GET "+one+"/Messages", "", s.listMessages, page("Order")...)
	route("GET "+one+"/Messages/{message}", "", s.fetchMessage)
	hook := []string{"Configuration.Url", "Configuration.Method", "Configuration.Filters"}
	route("POST "+one+"/Webhooks", "", s.createWebhook, append(hook, "Target", "Configuration.ReplayAfter")...)
	route("GET "+one+"/Webhooks", "", s.listWebhooks, page()...)
	route("GET "+one+"/Webhooks/{webhook}", "", s.fetchWebhook)
	route("POST "+one+"/Webhooks/{webhook}", "", s.updateWebhook, hook...)
	route("DELETE "+one+"/Webhooks/{webhook}", "", s.deleteWebhook)
	route("GET /conversations/v1/ParticipantConversations", "", s.listParticipantConversations, page("Identity")...)
	route("GET /conversations/v1/Users/{user}", "", s.fetchUser)
	route("POST /conversations/v1/Users/{user}", "", s.updateUser, "FriendlyName", "Attributes")
	route("GET /conversations/v1/Configuration/Addresses/{sid}", "", s.fetchAddress)

	const workspace = "/taskrouter/v1/Workspaces/{workspace}"
	route("GET "+workspace, "", s.fetchWorkspace)
	route("GET "+workspace+"/Workflows/{sid}", "", s.fetchWorkflow)
	route("GET "+workspace+"/Tasks", "", s.listTasks, page("EvaluateTaskAttributes", "AssignmentStatus", "WorkflowSid", "TaskQueueSid", "Ordering")...)
	route("GET "+workspace+"/Tasks/{task}", "", s.fetchTask)
	route("GET "+workspace+"/TaskQueues/{queue}/RealTimeStatistics", "", s.statistics, "TaskChannel")

	mux.HandleFunc("POST /media/v1/Services/{service}/Media", s.upload)
	mux.HandleFunc("POST /script", s.script)
	mux.Handle("/console/", http.StripPrefix("/console", s.page()))
	mux.Handle("GET /{$}", http.RedirectHandler("console/", http.StatusFound))
	for _, prefix := range []string{"/flex/", "/conversations/", "/taskrouter/", "/media/"} {
		route(prefix, "", (*request).notFound)
	}
	return mux
}

// serve checks a call, lets a fault have its way, and answers.
func (s *Simulator) serve(w http.ResponseWriter, r *http.Request, call Call, do handle, parameters []string) {
	if !s.authorized(r) {
		encode(fail(http.StatusUnauthorized, codeUnauthorized, "Authenticate")).write(w)
		return
	}
	form, refused := readForm(w, r, parameters)
	if refused != nil {
		refused.write(w)
		return
	}
	req := &request{Request: r, form: form, origin: "http://" + r.Host}
	s.mu.Lock()
	fault := s.takeFault(s.callOf(call, req))
	var a *answer
	if fault == nil || fault.Status == 0 || fault.Done {
		a = s.perform(req, do)
	}
	s.mu.Unlock()
	if fault != nil {
		a = s.spoil(r.Context(), fault, a)
	}
	a.write(w)
}

// perform carries out a call. The answer is encoded while the simulator is
// locked: it may show what the next call changes.
func (s *Simulator) perform(r *request, do handle) *answer {
	if id := r.PathValue("conversation"); id != "" && r.Method != http.MethodGet {
		if c := s.conversations[id]; c != nil && !c.mayWrite() {
			a := encode(fail(http.StatusTooManyRequests, codeTooMany, "Too many requests for conversation %s", c.Sid))
			a.retryAfter = time.Second
			return a
		}
	}
	return encode(do(r))
}

// authorized tells whether a caller has the account's token or the API key.
func (s *Simulator) authorized(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	return ok && (user == AccountSid && password == s.opts.AuthToken || user == APIKeySid && password == APIKeySecret)
}

// readForm returns the parameters of a call, or the answer to one that has
// others than it may have.
func readForm(w http.ResponseWriter, r *http.Request, parameters []string) (url.Values, *answer) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, encode(invalid("The query is malformed"))
	}
	form := query
	if r.Method == http.MethodPost {
		if len(query) > 0 {
			return nil, encode(invalid("The parameters of a POST belong into its body"))
		}
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if kind != "application/x-www-form-urlencoded" {
			return nil, encode(fail(http.StatusUnsupportedMediaType, codeInvalid, "Unsupported content type %q", kind))
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
		if err != nil {
			return nil, encode(fail(http.StatusRequestEntityTooLarge, codeInvalid, "The body cannot be read"))
		}
		if form, err = url.ParseQuery(string(body)); err != nil {
			return nil, encode(invalid("The body is malformed"))
		}
	}
	for name, values := range form {
		if !slices.Contains(parameters, name) {
			return nil, encode(invalid("Unknown parameter %s", name))
		}
		if len(values) > 1 && name != "Configuration.Filters" && name != "AssignmentStatus" {
			return nil, encode(invalid("Parameter %s is given twice", name))
		}
	}
	return form, nil
}

// answer is what a call is answered with.
type answer struct {
	status     int
	retryAfter time.Duration
	body       []byte
	// cut has the connection closed in place of an answer.
	cut bool
}

func encode(status int, body any) *answer {
	a := &answer{status: status}
	if body != nil {
		a.body, _ = json.Marshal(body) // of structs and maps of ours
	}
	return a
}

func (a *answer) write(w http.ResponseWriter) {
	if a.cut {
		panic(http.ErrAbortHandler)
	}
	if a.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(a.retryAfter.Seconds())))
	}
	if a.body != nil {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) //nolint:gosec // it is JSON, and said to be
}

// pageMeta is the "meta" of a list.
type pageMeta struct {
	Page            int     `json:"page"`
	PageSize        int     `json:"page_size"`
	FirstPageURL    string  `json:"first_page_url"`
	PreviousPageURL *string `json:"previous_page_url"`
	URL             string  `json:"url"`
	NextPageURL     *string `json:"next_page_url"`
	Key             string  `json:"key"`
}

// list answers with one page of a list. The token of a page is the key of the
// last item before it, so that a list may grow meanwhile.
func list[T any](s *Simulator, r *request, key string, items []T, limit int, keyOf func(T) string) (int, any) {
	size, err := strconv.Atoi(cmp.Or(r.form.Get("PageSize"), "50"))
	if err != nil || size < 1 || size > limit {
		return invalid("PageSize is 1 to %d", limit)
	}
	from := 0
	if token := r.form.Get("PageToken"); token != "" {
		i := slices.IndexFunc(items, func(item T) bool { return keyOf(item) == token })
		if i < 0 {
			return invalid("Invalid PageToken")
		}
		from = i + 1
	}
	to := min(from+size, len(items))
	meta := pageMeta{PageSize: size, Key: key, URL: r.link(r.URL.RequestURI())}
	meta.Page, _ = strconv.Atoi(r.form.Get("Page"))
	first := url.Values{"PageSize": {strconv.Itoa(size)}, "Page": {"0"}}
	for _, name := range []string{"Order", "Identity", "EvaluateTaskAttributes"} {
		if v := r.form.Get(name); v != "" {
			first.Set(name, v)
		}
	}
	meta.FirstPageURL = r.link(r.URL.Path + "?" + first.Encode())
	if to < len(items) {
		first.Set("Page", strconv.Itoa(meta.Page+1))
		first.Set("PageToken", keyOf(items[to-1]))
		next := cmp.Or(s.foreign, r.origin) + r.URL.Path + "?" + first.Encode()
		meta.NextPageURL = &next
	}
	page := items[from:to]
	if page == nil {
		page = []T{}
	}
	return http.StatusOK, map[string]any{key: page, "meta": meta}
}

// link returns the absolute address of a path.
func (r *request) link(path string) string { return r.origin + path }

// isJSONObject tells whether a text is what attributes have to be.
func isJSONObject(text string) bool {
	var object map[string]any
	return json.Unmarshal([]byte(text), &object) == nil && object != nil
}

// timestamp is a time as the REST APIs write it.
type timestamp time.Time

func (t timestamp) MarshalJSON() ([]byte, error) {
	if time.Time(t).IsZero() {
		return []byte("null"), nil
	}
	return []byte(strconv.Quote(time.Time(t).UTC().Format(time.RFC3339))), nil
}

// webhookTime is a time as webhooks write it.
func (t timestamp) webhookTime() string {
	return time.Time(t).UTC().Format("2006-01-02T15:04:05.000Z")
}

func now() timestamp { return timestamp(time.Now()) }
