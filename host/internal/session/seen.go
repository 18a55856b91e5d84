package session

import "hash/maphash"

// seenSet is the set of the ids of a chat's events, or of its user's messages.
// Asking the store for each of them whether it has been there before costs more
// than all else that is done for it, so an open chat knows: 16 bytes instead of
// an id. Two hashes of 64 bits by random seeds make a mix-up less likely than a
// fault of the memory that holds them.
type seenSet map[[2]uint64]struct{}

var seenSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func seenKey(id string) [2]uint64 {
	return [2]uint64{maphash.String(seenSeeds[0], id), maphash.String(seenSeeds[1], id)}
}

func (s seenSet) has(id string) bool {
	_, ok := s[seenKey(id)]
	return ok
}

func (s seenSet) add(id string) { s[seenKey(id)] = struct{}{} }
