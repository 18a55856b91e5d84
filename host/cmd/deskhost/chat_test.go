package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/deskhost/deskhost/host/internal/client"
)

func TestCleanTakesOutWhatTerminalsObey(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain":                             "plain",
		"two\nlines\r\nand\rmore":           "two\nlines\nand\nmore",
		"a\tb":                              "a b",
		"\x1b[31mred\x1b[0m":                "red",
		"\x1b[2J\x1b[Hcleared":              "cleared",
		"\x1b[?1049hother screen":           "other screen",
		"\x1b]0;title\x07after":             "after",
		"\x1b]52;c;c2VjcmV0\x1b\\clipboard": "clipboard",
		"\x1b]8;;http://evil.test\x1b\\here\x1b]8;;\x1b\\": "here",
		"\x1bP+q544e\x1b\\answered":                        "answered",
		"\x1b]0;never ended":                               "0;never ended",
		"\x1b]0;cut\x1b[31m":                               "0;cut",
		"\x1bcreset":                                       "reset",
		"\x1b(0lines":                                      "lines",
		"\x1b":                                             "",
		"\u009b31mred":                                     "red",
		"\u009d0;title\u009cafter":                         "after",
		"bell\a, back\b\b\b\b, delete\x7f":                 "bell, back, delete",
		"\x1b\x1b[31m[31mnested":                           "[31mnested",
		"right \u202eto left\u202c, \u2067isolated\u2069": "right to left, isolated",
		"a\u2028b":                   "a\nb",
		"\U0001F469\u200d\U0001F680": "\U0001F469\u200d\U0001F680",
		"na\u00efve \u4f60\u597d":    "na\u00efve \u4f60\u597d",
	} {
		got := clean(text)
		if got != want {
			t.Errorf("%q became %q, expected %q", text, got, want)
		}
		if again := clean(got); again != got {
			t.Errorf("%q became %q, and then %q", text, got, again)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[\x1b[31m1m")
	f.Add("\x1b\u009d]0;\x07")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range clean(text) {
			if r != '\n' && r < ' ' || r >= 0x7f && r < 0xa0 {
				t.Errorf("%q keeps %q", text, r)
			}
		}
	})
}

func TestCleanLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Ada":                  "Ada",
		" Ada\nLace ":          "Ada Lace",
		"Ada\x1b[5A":           "Ada",
		"1234567890":           "1234567890",
		"12345678901":          "123456789…",
		"\u4f60\u597d":         "\u4f60\u597d",
		"\x1b[1m\x1b[2m\x1b[0": "0",
	} {
		if got := cleanLine(text, 10); got != want {
			t.Errorf("%q became %q, expected %q", text, got, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	ada, two, four := &client.Agent{ID: "ada", Nickname: "Ada\n\x1b[2JYou"}, 2, 4
	for _, test := range []struct {
		name  string
		entry client.Entry
		want  string
		quiet bool
	}{
		{"request", client.Entry{Type: "chat_requested", Text: "Help"}, "You: Help", false},
		{"request without a text", client.Entry{Type: "chat_requested"}, "", false},
		{"start", client.Entry{Type: "chat_started"}, "Waiting for an agent …", true},
		{"queue", client.Entry{Type: "availability", Position: &two, WaitMinutes: &four, Message: "Soon."}, "You are number 2 in the queue. The wait is about 4 min. Soon.", true},
		{"no news of the queue", client.Entry{Type: "availability"}, "", true},
		{"join", client.Entry{Type: "agent_joined", Agent: ada}, "Ada You has joined.", true},
		{"own message", client.Entry{Type: "message", From: "user", Text: "Hi"}, "You: Hi", false},
		{"message", client.Entry{Type: "message", From: "agent", AgentID: "bob", Text: "Hi\nYou: fooled\n"}, "Bob: Hi\n  You: fooled", false},
		{"message of nobody in particular", client.Entry{Type: "message", From: "agent", Text: "Hi"}, "Bob: Hi", false},
		{"message of a stranger", client.Entry{Type: "message", From: "agent", AgentID: "eve", Text: "Hi"}, "The agent: Hi", false},
		{"parts", client.Entry{Type: "message", From: "agent", Text: "Look", Parts: []client.Part{
			{Type: "text", Text: "Look"},
			{Type: "image", URL: "https://example.com/a.png", Title: "A\x1b[2J", AltText: "Alt"},
			{Type: "video", URL: "https://example.com/a.webm", AltText: "Alt"},
			{Type: "link", URL: "https://example.com/\x1b[2J", Label: "Terms"},
			{Type: "file", URL: "https://example.com/a.txt"},
			{Type: "inline_error", Text: "No such order"},
			{Type: "quick_replies", Text: "When?", Replies: []client.Reply{{Label: "Today"}, {Label: "Tomor\nrow"}}},
			{Type: "user_defined"},
			{Type: "hologram"},
		}}, `Bob: Look
  [image] A: https://example.com/a.png
  [video] Alt: https://example.com/a.webm
  [link] Terms: https://example.com/
  [file] https://example.com/a.txt
  [error] No such order
  When?
  You could answer: Today | Tomor row
  [something that only a web page can show]
  [something that only a web page can show]`, false},
		{"left", client.Entry{Type: "agent_left"}, "Bob has left. The chat stays open.", true},
		{"transfer", client.Entry{Type: "transfer_started"}, "You are being transferred to another agent …", true},
		{"transfer to one", client.Entry{Type: "transfer_started", Agent: ada}, "You are being transferred to Ada You …", true},
		{"no agent", client.Entry{Type: "error", Kind: "connecting"}, "No agent could be reached.", true},
		{"trouble with a message", client.Entry{Type: "error", Kind: "connecting", Message: "Gone\x07 home."}, "Gone home.", true},
		{"disconnected", client.Entry{Type: "error", Kind: "disconnected", Disconnected: true}, "The desk's connection is lost.", true},
		{"connected", client.Entry{Type: "error", Kind: "disconnected"}, "The desk is connected again.", true},
		{"away", client.Entry{Type: "desk_away"}, "The desk cannot be reached. What you write waits for it.", true},
		{"back", client.Entry{Type: "desk_back"}, "The desk is back.", true},
		{"gap", client.Entry{Type: "gap"}, "What was said earlier is no longer kept.", true},
		{"ended by the user", client.Entry{Type: "chat_ended", By: "user"}, "You ended the chat.", true},
		{"ended by the agent", client.Entry{Type: "chat_ended", By: "agent", Message: "Bye\x1b[2J."}, "Bob ended the chat. Bye.", true},
		{"ended by the host", client.Entry{Type: "chat_ended", By: "host", Reason: "join_timeout"}, "No agent was free in time.", true},
		{"ended for a new reason", client.Entry{Type: "chat_ended", By: "desk", Reason: "eclipse"}, "The chat has ended.", true},
		{"something newer", client.Entry{Type: "hologram"}, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := &people{Names: map[string]string{"bob": "Bob"}, Present: "bob"}
			if text, quiet := describe(test.entry, p); text != test.want || quiet != test.quiet {
				t.Errorf("got %q, quiet %v, expected %q", text, quiet, test.want)
			}
		})
	}
}

func TestDescribeOutcome(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"Not delivered (the desk did not take it): “Hello”":                   describeOutcome("Hello", "failed", "refused"),
		"May not have arrived (the desk did not answer): “Hello”":             describeOutcome("Hello", "unknown", "outcome_unknown"),
		"Not delivered: an earlier message":                                   describeOutcome("", "failed", ""),
		"Not delivered (new_reason): “" + strings.Repeat("x", 59) + "…”":      describeOutcome(strings.Repeat("x", 100), "failed", "new_reason"),
		"Not delivered (the chat was over): “Hello”":                          describeRefusal("Hello", &client.Problem{Status: 409, Code: "no_chat"}),
		"Not delivered (The text is too long.): “Hello”":                      describeRefusal("Hello", &client.Problem{Status: 422, Code: "text_too_long", Detail: "The text is too long."}),
		"May not have arrived (Busy.): “Hello”":                               describeRefusal("Hello", &client.Problem{Status: 503, Code: "stopping", Detail: "Busy."}),
		"May not have arrived (the host could not be reached): “Hello\u200d”": describeRefusal("Hello\u200d\x07", errors.New("connection refused")),
	} {
		if got != want {
			t.Errorf("got %q, expected %q", got, want)
		}
	}
}

func TestChatStore(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", dir)
	o := chatOptions{url: "http://[::1]:8080", desk: "support"}
	store, err := newChatStore(o)
	if err != nil {
		t.Fatal(err)
	}
	if state, err := store.load(); state != nil || err != nil {
		t.Fatalf("there is %v, %v before anything was kept", state, err)
	}
	state := &chatState{URL: o.url, Desk: o.desk, Session: client.Session{ID: "s", Token: "secret"}, Cursor: 7, RequestID: "r", ChatID: "c"}
	state.People.join(&client.Agent{ID: "ada", Nickname: "Ada"})
	for range 2 {
		if err := store.save(state); err != nil {
			t.Fatal(err)
		}
	}
	got, err := store.load()
	if err != nil || got.Session != state.Session || got.Cursor != 7 || got.RequestID != "r" || got.ChatID != "c" || got.People.name("") != "Ada" {
		t.Errorf("got %+v, %v", got, err)
	}
	files, err := os.ReadDir(filepath.Join(dir, "deskhost"))
	if err != nil || len(files) != 1 {
		t.Fatalf("there are %v, %v", files, err)
	}
	info, err := files[0].Info()
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v", info.Mode())
	}

	other, err := newChatStore(chatOptions{url: o.url, desk: "sales"})
	if err != nil || other.file == store.file {
		t.Errorf("another desk has the same file %s, %v", other.file, err)
	}
	// The token of one host must not go to another.
	other, err = newChatStore(chatOptions{url: "http://elsewhere.test", state: store.file})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.load(); err == nil || !strings.Contains(err.Error(), "holds an open chat at http://[::1]:8080") {
		t.Errorf("got %v", err)
	}

	if err := os.WriteFile(store.file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.load(); err == nil || !strings.Contains(err.Error(), "is not the file of a chat") {
		t.Errorf("got %v", err)
	}
	for range 2 {
		if err := store.remove(); err != nil {
			t.Error(err)
		}
	}
}
