// Package session owns the sessions of chat widgets and their chats: what a
// page asks for, what a desk says, and the rules by which neither is lost. It
// is the journal's only writer.
//
// Sessions are divided among a fixed number of shards. A shard is one goroutine
// that owns its sessions outright, so nothing in them is locked. It takes a run
// of tasks from its inbox, applies them to memory and to one journal batch,
// commits the batch, and once that is durable lets the world know: acknowledges to
// plugins, answers callers, wakes feeds, begins calls. Meanwhile it takes the next
// tasks. A shard waits for its journal once it is some batches ahead of it, and
// never for an RPC or a socket: calls to a plugin run in goroutines of their own
// and come back as tasks.
//
// What happens next to a chat is decided in one place, [shard.step]: it looks at
// all that is known of a chat, does the one thing that is due, and says when to
// look again.
//
// The package knows no HTTP and no processes. The api package calls it; the
// desk package calls it through [desk.Handler], and is called by it through
// [desk.Generation].
package session
