package client

// Entry is one thing that happened in a session, or passing news, which has no
// Seq. Type tells which members are set; docs/http-api.md lists them. Texts are
// as the desk sent them: whoever shows them on a terminal has to clean them.
type Entry struct {
	Seq    uint64 `json:"seq"`
	Type   string `json:"type"`
	ChatID string `json:"chat_id"`

	From    string `json:"from"` // "user" or "agent"
	ID      string `json:"id"`
	Text    string `json:"text"`
	Parts   []Part `json:"parts"`
	AgentID string `json:"agent_id"`
	Agent   *Agent `json:"agent"`

	Status  string `json:"status"` // of a message: "delivered", "failed" or "unknown"
	Reason  string `json:"reason"`
	By      string `json:"by"`
	Message string `json:"message"`

	Kind         string `json:"kind"` // of an error: "connecting" or "disconnected"
	Disconnected bool   `json:"disconnected"`

	Typing      bool `json:"typing"`
	WaitMinutes *int `json:"wait_minutes"`
	Position    *int `json:"position"`
}

// Agent is someone, or something, at the desk.
type Agent struct {
	ID       string `json:"id"`
	Nickname string `json:"nickname"`
}

// Part is one thing to show of an agent's message.
type Part struct {
	Type    string  `json:"type"`
	Text    string  `json:"text"`
	URL     string  `json:"url"`
	Title   string  `json:"title"`
	AltText string  `json:"alt_text"`
	Label   string  `json:"label"`
	Name    string  `json:"name"`
	Replies []Reply `json:"replies"`
}

// Reply is an answer that the agent proposes.
type Reply struct {
	Label string `json:"label"`
	Value string `json:"value"`
}

// Availability tells whether anybody is there.
type Availability struct {
	Online      *bool  `json:"online"` // nil if nobody knows
	WaitMinutes *int   `json:"wait_minutes"`
	Position    *int   `json:"position"`
	Message     string `json:"message"`
}
