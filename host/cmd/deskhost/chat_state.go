package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/deskhost/deskhost/host/internal/client"
)

// chatState is what outlives a run of chat while its chat is open.
type chatState struct {
	URL  string `json:"url"`
	Desk string `json:"desk,omitempty"`
	client.Session
	// Cursor is the seq of the last entry that was shown.
	Cursor uint64 `json:"cursor"`
	// RequestID is kept before the chat is asked for, so that a run which dies
	// in between does not ask for two.
	RequestID string `json:"request_id"`
	// ChatID is empty until the host has answered.
	ChatID string `json:"chat_id,omitempty"`
	People people `json:"people"`
}

// chatStore is the file of a chatState. Only its owner may read it: the token in it
// is all that it takes to be the user.
type chatStore struct {
	file      string
	url, desk string
}

func newChatStore(o chatOptions) (chatStore, error) {
	store := chatStore{o.state, o.url, o.desk}
	if store.file != "" {
		return store, nil
	}
	dir, err := stateDir()
	if err != nil {
		return store, fmt.Errorf("there is no folder to keep the open chat in: %w; name a file with --state", err)
	}
	// The hash tells apart; the name is for people.
	u, err := url.Parse(o.url)
	if err != nil {
		return store, err
	}
	name := strings.NewReplacer(":", "-", "[", "", "]", "").Replace(u.Host)
	hash := sha256.Sum256([]byte(o.url + "\x00" + o.desk))
	store.file = filepath.Join(dir, "deskhost", fmt.Sprintf("chat-%s-%x.json", name, hash[:4]))
	return store, nil
}

// stateDir is the user's folder for what programs keep.
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	if runtime.GOOS == "windows" {
		return os.UserCacheDir() // %LocalAppData%
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state"), err
}

// load returns nil if no chat is open.
func (s chatStore) load() (*chatState, error) {
	text, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the open chat cannot be read: %w", err)
	}
	state := &chatState{}
	if err := json.Unmarshal(text, state); err != nil {
		return nil, fmt.Errorf("%s is not the file of a chat: %w; remove it, or name another with --state", s.file, err)
	}
	// One host's token is no other's business.
	if state.URL != s.url || state.Desk != s.desk {
		return nil, fmt.Errorf("%s holds an open chat at %s, desk %q; end that first, or name another file with --state", s.file, state.URL, state.Desk)
	}
	return state, nil
}

// save replaces the file as a whole, so that one which can be read is always there.
func (s chatStore) save(state *chatState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	err = os.MkdirAll(filepath.Dir(s.file), 0o700)
	if err == nil {
		err = replaceFile(s.file, text)
	}
	if err != nil {
		return fmt.Errorf("the open chat cannot be kept: %w", err)
	}
	return nil
}

func replaceFile(file string, text []byte) error {
	// Made with mode 0600.
	next, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = next.Write(text)
	err = errors.Join(err, next.Close())
	if err == nil {
		err = os.Rename(next.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next.Name()))
	}
	return nil
}

func (s chatStore) remove() error {
	if err := os.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the ended chat cannot be forgotten: %w", err)
	}
	return nil
}
