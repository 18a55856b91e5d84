package adapter

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/plugins/genesys/webchat"
	"github.com/deskhost/deskhost/plugins/genesys/webmessaging"
	"github.com/deskhost/deskhost/sdk"
)

// names of what the steps tell.
func names(steps []step) (all []string) {
	for _, s := range steps {
		all = append(all, strings.TrimPrefix(fmt.Sprintf("%T", s.payload), "sdk."))
	}
	return all
}

func TestSteps(t *testing.T) {
	ada, grace, bot := &agent{ID: "Ada"}, &agent{ID: "Grace"}, &agent{ID: "bot", Bot: true}
	text := []sdk.Part{sdk.Text("x")}
	served := state{Agent: ada, Served: true}
	left := state{Served: true}
	for name, c := range map[string]struct {
		st   state
		what any
		want []string
	}{
		"the first word":          {state{}, said{ada, text}, []string{"AgentJoined", "MessageToUser"}},
		"the next word":           {served, said{ada, text}, []string{"MessageToUser"}},
		"another's word":          {served, said{grace, text}, []string{"TransferStarted", "AgentJoined", "MessageToUser"}},
		"an announced one's word": {state{Agent: ada, Served: true, Transferring: true}, said{grace, text}, []string{"AgentJoined", "MessageToUser"}},
		"a word after leaving":    {left, said{ada, text}, []string{"AgentJoined", "MessageToUser"}},
		"a bot's first word":      {state{}, said{bot, text}, []string{"AgentJoined", "MessageToUser"}},
		"a bot's word beside":     {served, said{bot, text}, []string{"MessageToUser"}},
		"a person after a bot":    {state{Agent: bot, Served: true}, said{ada, text}, []string{"TransferStarted", "AgentJoined", "MessageToUser"}},
		"the desk's word":         {state{}, said{nil, text}, []string{"MessageToUser"}},
		"nothing to show":         {served, said{ada, nil}, nil},
		"came":                    {state{}, came{*ada}, []string{"AgentJoined"}},
		"came again":              {served, came{*ada}, nil},
		"came back":               {left, came{*ada}, []string{"AgentJoined"}},
		"went":                    {served, went{"Ada"}, []string{"AgentLeft"}},
		"another went":            {served, went{"Grace"}, nil},
		"whoever is there went":   {served, went{}, []string{"AgentLeft"}},
		"went twice":              {left, went{"Ada"}, nil},
		"called at first":         {state{}, called{*ada}, nil},
		"called after leaving":    {left, called{*grace}, []string{"TransferStarted"}},
		"called beside":           {served, called{*grace}, []string{"TransferStarted"}},
		"called itself":           {served, called{*ada}, nil},
		"present":                 {served, present{[]agent{*ada}}, nil},
		"present, another":        {served, present{[]agent{*grace}}, []string{"AgentLeft", "AgentJoined"}},
		"present, nobody":         {served, present{}, []string{"AgentLeft"}},
		"waits":                   {state{}, waits{2}, []string{"AvailabilityChanged"}},
		"waits no more":           {served, waits{2}, nil},
		"over":                    {served, over{}, []string{"AgentEndedChat"}},
		"link":                    {served, linked{true}, []string{"ErrorStatus"}},
		"typing":                  {served, typing{on: true}, []string{"AgentTyping"}},
	} {
		o := occurrence{id: "id", at: time.Unix(1, 0), listed: true, what: c.what}
		steps, after := c.st.steps(&o)
		if !slices.Equal(names(steps), c.want) {
			t.Errorf("%s: %q, want %q", name, names(steps), c.want)
		}
		if n := len(steps); n > 0 && stateText(t, steps[n-1].after) != stateText(t, after) {
			t.Errorf("%s: the last step leaves %+v, all leave %+v", name, steps[n-1].after, after)
		}
		// Another process that has the state of a step goes on behind that step.
		for i := range steps {
			if steps[i].id == "" {
				continue // passing news
			}
			rest, _ := steps[i].after.steps(&o)
			if steps[i].after.known(o.id) {
				rest = nil
			}
			if _, again := c.what.(linked); again {
				continue // told as often as it happens
			}
			if _, again := c.what.(over); !again && !slices.Equal(names(rest), names(steps[i+1:])) {
				t.Errorf("%s: behind step %d come %q, want %q", name, i, names(rest), names(steps[i+1:]))
			}
		}
	}
}

func stateText(t *testing.T, st state) string {
	t.Helper()
	text, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestStateIsSmallAndReadBack(t *testing.T) {
	st := state{
		Mode: modeChat, Chat: &chatKeys{ID: newToken(), JWT: strings.Repeat("j", 800), Member: newToken(), Stream: strings.Repeat("s", 200)},
		Sent: sent{newToken(), newToken(), time.Now().UTC()}, Agent: &agent{ID: newToken(), Nickname: "Ada"}, Served: true,
	}
	for i := range 3 * maxRecent {
		st.remember(newToken(), time.Unix(int64(i), 0).UTC())
	}
	resumed := st.resume()
	if len(resumed.Data) > 4096 || len(st.Recent) != maxRecent {
		t.Errorf("%d bytes with %d ids", len(resumed.Data), len(st.Recent))
	}
	back, err := readState(resumed)
	if err != nil || stateText(t, back) != stateText(t, st) {
		t.Errorf("%+v, %v", back, err)
	}
	for _, bad := range []*sdk.ResumeState{{Data: resumed.Data, Format: 2}, {Data: []byte("x"), Format: 1}} {
		if _, err := readState(bad); err == nil {
			t.Errorf("format %d with %.3q is read", bad.Format, bad.Data)
		}
	}
}

func TestHistoriesInAnyOrder(t *testing.T) {
	at := func(id string, second int) (m webmessaging.Message) {
		m.ID = id
		if second > 0 {
			m.Channel.Time.Time = time.Unix(int64(second), 0)
		}
		return m
	}
	for name, all := range map[string][]webmessaging.Message{
		"newest first":         {at("d", 4), at("c", 3), at("b", 2), at("a", 1)},
		"oldest first":         {at("a", 1), at("b", 2), at("c", 3), at("d", 4)},
		"overtaken":            {at("d", 4), at("b", 2), at("c", 3), at("a", 1)},
		"without times":        {at("d", 0), at("c", 0), at("b", 0), at("a", 0)},
		"some without times":   {at("d", 4), at("c", 0), at("b", 2), at("a", 1)},
		"the first without":    {at("a", 0), at("b", 2), at("c", 3), at("d", 4)},
		"all of the same time": {at("d", 1), at("c", 1), at("b", 1), at("a", 1)},
	} {
		inOrder(all)
		var got []string
		for _, m := range all {
			got = append(got, m.ID)
		}
		if !slices.Equal(got, []string{"a", "b", "c", "d"}) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestOpeningText(t *testing.T) {
	for name, c := range map[string]struct {
		req  sdk.StartChatRequest
		want string
	}{
		"nothing": {sdk.StartChatRequest{}, ""},
		"text":    {sdk.StartChatRequest{Text: " Help \n"}, "Help"},
		"history": {sdk.StartChatRequest{History: []sdk.HistoryItem{{From: "user", Text: "a"}, {From: "assistant", Text: "b"}}}, "User: a\nAssistant: b"},
	} {
		if got := openingText(&c.req); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	long := sdk.StartChatRequest{Text: strings.Repeat("é", 5000), History: []sdk.HistoryItem{{From: "user", Text: "a"}}}
	if got := openingText(&long); got != strings.Repeat("é", webchat.MaxBodyRunes) {
		t.Errorf("%d bytes of a long text", len(got))
	}
	long = sdk.StartChatRequest{Text: "t", History: []sdk.HistoryItem{{From: "user", Text: strings.Repeat("a", 4000)}, {From: "user", Text: "latest"}}}
	if got := openingText(&long); got != "t\n\nUser: latest" {
		t.Errorf("%.100q", got)
	}
}

func TestAttributesHaveALimit(t *testing.T) {
	user := sdk.UserContext{
		User:   sdk.User{ID: "u", Name: "Ann", Attributes: map[string]string{"user_id": "another", "a": strings.Repeat("x", 3000), "plan": "gold"}},
		Locale: "de",
	}
	got := attributesOf("chat", &user)
	want := map[string]string{chatIDAttribute: "chat", "user_id": "u", "user_verified": "false", "user_name": "Ann", "locale": "de", "plan": "gold"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v", got)
	}
	user.User.Attributes = map[string]string{}
	for i := range 500 {
		user.User.Attributes[fmt.Sprint("attribute", i)] = "<value>"
	}
	text, err := json.Marshal(attributesOf("chat", &user))
	if err != nil || len(text) > maxAttributeBytes || len(text) < maxAttributeBytes-50 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(100, 0)
	var at []time.Duration
	for range 5 {
		at = append(at, p.reserve(now).Round(time.Millisecond))
	}
	want := []time.Duration{0, 0, paceWindow, paceWindow, 2 * paceWindow}
	if !slices.Equal(at, want) {
		t.Errorf("%v, want %v", at, want)
	}
	if p.free(now.Add(paceWindow)) || !p.free(now.Add(3*paceWindow)) {
		t.Error("a place is free too early, or too late")
	}
}

// accepted holds that the host takes all that frames lead to, one after the other.
func accepted(t *testing.T, st state, happened []occurrence) {
	t.Helper()
	for i := range happened {
		var steps []step
		steps, st = st.steps(&happened[i])
		for _, s := range steps {
			ev := &sdk.Event{ChatID: "c", ID: s.id, Time: happened[i].at, Payload: s.payload, State: s.after.resume()}
			if err := ev.Check(); err != nil {
				t.Fatalf("%T is refused: %v", s.payload, err)
			}
		}
	}
}

func seed(f *testing.F, folder string) {
	f.Helper()
	files, err := filepath.Glob(filepath.Join("..", "testdata", folder, "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatalf("%d frames, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
}

func FuzzMessagingFrame(f *testing.F) {
	seed(f, "webmessaging/replies")
	f.Add([]byte(`{"class":"StructuredMessage","code":200,"body":{"id":"1","type":"Event","events":[{"eventType":"Typing","typing":{"type":"On","duration":-1}}]}}`))
	f.Add([]byte(`{"class":"StructuredMessage","code":200,"body":{"id":"1","text":"x","content":[{"attachment":{"url":"javascript:x","fileSize":-1}}]}}`))
	g := &messaging{log: hclog.NewNullLogger()}
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, err := webmessaging.Decode(frame)
		if err != nil {
			return
		}
		l := &messagingLink{guest: g}
		happened, err := l.understand(r)
		if err != nil && len(happened) > 0 {
			t.Errorf("%d occurrences with %v", len(happened), err)
		}
		accepted(t, state{}, happened)
		accepted(t, state{Agent: &agent{ID: "Ada"}, Served: true}, happened)
		if r.Message != nil {
			accepted(t, state{}, g.occurrences(r.Message, "", false))
		}
	})
}

func FuzzChatFrame(f *testing.F) {
	seed(f, "webchat/events")
	f.Add([]byte(`{"topicName":"v2.conversations.chats.c.members","eventBody":{"member":{"id":"agent","state":"ALERTING"}},"metadata":{"type":"member-change"}}`))
	f.Add([]byte(`{"topicName":"v2.conversations.chats.c.messages","eventBody":{"sender":{"id":"agent"},"body":"x"},"metadata":{"type":"typing-indicator"}}`))
	nobody, cancel := context.WithCancel(context.Background())
	cancel() // members that are not known are asked for in vain
	client := webchat.New(cloud.New(cloud.InRegion("desk.invalid"), "", nil), time.Minute)
	f.Fuzz(func(t *testing.T, frame []byte) {
		e, err := webchat.DecodeEvent(frame)
		if err != nil {
			return
		}
		g := &chatGuest{client: client, log: hclog.NewNullLogger(), members: map[string]*webchat.Member{
			"agent": {ID: "agent", Role: roleAgent, DisplayName: "Ada", AvatarURL: "javascript:x"},
			"…":     {ID: strings.Repeat("…", 100), Role: roleAgent},
		}}
		l := &chatLink{guest: g, conv: &webchat.Conversation{}}
		l.conv.Member.ID = "self"
		happened, err := l.understand(nobody, e)
		if err != nil {
			return // somebody who is not known
		}
		accepted(t, state{}, happened)
		accepted(t, state{Agent: &agent{ID: "Grace"}, Served: true}, happened)
	})
}

// TestATransferThatFails has whom the agent called not come, and another be called.
func TestATransferThatFails(t *testing.T) {
	st := state{Agent: &agent{ID: "Ada"}, Served: true}
	var told []string
	for _, what := range []any{called{agent{ID: "Grace"}}, called{agent{ID: "Grace"}}, went{"Grace"}, called{agent{ID: "Mary"}}} {
		steps, after := st.steps(&occurrence{what: what})
		told, st = append(told, names(steps)...), after
	}
	if want := []string{"TransferStarted", "TransferStarted"}; !slices.Equal(told, want) {
		t.Errorf("%q, want %q", told, want)
	}
}

func TestAMessageThatCannotBeShown(t *testing.T) {
	parts := partsOf(&webmessaging.Message{Type: "Structured", Content: []webmessaging.Content{{ContentType: "Carousel"}}})
	if len(parts) == 1 {
		if _, ok := parts[0].(sdk.InlineError); ok {
			return
		}
	}
	t.Errorf("%#v", parts)
}
