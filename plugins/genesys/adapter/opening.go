package adapter

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/deskhost/deskhost/plugins/genesys/webchat"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// openingID names the first message of a chat, which the adapter makes.
	openingID = "deskhost-opening"
	// nothingToSay is that of a chat whose page gives no text: in web messaging it is
	// a message that has a conversation routed.
	nothingToSay = "The user asks for an agent."
	// chatIDAttribute is the name under which the agent sees the host's id of the chat.
	chatIDAttribute = "deskhost_chat_id"
	// maxAttributeBytes bounds all attributes, names included.
	maxAttributeBytes = 2048
	// anonymous is the name of a user who has none; web chat wants one.
	anonymous = "Guest"
)

// openingText is what the agent reads first: what the page says, and behind it as
// much of the conversation so far, its latest part, as there is room for. It may
// be empty.
func openingText(req *sdk.StartChatRequest) string {
	text := strings.TrimSpace(req.Text)
	for utf8.RuneCountInString(text) > webchat.MaxBodyRunes {
		_, last := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-last]
	}
	room := webchat.MaxBodyRunes - utf8.RuneCountInString(text)
	var lines []string
	for _, item := range slices.Backward(req.History) {
		from := "Assistant"
		if item.From == "user" {
			from = "User"
		}
		line := from + ": " + item.Text
		if room -= utf8.RuneCountInString(line) + 2; room < 0 {
			break
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return text
	}
	slices.Reverse(lines)
	return strings.TrimSpace(text + "\n\n" + strings.Join(lines, "\n"))
}

// attributesOf is what the desk is told of a user, as much as it takes. The ones of
// the page come last and change none of ours.
func attributesOf(chatID string, user *sdk.UserContext) map[string]string {
	all := map[string]string{}
	size := len("{}")
	add := func(name, value string) {
		if _, taken := all[name]; taken || value == "" {
			return
		}
		pair, err := json.Marshal(map[string]string{name: value})
		if n := len(pair) - 1; err == nil && size+n <= maxAttributeBytes { // a comma for the brackets
			all[name] = value
			size += n
		}
	}
	add(chatIDAttribute, chatID)
	add("user_id", user.User.ID)
	if user.User.ID != "" {
		add("user_verified", strconv.FormatBool(user.User.Verified))
	}
	add("user_name", user.User.Name)
	add("locale", user.Locale)
	add("assistant_session_id", user.AssistantSessionID)
	for _, name := range slices.Sorted(maps.Keys(user.User.Attributes)) {
		add(name, user.User.Attributes[name])
	}
	return all
}
