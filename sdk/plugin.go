package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
)

// Plugin describes a plugin to the host. New makes its desk.
type Plugin struct {
	// Name is that of the plugin's file behind "deskhost-plugin-":
	// [a-z0-9][a-z0-9-]{0,39}.
	Name string
	// Version is a semantic version without a leading v.
	Version string
	// Title is what people call the desk ("Genesys Cloud"); optional.
	Title string
	// ConfigSchema is the JSON Schema (2020-12) of the configuration. The host
	// checks a configuration against it before the plugin sees it, and quotes
	// its descriptions in errors. Empty: the desk takes no configuration.
	ConfigSchema string
	// SendDedupe says how a second try of a message is kept from showing it
	// twice. The zero value is the honest one: not at all.
	SendDedupe SendDedupe
	// Replay says how what the desk said while nobody listened is fetched.
	Replay Replay
	// StateFormats are the formats of [ResumeState] that this version reads.
	StateFormats []uint32
	// MaxTextBytes bounds the text of one user message; 0: the host's limit.
	MaxTextBytes int
	// New makes the desk of this process, at the host's first call. It must not
	// block; what can fail belongs in Configure.
	New func(host Host) Desk
}

var (
	namePattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)
	versionPattern = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
		`(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)
)

// check finds what is wrong with a plugin before any host does.
func (p *Plugin) check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !namePattern.MatchString(p.Name) {
		wrong("Name is %q, it must be 1 to 40 of a-z, 0-9 and -, and not begin with -", p.Name)
	}
	if !versionPattern.MatchString(p.Version) {
		wrong("Version is %q, it must be a semantic version without a leading v, like 1.2.3", p.Version)
	}
	if p.ConfigSchema != "" {
		var schema map[string]any
		if err := json.Unmarshal([]byte(p.ConfigSchema), &schema); err != nil {
			wrong("ConfigSchema must be a JSON object: %w", err)
		}
	}
	if p.SendDedupe < DedupeNone || p.SendDedupe > DedupeByLookup {
		wrong("SendDedupe is %d, which is none of its values", p.SendDedupe)
	}
	if p.Replay < ReplayNone || p.Replay > ReplayByWebhook {
		wrong("Replay is %d, which is none of its values", p.Replay)
	}
	if slices.Contains(p.StateFormats, 0) {
		wrong("StateFormats has a 0, formats are 1 and up")
	}
	if p.MaxTextBytes < 0 || int64(p.MaxTextBytes) > math.MaxUint32 {
		wrong("MaxTextBytes is %d, it must be 0 to %d", p.MaxTextBytes, uint32(math.MaxUint32))
	}
	if p.New == nil {
		wrong("New is nil, it must make the desk")
	}
	return errors.Join(errs...)
}

// SendDedupe says how a second try of a message is kept from showing it twice.
type SendDedupe int

// The ways to deal with a message whose first try had an unclear outcome.
const (
	// DedupeNone: the host records the outcome as unknown and goes on.
	DedupeNone SendDedupe = iota
	// DedupeByKey: the vendor takes the message id as a key.
	DedupeByKey
	// DedupeByLookup: the plugin looks in the conversation before it sends.
	DedupeByLookup
)

// Replay says how what the desk said while nobody listened is fetched.
type Replay int

// The ways to catch up.
const (
	// ReplayNone: not at all.
	ReplayNone Replay = iota
	// ReplayByCursor: ResumeChat reads on from a cursor in the state.
	ReplayByCursor
	// ReplayByWebhook: the vendor delivers again after a 5xx.
	ReplayByWebhook
)
