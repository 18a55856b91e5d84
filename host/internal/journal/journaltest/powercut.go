package journaltest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/deskhost/deskhost/host/internal/journal"
)

// Disk is a disk whose power can be cut, with a store on it.
type Disk interface {
	// Open opens the store of the disk.
	Open() (journal.Store, error)
	// Cut returns a disk with what a power cut at this moment would leave: all
	// that was synced, and of the rest some. This disk and its store go on.
	Cut(rng *rand.Rand) Disk
}

const (
	cutWriters = 8
	// Writer w has up to w%cutAhead commits under way besides its latest.
	cutAhead = 4
	// After so many cuts the writers go on with what the last has left.
	cutsInARow = 20
)

// tallies are how many batches of each writer there are.
type tallies [cutWriters]uint32

// PowerCuts cuts the power again and again, at random moments, under writers
// that commit random batches. What a cut leaves must open and hold, of each
// writer, every batch whose commit had returned before, no part of a batch, and
// no batch behind one that is missing. It returns what was found wrong first.
func PowerCuts(disk Disk, cuts int, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	var least tallies
	for cuts > 0 {
		n := min(cuts, cutsInARow)
		cuts -= n
		var err error
		if disk, least, err = cutInARow(disk, least, n, rng); err != nil {
			return err
		}
	}
	return nil
}

// cutInARow has writers go on with what a disk holds, which is at least some
// batches of each, and cuts the power n times meanwhile. It returns what the last
// cut has left, and what that holds at least.
func cutInARow(disk Disk, least tallies, n int, rng *rand.Rand) (left Disk, held tallies, err error) {
	store, err := disk.Open()
	if err != nil {
		return nil, held, fmt.Errorf("open what a power cut has left: %w", err)
	}
	// Batches that are there without having been acknowledged count from here on.
	found, err := tally(store, least)
	if err != nil {
		return nil, held, errors.Join(err, store.Close())
	}
	var committed [cutWriters]atomic.Uint32
	stop, commits, failed := make(chan struct{}), make(chan struct{}), make(chan error, cutWriters)
	var writers sync.WaitGroup
	for w := range cutWriters {
		committed[w].Store(found[w])
		shapes := rand.New(rand.NewPCG(rng.Uint64(), 0))
		writers.Go(func() {
			var ahead []<-chan error // commits not known to be durable, oldest first
			defer func() {
				for _, durable := range ahead {
					<-durable
				}
			}()
			for next := found[w]; ; next++ {
				ahead = append(ahead, store.Commit(cutBatch(byte(w), next, shapes)))
				if len(ahead) <= w%cutAhead {
					continue
				}
				err := <-ahead[0]
				ahead = ahead[1:]
				if err != nil {
					failed <- err
					return
				}
				committed[w].Store(next + 1 - uint32(len(ahead)))
				select {
				case commits <- struct{}{}:
				case <-stop:
					return
				}
			}
		})
	}
	for range n {
		for range rng.IntN(20) {
			select {
			case <-commits:
				continue
			case err = <-failed:
			}
			break
		}
		for w := range held {
			held[w] = committed[w].Load()
		}
		left = disk.Cut(rng)
		if err = errors.Join(err, holds(left, held)); err != nil {
			break
		}
	}
	close(stop)
	writers.Wait()
	return left, held, errors.Join(err, store.Close())
}

// holds checks what is on a disk.
func holds(disk Disk, least tallies) error {
	store, err := disk.Open()
	if err != nil {
		return fmt.Errorf("open what a power cut has left: %w", err)
	}
	_, err = tally(store, least)
	return errors.Join(err, store.Close())
}

// cutBatch makes a batch of one to five keys of up to 500 bytes. The first key
// says how many there are.
func cutBatch(writer byte, n uint32, shapes *rand.Rand) []journal.Op {
	parts := 1 + shapes.IntN(5)
	ops := make([]journal.Op, parts)
	for part := range ops {
		value := make([]byte, 1+shapes.IntN(500))
		value[0] = byte(parts)
		ops[part] = journal.Op{Key: append(binary.BigEndian.AppendUint32([]byte{writer}, n), byte(part)), Value: value}
	}
	return ops
}

// tally counts the batches of each writer, and fails unless they are whole,
// without a hole, and not fewer than least.
func tally(store journal.Store, least tallies) (found tallies, err error) {
	for w := range found {
		var part, parts byte
		err := store.Scan([]byte{byte(w)}, []byte{byte(w) + 1}, func(key, value []byte) (bool, error) {
			if n := binary.BigEndian.Uint32(key[1:]); n != found[w] || key[5] != part || part > 0 && value[0] != parts {
				return false, fmt.Errorf("writer %d: part %d of batch %d follows %d parts of batch %d", w, key[5], n, part, found[w])
			}
			parts = value[0]
			if part++; part == parts {
				found[w], part = found[w]+1, 0
			}
			return true, nil
		})
		switch {
		case err != nil:
			return found, err
		case part != 0:
			return found, fmt.Errorf("writer %d: batch %d is there by half", w, found[w])
		case found[w] < least[w]:
			return found, fmt.Errorf("writer %d: %d batches are there, %d were acknowledged", w, found[w], least[w])
		}
	}
	return found, nil
}
