// Package deskv1 is the contract between host and plugin: desk.proto as Go, and
// what the two agree on besides. It imports nothing of ours; host and sdk do
// import it.
package deskv1

// What host and plugin agree on before the first call.
const (
	// ProtocolVersion is go-plugin's application protocol version. It changes
	// only when a plugin of the old version can no longer be served.
	ProtocolVersion = 1
	// MagicCookieKey and MagicCookieValue tell a plugin that deskhost started
	// it, and not a person at a shell. They protect nothing.
	MagicCookieKey   = "DESKHOST_PLUGIN"
	MagicCookieValue = "desk.v1:4f0f6d5c8e7b4a0f9a54b1f2f2d1c6aa"
	// FilePrefix begins the name of every plugin file; the plugin's name follows.
	FilePrefix = "deskhost-plugin-"
)

// Limits that both sides check before they send.
const (
	// MaxBatchEvents and MaxBatchBytes bound one EventsResponse.
	MaxBatchEvents = 64
	MaxBatchBytes  = 1 << 20
	// MaxEventBytes bounds one encoded Event.
	MaxEventBytes = 256 << 10
	// MaxStateBytes bounds ResumeState.data.
	MaxStateBytes = 64 << 10
	// MaxIDBytes bounds event ids, message ids and agent ids.
	MaxIDBytes = 128
	// MaxHTTPBytes bounds the body of a forwarded request and of its answer.
	MaxHTTPBytes = 1 << 20
	// MaxMessageBytes bounds any gRPC message, in both directions.
	MaxMessageBytes = 4 << 20
	// DefaultWindow is how many events may wait for their acknowledgement; a
	// chat may hold a quarter of it.
	DefaultWindow = 4096
)
