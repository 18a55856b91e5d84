//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deskhost/deskhost/host/internal/client"
)

// user is a user of the mock desk, whose page comes back whenever its host is
// lost. An entry that is missing, or an answer that is not the one to the last
// message, is an error.
type user struct {
	client  *client.Client
	session client.Session
	said    chan client.Entry // what the agent did
	seq     uint64            // of the last entry
	sent    int

	leave context.CancelFunc
	left  chan error // how following the session ended
}

// visit makes a session of the host at a URL and follows it.
func visit(url string) (*user, error) {
	c, err := client.New(url)
	if err != nil {
		return nil, err
	}
	u := &user{client: c, said: make(chan client.Entry, 16)}
	// Whoever comes while the host is down tries again.
	for began := time.Now(); ; {
		if u.session, err = c.Create(context.Background(), client.NewSession{}); err == nil {
			u.open()
			return u, nil
		}
		if p := (*client.Problem)(nil); errors.As(err, &p) && p.Final() || time.Since(began) > patience {
			return nil, err
		}
	}
}

// open opens the user's page, with the cursor that it had.
func (u *user) open() {
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error, 1)
	u.leave, u.left = cancel, left
	go func() {
		err := u.client.Follow(ctx, u.session, u.seq, func(e client.Entry) error { return u.take(ctx, e) }, func(bool) {})
		if ctx.Err() != nil {
			err = nil
		}
		left <- err
	}()
}

// close closes the page.
func (u *user) close() error {
	u.leave()
	return <-u.left
}

func (u *user) take(ctx context.Context, e client.Entry) error {
	if e.Seq != 0 {
		if e.Seq != u.seq+1 {
			return fmt.Errorf("entry %d came behind %d", e.Seq, u.seq)
		}
		u.seq = e.Seq
	}
	if e.Type == "agent_joined" || e.Type == "message" && e.From == "agent" {
		select {
		case u.said <- e:
		case <-ctx.Done():
		}
	}
	return nil
}

// start opens a chat and awaits the agent.
func (u *user) start() error {
	if _, err := u.client.Start(context.Background(), u.session, "c", ""); err != nil {
		return err
	}
	e, err := u.next()
	if err == nil && e.Type != "agent_joined" {
		err = fmt.Errorf("%s in place of an agent", e.Type)
	}
	return err
}

// talk sends the next message and awaits the agent's answer to it.
func (u *user) talk() error {
	u.sent++
	text := fmt.Sprintf("message %d", u.sent)
	if err := u.client.Send(context.Background(), u.session, fmt.Sprint(u.sent), text); err != nil {
		return err
	}
	e, err := u.next()
	if err == nil && e.Text != "You said: "+text {
		err = fmt.Errorf("%q is no answer to %q", e.Text, text)
	}
	return err
}

func (u *user) next() (client.Entry, error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case e := <-u.said:
		return e, nil
	case err := <-u.left:
		u.left <- nil // for close
		return client.Entry{}, fmt.Errorf("the page is lost: %w", err)
	case <-late.C:
		return client.Entry{}, errors.New("the agent does not answer")
	}
}
