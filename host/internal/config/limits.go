package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Limits are the numbers under `limits:`. The key of each is its name in snake
// case; [DefaultLimits] tells what holds for a key that is left out.
type Limits struct {
	// SessionTTL is how long a session lives after its last use.
	SessionTTL time.Duration
	// StartTimeout bounds the start of a chat.
	StartTimeout time.Duration
	// SendWait bounds how long a request waits for a message's outcome.
	SendWait time.Duration
	// MessageWait is how long a message waits for its desk.
	MessageWait time.Duration
	// AbandonWaiting and AbandonConnected end a chat that no page attends,
	// before and after an agent has joined.
	AbandonWaiting   time.Duration
	AbandonConnected time.Duration
	// JoinTimeout ends a chat that no agent joins.
	JoinTimeout time.Duration
	// DeskAwayLimit ends the chats of a desk that is down.
	DeskAwayLimit time.Duration
	// EndRetry is for how long a desk is told that a chat has ended.
	EndRetry time.Duration
	// DrainLimit is how long an old process of a plugin that cannot hand its
	// chats over may keep them.
	DrainLimit time.Duration
	// TextBytes bounds the text of a message, BodyBytes the body of a request.
	TextBytes int64
	BodyBytes int64
	// QueuedMessages bounds how many messages of a chat may wait.
	QueuedMessages int
	// DiskReserve is the free space below which nothing new is begun.
	DiskReserve int64
	// RequestsPerMinute and SessionsPerMinute are counted by address,
	// ChatsPerMinute and MessagesPerMinute by session.
	RequestsPerMinute int
	SessionsPerMinute int
	ChatsPerMinute    int
	MessagesPerMinute int
	// SocketsPerSession and SocketsPerAddress bound what is open at once.
	SocketsPerSession int
	SocketsPerAddress int
	// PluginMemory is how much memory a desk's process and its children may have
	// resident, PluginOpenFiles how many descriptors each may have open.
	PluginMemory    int64
	PluginOpenFiles int
	// PluginNice is how far a desk's process stands back for the host, 0 to 19.
	PluginNice int
	// PluginLogLines and PluginLogBytes are what of it is logged in a second.
	PluginLogLines int
	PluginLogBytes int64
	// PluginCalls is how many calls of a desk may be under way, PluginEvents how
	// many of its events may wait to be acknowledged.
	PluginCalls  int
	PluginEvents int
	// PluginStartTimeout bounds each step of a start: the handshake, Describe and
	// Configure. PluginHealthInterval is how often a process is asked how it is.
	PluginStartTimeout   time.Duration
	PluginHealthInterval time.Duration
}

// DefaultLimits returns the limits that hold where the file says nothing.
func DefaultLimits() Limits {
	return Limits{
		SessionTTL:        24 * time.Hour,
		StartTimeout:      10 * time.Second,
		SendWait:          2500 * time.Millisecond,
		MessageWait:       5 * time.Minute,
		AbandonWaiting:    time.Minute,
		AbandonConnected:  10 * time.Minute,
		JoinTimeout:       time.Hour,
		DeskAwayLimit:     10 * time.Minute,
		EndRetry:          10 * time.Minute,
		DrainLimit:        4 * time.Hour,
		TextBytes:         32 << 10,
		BodyBytes:         256 << 10,
		QueuedMessages:    256,
		DiskReserve:       256 << 20,
		RequestsPerMinute: 1200,
		SessionsPerMinute: 60,
		ChatsPerMinute:    10,
		MessagesPerMinute: 120,
		SocketsPerSession: 8,
		SocketsPerAddress: 200,

		PluginMemory:         512 << 20,
		PluginOpenFiles:      1024,
		PluginNice:           5,
		PluginLogLines:       100,
		PluginLogBytes:       256 << 10,
		PluginCalls:          1024,
		PluginEvents:         4096,
		PluginStartTimeout:   30 * time.Second,
		PluginHealthInterval: 10 * time.Second,
	}
}

// limit is how one key of `limits:` is read.
type limit struct {
	duration *time.Duration
	size     *int64
	count    *int
	// least is the shortest duration; 0: any above zero.
	least time.Duration
	// most is the largest size or count that something else leaves room for; 0: any.
	most int64
	// upTo is the largest count where none at all is allowed too; 0: any above
	// zero.
	upTo int
}

// maxBodyBytes leaves a request room in a message to a plugin, at most 4 MiB.
const maxBodyBytes = 3 << 20

// maxPluginEvents bounds what the host keeps of a desk's events from the first
// moment on: 32 MiB for so many.
const maxPluginEvents = 1 << 20

// minHealthInterval leaves a process that is well the time to say so: it has half
// of it.
const minHealthInterval = time.Second

func (l *Limits) keys() map[string]limit {
	return map[string]limit{
		"session_ttl":         {duration: &l.SessionTTL},
		"start_timeout":       {duration: &l.StartTimeout},
		"send_wait":           {duration: &l.SendWait},
		"message_wait":        {duration: &l.MessageWait},
		"abandon_waiting":     {duration: &l.AbandonWaiting},
		"abandon_connected":   {duration: &l.AbandonConnected},
		"join_timeout":        {duration: &l.JoinTimeout},
		"desk_away_limit":     {duration: &l.DeskAwayLimit},
		"end_retry":           {duration: &l.EndRetry},
		"drain_limit":         {duration: &l.DrainLimit},
		"text_bytes":          {size: &l.TextBytes, most: maxBodyBytes},
		"body_bytes":          {size: &l.BodyBytes, most: maxBodyBytes},
		"queued_messages":     {count: &l.QueuedMessages},
		"disk_reserve":        {size: &l.DiskReserve},
		"requests_per_minute": {count: &l.RequestsPerMinute},
		"sessions_per_minute": {count: &l.SessionsPerMinute},
		"chats_per_minute":    {count: &l.ChatsPerMinute},
		"messages_per_minute": {count: &l.MessagesPerMinute},
		"sockets_per_session": {count: &l.SocketsPerSession},
		"sockets_per_address": {count: &l.SocketsPerAddress},

		"plugin_memory":          {size: &l.PluginMemory},
		"plugin_open_files":      {count: &l.PluginOpenFiles},
		"plugin_nice":            {count: &l.PluginNice, upTo: 19},
		"plugin_log_lines":       {count: &l.PluginLogLines},
		"plugin_log_bytes":       {size: &l.PluginLogBytes},
		"plugin_calls":           {count: &l.PluginCalls},
		"plugin_events":          {count: &l.PluginEvents, most: maxPluginEvents},
		"plugin_start_timeout":   {duration: &l.PluginStartTimeout},
		"plugin_health_interval": {duration: &l.PluginHealthInterval, least: minHealthInterval},
	}
}

// parseDuration reads Go's notation with whole days added: 2500ms, 10m, 30d.
func parseDuration(text string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n <= 0 || n > math.MaxInt64/int(24*time.Hour) {
			return 0, false
		}
		return time.Duration(n) * 24 * time.Hour, true
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d > 0
}

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

// parseSize reads 256MiB, 32KiB, 1GiB or a plain number of bytes.
func parseSize(text string) (int64, bool) {
	for _, unit := range sizeUnits {
		number, ok := strings.CutSuffix(text, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n <= 0 || n > math.MaxInt64/unit.bytes {
			return 0, false
		}
		return n * unit.bytes, true
	}
	return 0, false
}

// formatSize is the inverse of parseSize, in the largest unit that is exact.
func formatSize(n int64) string {
	for _, unit := range sizeUnits {
		if n%unit.bytes == 0 {
			return fmt.Sprintf("%d%s", n/unit.bytes, unit.suffix)
		}
	}
	return strconv.FormatInt(n, 10)
}
