package adapter

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/plugins/genesys/webmessaging"
	"github.com/deskhost/deskhost/sdk"
)

const (
	// answersHold is how long an answer about the queue is given again: the vendor
	// takes 300 requests a minute of a client.
	answersHold = 10 * time.Second
	// deploymentHolds is that of what is published of the deployment.
	deploymentHolds = time.Minute
	// askTime bounds asking.
	askTime = 3 * time.Second
	// waitTold is how often waiting users are told how long it takes.
	waitTold = 20 * time.Second
)

// availability tells whether anybody is there. Whoever asks at the same time is
// given one answer.
type availability struct {
	life    context.Context //nolint:containedctx // it is the desk's life
	oauth   *cloud.OAuth    // nil without credentials
	queueID string
	// messaging publishes its deployments; nil for web chat, which does not.
	messaging *webmessaging.Client
	asking    singleflight.Group

	mu     sync.Mutex
	answer sdk.AvailabilityResponse
	until  time.Time
	// active is what the deployment was at the time of looked.
	active bool
	looked time.Time
}

// ask returns the answer, which may be ten seconds old.
func (a *availability) ask(ctx context.Context) (*sdk.AvailabilityResponse, error) {
	a.mu.Lock()
	answer, fresh := a.answer, time.Now().Before(a.until)
	a.mu.Unlock()
	if fresh {
		return &answer, nil
	}
	select {
	case r := <-a.asking.DoChan("", a.askVendor):
		if r.Err != nil {
			return nil, failure(r.Err)
		}
		answer = r.Val.(sdk.AvailabilityResponse) //nolint:errcheck // askVendor returns no other
		return &answer, nil
	case <-ctx.Done():
		return nil, sdk.Fail(sdk.Retry, "the vendor did not answer in time: %w", ctx.Err())
	}
}

// askVendor asks for all askers, so none of their contexts ends it.
func (a *availability) askVendor() (any, error) {
	ctx, cancel := context.WithTimeout(a.life, askTime)
	defer cancel()
	answer, err := a.look(ctx)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer, a.until = answer, time.Now().Add(answersHold)
	return answer, nil
}

func (a *availability) look(ctx context.Context) (sdk.AvailabilityResponse, error) {
	var answer sdk.AvailabilityResponse
	active, err := a.deployed(ctx)
	if err != nil {
		return answer, err
	}
	if !active {
		answer.Online = sdk.OnlineNo
		return answer, nil
	}
	if a.oauth == nil {
		return answer, nil
	}
	agents, err := a.oauth.AgentsOnQueue(ctx, a.queueID)
	if err != nil {
		return answer, err
	}
	if agents == 0 {
		answer.Online = sdk.OnlineNo
		return answer, nil
	}
	answer.Online = sdk.OnlineYes
	if wait, err := a.oauth.EstimatedWait(ctx, a.queueID); err == nil && wait >= 0 {
		minutes := int((wait + time.Minute - 1) / time.Minute)
		answer.WaitMinutes = &minutes
	}
	return answer, nil
}

// deployed tells whether the deployment is switched on.
func (a *availability) deployed(ctx context.Context) (bool, error) {
	if a.messaging == nil {
		return true, nil
	}
	a.mu.Lock()
	active, fresh := a.active, time.Since(a.looked) < deploymentHolds
	a.mu.Unlock()
	if fresh {
		return active, nil
	}
	d, err := a.messaging.Deployment(ctx)
	if err != nil {
		return false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active, a.looked = d.Status != "Inactive", time.Now()
	return a.active, nil
}

// tellWaiting tells users for whom nobody has come yet how long it takes, as far as
// the vendor can tell: whoever has not heard it when a chat starts, all now and then.
func (d *Desk) tellWaiting() {
	if d.availability.oauth == nil {
		return
	}
	tick := time.NewTicker(waitTold)
	defer tick.Stop()
	for {
		all := false
		select {
		case <-tick.C:
			all = true
		case <-d.started:
		case <-d.reading.Done():
			return
		}
		waiting := d.all(func(c *chat) bool { return c.phase == opened && c.st.Agent == nil && !c.over })
		if len(waiting) == 0 {
			continue
		}
		answer, err := d.availability.ask(d.reading)
		if err != nil {
			d.log.Debug("waiting users are told nothing", "error", err)
			continue
		}
		if answer.WaitMinutes == nil {
			continue
		}
		for _, c := range waiting {
			c.tellWait(*answer.WaitMinutes, all)
		}
	}
}

// tellWait queues how long it takes, unless the user has heard the same and again is
// not set. A host that is slow has it once: this is no reason to queue more.
func (c *chat) tellWait(minutes int, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := waits{minutes}
	if c.waits == now && !again || slices.ContainsFunc(c.queue, func(q queued) bool { _, is := q.what.(waits); return is }) {
		return
	}
	c.waits = now
	c.push(&occurrence{what: now}, 0)
}
