package session

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"

	"github.com/deskhost/deskhost/host/internal/journal"
)

// maxIDBytes bounds the ids that a page makes.
const maxIDBytes = 128

var lower32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func newSessionID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return lower32.EncodeToString(b[:])
}

func newToken() (token string, hash []byte) {
	var b [32]byte
	rand.Read(b[:])
	token = base64.RawURLEncoding.EncodeToString(b[:])
	return token, tokenHash(token)
}

func tokenHash(token string) []byte {
	h := sha256.Sum256([]byte(token))
	return h[:]
}

func tokenMatches(token string, hash []byte) bool {
	return subtle.ConstantTimeCompare(tokenHash(token), hash) == 1
}

// chatID is derived from the session and the page's own id of its request, so
// that the same request finds the same chat without an index.
func chatID(sessionID, requestID string) string {
	h := sha256.Sum256([]byte(requestID))
	return sessionID + "-" + lower32.EncodeToString(h[:5])
}

// shardOf spreads sessions by their id, which is random.
func shardOf(sessionID string, n int) int {
	if len(sessionID) != journal.SessionIDLen {
		return 0
	}
	return (int(sessionID[0]) + 31*int(sessionID[1])) % n
}
