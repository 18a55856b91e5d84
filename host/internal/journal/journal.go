// Package journal keeps the durable, ordered record of every session: its log,
// and beside it the heads, resume states, dedupe keys and outgoing messages
// that a session is rebuilt from.
//
// It owns the layout of keys and the encoding of records. What stores the keys
// is a [Store] (pebble in a host, memory in tests); journaltest holds what each
// Store must pass. It knows no sockets, no plugins and no rules of a session:
// which records go together into a [Batch] is the session package's business,
// which is its only writer.
package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
)

// ErrNotFound says that there is no such record.
var ErrNotFound = errors.New("journal: not found")

// Store is an ordered set of keys with atomic, durable batches. All methods may
// be called concurrently.
//
// A read sees all of a commit or nothing of it, and may see it before it is
// durable: what must not be shown before has to wait for what Commit returned.
type Store interface {
	// Commit applies the operations in order, all or none. Once it has returned
	// reads see them; once the channel has delivered nil they survive a power
	// loss, and with them every commit that had returned before this one began.
	// After an error the store must not be used: what is on disk is then
	// unknown. The channel delivers once. The slices are not kept.
	Commit(ops []Op) <-chan error
	// Get returns a copy of the value, or ErrNotFound.
	Get(key []byte) ([]byte, error)
	// Scan calls fn for every key in [lower, upper), in order, until fn returns
	// false or an error; a nil upper is behind all keys. It sees a consistent
	// snapshot. Key and value are valid during the call of fn only.
	Scan(lower, upper []byte, fn func(key, value []byte) (bool, error)) error
	// Last returns a copy of the greatest key in [lower, upper), or ErrNotFound.
	Last(lower, upper []byte) ([]byte, error)
	// Close releases the store. No other method may be running.
	Close() error
}

// Op is one operation of a batch: a put, or with a nil Value a delete.
type Op struct{ Key, Value []byte }

// SessionIDLen is the length of every session id. A chat id is a session id, a
// "-" and a suffix, so that whoever has a chat id knows the session.
const SessionIDLen = 26

// SessionOf returns the session id in a chat id, and whether it has the form
// of one. A suffix has no zero byte, which ends it in keys.
func SessionOf(chatID string) (sessionID string, ok bool) {
	if len(chatID) < SessionIDLen+2 || chatID[SessionIDLen] != '-' || strings.IndexByte(chatID[SessionIDLen:], 0) >= 0 {
		return "", false
	}
	return chatID[:SessionIDLen], true
}

// Keys. All of a session lies together:
//
//	o <chat id>                         chats that are open, owe an EndChat or are unsettled
//	s <session id> h                    Session
//	s <session id> e <seq, big endian>  Entry
//	s <session id> c <chat suffix>      Chat
//	s <session id> r <chat suffix>      ResumeState
//	s <session id> d <chat suffix> 0 <event id>    dedupe key, no value; of an event that left no entry
//	s <session id> m <chat suffix> 0 <message id>  OutMessage
const (
	kindOpen    = 'o'
	kindSession = 's'

	kindHead  = 'h'
	kindEntry = 'e'
	kindChat  = 'c'
	kindState = 'r'
	kindSeen  = 'd'
	kindOut   = 'm'
)

func sessionKey(sessionID string, kind byte, rest int) []byte {
	k := make([]byte, 0, 1+len(sessionID)+1+rest)
	k = append(k, kindSession)
	k = append(k, sessionID...)
	return append(k, kind)
}

func entryKey(sessionID string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(sessionKey(sessionID, kindEntry, 8), seq)
}

// chatKey is the key of a record of a chat; name may be empty. The chat id must
// be one by SessionOf.
func chatKey(chatID string, kind byte, name string) []byte {
	suffix := chatID[SessionIDLen+1:]
	k := append(sessionKey(chatID[:SessionIDLen], kind, len(suffix)+1+len(name)), suffix...)
	if kind == kindSeen || kind == kindOut {
		k = append(append(k, 0), name...)
	}
	return k
}

func openKey(chatID string) []byte {
	return append([]byte{kindOpen}, chatID...)
}

// upperBound is the first key behind all keys with the prefix.
func upperBound(prefix []byte) []byte {
	u := append([]byte(nil), prefix...)
	for i := len(u) - 1; i >= 0; i-- {
		if u[i] < 0xff {
			u[i]++
			return u[:i+1]
		}
	}
	return nil
}

// Batch collects records that are written together. The zero value is empty
// and ready. Records are encoded as they are put in, so they may be changed
// afterwards.
type Batch struct {
	ops    []Op
	values []byte // of ops, one behind the other
	err    error
}

func (b *Batch) put(key []byte, m proto.Message) {
	begin := len(b.values)
	values, err := proto.MarshalOptions{}.MarshalAppend(b.values, m)
	if err != nil {
		b.failf("encode: %w", err)
		return
	}
	b.values = values
	v := values[begin:len(values):len(values)]
	if v == nil {
		v = []byte{} // an empty record; nil would delete the key
	}
	b.ops = append(b.ops, Op{key, v})
}

func (b *Batch) mark(key []byte) { b.ops = append(b.ops, Op{key, []byte{}}) }

func (b *Batch) remove(key []byte) { b.ops = append(b.ops, Op{Key: key}) }

// failf makes Commit refuse the batch.
func (b *Batch) failf(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("journal: "+format, args...)
	}
}

// isSession fails the batch unless the id has the form of a session's: another
// one would end up among the keys of a different session.
func (b *Batch) isSession(id string) bool {
	if len(id) != SessionIDLen {
		b.failf("session id of %d bytes, expected %d", len(id), SessionIDLen)
		return false
	}
	return true
}

// isChat fails the batch unless the id has the form of a chat's.
func (b *Batch) isChat(id string) bool {
	_, ok := SessionOf(id)
	if !ok {
		b.failf("malformed chat id")
	}
	return ok
}

// Len is how many keys the batch writes or removes.
func (b *Batch) Len() int { return len(b.ops) }

// Reset empties the batch and keeps its memory, unless that is much.
func (b *Batch) Reset() {
	clear(b.ops)
	if cap(b.values) > 1<<20 {
		b.values = nil
	}
	b.ops, b.values, b.err = b.ops[:0], b.values[:0], nil
}

// PutSession writes a session's head.
func (b *Batch) PutSession(s *recordv1.Session) {
	if b.isSession(s.GetId()) {
		b.put(sessionKey(s.GetId(), kindHead, 0), s)
	}
}

// Append writes an entry of a session's log at its seq. With the id of an event it
// marks that as seen.
func (b *Batch) Append(sessionID string, e *recordv1.Entry) {
	if b.isSession(sessionID) {
		b.put(entryKey(sessionID, e.GetSeq()), e)
	}
}

// PutChat writes a chat's head, and keeps it in the index of open chats while
// anything is left to be done for it.
func (b *Batch) PutChat(c *recordv1.Chat) {
	if !b.isChat(c.GetId()) {
		return
	}
	b.put(chatKey(c.GetId(), kindChat, ""), c)
	if c.GetPhase() != recordv1.ChatPhase_CHAT_PHASE_ENDED || c.GetEndOwed() || c.GetUnsettled() {
		b.mark(openKey(c.GetId()))
	} else {
		b.remove(openKey(c.GetId()))
	}
}

// PutState writes a chat's resume state.
func (b *Batch) PutState(chatID string, s *recordv1.ResumeState) {
	if b.isChat(chatID) {
		b.put(chatKey(chatID, kindState, ""), s)
	}
}

// RemoveState deletes a chat's resume state.
func (b *Batch) RemoveState(chatID string) {
	if b.isChat(chatID) {
		b.remove(chatKey(chatID, kindState, ""))
	}
}

// MarkSeen remembers that a chat has had an event which left no entry.
func (b *Batch) MarkSeen(chatID, eventID string) {
	if b.isChat(chatID) {
		b.mark(chatKey(chatID, kindSeen, eventID))
	}
}

// PutOut writes the fate of a user's message.
func (b *Batch) PutOut(chatID string, m *recordv1.OutMessage) {
	if b.isChat(chatID) {
		b.put(chatKey(chatID, kindOut, m.GetId()), m)
	}
}

// Journal reads and writes records. All methods may be called concurrently.
type Journal struct{ store Store }

// New returns a journal in the store, which it owns from now on.
func New(store Store) *Journal { return &Journal{store} }

// Close closes the store.
func (j *Journal) Close() error { return j.store.Close() }

// Commit writes a batch, all or nothing. Once it has returned reads see the batch;
// once the channel has delivered nil the batch is durable, and so is every one
// whose Commit had returned before. An error is fatal: what is on disk is unknown,
// and nothing may be committed any more.
func (j *Journal) Commit(b *Batch) <-chan error {
	if b.err != nil {
		refused := make(chan error, 1)
		refused <- b.err
		return refused
	}
	return j.store.Commit(b.ops)
}

// record is a pointer to a record of type M.
type record[M any] interface {
	*M
	proto.Message
}

func get[M any, P record[M]](j *Journal, key []byte) (P, error) {
	v, err := j.store.Get(key)
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil, ErrNotFound
		}
		return nil, fmt.Errorf("journal: read: %w", err)
	}
	m := P(new(M))
	if err := decode(v, m); err != nil {
		return nil, err
	}
	return m, nil
}

func decode(v []byte, m proto.Message) error {
	if err := proto.Unmarshal(v, m); err != nil {
		return fmt.Errorf("journal: damaged record: %w", err)
	}
	return nil
}

func scan[M any, P record[M]](j *Journal, lower, upper []byte, fn func(P) bool) error {
	err := j.store.Scan(lower, upper, func(_, v []byte) (bool, error) {
		m := P(new(M))
		if err := decode(v, m); err != nil {
			return false, err
		}
		return fn(m), nil
	})
	if err != nil {
		return fmt.Errorf("journal: scan: %w", err)
	}
	return nil
}

// Session returns a session's head, or ErrNotFound.
func (j *Journal) Session(sessionID string) (*recordv1.Session, error) {
	if len(sessionID) != SessionIDLen {
		return nil, ErrNotFound
	}
	return get[recordv1.Session](j, sessionKey(sessionID, kindHead, 0))
}

// Chat returns a chat's head, or ErrNotFound.
func (j *Journal) Chat(chatID string) (*recordv1.Chat, error) {
	if _, ok := SessionOf(chatID); !ok {
		return nil, ErrNotFound
	}
	return get[recordv1.Chat](j, chatKey(chatID, kindChat, ""))
}

// Chats calls fn for each chat of a session, in no particular order, until fn
// returns false.
func (j *Journal) Chats(sessionID string, fn func(*recordv1.Chat) bool) error {
	if len(sessionID) != SessionIDLen {
		return nil
	}
	prefix := sessionKey(sessionID, kindChat, 0)
	return scan(j, prefix, upperBound(prefix), fn)
}

// State returns a chat's resume state, or ErrNotFound.
func (j *Journal) State(chatID string) (*recordv1.ResumeState, error) {
	if _, ok := SessionOf(chatID); !ok {
		return nil, ErrNotFound
	}
	return get[recordv1.ResumeState](j, chatKey(chatID, kindState, ""))
}

// SeenEvents calls fn with the id of each event that a chat has had, in no
// particular order. It reads the session's whole log.
func (j *Journal) SeenEvents(chatID string, fn func(eventID string)) error {
	sessionID, ok := SessionOf(chatID)
	if !ok {
		return nil
	}
	prefix := chatKey(chatID, kindSeen, "")
	err := j.store.Scan(prefix, upperBound(prefix), func(k, _ []byte) (bool, error) {
		fn(string(k[len(prefix):]))
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("journal: scan: %w", err)
	}
	return j.Entries(sessionID, 0, func(e *recordv1.Entry) bool {
		if e.GetEventId() != "" && e.GetChatId() == chatID {
			fn(e.GetEventId())
		}
		return true
	})
}

// Out returns the fate of a user's message, or ErrNotFound.
func (j *Journal) Out(chatID, messageID string) (*recordv1.OutMessage, error) {
	if _, ok := SessionOf(chatID); !ok {
		return nil, ErrNotFound
	}
	return get[recordv1.OutMessage](j, chatKey(chatID, kindOut, messageID))
}

// Outs calls fn for each message of the user in a chat, in no particular order,
// until fn returns false.
func (j *Journal) Outs(chatID string, fn func(*recordv1.OutMessage) bool) error {
	if _, ok := SessionOf(chatID); !ok {
		return nil
	}
	prefix := chatKey(chatID, kindOut, "")
	return scan(j, prefix, upperBound(prefix), fn)
}

// NextSession returns the head of the session with the least id above after, or
// ErrNotFound. What is left of a session without a head counts as deleted.
func (j *Journal) NextSession(after string) (*recordv1.Session, error) {
	lower := []byte{kindSession}
	if after != "" {
		lower = upperBound(append(lower, after...))
	}
	id := ""
	err := j.store.Scan(lower, []byte{kindSession + 1}, func(k, _ []byte) (bool, error) {
		if len(k) <= 1+SessionIDLen {
			return false, fmt.Errorf("damaged key %q", k)
		}
		id = string(k[1 : 1+SessionIDLen])
		return false, nil
	})
	if err != nil {
		return nil, fmt.Errorf("journal: scan: %w", err)
	}
	if id == "" {
		return nil, ErrNotFound
	}
	s, err := j.Session(id)
	if errors.Is(err, ErrNotFound) {
		return &recordv1.Session{Id: id, Deleted: true}, nil
	}
	return s, err
}

// Forget puts the removal of what is kept of a session into b, at most limit
// keys of it, and tells whether that was all. The head goes last, so that what
// is left of a session can be found. Its chats must not be in the index of open
// chats any more.
func (j *Journal) Forget(b *Batch, sessionID string, limit int) (all bool, err error) {
	// A shorter id would be the beginning of others.
	if !b.isSession(sessionID) {
		return false, b.err
	}
	lower := append([]byte{kindSession}, sessionID...)
	head := sessionKey(sessionID, kindHead, 0)
	all = true
	err = j.store.Scan(lower, upperBound(lower), func(k, _ []byte) (bool, error) {
		if bytes.Equal(k, head) {
			return true, nil
		}
		if all = limit > 1; all {
			limit--
			b.remove(bytes.Clone(k))
		}
		return all, nil
	})
	if err != nil {
		return false, fmt.Errorf("journal: scan: %w", err)
	}
	if all {
		b.remove(head)
	}
	return all, nil
}

// Entry returns one entry of a session's log, or ErrNotFound.
func (j *Journal) Entry(sessionID string, seq uint64) (*recordv1.Entry, error) {
	if len(sessionID) != SessionIDLen {
		return nil, ErrNotFound
	}
	return get[recordv1.Entry](j, entryKey(sessionID, seq))
}

// Entries calls fn for each entry of a session's log with a seq above after, in
// order, until fn returns false.
func (j *Journal) Entries(sessionID string, after uint64, fn func(*recordv1.Entry) bool) error {
	if after == math.MaxUint64 || len(sessionID) != SessionIDLen {
		return nil
	}
	return scan(j, entryKey(sessionID, after+1), upperBound(sessionKey(sessionID, kindEntry, 0)), fn)
}

// LastSeq returns the seq of the last entry of a session's log, 0 with none. So
// whoever shortens a log keeps its last entry.
func (j *Journal) LastSeq(sessionID string) (uint64, error) {
	if len(sessionID) != SessionIDLen {
		return 0, nil
	}
	prefix := sessionKey(sessionID, kindEntry, 0)
	key, err := j.store.Last(prefix, upperBound(prefix))
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("journal: read: %w", err)
	case len(key) != len(prefix)+8:
		return 0, fmt.Errorf("journal: damaged key %q", key)
	}
	return binary.BigEndian.Uint64(key[len(prefix):]), nil
}

// OpenChats calls fn with the id of each chat that is open, owes an EndChat or
// is unsettled, until fn returns false.
func (j *Journal) OpenChats(fn func(chatID string) bool) error {
	prefix := []byte{kindOpen}
	err := j.store.Scan(prefix, upperBound(prefix), func(k, _ []byte) (bool, error) {
		return fn(string(k[1:])), nil
	})
	if err != nil {
		return fmt.Errorf("journal: scan: %w", err)
	}
	return nil
}
