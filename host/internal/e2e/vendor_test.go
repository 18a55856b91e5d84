package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// vendor is a way to reach a vendor's desk: its plugin, and the vendor's simulator
// in place of the vendor.
type vendor struct {
	name string
	// plugin is the plugin's name, and that of its folder.
	plugin string
	// simulator are arguments of the simulator, config is the desk's configuration.
	simulator []string
	config    func(url string) map[string]any
	// cut and expire are the script's words for a chat's connection that is lost, and
	// for a conversation that is gone; empty: there is no such thing.
	cut, expire string
	// transfers are ways to hand a chat over, announced says that the vendor tells
	// before the next agent joins.
	transfers []string
	announced bool
	// faults are steps of the script after which all goes on, and nothing is lost.
	faults []map[string]any
	// webhooks says that the vendor calls the host.
	webhooks bool
}

var vendors = []vendor{
	{
		name: "genesys webmessaging", plugin: "genesys", simulator: genesysSimulator, cut: "cut", expire: "expire", transfers: []string{""}, announced: true,
		config: func(url string) map[string]any { return genesysConfig(url, nil) },
	},
	{
		name: "genesys webchat", plugin: "genesys", simulator: genesysSimulator, cut: "cut", expire: "expire", transfers: []string{""}, announced: true,
		config: func(url string) map[string]any {
			return genesysConfig(url, map[string]any{"mode": "webchat", "organization_id": "e2e-organization", "queue": "Support"})
		},
	},
	{
		name: "twilio by webhooks", plugin: "twilio", expire: "remove", transfers: []string{"", "join_first"}, faults: twilioFaults, webhooks: true,
		config: func(url string) map[string]any {
			return twilioConfig(url, map[string]any{"address_sid": "IG00000000000000000000000000000001", "reconcile_ms": 1000})
		},
	},
	{
		name: "twilio by polling", plugin: "twilio", expire: "remove", transfers: []string{"", "join_first"}, faults: twilioFaults[:4],
		config: func(url string) map[string]any {
			return twilioConfig(url, map[string]any{"interaction": map[string]any{"workflow_sid": "WW00000000000000000000000000000001"}, "poll_ms": 300})
		},
	},
}

// twilioFaults are of calls, and then of webhooks.
var twilioFaults = []map[string]any{
	{"do": "fault", "status": 429, "code": 20429, "times": 5},
	{"do": "fault", "status": 503, "times": 5},
	{"do": "fault", "call": "send", "status": 500, "text": "done"},
	{"do": "fault", "call": "send", "text": "cut"},
	{"do": "lose_webhooks", "every": 2},
	{"do": "double_webhooks"},
	{"do": "shuffle_webhooks"},
	{"do": "good_webhooks"},
}

func twilioConfig(url string, more map[string]any) map[string]any {
	config := map[string]any{
		"account_sid": "AC00000000000000000000000000000001", "auth_token": "12345",
		"workspace_sid": "WS00000000000000000000000000000001", "queue_sid": "WQ00000000000000000000000000000001",
		"urls": map[string]any{"conversations": url + "/conversations", "flex": url + "/flex", "taskrouter": url + "/taskrouter"},
	}
	maps.Copy(config, more)
	return config
}

var genesysSimulator = []string{"--deployment", "e2e-deployment", "--organization", "e2e-organization", "--queue", "Support", "--queue-id", "e2e-queue"}

func genesysConfig(url string, more map[string]any) map[string]any {
	config := map[string]any{
		"api_url": url, "deployment_id": "e2e-deployment", "queue_id": "e2e-queue",
		"oauth": map[string]any{"client_id": "client", "client_secret": "secret"},
	}
	maps.Copy(config, more)
	return config
}

// vendorDesk is a desk of a vendor's while a test runs.
type vendorDesk struct {
	vendor

	script string
}

// startVendor runs the simulator of a vendor and a host with its plugin.
func startVendor(t *testing.T, v *vendor) (*vendorDesk, *Host) {
	t.Helper()
	p := Start(t, filepath.Join(binaries, "simulator-"+v.plugin), append([]string{"--listen", "127.0.0.1:0"}, v.simulator...)...)
	url := strings.TrimSuffix(urlForm.FindString(p.Line("http://")), ".")
	h := NewHost(t, map[string]any{
		"plugin_dir": filepath.Join(binaries, "vendors.d"),
		// A plugin may have a socket for each chat.
		"limits": Unlimited(map[string]any{"plugin_open_files": 4096}),
		"desks":  []any{map[string]any{"name": "support", "plugin": v.plugin, "config": v.config(url)}},
	})
	if v.webhooks {
		h.Configure(map[string]any{"public_url": publish(t, h)})
	}
	h.Start()
	return &vendorDesk{*v, url + "/script"}, h
}

// publish gives a host an address that stays, as a proxy in front of it does.
func publish(t *testing.T, h *Host) string {
	t.Helper()
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			ctx, cancel := context.WithTimeout(r.In.Context(), time.Second)
			defer cancel()
			at, err := h.URL(ctx)
			to, parsed := url.Parse(at)
			if errors.Join(err, parsed) == nil {
				r.SetURL(to)
			}
		},
		ErrorLog: log.New(io.Discard, "", 0), // a host that is down is no news
	})
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// play has the desk do something in a chat.
func (d *vendorDesk) play(do, chat, text string) (heard []string, err error) {
	return d.step(map[string]any{"do": do, "chat_id": chat, "text": text})
}

// step is play for what takes more to say.
func (d *vendorDesk) step(step map[string]any) (heard []string, err error) {
	body, err := json.Marshal(step)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.script, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := httpClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: the simulator answered %d %s", step["do"], response.StatusCode, answer)
	}
	var told struct{ Heard []string }
	return told.Heard, errors.Join(json.Unmarshal(answer, &told), r.Context().Err())
}

func (d *vendorDesk) must(t *testing.T, do, chat, text string) {
	t.Helper()
	if _, err := d.play(do, chat, text); err != nil {
		t.Fatal(err)
	}
}

// said holds that page and desk have exactly these messages, in this order. What a
// plugin says by itself when a chat begins is not counted.
func (d *vendorDesk) said(p *Page, chat string, byAgent, byUser []string) error {
	heard, err := d.play("heard", chat, "")
	if err != nil {
		return err
	}
	heard = slices.DeleteFunc(heard, func(text string) bool { return !strings.HasPrefix(text, "user ") })
	if got := p.AgentTexts(); !slices.Equal(got, byAgent) {
		err = fmt.Errorf("page %s has %q, want %q", p.SessionID, got, byAgent)
	}
	if !slices.Equal(heard, byUser) {
		err = errors.Join(err, fmt.Errorf("the desk has %q of page %s, want %q", heard, p.SessionID, byUser))
	}
	return err
}

// awaitEach is AwaitAll for more than one goroutine.
func awaitEach(p *Page, matches ...func(Entry) bool) error {
	for len(matches) > 0 {
		_, err := p.await(func(e Entry) bool {
			i := slices.IndexFunc(matches, func(match func(Entry) bool) bool { return match(e) })
			if i >= 0 {
				matches = slices.Delete(matches, i, i+1)
			}
			return i >= 0
		})
		if err != nil {
			return fmt.Errorf("%w; page %s got\n%s", err, p.SessionID, p.story())
		}
	}
	return nil
}

// isDelivered matches the outcome of a user's message.
func isDelivered(id string) func(Entry) bool {
	return func(e Entry) bool { return e.Type == "message_status" && e.ID == id && e.Status == "delivered" }
}

// TestVendors has users talk to the agents of vendors' simulators.
func TestVendors(t *testing.T) {
	for _, name := range []string{"genesys", "twilio"} {
		folder := "./plugins/" + name
		if err := errors.Join(
			build(false, filepath.Join(binaries, "vendors.d", "deskhost-plugin-"+name), folder),
			build(false, filepath.Join(binaries, "simulator-"+name), folder+"/"+name+"test/simulator"),
		); err != nil {
			t.Fatal(err)
		}
	}
	for i := range vendors {
		t.Run(vendors[i].name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			d, h := startVendor(t, &vendors[i])
			t.Run("two chats", func(t *testing.T) { twoChats(t, d, h) })
			t.Run("plugin killed", func(t *testing.T) { killedAtVendor(t, d, h) })
			t.Run("plugin reloaded", func(t *testing.T) { reloadedAtVendor(t, d, h) })
			if d.cut != "" {
				t.Run("connection cut 100 times", func(t *testing.T) { cutAtVendor(t, d, h) })
			}
			for _, how := range d.transfers {
				t.Run("transfer "+how, func(t *testing.T) { transferAtVendor(t, d, h, how) })
			}
			if d.faults != nil {
				t.Run("faults", func(t *testing.T) { faultsAtVendor(t, d, h) })
			}
			t.Run("expiry", func(t *testing.T) { expiryAtVendor(t, d, h) })
			t.Run("1000 chats", func(t *testing.T) { thousandAtVendor(t, d, h) })
			h.Stop()
		})
	}
}

// twoChats has one user chat twice: the agent ends the first chat, the user the second.
func twoChats(t *testing.T, d *vendorDesk, h *Host) {
	p := h.Open(map[string]any{"user": map[string]any{"id": "u1", "name": "Ann"}, "locale": "en-GB"})
	defer p.Close()
	if answer := expect(t, p, http.StatusOK, http.MethodGet, "/availability", nil); answer.Body["online"] != true {
		t.Errorf("availability is %v", answer.Body)
	}
	first := p.Start("c1")
	d.must(t, "agent_says", first, "agent 1")
	p.AwaitAll("the agent", Of("agent_joined"), AgentSays("agent 1"))
	expect(t, p, http.StatusNoContent, http.MethodPost, "/typing", map[string]any{"typing": true})
	p.Send("m1", "user 1")
	p.Await("the outcome", isDelivered("m1"))
	if err := d.said(p, first, []string{"agent 1"}, []string{"user 1"}); err != nil {
		t.Error(err)
	}
	d.must(t, "agent_ends", first, "")
	p.Await("the end", func(e Entry) bool { return e.Type == "chat_ended" && e.By == "agent" })

	second := p.Start("c2")
	d.must(t, "agent_says", second, "agent 2")
	p.AwaitAll("the agent", Of("agent_joined"), AgentSays("agent 2"))
	p.Send("m2", "user 2")
	p.Await("the outcome", isDelivered("m2"))
	if err := d.said(p, second, []string{"agent 1", "agent 2"}, []string{"user 2"}); err != nil {
		t.Error(err)
	}
	expect(t, p, http.StatusNoContent, http.MethodDelete, "/chat", nil)
	p.Await("the end", func(e Entry) bool { return e.Type == "chat_ended" && e.By == "user" })
	// The desk is told behind that.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for give := time.Now().Add(Patience); ; <-tick.C {
		if _, err := d.play("agent_says", second, "Are you there?"); err != nil {
			return
		}
		if time.Now().After(give) {
			t.Fatal("the conversation goes on at the desk")
		}
	}
}

// killedAtVendor kills the plugin and has both sides write while it is down.
func killedAtVendor(t *testing.T, d *vendorDesk, h *Host) {
	p := h.Open(nil)
	defer p.Close()
	chat := p.Start("c1")
	var byAgent, byUser []string
	agentSays := func(text string) {
		d.must(t, "agent_says", chat, text)
		byAgent = append(byAgent, text)
	}
	userSays := func(id string) {
		p.Send(id, "user "+id)
		byUser = append(byUser, "user "+id)
	}
	for i := range 3 {
		agentSays(fmt.Sprintf("agent before %d", i))
		userSays(fmt.Sprintf("m%d", 2*i))
		h.KillPlugin("support")
		agentSays(fmt.Sprintf("agent %d while nobody listens", i))
		agentSays(fmt.Sprintf("agent %d still there", i))
		userSays(fmt.Sprintf("m%d", 2*i+1))
		p.AwaitAll("what was said", isDelivered(fmt.Sprintf("m%d", 2*i+1)), AgentSays(byAgent[len(byAgent)-1]))
	}
	agentSays("agent after")
	p.Await("the last word", AgentSays("agent after"))
	if err := d.said(p, chat, byAgent, byUser); err != nil {
		t.Error(err)
	}
	if d := h.Desk("support"); d.State != "ready" {
		t.Errorf("the desk is %+v", d)
	}
	expect(t, p, http.StatusNoContent, http.MethodDelete, "/chat", nil)
}

// reloadedAtVendor hands a chat over to a new process again and again, while both
// sides write.
func reloadedAtVendor(t *testing.T, d *vendorDesk, h *Host) {
	p := h.Open(nil)
	defer p.Close()
	chat := p.Start("c1")
	var byAgent, byUser []string
	for i := range 3 {
		h.CLI("plugin", "reload", "support")
		for j := range 4 {
			agent, user := fmt.Sprintf("agent %d.%d", i, j), fmt.Sprintf("user %d.%d", i, j)
			byAgent, byUser = append(byAgent, agent), append(byUser, user)
			d.must(t, "agent_says", chat, agent)
			p.Send(fmt.Sprintf("m%d.%d", i, j), user)
		}
		p.AwaitAll("what was said", isDelivered(fmt.Sprintf("m%d.3", i)), AgentSays(byAgent[len(byAgent)-1]))
	}
	if err := d.said(p, chat, byAgent, byUser); err != nil {
		t.Error(err)
	}
	expect(t, p, http.StatusNoContent, http.MethodDelete, "/chat", nil)
}

// cutAtVendor cuts the connections of some chats again and again while both sides write.
func cutAtVendor(t *testing.T, d *vendorDesk, h *Host) {
	const pages, cuts = 10, 10
	var all errgroup.Group
	for range pages {
		p := h.Open(nil)
		defer p.Close()
		chat := p.Start("c1")
		all.Go(func() error {
			var byAgent, byUser []string
			for i := range cuts {
				id := fmt.Sprintf("m%d", i)
				byAgent, byUser = append(byAgent, fmt.Sprintf("agent %d", i)), append(byUser, "user "+id)
				if _, err := d.play(d.cut, chat, ""); err != nil {
					return err
				}
				if _, err := d.play("agent_says", chat, byAgent[i]); err != nil {
					return err
				}
				if _, err := p.send(id, byUser[i]); err != nil {
					return err
				}
				if err := awaitEach(p, AgentSays(byAgent[i]), isDelivered(id)); err != nil {
					return err
				}
			}
			_, err := p.call(http.MethodDelete, "/chat", nil)
			return errors.Join(err, d.said(p, chat, byAgent, byUser))
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
}

// transferAtVendor hands a chat from one agent to another.
func transferAtVendor(t *testing.T, d *vendorDesk, h *Host, how string) {
	p := h.Open(nil)
	defer p.Close()
	chat := p.Start("c1")
	d.must(t, "agent_says", chat, "agent 1")
	first := p.Await("an agent", Of("agent_joined"))
	p.Await("the agent's word", AgentSays("agent 1"))
	d.must(t, "transfer", chat, how)
	d.must(t, "agent_says", chat, "agent 2")
	if d.announced {
		p.Await("the transfer", Of("transfer_started"))
	}
	second := p.Await("another agent", Of("agent_joined"))
	p.Await("the other agent's word", AgentSays("agent 2"))
	if first.Agent == nil || second.Agent == nil || first.Agent.Nickname == "" || first.Agent.Nickname == second.Agent.Nickname {
		t.Errorf("first %s, then %s", first.Raw, second.Raw)
	}
	expect(t, p, http.StatusNoContent, http.MethodDelete, "/chat", nil)
}

// faultsAtVendor has the vendor go wrong while both sides write.
func faultsAtVendor(t *testing.T, d *vendorDesk, h *Host) {
	p := h.Open(nil)
	defer p.Close()
	chat := p.Start("c1")
	d.must(t, "agent_says", chat, "agent 0")
	p.Await("the agent's word", AgentSays("agent 0"))
	byAgent, byUser := []string{"agent 0"}, []string(nil)
	for _, fault := range d.faults {
		if _, err := d.step(fault); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			n := len(byAgent)
			agent, user, id := fmt.Sprintf("agent %d", n), fmt.Sprintf("user %d", n), fmt.Sprintf("m%d", n)
			byAgent, byUser = append(byAgent, agent), append(byUser, user)
			d.must(t, "agent_says", chat, agent)
			p.Send(id, user)
			p.AwaitAll("what was said", AgentSays(agent), isDelivered(id))
		}
	}
	if err := d.said(p, chat, byAgent, byUser); err != nil {
		t.Error(err)
	}
	expect(t, p, http.StatusNoContent, http.MethodDelete, "/chat", nil)
}

// expiryAtVendor has a conversation expire, after which the user begins another.
func expiryAtVendor(t *testing.T, d *vendorDesk, h *Host) {
	p := h.Open(nil)
	defer p.Close()
	chat := p.Start("c1")
	d.must(t, "agent_says", chat, "agent 1")
	p.Await("the agent's word", AgentSays("agent 1"))
	d.must(t, d.expire, chat, "")
	p.Await("the end", Of("chat_ended"))
	again := p.Start("c2")
	d.must(t, "agent_says", again, "agent 2")
	p.Await("the agent's word", AgentSays("agent 2"))
	expect(t, p, http.StatusNoContent, http.MethodDelete, "/chat", nil)
}

// thousandAtVendor opens a thousand chats and has both sides write in each.
func thousandAtVendor(t *testing.T, d *vendorDesk, h *Host) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	const pages = 1000
	var all errgroup.Group
	all.SetLimit(100)
	open := make([]*Page, pages)
	for i := range open {
		all.Go(func() error {
			p := h.Open(nil)
			open[i] = p
			chat, err := p.start("c1")
			if err != nil {
				return err
			}
			byAgent, byUser := []string{fmt.Sprintf("agent %d", i)}, []string{fmt.Sprintf("user %d", i)}
			if _, err := d.play("agent_says", chat, byAgent[0]); err != nil {
				return err
			}
			if _, err := p.send("m1", byUser[0]); err != nil {
				return err
			}
			if err := awaitEach(p, AgentSays(byAgent[0]), isDelivered("m1")); err != nil {
				return err
			}
			return d.said(p, chat, byAgent, byUser)
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	if desk := h.Desk("support"); desk.Chats < pages {
		t.Errorf("%d chats are open", desk.Chats)
	}
	for _, p := range open {
		p.Close()
	}
}
