package desktest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/deskhost/deskhost/plugins/mock/adapter"
	"github.com/deskhost/deskhost/plugins/mock/mockscript"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
	"github.com/deskhost/deskhost/sdk"
	"github.com/deskhost/deskhost/sdk/desktest"
)

// fault is one way in which a plugin breaks a rule.
type fault struct {
	// check is the one that has to catch it.
	check string

	prints                       string // before the handshake
	protocol                     int
	noCertificate                bool
	ignoresStdin, ignoresSigterm bool
	endsAtSigint                 bool
	endsWhenRefused              bool
	endsWhenPaused               bool
	leavesChild                  string // for so many seconds
	firstSeq                     uint64
	// call answers in place of the right plugin, which it may ask.
	call func(p *proxy, req any, right func() (any, error)) (any, error)
	// events makes others of an event, which are numbered afterwards.
	events func(e *deskv1.Event) []*deskv1.Event
}

// answering is a fault in the answers to one kind of request.
func answering[Req, Resp any](check string, wrong func(p *proxy, req Req, right func() (Resp, error)) (Resp, error)) fault {
	return fault{check: check, call: func(p *proxy, req any, right func() (any, error)) (any, error) {
		r, ok := req.(Req)
		if !ok {
			return right()
		}
		return wrong(p, r, func() (Resp, error) {
			resp, err := right()
			if err != nil {
				var none Resp
				return none, err
			}
			return resp.(Resp), nil
		})
	}}
}

// describing is a fault in the description.
func describing(check string, wrong func(*deskv1.DescribeResponse)) fault {
	return answering(check, func(_ *proxy, _ *deskv1.DescribeRequest, right func() (*deskv1.DescribeResponse, error)) (*deskv1.DescribeResponse, error) {
		d, err := right()
		if err == nil {
			wrong(d)
		}
		return d, err
	})
}

// sending is a fault in what the desk is told of a message.
func sending(check string, wrong func(*deskv1.SendMessageToAgentRequest)) fault {
	return answering(check, func(_ *proxy, r *deskv1.SendMessageToAgentRequest, right func() (*deskv1.SendMessageToAgentResponse, error)) (*deskv1.SendMessageToAgentResponse, error) {
		wrong(r)
		return right()
	})
}

// eventing is a fault in the events.
func eventing(check string, wrong func(e *deskv1.Event) []*deskv1.Event) fault {
	return fault{check: check, events: wrong}
}

func failing(kind deskv1.FailureKind) error {
	st, err := status.New(codes.Aborted, "the fault").WithDetails(&deskv1.Failure{Kind: kind})
	if err != nil {
		return err
	}
	return st.Err()
}

func clones(e *deskv1.Event, n int) (events []*deskv1.Event) {
	for range n {
		events = append(events, proto.CloneOf(e))
	}
	return events
}

var errPlain = status.Error(codes.Internal, "the fault")

// faults are the wrong plugins by name.
func faults() map[string]fault {
	invalid := deskv1.FailureKind_FAILURE_KIND_INVALID
	described := 0
	asked := 0
	ended := map[string]bool{}
	firstChat := ""
	var late *deskv1.Event
	return map[string]fault{
		"right": {},
		// A right one too: what it has started takes its time to end.
		"ends-slowly": {leavesChild: "5"},
		// And so is this: desks greet.
		"greets": {events: func(e *deskv1.Event) []*deskv1.Event {
			all := clones(e, 1)
			if e.GetAgentJoined() != nil {
				all = append(all, &deskv1.Event{ChatId: e.GetChatId(), EventId: e.GetEventId() + "-greeting", Payload: &deskv1.Event_MessageToUser{
					MessageToUser: &deskv1.MessageToUser{Parts: []*deskv1.MessagePart{{Kind: &deskv1.MessagePart_Text{Text: &deskv1.TextPart{Text: "Welcome!"}}}}},
				}})
			}
			return all
		}},

		"prints-first":   {check: "start/handshake", prints: "hello\n"},
		"protocol-2":     {check: "start/handshake", protocol: 2},
		"no-certificate": {check: "start/handshake", noCertificate: true},

		"other-name":    describing("describe/name", func(d *deskv1.DescribeResponse) { d.Name = "another" }),
		"no-semver":     describing("describe/version", func(d *deskv1.DescribeResponse) { d.Version = "v1" }),
		"no-capability": describing("describe/values", func(d *deskv1.DescribeResponse) { d.Capabilities[0] = 0 }),
		"format-zero":   describing("describe/values", func(d *deskv1.DescribeResponse) { d.StateFormats = []uint32{0} }),
		"nowhere-to-keep-a-cursor": describing("describe/values", func(d *deskv1.DescribeResponse) {
			d.Capabilities = nil
		}),
		"changes-its-mind": describing("describe/repeated", func(d *deskv1.DescribeResponse) {
			described++
			d.Title = fmt.Sprint("title ", described)
		}),
		"schema-broken":    describing("configure/schema", func(d *deskv1.DescribeResponse) { d.ConfigSchema = `{"type": 7}` }),
		"schema-elsewhere": describing("configure/schema", func(d *deskv1.DescribeResponse) { d.ConfigSchema = `{"$ref": "https://example.com/schema"}` }),
		"config-refused": answering("configure/good", func(*proxy, *deskv1.ConfigureRequest, func() (*deskv1.ConfigureResponse, error)) (*deskv1.ConfigureResponse, error) {
			return nil, failing(invalid)
		}),
		"takes-any-config": {check: "configure/bad", call: func(_ *proxy, req any, right func() (any, error)) (any, error) {
			switch r := req.(type) {
			case *deskv1.DescribeRequest:
				resp, err := right()
				if err == nil {
					resp.(*deskv1.DescribeResponse).ConfigSchema = ""
				}
				return resp, err
			case *deskv1.ConfigureRequest:
				if !strings.Contains(string(r.GetConfigJson()), "url") {
					return &deskv1.ConfigureResponse{}, nil
				}
			}
			return right()
		}},
		"sickens": answering("health/ready", func(*proxy, *deskv1.HealthRequest, func() (*deskv1.HealthResponse, error)) (*deskv1.HealthResponse, error) {
			asked++
			return &deskv1.HealthResponse{Healthy: asked < 2}, nil
		}),

		"starts-nothing": answering("chat/start", func(*proxy, *deskv1.StartChatRequest, func() (*deskv1.StartChatResponse, error)) (*deskv1.StartChatResponse, error) {
			return nil, failing(invalid)
		}),
		"starts-once":  answering("chat/start_again", startsOnce),
		"cut-for-good": answering("failure/cut", startsOnce),
		"ends-once": answering("chat/end", func(_ *proxy, r *deskv1.EndChatRequest, right func() (*deskv1.EndChatResponse, error)) (*deskv1.EndChatResponse, error) {
			if ended[r.GetChatId()] {
				return nil, errPlain
			}
			ended[r.GetChatId()] = true
			return right()
		}),
		"cannot-end-strangers": answering("chat/end_unknown", func(_ *proxy, _ *deskv1.EndChatRequest, right func() (*deskv1.EndChatResponse, error)) (*deskv1.EndChatResponse, error) {
			resp, err := right()
			if err != nil {
				return nil, failing(deskv1.FailureKind_FAILURE_KIND_RETRY)
			}
			return resp, nil
		}),
		"tells-the-wrong-chat": eventing("chat/many", func(e *deskv1.Event) []*deskv1.Event {
			if e.GetMessageToUser() == nil {
				return clones(e, 1)
			}
			if firstChat == "" {
				firstChat = e.GetChatId()
			}
			both := clones(e, 2)
			both[1].ChatId = firstChat
			both[1].EventId += "-stray"
			return both
		}),

		"swallows-messages": answering("message/send", func(*proxy, *deskv1.SendMessageToAgentRequest, func() (*deskv1.SendMessageToAgentResponse, error)) (*deskv1.SendMessageToAgentResponse, error) {
			return &deskv1.SendMessageToAgentResponse{}, nil
		}),
		"escapes-text":      sending("message/send", func(r *deskv1.SendMessageToAgentRequest) { r.Text = strings.ReplaceAll(r.GetText(), "&", "&amp;") }),
		"dedupes-not":       sending("message/send_dedupe", func(r *deskv1.SendMessageToAgentRequest) { r.MessageId += fmt.Sprint("-", r.GetAttempt()) }),
		"dedupes-in-memory": sending("message/send_dedupe", func(r *deskv1.SendMessageToAgentRequest) { r.MessageId += fmt.Sprint("-", os.Getpid()) }),
		"dies-of-long-text": sending("message/limits", func(r *deskv1.SendMessageToAgentRequest) {
			if len(r.GetText()) > 10000 {
				os.Exit(1)
			}
		}),

		"declares-too-much": answering("optional/declared", func(*proxy, *deskv1.UserTypingRequest, func() (*deskv1.UserTypingResponse, error)) (*deskv1.UserTypingResponse, error) {
			return nil, failing(deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED)
		}),
		"declares-too-little": describing("optional/undeclared", func(d *deskv1.DescribeResponse) {
			d.Capabilities = []deskv1.Capability{deskv1.Capability_CAPABILITY_RESUME}
		}),
		"no-status": answering("optional/http", func(*proxy, *deskv1.HandleHTTPRequest, func() (*deskv1.HandleHTTPResponse, error)) (*deskv1.HandleHTTPResponse, error) {
			return &deskv1.HandleHTTPResponse{}, nil
		}),

		"fails-without-failure": answering("failure/detail", func(_ *proxy, _ *deskv1.SendMessageToAgentRequest, right func() (*deskv1.SendMessageToAgentResponse, error)) (*deskv1.SendMessageToAgentResponse, error) {
			resp, err := right()
			if err != nil {
				return nil, errPlain
			}
			return resp, nil
		}),
		"gives-up": answering("failure/retry", func(_ *proxy, _ *deskv1.SendMessageToAgentRequest, right func() (*deskv1.SendMessageToAgentResponse, error)) (*deskv1.SendMessageToAgentResponse, error) {
			resp, err := right()
			if err != nil {
				return nil, failing(invalid)
			}
			return resp, nil
		}),
		"one-at-a-time": answering("failure/stalled", func(p *proxy, _ *deskv1.HealthRequest, _ func() (*deskv1.HealthResponse, error)) (*deskv1.HealthResponse, error) {
			<-p.sent
			return nil, errPlain // as at the end of its patience with the stalled call
		}),

		"jams": answering("failure/cancelled", func(p *proxy, r *deskv1.SendMessageToAgentRequest, right func() (*deskv1.SendMessageToAgentResponse, error)) (*deskv1.SendMessageToAgentResponse, error) {
			p.jam.Lock()
			resp, err := right()
			if err == nil {
				p.jam.Unlock()
			}
			return resp, err
		}),

		"counts-from-two": {check: "events/rules", firstSeq: 1, events: func(e *deskv1.Event) []*deskv1.Event { return clones(e, 1) }},
		"empty-event": eventing("events/rules", func(e *deskv1.Event) []*deskv1.Event {
			both := clones(e, 2)
			both[0].Payload, both[0].EventId = nil, ""
			return both
		}),
		"script-link": eventing("events/rules", func(e *deskv1.Event) []*deskv1.Event {
			all := clones(e, 1)
			if m := all[0].GetMessageToUser(); m != nil {
				m.Parts = append(m.Parts, &deskv1.MessagePart{Kind: &deskv1.MessagePart_Link{Link: &deskv1.LinkPart{Url: "javascript:alert(1)"}}})
			}
			return all
		}),
		"long-event-id": eventing("events/rules", func(e *deskv1.Event) []*deskv1.Event {
			all := clones(e, 1)
			all[0].EventId += strings.Repeat("i", deskv1.MaxIDBytes)
			return all
		}),
		"state-format-zero": eventing("events/rules", func(e *deskv1.Event) []*deskv1.Event {
			all := clones(e, 1)
			if s := all[0].GetState(); s != nil {
				s.Format = 0
			}
			return all
		}),
		"out-of-order": eventing("events/order", func(e *deskv1.Event) []*deskv1.Event {
			if late != nil {
				both := []*deskv1.Event{proto.CloneOf(e), late}
				late = nil
				return both
			}
			if strings.Contains(e.String(), "Message 05.") {
				late = proto.CloneOf(e)
				return nil
			}
			return clones(e, 1)
		}),
		"twice-without-id": eventing("events/order", func(e *deskv1.Event) []*deskv1.Event {
			both := clones(e, 2)
			both[0].EventId, both[1].EventId = "", ""
			return both
		}),
		"goes-on-after-the-end": eventing("events/ended", func(e *deskv1.Event) []*deskv1.Event {
			all := clones(e, 1)
			if e.GetAgentEndedChat() != nil {
				all = append(all, &deskv1.Event{ChatId: e.GetChatId(), EventId: "late", Payload: &deskv1.Event_AgentReadMessages{AgentReadMessages: &deskv1.AgentReadMessages{}}})
			}
			return all
		}),
		"sends-again":         eventing("events/resent", func(e *deskv1.Event) []*deskv1.Event { return clones(e, 2) }),
		"ignores-window":      eventing("events/window", func(e *deskv1.Event) []*deskv1.Event { return clones(e, 9) }),
		"ignores-chat-window": eventing("events/chat_window", func(e *deskv1.Event) []*deskv1.Event { return clones(e, 9) }),
		"fails-unacknowledged": answering("events/late_ack", func(p *proxy, _ *deskv1.SendMessageToAgentRequest, right func() (*deskv1.SendMessageToAgentResponse, error)) (*deskv1.SendMessageToAgentResponse, error) {
			if p.waiting.Load() > 0 {
				return nil, errPlain
			}
			return right()
		}),
		"impatient":         eventing("events/late_ack", func(e *deskv1.Event) []*deskv1.Event { return clones(e, 2) }),
		"usual-batches":     eventing("events/low_limits", func(e *deskv1.Event) []*deskv1.Event { return clones(e, 2) }),
		"dies-of-a-refusal": {check: "events/refused", endsWhenRefused: true},
		"insists":           eventing("events/refused", func(e *deskv1.Event) []*deskv1.Event { return clones(e, 2) }),

		"resumes-once": answering("resume/again", func(_ *proxy, r *deskv1.ResumeChatRequest, right func() (*deskv1.ResumeChatResponse, error)) (*deskv1.ResumeChatResponse, error) {
			if r.GetAttempt() > 1 {
				return nil, failing(invalid)
			}
			return right()
		}),
		"resumes-anything": answering("resume/unknown", func(*proxy, *deskv1.ResumeChatRequest, func() (*deskv1.ResumeChatResponse, error)) (*deskv1.ResumeChatResponse, error) {
			return &deskv1.ResumeChatResponse{}, nil
		}),
		"other-ids-each-time": eventing("resume/replay", func(e *deskv1.Event) []*deskv1.Event {
			all := clones(e, 1)
			if all[0].GetEventId() != "" {
				all[0].EventId += fmt.Sprint("-", os.Getpid())
			}
			return all
		}),
		"lost-track":                   {check: "fault/paused", endsWhenPaused: true},
		"starts-strangers-not":         answering("fault/killed_starting", startsOnce),
		"dedupes-what-it-saw-answered": sending("fault/killed_sending", func(r *deskv1.SendMessageToAgentRequest) { r.MessageId += fmt.Sprint("-", os.Getpid()) }),
		"cursor-runs-ahead": eventing("fault/killed_talking", func(e *deskv1.Event) []*deskv1.Event {
			all := clones(e, 1)
			if s := all[0].GetState(); s != nil {
				s.Data = regexp.MustCompile(`"cursor":\d+`).ReplaceAllFunc(s.GetData(), func(cursor []byte) []byte {
					n, err := strconv.Atoi(string(cursor[len(`"cursor":`):]))
					if err != nil {
						panic(err)
					}
					return fmt.Appendf(nil, `"cursor":%d`, n+1)
				})
			}
			return all
		}),
		"lets-go-early": answering("quiesce/flush", func(*proxy, *deskv1.QuiesceChatRequest, func() (*deskv1.QuiesceChatResponse, error)) (*deskv1.QuiesceChatResponse, error) {
			return &deskv1.QuiesceChatResponse{}, nil
		}),
		"reads-on": answering("quiesce/silence", func(*proxy, *deskv1.QuiesceChatRequest, func() (*deskv1.QuiesceChatResponse, error)) (*deskv1.QuiesceChatResponse, error) {
			return &deskv1.QuiesceChatResponse{}, nil
		}),
		"quiesces-anything": answering("quiesce/unknown", func(*proxy, *deskv1.QuiesceChatRequest, func() (*deskv1.QuiesceChatResponse, error)) (*deskv1.QuiesceChatResponse, error) {
			return &deskv1.QuiesceChatResponse{}, nil
		}),

		"drains-nothing": answering("end/drain", func(*proxy, *deskv1.DrainRequest, func() (*deskv1.DrainResponse, error)) (*deskv1.DrainResponse, error) {
			return &deskv1.DrainResponse{}, nil
		}),
		"outlives-its-host": {check: "end/stdin", ignoresStdin: true},
		"leaves-a-child":    {check: "end/children", leavesChild: "60"},
		"ignores-sigterm":   {check: "end/sigterm", ignoresSigterm: true},
		"ends-at-sigint":    {check: "end/sigint", endsAtSigint: true},
		"gossips": answering("log/privacy", func(p *proxy, r *deskv1.SendMessageToAgentRequest, right func() (*deskv1.SendMessageToAgentResponse, error)) (*deskv1.SendMessageToAgentResponse, error) {
			fmt.Fprintln(p.stderr, "the user says", r.GetText())
			return right()
		}),
	}
}

func startsOnce(_ *proxy, r *deskv1.StartChatRequest, right func() (*deskv1.StartChatResponse, error)) (*deskv1.StartChatResponse, error) {
	if r.GetAttempt() > 1 {
		return nil, failing(deskv1.FailureKind_FAILURE_KIND_INVALID)
	}
	return right()
}

// TestMain runs the tests, or, where one has started this program as a plugin,
// that plugin: the right one, or a wrong one by the name of its file.
func TestMain(m *testing.M) {
	switch name := pluginName(); name {
	case "":
		os.Exit(m.Run())
	case rightName:
		sdk.Serve(adapter.Plugin("1.0.0"))
	case hookName, hastyName, changesName:
		serveHook(name)
	case keyName:
		serveKey()
	default:
		serveFault(name)
	}
}

// install makes this program the named plugin, beside the right one.
func install(t *testing.T, name string) desktest.Plugin {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, n := range []string{rightName, name} {
		if err := os.Symlink(self, filepath.Join(dir, deskv1.FilePrefix+n)); err != nil {
			t.Fatal(err)
		}
	}
	desk := mockscript.Start(t)
	return desktest.Plugin{
		File: filepath.Join(dir, deskv1.FilePrefix+name), Config: desk.Config(),
		BadConfig: json.RawMessage(`{"no_such_setting": 1}`), Script: desk,
	}
}

// TestWrongPlugins has each wrong plugin caught by the check that is meant for it.
func TestWrongPlugins(t *testing.T) {
	for name, f := range faults() {
		if f.check == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := desktest.Check(t.Context(), install(t, name), f.check)
			if err != nil {
				t.Fatal(err)
			}
			if r.Outcome != desktest.Fail {
				t.Errorf("%s: %s", f.check, r.Outcome)
			}
			t.Log(r.Came)
		})
	}
}

// TestNoFault has no check of the stream fail behind the same proxy when it has
// no fault. The whole suite passes on the mock plugin itself, in plugins/mock.
func TestNoFault(t *testing.T) {
	for _, name := range desktest.Checks() {
		if !strings.HasPrefix(name, "events/") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := desktest.Check(t.Context(), install(t, "right"), name)
			if err != nil {
				t.Fatal(err)
			}
			if r.Outcome != desktest.Pass {
				t.Errorf("%s: %s", r.Outcome, r.Came)
			}
		})
	}
}

// TestAGreetingIsNoFault has no check that looks at what an agent says fail for
// what a desk says besides.
func TestAGreetingIsNoFault(t *testing.T) {
	for _, name := range []string{"chat/start_again", "chat/many", "events/order", "events/ended", "events/resent", "fault/killed_talking"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := desktest.Check(t.Context(), install(t, "greets"), name)
			if err != nil {
				t.Fatal(err)
			}
			if r.Outcome != desktest.Pass {
				t.Errorf("%s: %s", r.Outcome, r.Came)
			}
		})
	}
}

// TestAChildThatEndsLaterIsNoFault has what a process has started end some seconds
// after it.
func TestAChildThatEndsLaterIsNoFault(t *testing.T) {
	t.Parallel()
	r, err := desktest.Check(t.Context(), install(t, "ends-slowly"), "end/children")
	if err != nil {
		t.Fatal(err)
	}
	if r.Outcome != desktest.Pass {
		t.Errorf("%s: %s", r.Outcome, r.Came)
	}
}

// TestEveryCheckCanFail has a wrong plugin for each check, but for one: a
// go-plugin server that takes clients without a certificate cannot be had.
func TestEveryCheckCanFail(t *testing.T) {
	caught := map[string]bool{"start/mutual_tls": true}
	for _, f := range faults() {
		caught[f.check] = true
	}
	for _, name := range desktest.Checks() {
		if !caught[name] {
			t.Errorf("no wrong plugin is meant for %s", name)
		}
	}
}
