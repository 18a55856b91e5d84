package twiliotest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/deskhost/deskhost/plugins/internal/console"
)

const (
	stateActive   = "active"
	stateInactive = "inactive"
	stateClosed   = "closed"

	// maxBody and maxAttributes bound a message, in bytes.
	maxBody       = 32 << 10
	maxAttributes = 4 << 10
	// maxHooks is how many webhooks a conversation may have.
	maxHooks = 5
	// maxWrites is how many calls a second may change a conversation.
	maxWrites = 30
	// maxPage bounds a page of a list of a conversation, maxLongPage of others.
	maxPage, maxLongPage = 100, 1000
)

// conversation is a Conversation resource and what belongs to it.
type conversation struct {
	AccountSid     string            `json:"account_sid"`
	ChatServiceSid string            `json:"chat_service_sid"`
	Sid            string            `json:"sid"`
	FriendlyName   *string           `json:"friendly_name"`
	UniqueName     *string           `json:"unique_name"`
	Attributes     string            `json:"attributes"`
	State          string            `json:"state"`
	DateCreated    timestamp         `json:"date_created"`
	DateUpdated    timestamp         `json:"date_updated"`
	Timers         struct{}          `json:"timers"`
	URL            string            `json:"url"`
	Links          map[string]string `json:"links"`

	participants []*participant // present, in the order in which they came
	messages     []*message     // by index, which may have holes
	nextIndex    int
	hooks        []*hook
	// customer is who the chat is for: the first participant that was added.
	customer *participant
	// begun is set once the customer has said something.
	begun bool
	// interaction and task are there once an agent was called. Each transfer
	// makes a new task.
	interaction *interaction
	tasks       []*task // the last is the one that may be open
	// webChat is set where the address's Studio flow calls the agent.
	webChat bool
	// latest is the identity of the agent who joined last.
	latest string
	// chatID is deskhost's, once the attributes have told it.
	chatID string

	// writes is how many calls it may still take in the second that began then.
	writes      int
	writesSince time.Time

	// log is what happened, facts what the attributes tell, for the agents' page.
	log   []console.Line
	facts []console.Fact

	outbox outbox
}

// participant is a Participant resource.
type participant struct {
	AccountSid           string    `json:"account_sid"`
	ConversationSid      string    `json:"conversation_sid"`
	Sid                  string    `json:"sid"`
	Identity             string    `json:"identity"`
	Attributes           string    `json:"attributes"`
	MessagingBinding     *struct{} `json:"messaging_binding"`
	RoleSid              string    `json:"role_sid"`
	LastReadMessageIndex *int      `json:"last_read_message_index"`
	LastReadTimestamp    *string   `json:"last_read_timestamp"`
	DateCreated          timestamp `json:"date_created"`
	DateUpdated          timestamp `json:"date_updated"`
	URL                  string    `json:"url"`

	// kind is what an Interaction calls its type; channelSid its UT… there.
	kind, channelSid string
}

// message is a Message resource.
type message struct {
	AccountSid      string            `json:"account_sid"`
	ConversationSid string            `json:"conversation_sid"`
	Sid             string            `json:"sid"`
	Index           int               `json:"index"`
	Author          string            `json:"author"`
	Body            *string           `json:"body"`
	Media           []media           `json:"media"`
	Attributes      string            `json:"attributes"`
	ParticipantSid  *string           `json:"participant_sid"`
	DateCreated     timestamp         `json:"date_created"`
	DateUpdated     timestamp         `json:"date_updated"`
	URL             string            `json:"url"`
	Delivery        *struct{}         `json:"delivery"`
	Links           map[string]string `json:"links"`
	ContentSid      *string           `json:"content_sid"`
}

// user is a User resource.
type user struct {
	AccountSid     string            `json:"account_sid"`
	ChatServiceSid string            `json:"chat_service_sid"`
	Sid            string            `json:"sid"`
	RoleSid        string            `json:"role_sid"`
	Identity       string            `json:"identity"`
	FriendlyName   string            `json:"friendly_name"`
	Attributes     string            `json:"attributes"`
	IsOnline       *bool             `json:"is_online"`
	IsNotifiable   *bool             `json:"is_notifiable"`
	DateCreated    timestamp         `json:"date_created"`
	DateUpdated    timestamp         `json:"date_updated"`
	URL            string            `json:"url"`
	Links          map[string]string `json:"links"`
}

// newConversation makes a conversation with nobody in it.
func (s *Simulator) newConversation(attributes string) *conversation {
	t := now()
	c := &conversation{
		AccountSid: AccountSid, ChatServiceSid: ChatServiceSid, Sid: newSid("CH"), Attributes: attributes, State: stateActive,
		DateCreated: t, DateUpdated: t,
	}
	s.conversations[c.Sid] = c
	s.all = append(s.all, c)
	s.read(c)
	c.note("", "", "A conversation was opened")
	return c
}

// note adds to what the agents' page shows.
func (c *conversation) note(from, who, text string) {
	c.log = append(c.log, console.Line{Time: time.Now(), From: from, Who: who, Text: text})
}

// read takes over what the attributes tell: among them the conversation's place
// among deskhost's chats.
func (s *Simulator) read(c *conversation) {
	c.facts = factsOf(c.Attributes)
	var a struct {
		ChatID        string `json:"deskhost_chat_id"`
		PreEngagement struct {
			ChatID string `json:"deskhost_chat_id"`
		} `json:"pre_engagement_data"`
	}
	_ = json.Unmarshal([]byte(c.Attributes), &a) // what is no name names nothing
	id := cmp.Or(a.ChatID, a.PreEngagement.ChatID)
	if id == "" || id == c.chatID {
		return
	}
	c.chatID = id
	s.chats[id] = append(s.chats[id], c)
}

// mayWrite counts a call that changes the conversation.
func (c *conversation) mayWrite() bool {
	if t := time.Now(); t.Sub(c.writesSince) >= time.Second {
		c.writesSince, c.writes = t, maxWrites
	}
	c.writes--
	return c.writes >= 0
}

// shown returns the conversation as a caller sees it.
func (c *conversation) shown(r *request) *conversation {
	shown := *c
	shown.URL = r.link("/conversations/v1/Conversations/" + c.Sid)
	shown.Links = map[string]string{
		"participants": shown.URL + "/Participants", "messages": shown.URL + "/Messages", "webhooks": shown.URL + "/Webhooks",
	}
	return &shown
}

// open returns the conversation of a call, or why it cannot be changed.
func (s *Simulator) open(r *request) (c *conversation, status int, refusal any) {
	c = s.conversations[r.PathValue("conversation")]
	if c == nil {
		status, refusal = r.notFound()
		return nil, status, refusal
	}
	if c.State == stateClosed {
		status, refusal = fail(http.StatusBadRequest, codeClosed, "Conversation %s is closed", c.Sid)
		return nil, status, refusal
	}
	return c, 0, nil
}

func (s *Simulator) createConversation(r *request) (int, any) {
	attributes := cmp.Or(r.form.Get("Attributes"), "{}")
	if !isJSONObject(attributes) {
		return invalid("Attributes are no JSON object")
	}
	unique := r.form.Get("UniqueName")
	if s.conversations[unique] != nil {
		return fail(http.StatusConflict, codeUniqueNameTaken, "Conversation with provided unique name already exists")
	}
	if state := r.form.Get("State"); state != "" && state != stateActive && state != stateInactive {
		return invalid("A conversation cannot begin as %q", state)
	}
	c := s.newConversation(attributes)
	c.State = cmp.Or(r.form.Get("State"), stateActive)
	if unique != "" {
		c.UniqueName = &unique
		s.conversations[unique] = c
	}
	if name := r.form.Get("FriendlyName"); name != "" {
		c.FriendlyName = &name
	}
	return http.StatusCreated, c.shown(r)
}

func (s *Simulator) fetchConversation(r *request) (int, any) {
	c := s.conversations[r.PathValue("conversation")]
	if c == nil {
		return r.notFound()
	}
	return http.StatusOK, c.shown(r)
}

func (s *Simulator) updateConversation(r *request) (int, any) {
	c, status, refusal := s.open(r)
	if c == nil {
		return status, refusal
	}
	state := cmp.Or(r.form.Get("State"), c.State)
	if state != stateActive && state != stateInactive && state != stateClosed {
		return invalid("There is no state %q", state)
	}
	attributes := cmp.Or(r.form.Get("Attributes"), c.Attributes)
	if !isJSONObject(attributes) {
		return invalid("Attributes are no JSON object")
	}
	unique := r.form.Get("UniqueName")
	if other := s.conversations[unique]; other != nil && other != c {
		return fail(http.StatusConflict, codeUniqueNameTaken, "Conversation with provided unique name already exists")
	}
	if unique != "" {
		c.UniqueName = &unique
		s.conversations[unique] = c
	}
	if name := r.form.Get("FriendlyName"); name != "" {
		c.FriendlyName = &name
	}
	c.Attributes = attributes
	s.read(c)
	s.setState(c, state, actor{source: "API", silent: !r.webhooksEnabled()})
	return http.StatusOK, c.shown(r)
}

func (s *Simulator) deleteConversation(r *request) (int, any) {
	c := s.conversations[r.PathValue("conversation")]
	if c == nil {
		return r.notFound()
	}
	s.remove(c, actor{source: "API", silent: !r.webhooksEnabled()})
	return http.StatusNoContent, nil
}

// setState changes a conversation's state and tells its webhooks. Its
// interaction and task stay as they are: see end.
func (s *Simulator) setState(c *conversation, state string, by actor) {
	if state == c.State {
		return
	}
	from := c.State
	c.State, c.DateUpdated = state, now()
	c.note("", "", "The conversation is "+state)
	s.fire(c, by, "onConversationStateUpdated", map[string]string{
		"ConversationSid": c.Sid, "StateFrom": from, "StateTo": state, "Reason": cmp.Or(by.reason, "API"),
	})
}

// remove takes a conversation away as if there had been none.
func (s *Simulator) remove(c *conversation, by actor) {
	s.finishTask(c)
	delete(s.conversations, c.Sid)
	if c.UniqueName != nil {
		delete(s.conversations, *c.UniqueName)
	}
	c.State = stateClosed
	c.note("", "", "The conversation was removed")
	s.fire(c, by, "onConversationRemoved", map[string]string{"ConversationSid": c.Sid, "DateRemoved": now().webhookTime()})
}

func (s *Simulator) createParticipant(r *request) (int, any) {
	c, status, refusal := s.open(r)
	if c == nil {
		return status, refusal
	}
	identity := r.form.Get("Identity")
	if identity == "" {
		return invalid("A participant without an Identity is not of a chat")
	}
	if c.participant(identity) != nil {
		return fail(http.StatusConflict, codeParticipantExists, "Participant already exists")
	}
	attributes := cmp.Or(r.form.Get("Attributes"), "{}")
	if !isJSONObject(attributes) {
		return invalid("Attributes are no JSON object")
	}
	p := s.add(c, identity, typeCustomer, actor{source: "API", silent: !r.webhooksEnabled()})
	p.Attributes = attributes
	p.RoleSid = cmp.Or(r.form.Get("RoleSid"), p.RoleSid)
	return http.StatusCreated, p.shown(r)
}

// add lets somebody in and tells the webhooks.
func (s *Simulator) add(c *conversation, identity, kind string, by actor) *participant {
	t := now()
	p := &participant{
		AccountSid: AccountSid, ConversationSid: c.Sid, Sid: newSid("MB"), Identity: identity, Attributes: "{}", RoleSid: roles[kind],
		DateCreated: t, DateUpdated: t, kind: kind, channelSid: newSid("UT"),
	}
	s.user(identity)
	c.participants = append(c.participants, p)
	if c.customer == nil && kind == typeCustomer {
		c.customer = p
	}
	c.note("", "", s.nameOf(identity)+" joined")
	s.fire(c, by, "onParticipantAdded", p.fields())
	return p
}

// leave lets somebody out and tells the webhooks.
func (s *Simulator) leave(c *conversation, p *participant, by actor) {
	c.participants = slices.DeleteFunc(c.participants, func(other *participant) bool { return other == p })
	c.note("", "", s.nameOf(p.Identity)+" left")
	fields := p.fields()
	fields["DateRemoved"] = now().webhookTime()
	s.fire(c, by, "onParticipantRemoved", fields)
}

// participant finds one by sid or identity.
func (c *conversation) participant(id string) *participant {
	for _, p := range c.participants {
		if p.Sid == id || p.Identity == id {
			return p
		}
	}
	return nil
}

func (p *participant) shown(r *request) *participant {
	shown := *p
	shown.URL = r.link("/conversations/v1/Conversations/" + p.ConversationSid + "/Participants/" + p.Sid)
	return &shown
}

// fields returns what a webhook tells of a participant.
func (p *participant) fields() map[string]string {
	return map[string]string{
		"ConversationSid": p.ConversationSid, "ParticipantSid": p.Sid, "Identity": p.Identity, "RoleSid": p.RoleSid,
		"Attributes": p.Attributes, "DateCreated": p.DateCreated.webhookTime(),
	}
}

func (s *Simulator) listParticipants(r *request) (int, any) {
	c := s.conversations[r.PathValue("conversation")]
	if c == nil {
		return r.notFound()
	}
	shown := make([]*participant, len(c.participants))
	for i, p := range c.participants {
		shown[i] = p.shown(r)
	}
	return list(s, r, "participants", shown, maxPage, func(p *participant) string { return p.Sid })
}

func (s *Simulator) fetchParticipant(r *request) (int, any) {
	c := s.conversations[r.PathValue("conversation")]
	if c == nil {
		return r.notFound()
	}
	p := c.participant(r.PathValue("participant"))
	if p == nil {
		return r.notFound()
	}
	return http.StatusOK, p.shown(r)
}

func (s *Simulator) updateParticipant(r *request) (int, any) {
	c, status, refusal := s.open(r)
	if c == nil {
		return status, refusal
	}
	p := c.participant(r.PathValue("participant"))
	if p == nil {
		return r.notFound()
	}
	attributes := cmp.Or(r.form.Get("Attributes"), p.Attributes)
	if !isJSONObject(attributes) {
		return invalid("Attributes are no JSON object")
	}
	read := p.LastReadMessageIndex
	if text := r.form.Get("LastReadMessageIndex"); text != "" {
		index, err := strconv.Atoi(text)
		if err != nil || index < 0 || index >= c.nextIndex {
			return invalid("LastReadMessageIndex %s is no message's", text)
		}
		read = &index
	}
	p.Attributes = attributes
	p.RoleSid = cmp.Or(r.form.Get("RoleSid"), p.RoleSid)
	s.update(c, p, read, actor{source: "API", silent: !r.webhooksEnabled()})
	return http.StatusOK, p.shown(r)
}

// update notes how far somebody has read, and tells the webhooks.
func (s *Simulator) update(c *conversation, p *participant, read *int, by actor) {
	p.DateUpdated = now()
	if read != nil && (p.LastReadMessageIndex == nil || *p.LastReadMessageIndex != *read) {
		t := time.Time(p.DateUpdated).UTC().Format(time.RFC3339)
		p.LastReadMessageIndex, p.LastReadTimestamp = read, &t
		c.note("", "", fmt.Sprintf("%s has read up to message %d", s.nameOf(p.Identity), *read))
	}
	fields := p.fields()
	fields["DateUpdated"] = p.DateUpdated.webhookTime()
	if p.LastReadMessageIndex != nil {
		fields["LastReadMessageIndex"] = strconv.Itoa(*p.LastReadMessageIndex)
	}
	s.fire(c, by, "onParticipantUpdated", fields)
}

func (s *Simulator) deleteParticipant(r *request) (int, any) {
	c, status, refusal := s.open(r)
	if c == nil {
		return status, refusal
	}
	p := c.participant(r.PathValue("participant"))
	if p == nil {
		return r.notFound()
	}
	s.leave(c, p, actor{source: "API", silent: !r.webhooksEnabled()})
	return http.StatusNoContent, nil
}

func (s *Simulator) createMessage(r *request) (int, any) {
	c, status, refusal := s.open(r)
	if c == nil {
		return status, refusal
	}
	body, mediaSid := r.form.Get("Body"), r.form.Get("MediaSid")
	attributes := cmp.Or(r.form.Get("Attributes"), "{}")
	var files []media
	switch {
	case body == "" && mediaSid == "":
		return invalid("A message has a Body or a MediaSid")
	case body != "" && mediaSid != "":
		return invalid("A message of Flex has no Body beside its MediaSid")
	case len(body) > maxBody || !utf8.ValidString(body):
		return invalid("The Body is longer than %d bytes, or no UTF-8", maxBody)
	case len(attributes) > maxAttributes || !isJSONObject(attributes):
		return invalid("Attributes are longer than %d bytes, or no JSON object", maxAttributes)
	case mediaSid != "":
		file, ok := s.media[mediaSid]
		if !ok {
			return invalid("There is no media %s", mediaSid)
		}
		files = []media{file}
	}
	m := s.post(c, cmp.Or(r.form.Get("Author"), "system"), body, attributes, files, actor{source: "API", silent: !r.webhooksEnabled()})
	return http.StatusCreated, m.shown(r)
}

// post adds a message and tells the webhooks, and the Studio flow.
func (s *Simulator) post(c *conversation, author, body, attributes string, files []media, by actor) *message {
	m := &message{
		AccountSid: AccountSid, ConversationSid: c.Sid, Sid: newSid("IM"), Index: c.nextIndex, Author: author, Attributes: attributes,
		Media: files, DateCreated: now(),
	}
	if body != "" {
		m.Body = &body
	}
	p := c.participant(author)
	if p != nil {
		m.ParticipantSid = &p.Sid
	}
	c.nextIndex++
	c.messages = append(c.messages, m)
	s.noteMessage(c, p, m)
	s.fire(c, by, "onMessageAdded", m.fields())
	if c.State == stateInactive {
		s.setState(c, stateActive, actor{source: by.source, reason: "EVENT", silent: by.silent})
	}
	if p != nil && p == c.customer {
		c.begun = true
		if !by.silent {
			s.heard(c)
		}
	}
	return m
}

// noteMessage shows a message on the agents' page.
func (s *Simulator) noteMessage(c *conversation, p *participant, m *message) {
	text := ""
	if m.Body != nil {
		text = *m.Body
	}
	for _, f := range m.Media {
		text = "[" + cmp.Or(f.Filename, f.ContentType) + "]"
	}
	switch {
	case p != nil && p == c.customer:
		c.note("customer", "", text)
	case p != nil && p.kind == typeAgent:
		c.note("agent", s.nameOf(p.Identity), text)
	case m.Author == studioFlow:
		c.note("", "", "Studio flow: "+text)
	default:
		c.note("", "", s.nameOf(m.Author)+": "+text)
	}
}

// nameOf returns what a user is called.
func (s *Simulator) nameOf(identity string) string {
	if u := s.users[identity]; u != nil && u.FriendlyName != "" {
		return u.FriendlyName
	}
	return identity
}

func (m *message) shown(r *request) *message {
	shown := *m
	shown.URL = r.link("/conversations/v1/Conversations/" + m.ConversationSid + "/Messages/" + m.Sid)
	shown.Links = map[string]string{"delivery_receipts": shown.URL + "/Receipts"}
	return &shown
}

// fields returns what a webhook tells of a message.
func (m *message) fields() map[string]string {
	fields := map[string]string{
		"ConversationSid": m.ConversationSid, "MessageSid": m.Sid, "Index": strconv.Itoa(m.Index), "DateCreated": m.DateCreated.webhookTime(),
		"Author": m.Author, "Attributes": m.Attributes,
	}
	if m.Body != nil {
		fields["Body"] = *m.Body
	}
	if m.ParticipantSid != nil {
		fields["ParticipantSid"] = *m.ParticipantSid
	}
	if len(m.Media) > 0 {
		type hooked struct {
			Sid         string `json:"Sid"`
			Filename    string `json:"Filename"`
			ContentType string `json:"ContentType"`
			Size        int    `json:"Size"`
		}
		files := make([]hooked, len(m.Media))
		for i, f := range m.Media {
			files[i] = hooked(f)
		}
		text, _ := json.Marshal(files) // of strings and numbers
		fields["Media"] = string(text)
	}
	return fields
}

func (s *Simulator) listMessages(r *request) (int, any) {
	c := s.conversations[r.PathValue("conversation")]
	if c == nil {
		return r.notFound()
	}
	shown := make([]*message, len(c.messages))
	for i, m := range c.messages {
		shown[i] = m.shown(r)
	}
	switch order := r.form.Get("Order"); order {
	case "", "asc":
	case "desc":
		slices.Reverse(shown)
	default:
		return invalid("There is no order %q", order)
	}
	return list(s, r, "messages", shown, maxPage, func(m *message) string { return m.Sid })
}

func (s *Simulator) fetchMessage(r *request) (int, any) {
	if c := s.conversations[r.PathValue("conversation")]; c != nil {
		for _, m := range c.messages {
			if m.Sid == r.PathValue("message") {
				return http.StatusOK, m.shown(r)
			}
		}
	}
	return r.notFound()
}

// participantConversation is a conversation among those of a participant.
type participantConversation struct {
	AccountSid               string    `json:"account_sid"`
	ChatServiceSid           string    `json:"chat_service_sid"`
	ParticipantSid           string    `json:"participant_sid"`
	ParticipantIdentity      string    `json:"participant_identity"`
	ConversationSid          string    `json:"conversation_sid"`
	ConversationUniqueName   *string   `json:"conversation_unique_name"`
	ConversationFriendlyName *string   `json:"conversation_friendly_name"`
	ConversationAttributes   string    `json:"conversation_attributes"`
	ConversationDateCreated  timestamp `json:"conversation_date_created"`
	ConversationDateUpdated  timestamp `json:"conversation_date_updated"`
	ConversationState        string    `json:"conversation_state"`
}

func (s *Simulator) listParticipantConversations(r *request) (int, any) {
	identity := r.form.Get("Identity")
	if identity == "" {
		return invalid("Identity is missing")
	}
	var found []participantConversation
	if u := s.users[identity]; u != nil {
		for sid, c := range s.conversations {
			p := c.participant(identity)
			if p == nil || sid != c.Sid {
				continue
			}
			found = append(found, participantConversation{
				AccountSid, ChatServiceSid, p.Sid, p.Identity, c.Sid, c.UniqueName, c.FriendlyName, c.Attributes, c.DateCreated, c.DateUpdated, c.State,
			})
		}
	}
	slices.SortFunc(found, func(a, b participantConversation) int { return strings.Compare(a.ConversationSid, b.ConversationSid) })
	return list(s, r, "conversations", found, maxPage, func(c participantConversation) string { return c.ConversationSid })
}

// user returns the user of an identity, made if there is none.
func (s *Simulator) user(identity string) *user {
	u := s.users[identity]
	if u == nil {
		t := now()
		u = &user{
			AccountSid: AccountSid, ChatServiceSid: ChatServiceSid, Sid: newSid("US"), RoleSid: roles[""], Identity: identity,
			Attributes: "{}", DateCreated: t, DateUpdated: t,
		}
		s.users[identity] = u
	}
	return u
}

// findUser finds one by identity or sid.
func (s *Simulator) findUser(id string) *user {
	if u := s.users[id]; u != nil {
		return u
	}
	for _, u := range s.users {
		if u.Sid == id {
			return u
		}
	}
	return nil
}

func (s *Simulator) fetchUser(r *request) (int, any) {
	u := s.findUser(r.PathValue("user"))
	if u == nil {
		return r.notFound()
	}
	return http.StatusOK, u.shown(r)
}

func (s *Simulator) updateUser(r *request) (int, any) {
	u := s.findUser(r.PathValue("user"))
	if u == nil {
		return r.notFound()
	}
	attributes := cmp.Or(r.form.Get("Attributes"), u.Attributes)
	if !isJSONObject(attributes) {
		return invalid("Attributes are no JSON object")
	}
	u.FriendlyName, u.Attributes, u.DateUpdated = cmp.Or(r.form.Get("FriendlyName"), u.FriendlyName), attributes, now()
	return http.StatusOK, u.shown(r)
}

func (u *user) shown(r *request) *user {
	shown := *u
	shown.URL = r.link("/conversations/v1/Users/" + u.Sid)
	shown.Links = map[string]string{"user_conversations": shown.URL + "/Conversations"}
	return &shown
}
