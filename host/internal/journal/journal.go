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
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/deskhost/deskhost/host/internal/journal/record/v1"
)

// ErrNotFound says that there is no such record.
var ErrNotFound = errors.New("journal: not found")

// Store is an ordered set of keys with atomic, durable batches. All methods may
// be called concurrently.
type Store interface {
	// Commit applies the operations in order, all or none, and returns once
	// they survive a power loss. After an error the store must not be used:
	// what is on disk is then unknown. The slices are not kept.
	Commit(ops []Op) error
	// Get returns a copy of the value, or ErrNotFound.
	Get(key []byte) ([]byte, error)
	// Scan calls fn for every key in [lower, upper), in order, until fn returns
	// false or an error. It sees a consistent snapshot. Key and value are valid
	// during the call of fn only.
	Scan(lower, upper []byte, fn func(key, value []byte) (bool, error)) error
	// Close releases the store. No other method may be running.
	Close() error
}

// Op is one operation of a batch: a put, or with a nil Value a delete.
type Op struct{ Key, Value []byte }

// SessionIDLen is the length of every session id. A chat id is a session id, a
// "-" and a suffix, so that whoever has a chat id knows the session.
const SessionIDLen = 26

// SessionOf returns the session id in a chat id, and whether it has the form
// of one.
func SessionOf(chatID string) (sessionID string, ok bool) {
	if len(chatID) < SessionIDLen+2 || chatID[SessionIDLen] != '-' {
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
//	s <session id> d <chat suffix> 0 <event id>    dedupe key, no value
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

// chatKey is the key of a record of a chat; name may be empty.
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
	ops []Op
	err error
}

func (b *Batch) put(key []byte, m proto.Message) {
	v, err := proto.Marshal(m)
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("journal: encode: %w", err)
	}
	if v == nil {
		v = []byte{}
	}
	b.ops = append(b.ops, Op{key, v})
}

func (b *Batch) remove(key []byte) { b.ops = append(b.ops, Op{Key: key}) }

// Empty tells whether nothing has been put in.
func (b *Batch) Empty() bool { return len(b.ops) == 0 }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.ops)
	b.ops, b.err = b.ops[:0], nil
}

// PutSession writes a session's head.
func (b *Batch) PutSession(s *recordv1.Session) {
	b.put(sessionKey(s.GetId(), kindHead, 0), s)
}

// Append writes an entry of a session's log at its seq.
func (b *Batch) Append(sessionID string, e *recordv1.Entry) {
	b.put(entryKey(sessionID, e.GetSeq()), e)
}

// RemoveEntry deletes an entry of a session's log.
func (b *Batch) RemoveEntry(sessionID string, seq uint64) { b.remove(entryKey(sessionID, seq)) }

// PutChat writes a chat's head, and keeps it in the index of open chats while
// anything is left to be done for it.
func (b *Batch) PutChat(c *recordv1.Chat) {
	b.put(chatKey(c.GetId(), kindChat, ""), c)
	if c.GetPhase() != recordv1.ChatPhase_CHAT_PHASE_ENDED || c.GetEndOwed() || c.GetUnsettled() {
		b.ops = append(b.ops, Op{openKey(c.GetId()), []byte{}})
	} else {
		b.remove(openKey(c.GetId()))
	}
}

// PutState writes a chat's resume state.
func (b *Batch) PutState(chatID string, s *recordv1.ResumeState) {
	b.put(chatKey(chatID, kindState, ""), s)
}

// RemoveState deletes a chat's resume state.
func (b *Batch) RemoveState(chatID string) { b.remove(chatKey(chatID, kindState, "")) }

// MarkSeen remembers that a chat has had the event.
func (b *Batch) MarkSeen(chatID, eventID string) {
	b.ops = append(b.ops, Op{chatKey(chatID, kindSeen, eventID), []byte{}})
}

// PutOut writes the fate of a user's message.
func (b *Batch) PutOut(chatID string, m *recordv1.OutMessage) {
	b.put(chatKey(chatID, kindOut, m.GetId()), m)
}

// Journal reads and writes records. All methods may be called concurrently.
type Journal struct{ store Store }

// New returns a journal in the store, which it owns from now on.
func New(store Store) *Journal { return &Journal{store} }

// Close closes the store.
func (j *Journal) Close() error { return j.store.Close() }

// Commit writes a batch, all or nothing, and returns once it is durable. An
// error is fatal: the journal must not be used any more.
func (j *Journal) Commit(b *Batch) error {
	if b.err != nil {
		return b.err
	}
	if err := j.store.Commit(b.ops); err != nil {
		return fmt.Errorf("journal: commit: %w", err)
	}
	return nil
}

func (j *Journal) get(key []byte, m proto.Message) error {
	v, err := j.store.Get(key)
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			return ErrNotFound
		}
		return fmt.Errorf("journal: read: %w", err)
	}
	return decode(v, m)
}

func decode(v []byte, m proto.Message) error {
	if err := proto.Unmarshal(v, m); err != nil {
		return fmt.Errorf("journal: damaged record: %w", err)
	}
	return nil
}

func scan[M any, P interface {
	*M
	proto.Message
}](j *Journal, lower, upper []byte, fn func(P) bool) error {
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
	s := new(recordv1.Session)
	return s, j.get(sessionKey(sessionID, kindHead, 0), s)
}

// Chat returns a chat's head, or ErrNotFound.
func (j *Journal) Chat(chatID string) (*recordv1.Chat, error) {
	if _, ok := SessionOf(chatID); !ok {
		return nil, ErrNotFound
	}
	c := new(recordv1.Chat)
	return c, j.get(chatKey(chatID, kindChat, ""), c)
}

// Chats calls fn for each chat of a session, in no particular order, until fn
// returns false.
func (j *Journal) Chats(sessionID string, fn func(*recordv1.Chat) bool) error {
	prefix := sessionKey(sessionID, kindChat, 0)
	return scan(j, prefix, upperBound(prefix), fn)
}

// State returns a chat's resume state, or ErrNotFound.
func (j *Journal) State(chatID string) (*recordv1.ResumeState, error) {
	s := new(recordv1.ResumeState)
	return s, j.get(chatKey(chatID, kindState, ""), s)
}

// Seen tells whether a chat has had the event.
func (j *Journal) Seen(chatID, eventID string) (bool, error) {
	_, err := j.store.Get(chatKey(chatID, kindSeen, eventID))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("journal: read: %w", err)
	}
	return true, nil
}

// Out returns the fate of a user's message, or ErrNotFound.
func (j *Journal) Out(chatID, messageID string) (*recordv1.OutMessage, error) {
	m := new(recordv1.OutMessage)
	return m, j.get(chatKey(chatID, kindOut, messageID), m)
}

// Outs calls fn for each message of the user in a chat, in no particular order,
// until fn returns false.
func (j *Journal) Outs(chatID string, fn func(*recordv1.OutMessage) bool) error {
	prefix := chatKey(chatID, kindOut, "")
	return scan(j, prefix, upperBound(prefix), fn)
}

// Forget puts the removal of all that is kept of a session into b. Chats of it
// that are still in the index of open chats stay there.
func (j *Journal) Forget(b *Batch, sessionID string) error {
	lower := append([]byte{kindSession}, sessionID...)
	err := j.store.Scan(lower, upperBound(lower), func(k, _ []byte) (bool, error) {
		b.remove(append([]byte(nil), k...))
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("journal: scan: %w", err)
	}
	return nil
}

// Entry returns one entry of a session's log, or ErrNotFound.
func (j *Journal) Entry(sessionID string, seq uint64) (*recordv1.Entry, error) {
	e := new(recordv1.Entry)
	return e, j.get(entryKey(sessionID, seq), e)
}

// Entries calls fn for each entry of a session's log with a seq above after, in
// order, until fn returns false.
func (j *Journal) Entries(sessionID string, after uint64, fn func(*recordv1.Entry) bool) error {
	if after == ^uint64(0) {
		return nil
	}
	return scan(j, entryKey(sessionID, after+1), upperBound(sessionKey(sessionID, kindEntry, 0)), fn)
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
