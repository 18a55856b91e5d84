package genesystest

import "encoding/json"

// request is a frame of a guest of Web Messaging.
type request struct {
	Action              string        `json:"action"`
	DeploymentID        string        `json:"deploymentId"`
	Token               string        `json:"token"`
	TracingID           string        `json:"tracingId"`
	StartNew            bool          `json:"startNew"`
	CloseAllConnections bool          `json:"closeAllConnections"`
	Message             *guestMessage `json:"message"`
	Data                struct {
		Code string `json:"code"`
	} `json:"data"`
	// Of attachments.
	AttachmentID string `json:"attachmentId"`
	FileName     string `json:"fileName"`
	FileType     string `json:"fileType"`
	FileSize     int64  `json:"fileSize"`
}

type guestMessage struct {
	Type    string           `json:"type"`
	Text    string           `json:"text"`
	Content []messageContent `json:"content"`
	Events  []messageEvent   `json:"events"`
	Channel struct {
		Metadata map[string]json.RawMessage `json:"metadata"`
	} `json:"channel"`
}

// reply is a frame to a guest of Web Messaging. Its body is an object, or a
// string for errors.
type reply struct {
	Type      string `json:"type"`
	Class     string `json:"class"`
	Code      int    `json:"code"`
	Body      any    `json:"body"`
	TracingID string `json:"tracingId,omitempty"`
}

func response(class string, body any, tracingID string) *reply {
	return &reply{"response", class, 200, body, tracingID}
}

func failure(code int, text, tracingID string) *reply {
	return &reply{"response", "string", code, text, tracingID}
}

func notice(class string, body any) *reply { return &reply{"message", class, 200, body, ""} }

type sessionBody struct {
	Connected              bool          `json:"connected"`
	NewSession             bool          `json:"newSession"`
	ReadOnly               bool          `json:"readOnly"`
	MaxCustomDataBytes     int           `json:"maxCustomDataBytes"`
	ClearedExistingSession bool          `json:"clearedExistingSession"`
	AllowedMedia           *allowedMedia `json:"allowedMedia,omitempty"`
	BlockedExtensions      []string      `json:"blockedExtensions,omitempty"`
	DurationSeconds        int           `json:"durationSeconds,omitempty"`
	ExpirationDate         int64         `json:"expirationDate,omitempty"`
}

type allowedMedia struct {
	Inbound struct {
		FileTypes     []fileType `json:"fileTypes"`
		MaxFileSizeKB int        `json:"maxFileSizeKB"`
	} `json:"inbound"`
}

type fileType struct {
	Type string `json:"type"`
}

type jwtBody struct {
	JWT string `json:"jwt"`
	Exp int64  `json:"exp"`
}

type tooManyBody struct {
	RetryAfter   int    `json:"retryAfter"`
	ErrorCode    int    `json:"errorCode"`
	ErrorMessage string `json:"errorMessage"`
}

type closedBody struct {
	Reason string `json:"reason,omitempty"`
}

// structured is what both sides say. It is also an entity of the history.
type structured struct {
	Text              string            `json:"text,omitempty"`
	Type              string            `json:"type"`
	Direction         string            `json:"direction"`
	ID                string            `json:"id"`
	Channel           *messageChannel   `json:"channel,omitempty"`
	Metadata          map[string]string `json:"metadata,omitempty"`
	OriginatingEntity string            `json:"originatingEntity,omitempty"`
	Content           []messageContent  `json:"content,omitempty"`
	Events            []messageEvent    `json:"events,omitempty"`
}

type messageChannel struct {
	// Time is null in some histories.
	Time      *string      `json:"time"`
	MessageID string       `json:"messageId,omitempty"`
	Type      string       `json:"type,omitempty"`
	From      *messageFrom `json:"from,omitempty"`
}

type messageFrom struct {
	Nickname string `json:"nickname,omitempty"`
	Image    string `json:"image,omitempty"`
}

type messageContent struct {
	ContentType    string          `json:"contentType"`
	Attachment     *attachment     `json:"attachment,omitempty"`
	QuickReply     *quickReply     `json:"quickReply,omitempty"`
	ButtonResponse *buttonResponse `json:"buttonResponse,omitempty"`
}

type attachment struct {
	ID        string `json:"id"`
	Filename  string `json:"filename,omitempty"`
	MediaType string `json:"mediaType,omitempty"`
	FileSize  int    `json:"fileSize,omitempty"`
	Mime      string `json:"mime,omitempty"`
	URL       string `json:"url,omitempty"`
}

type quickReply struct {
	Text    string `json:"text"`
	Payload string `json:"payload"`
	Action  string `json:"action"`
}

type buttonResponse struct {
	Text    string `json:"text"`
	Payload string `json:"payload"`
	Type    string `json:"type"`
}

type messageEvent struct {
	EventType string         `json:"eventType"`
	Typing    *typingEvent   `json:"typing,omitempty"`
	Presence  *presenceEvent `json:"presence,omitempty"`
}

type typingEvent struct {
	Type     string `json:"type"`
	Duration int    `json:"duration,omitempty"`
}

type presenceEvent struct {
	Type string `json:"type"`
}

// historyPage is an answer of the history call.
type historyPage struct {
	Entities   []*structured `json:"entities"`
	PageSize   int           `json:"pageSize"`
	PageNumber int           `json:"pageNumber"`
	Total      int           `json:"total"`
	PageCount  int           `json:"pageCount"`
}
