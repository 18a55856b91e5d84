package sdk

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

var (
	someTime = time.Date(2026, 1, 2, 15, 4, 5, 6000, time.UTC)
	someURL  = "https://desk.example.com/a?b=c"
)

// complete fails the test if any field of the message or of those inside it is
// not set: the conversion, or its test, has forgotten it.
func complete(t *testing.T, m protoreflect.Message) {
	t.Helper()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		name := string(f.FullName())
		if f.ContainingOneof() != nil && !f.ContainingOneof().IsSynthetic() && m.WhichOneof(f.ContainingOneof()) != f {
			continue
		}
		if strings.HasPrefix(name, "google.") {
			continue
		}
		if !m.Has(f) {
			t.Errorf("%s is not set", name)
			continue
		}
		switch {
		case f.IsMap() || f.Kind() != protoreflect.MessageKind:
		case f.IsList():
			for j := range m.Get(f).List().Len() {
				complete(t, m.Get(f).List().Get(j).Message())
			}
		default:
			complete(t, m.Get(f).Message())
		}
	}
}

func wantProto(t *testing.T, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// wantFull compares, and fails for any exported field of want that is zero.
func wantFull(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	v := reflect.ValueOf(want).Elem()
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s.%s is not set by the test", v.Type(), v.Type().Field(i).Name)
		}
	}
}

var (
	agent     = Agent{ID: "a1", Nickname: "Ada", AvatarURL: someURL, Bot: true}
	wireAgent = &deskv1.Agent{Id: "a1", Nickname: "Ada", AvatarUrl: someURL, Kind: deskv1.AgentKind_AGENT_KIND_BOT}
)

// payloads pairs each payload with its wire form.
var payloads = []struct {
	payload Payload
	wire    *deskv1.Event
}{
	{AgentJoined{Agent: agent}, &deskv1.Event{Payload: &deskv1.Event_AgentJoined{
		AgentJoined: &deskv1.AgentJoined{Agent: wireAgent},
	}}},
	{AgentLeft{AgentID: "a1"}, &deskv1.Event{Payload: &deskv1.Event_AgentLeft{
		AgentLeft: &deskv1.AgentLeft{AgentId: "a1"},
	}}},
	{AgentEndedChat{Reason: "bye"}, &deskv1.Event{Payload: &deskv1.Event_AgentEndedChat{
		AgentEndedChat: &deskv1.AgentEndedChat{Reason: "bye"},
	}}},
	{AgentTyping{Typing: true, AgentID: "a1"}, &deskv1.Event{Payload: &deskv1.Event_AgentTyping{
		AgentTyping: &deskv1.AgentTyping{Typing: true, AgentId: "a1"},
	}}},
	{AgentReadMessages{}, &deskv1.Event{Payload: &deskv1.Event_AgentReadMessages{
		AgentReadMessages: &deskv1.AgentReadMessages{},
	}}},
	{MessageToUser{MessageID: "m1", AgentID: "a1", Parts: []Part{
		Text("hello"),
		Image{URL: someURL, Title: "t", AltText: "alt"},
		Video{URL: someURL, Title: "t", AltText: "alt"},
		Link{URL: someURL, Label: "l"},
		InlineError("oops"),
		File{URL: someURL, Name: "f.pdf", MediaType: "application/pdf", Size: 7},
		QuickReplies{Text: "choose", Replies: []QuickReply{{Label: "yes", Value: "y"}}},
		UserDefined{"k": []any{1.5, "s", nil, map[string]any{"b": true}}},
	}}, &deskv1.Event{Payload: &deskv1.Event_MessageToUser{MessageToUser: &deskv1.MessageToUser{
		MessageId: "m1", AgentId: "a1", Parts: []*deskv1.MessagePart{
			{Kind: &deskv1.MessagePart_Text{Text: &deskv1.TextPart{Text: "hello"}}},
			{Kind: &deskv1.MessagePart_Image{Image: &deskv1.ImagePart{Url: someURL, Title: "t", AltText: "alt"}}},
			{Kind: &deskv1.MessagePart_Video{Video: &deskv1.VideoPart{Url: someURL, Title: "t", AltText: "alt"}}},
			{Kind: &deskv1.MessagePart_Link{Link: &deskv1.LinkPart{Url: someURL, Label: "l"}}},
			{Kind: &deskv1.MessagePart_InlineError{InlineError: &deskv1.InlineErrorPart{Text: "oops"}}},
			{Kind: &deskv1.MessagePart_File{File: &deskv1.FilePart{
				Url: someURL, Name: "f.pdf", MediaType: "application/pdf", SizeBytes: 7,
			}}},
			{Kind: &deskv1.MessagePart_QuickReplies{QuickReplies: &deskv1.QuickRepliesPart{
				Text: "choose", Replies: []*deskv1.QuickReply{{Label: "yes", Value: "y"}},
			}}},
			{Kind: &deskv1.MessagePart_UserDefined{UserDefined: &deskv1.UserDefinedPart{
				Data: &structpb.Struct{Fields: map[string]*structpb.Value{
					"k": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{
						structpb.NewNumberValue(1.5), structpb.NewStringValue("s"), structpb.NewNullValue(),
						structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"b": structpb.NewBoolValue(true)}}),
					}}),
				}},
			}}},
		},
	}}}},
	{TransferStarted{Agent: &agent}, &deskv1.Event{Payload: &deskv1.Event_TransferStarted{
		TransferStarted: &deskv1.TransferStarted{Agent: wireAgent},
	}}},
	{AvailabilityChanged{WaitMinutes: new(0), Position: new(3), Message: "soon"}, &deskv1.Event{
		Payload: &deskv1.Event_AvailabilityChanged{AvailabilityChanged: &deskv1.AvailabilityChanged{
			WaitMinutes: new(uint32(0)), Position: new(uint32(3)), Message: "soon",
		}},
	}},
	{CapabilitiesChanged{FileUploads: true, MultipleFileUploads: true, FileUploadTypes: []string{"image/*"}}, &deskv1.Event{
		Payload: &deskv1.Event_CapabilitiesChanged{CapabilitiesChanged: &deskv1.CapabilitiesChanged{
			FileUploads: true, MultipleFileUploads: true, FileUploadTypes: []string{"image/*"},
		}},
	}},
	{ErrorStatus{Kind: MessageTrouble, Disconnected: true, MessageID: "m1", UserMessage: "u", LogMessage: "l"}, &deskv1.Event{
		Payload: &deskv1.Event_ErrorStatus{ErrorStatus: &deskv1.ErrorStatus{
			Kind: deskv1.ErrorKind_ERROR_KIND_USER_MESSAGE, Disconnected: true, MessageId: "m1", UserMessage: "u", LogMessage: "l",
		}},
	}},
	{StateSaved{}, &deskv1.Event{Payload: &deskv1.Event_StateSaved{StateSaved: &deskv1.StateSaved{}}}},
}

func TestEveryPayloadHasItsWireForm(t *testing.T) {
	var seen []protoreflect.FieldNumber
	parts := map[protoreflect.FieldNumber]bool{}
	for _, test := range payloads {
		ev := &Event{
			ChatID: "c", ID: "e1", Time: someTime,
			State: &ResumeState{Data: []byte("s"), Format: 2}, Payload: test.payload,
		}
		test.wire.Seq = 1 // set by the stream
		test.wire.ChatId, test.wire.EventId, test.wire.Time = "c", "e1", timestamppb.New(someTime)
		test.wire.State = &deskv1.ResumeState{Data: []byte("s"), Format: 2}
		got, err := toEvent(ev)
		if err != nil {
			t.Errorf("%T: %v", test.payload, err)
			continue
		}
		got.Seq = 1
		wantProto(t, got, test.wire)
		complete(t, got.ProtoReflect())
		m := got.ProtoReflect()
		seen = append(seen, m.WhichOneof(m.Descriptor().Oneofs().ByName("payload")).Number())
		for _, p := range got.GetMessageToUser().GetParts() {
			pm := p.ProtoReflect()
			parts[pm.WhichOneof(pm.Descriptor().Oneofs().ByName("kind")).Number()] = true
		}
	}
	event, part := (&deskv1.Event{}).ProtoReflect().Descriptor(), (&deskv1.MessagePart{}).ProtoReflect().Descriptor()
	if got, want := len(seen), event.Oneofs().ByName("payload").Fields().Len(); got != want {
		t.Errorf("%d payloads, the contract has %d", got, want)
	}
	if got, want := len(parts), part.Oneofs().ByName("kind").Fields().Len(); got != want {
		t.Errorf("%d kinds of parts, the contract has %d", got, want)
	}
}

func TestErrorKinds(t *testing.T) {
	for kind, want := range map[ErrorKind]deskv1.ErrorKind{
		ConnectTrouble: deskv1.ErrorKind_ERROR_KIND_CONNECTING,
		LinkTrouble:    deskv1.ErrorKind_ERROR_KIND_DISCONNECTED,
		MessageTrouble: deskv1.ErrorKind_ERROR_KIND_USER_MESSAGE,
	} {
		got, err := toEvent(&Event{ChatID: "c", Payload: ErrorStatus{Kind: kind, MessageID: "m"}})
		if err != nil || got.GetErrorStatus().GetKind() != want {
			t.Errorf("%d: %v, %v, want %v", kind, got, err, want)
		}
	}
}

func TestInvalidEventsAreRefusedBeforeTheyAreSent(t *testing.T) {
	long := strings.Repeat("x", deskv1.MaxIDBytes+1)
	message := func(p Part) Payload { return MessageToUser{Parts: []Part{p}} }
	ok := AgentReadMessages{}
	for name, test := range map[string]struct {
		event *Event
		want  RefusalCode
	}{
		"no event":               {nil, RefusedInvalid},
		"no chat":                {&Event{Payload: ok}, RefusedInvalid},
		"chat id too long":       {&Event{ChatID: long, Payload: ok}, RefusedTooLarge},
		"event id too long":      {&Event{ChatID: "c", ID: long, Payload: ok}, RefusedTooLarge},
		"event id not UTF-8":     {&Event{ChatID: "c", ID: "\xff", Payload: ok}, RefusedInvalid},
		"no payload":             {&Event{ChatID: "c"}, RefusedInvalid},
		"payload by pointer":     {&Event{ChatID: "c", Payload: &AgentJoined{}}, RefusedInvalid},
		"state too large":        {&Event{ChatID: "c", State: &ResumeState{make([]byte, deskv1.MaxStateBytes+1), 1}, Payload: ok}, RefusedTooLarge},
		"state without format":   {&Event{ChatID: "c", State: &ResumeState{}, Payload: ok}, RefusedInvalid},
		"state saved without it": {&Event{ChatID: "c", Payload: StateSaved{}}, RefusedInvalid},
		"no parts":               {&Event{ChatID: "c", Payload: MessageToUser{}}, RefusedInvalid},
		"nil part":               {&Event{ChatID: "c", Payload: message(nil)}, RefusedInvalid},
		"part by pointer":        {&Event{ChatID: "c", Payload: message(&Link{URL: someURL})}, RefusedInvalid},
		"message id too long":    {&Event{ChatID: "c", Payload: MessageToUser{MessageID: long, Parts: []Part{Text("")}}}, RefusedTooLarge},
		"agent id too long":      {&Event{ChatID: "c", Payload: MessageToUser{AgentID: long, Parts: []Part{Text("")}}}, RefusedTooLarge},
		"joined id too long":     {&Event{ChatID: "c", Payload: AgentJoined{Agent{ID: long}}}, RefusedTooLarge},
		"left id too long":       {&Event{ChatID: "c", Payload: AgentLeft{long}}, RefusedTooLarge},
		"typing id too long":     {&Event{ChatID: "c", Payload: AgentTyping{AgentID: long}}, RefusedTooLarge},
		"avatar":                 {&Event{ChatID: "c", Payload: AgentJoined{Agent{AvatarURL: "data:image/png,x"}}}, RefusedInvalid},
		"avatar at transfer":     {&Event{ChatID: "c", Payload: TransferStarted{&Agent{AvatarURL: "x"}}}, RefusedInvalid},
		"script link":            {&Event{ChatID: "c", Payload: message(Link{URL: "javascript:alert(1)"})}, RefusedInvalid},
		"relative link":          {&Event{ChatID: "c", Payload: message(Link{URL: "/x"})}, RefusedInvalid},
		"link without host":      {&Event{ChatID: "c", Payload: message(Link{URL: "https:x"})}, RefusedInvalid},
		"image without link":     {&Event{ChatID: "c", Payload: message(Image{})}, RefusedInvalid},
		"video link":             {&Event{ChatID: "c", Payload: message(Video{URL: "ftp://x/y"})}, RefusedInvalid},
		"file link":              {&Event{ChatID: "c", Payload: message(File{URL: "file:///etc/passwd"})}, RefusedInvalid},
		"negative size":          {&Event{ChatID: "c", Payload: message(File{URL: someURL, Size: -1})}, RefusedInvalid},
		"user defined":           {&Event{ChatID: "c", Payload: message(UserDefined{"k": struct{}{}})}, RefusedInvalid},
		"negative wait":          {&Event{ChatID: "c", Payload: AvailabilityChanged{WaitMinutes: new(-1)}}, RefusedInvalid},
		"negative position":      {&Event{ChatID: "c", Payload: AvailabilityChanged{Position: new(-1)}}, RefusedInvalid},
		"error without kind":     {&Event{ChatID: "c", Payload: ErrorStatus{}}, RefusedInvalid},
		"trouble without id":     {&Event{ChatID: "c", Payload: ErrorStatus{Kind: MessageTrouble}}, RefusedInvalid},
		"trouble id too long":    {&Event{ChatID: "c", Payload: ErrorStatus{Kind: MessageTrouble, MessageID: long}}, RefusedTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := toEvent(test.event)
			if err == nil || err.Code != test.want || err.Reason == "" {
				t.Errorf("refused with %v, want %v and a reason", err, test.want)
			}
		})
	}
}

// TestWhatIsNestedTooDeepIsRefused has nothing sent that a host cannot decode: its
// stream would end.
func TestWhatIsNestedTooDeepIsRefused(t *testing.T) {
	for name, wrap := range map[string]func(any) any{
		"lists":   func(v any) any { return []any{v} },
		"objects": func(v any) any { return map[string]any{"k": v} },
	} {
		t.Run(name, func(t *testing.T) {
			for _, levels := range []int{maxNesting - 1, maxNesting, 6000} {
				var v any = "x"
				for range levels {
					v = wrap(v)
				}
				e, refused := toEvent(&Event{ChatID: "c", Payload: MessageToUser{Parts: []Part{UserDefined{"k": v}}}})
				if (refused != nil) != (levels >= maxNesting) {
					t.Errorf("%d levels: %v", levels, refused)
				}
				if refused != nil {
					continue
				}
				b, err := proto.Marshal(&deskv1.EventsResponse{Events: []*deskv1.Event{e}})
				if err != nil {
					t.Fatal(err)
				}
				if err := proto.Unmarshal(b, &deskv1.EventsResponse{}); err != nil {
					t.Errorf("%d levels: a host cannot decode it: %v", levels, err)
				}
			}
		})
	}
}

func TestTextThatIsNotUTF8StillArrives(t *testing.T) {
	e, refused := toEvent(&Event{ChatID: "c", Payload: MessageToUser{Parts: []Part{Text("caf\xe9")}}})
	if refused != nil {
		t.Fatal(refused)
	}
	if _, err := proto.Marshal(e); err != nil {
		t.Errorf("the event cannot be encoded: %v", err)
	}
	if got := e.GetMessageToUser().GetParts()[0].GetText().GetText(); got != "caf\uFFFD" {
		t.Errorf("text %q", got)
	}
}

func TestRefusalCodes(t *testing.T) {
	for wire, want := range map[deskv1.RefusalCode]RefusalCode{
		deskv1.RefusalCode_REFUSAL_CODE_CHAT_OVER:    RefusedChatOver,
		deskv1.RefusalCode_REFUSAL_CODE_CHAT_UNKNOWN: RefusedChatUnknown,
		deskv1.RefusalCode_REFUSAL_CODE_MOVED:        RefusedMoved,
		deskv1.RefusalCode_REFUSAL_CODE_INVALID:      RefusedInvalid,
		deskv1.RefusalCode_REFUSAL_CODE_TOO_LARGE:    RefusedTooLarge,
		deskv1.RefusalCode(99):                       RefusedInvalid,
	} {
		if got := fromRefusal(&deskv1.Refusal{Code: wire, Reason: "r"}); got.Code != want || got.Reason != "r" {
			t.Errorf("%v: %v, want %v", wire, got, want)
		}
	}
}

var (
	wireState   = &deskv1.ResumeState{Data: []byte("s"), Format: 3}
	state       = &ResumeState{Data: []byte("s"), Format: 3}
	wireContext = &deskv1.UserContext{
		User:   &deskv1.User{Id: "u", Verified: true, Name: "n", Attributes: map[string]string{"k": "v"}},
		Locale: "en-GB", AssistantSessionId: "as",
	}
	userContext = UserContext{
		User:   User{ID: "u", Verified: true, Name: "n", Attributes: map[string]string{"k": "v"}},
		Locale: "en-GB", AssistantSessionID: "as",
	}
)

func TestRequestsReachTheDeskWhole(t *testing.T) {
	start := &deskv1.StartChatRequest{
		ChatId: "c", Attempt: 2, State: wireState, Context: wireContext, ConnectMessageJson: []byte(`{}`), Text: "t",
		History:     []*deskv1.HistoryItem{{From: "user", Text: "h", Time: timestamppb.New(someTime)}},
		SignInToken: "secret",
	}
	complete(t, start.ProtoReflect())
	wantFull(t, fromStartChat(start), &StartChatRequest{
		ChatID: "c", Attempt: 2, State: state, Context: userContext, ConnectMessage: json.RawMessage(`{}`), Text: "t",
		History:     []HistoryItem{{From: "user", Text: "h", Time: someTime}},
		SignInToken: "secret",
	})

	end := &deskv1.EndChatRequest{ChatId: "c", Attempt: 2, State: wireState, EndedBy: deskv1.EndedBy_ENDED_BY_USER, Reason: "r"}
	complete(t, end.ProtoReflect())
	wantFull(t, fromEndChat(end), &EndChatRequest{ChatID: "c", Attempt: 2, State: state, ByUser: true, Reason: "r"})
	end.EndedBy = deskv1.EndedBy_ENDED_BY_HOST
	if fromEndChat(end).ByUser {
		t.Error("an end by the host counts as the user's")
	}

	send := &deskv1.SendMessageToAgentRequest{
		ChatId: "c", MessageId: "m", Attempt: 2, Text: "t", DataJson: []byte(`{}`), Time: timestamppb.New(someTime),
	}
	complete(t, send.ProtoReflect())
	wantFull(t, fromSendMessage(send), &SendMessageRequest{
		ChatID: "c", MessageID: "m", Attempt: 2, Text: "t", Data: json.RawMessage(`{}`), Time: someTime,
	})

	configure := &deskv1.ConfigureRequest{DeskName: "d", ConfigJson: []byte(`{}`), WebhookBaseUrl: someURL}
	complete(t, configure.ProtoReflect())
	wantFull(t, fromConfigure(configure), &ConfigureRequest{
		DeskName: "d", Config: json.RawMessage(`{}`), WebhookBaseURL: someURL,
	})

	resume := &deskv1.ResumeChatRequest{ChatId: "c", Attempt: 2, State: wireState, Context: wireContext}
	complete(t, resume.ProtoReflect())
	wantFull(t, fromResumeChat(resume), &ResumeChatRequest{ChatID: "c", Attempt: 2, State: state, Context: userContext})

	empty := fromStartChat(&deskv1.StartChatRequest{})
	if empty.State != nil || len(empty.ConnectMessage) != 0 || len(empty.History) != 0 {
		t.Errorf("an empty request is %+v", empty)
	}
	if got := fromSendMessage(&deskv1.SendMessageToAgentRequest{}); !got.Time.IsZero() {
		t.Errorf("no time is %v", got.Time)
	}
}

func TestAnswersReachTheHostWhole(t *testing.T) {
	start, err := toStartChat(&StartChatResponse{State: state})
	if err != nil {
		t.Error(err)
	}
	wantProto(t, start, &deskv1.StartChatResponse{State: wireState})
	quiesce, err := toQuiesceChat(&QuiesceChatResponse{State: state})
	if err != nil {
		t.Error(err)
	}
	wantProto(t, quiesce, &deskv1.QuiesceChatResponse{State: wireState})
	wantProto(t, toSendMessage(&SendMessageResponse{DeskMessageID: "m"}), &deskv1.SendMessageToAgentResponse{DeskMessageId: "m"})
	for online, want := range map[Online]deskv1.Availability{
		OnlineUnknown: deskv1.Availability_AVAILABILITY_UNSPECIFIED,
		OnlineYes:     deskv1.Availability_AVAILABILITY_ONLINE,
		OnlineNo:      deskv1.Availability_AVAILABILITY_OFFLINE,
	} {
		got, err := toAvailability(&AvailabilityResponse{Online: online, WaitMinutes: new(0), Position: new(2), Message: "m"})
		if err != nil {
			t.Error(err)
		}
		wantProto(t, got, &deskv1.AreAnyAgentsOnlineResponse{
			Availability: want, WaitMinutes: new(uint32(0)), Position: new(uint32(2)), Message: "m",
		})
	}
}

func TestAnswersThatBreakALimitAreErrors(t *testing.T) {
	tooMuch := &ResumeState{Data: make([]byte, deskv1.MaxStateBytes+1), Format: 1}
	if _, err := toStartChat(&StartChatResponse{State: tooMuch}); err == nil {
		t.Error("StartChat took a state over the limit")
	}
	if _, err := toQuiesceChat(&QuiesceChatResponse{State: tooMuch}); err == nil {
		t.Error("QuiesceChat took a state over the limit")
	}
	if _, err := toAvailability(&AvailabilityResponse{Position: new(-1)}); err == nil {
		t.Error("AreAnyAgentsOnline took a negative position")
	}
}

// allDesk has every optional interface.
type allDesk struct {
	Desk
	AvailabilityReporter
	StateUpdater
	TypingReceiver
	ReadReceiver
	Resumer
	HTTPHandler
}

func TestDescribe(t *testing.T) {
	p := &Plugin{
		Name: "acme", Version: "1.2.3", Title: "Acme", ConfigSchema: `{"type":"object"}`,
		SendDedupe: DedupeByKey, Replay: ReplayByCursor, StateFormats: []uint32{1, 2}, MaxTextBytes: 1000,
	}
	all := toDescribe(p, allDesk{})
	complete(t, all.ProtoReflect())
	wantProto(t, all, &deskv1.DescribeResponse{
		Name: "acme", Version: "1.2.3", Title: "Acme", ConfigSchema: `{"type":"object"}`,
		SendDedupe: deskv1.SendDedupe_SEND_DEDUPE_KEY, Replay: deskv1.Replay_REPLAY_CURSOR,
		StateFormats: []uint32{1, 2}, MaxTextBytes: 1000,
		Capabilities: []deskv1.Capability{1, 2, 3, 4, 5, 6},
	})
	if got, want := len(all.GetCapabilities()), len(deskv1.Capability_name)-1; got != want {
		t.Errorf("%d capabilities, the contract has %d", got, want)
	}

	wantProto(t, toDescribe(&Plugin{Name: "acme", Version: "1.2.3"}, struct{ Desk }{}), &deskv1.DescribeResponse{
		Name: "acme", Version: "1.2.3",
		ConfigSchema: `{"type":"object","additionalProperties":false}`,
		SendDedupe:   deskv1.SendDedupe_SEND_DEDUPE_NONE, Replay: deskv1.Replay_REPLAY_NONE,
	})

	p.SendDedupe, p.Replay = DedupeByLookup, ReplayByWebhook
	got := toDescribe(p, allDesk{})
	if got.GetSendDedupe() != deskv1.SendDedupe_SEND_DEDUPE_LOOKUP || got.GetReplay() != deskv1.Replay_REPLAY_WEBHOOK {
		t.Errorf("got %v, %v", got.GetSendDedupe(), got.GetReplay())
	}
}

func TestAPluginThatIsDescribedWronglyIsNotServed(t *testing.T) {
	good := Plugin{Name: "acme", Version: "1.2.3-rc.1+build", New: func(Host) Desk { return nil }}
	if err := good.check(); err != nil {
		t.Errorf("a good plugin is refused: %v", err)
	}
	for want, change := range map[string]func(p *Plugin){
		"Name is":         func(p *Plugin) { p.Name = "Acme" },
		`Name is ""`:      func(p *Plugin) { p.Name = "" },
		`Name is "-a"`:    func(p *Plugin) { p.Name = "-a" },
		`Version is "v1`:  func(p *Plugin) { p.Version = "v1.2.3" },
		`Version is "1.2`: func(p *Plugin) { p.Version = "1.2" },
		"must be a JSON":  func(p *Plugin) { p.ConfigSchema = "{" },
		"JSON object":     func(p *Plugin) { p.ConfigSchema = "[]" },
		"SendDedupe is":   func(p *Plugin) { p.SendDedupe = 9 },
		"Replay is":       func(p *Plugin) { p.Replay = -1 },
		"StateFormats":    func(p *Plugin) { p.StateFormats = []uint32{1, 0} },
		"MaxTextBytes is": func(p *Plugin) { p.MaxTextBytes = -1 },
		"New is nil":      func(p *Plugin) { p.New = nil },
	} {
		p := good
		change(&p)
		if err := p.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("check = %v, want it to say %q", err, want)
		}
	}
}
