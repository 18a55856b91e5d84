package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// nameForm is the form of desk and plugin names.
var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

var sha256Form = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)

var userForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?$`)

// minTokenBytes keeps an operators' token from being guessed.
const minTokenBytes = 16

// read takes one value; key is its path for diagnostics.
type read func(key string, v *value)

func (r *reader) config(root *value) *Config {
	c := &Config{
		File:      r.file,
		Listen:    "127.0.0.1:8080",
		Admin:     Admin{Listen: "127.0.0.1:8081"},
		DataDir:   r.absolute("data"),
		PluginDir: r.absolute("plugins.d"),
		Limits:    DefaultLimits(),
		Retention: Retention{ClosedSessions: 30 * 24 * time.Hour},
	}
	// Where a value stands whose fitness shows only beside another.
	places := map[string]Position{}
	desksFit := false
	placed := func(next read) read {
		return func(key string, v *value) {
			places[key] = v.at
			next(key, v)
		}
	}
	r.mapping("", root, map[string]read{
		"listen":     r.text(&c.Listen, checkAddress),
		"public_url": r.text(&c.PublicURL, checkPublicURL),
		"origins": func(key string, v *value) {
			r.list(key, v, func(key string, v *value) {
				var origin string
				r.text(&origin, checkOrigin)(key, v)
				c.Origins = append(c.Origins, strings.ToLower(origin))
			})
		},
		"admin": func(key string, v *value) {
			r.mapping(key, v, map[string]read{
				"listen": placed(r.text(&c.Admin.Listen, checkAddress)),
				"token":  r.token(&c.Admin.Token),
			})
		},
		"data_dir":   r.path(&c.DataDir),
		"plugin_dir": r.path(&c.PluginDir),
		"demo":       placed(r.boolean(&c.Demo)),
		"identity": func(key string, v *value) {
			r.mapping(key, v, map[string]read{
				"jwks_file": r.path(&c.Identity.JWKSFile),
				"required":  placed(r.boolean(&c.Identity.Required)),
			})
		},
		"limits": placed(func(key string, v *value) { r.limits(key, v, &c.Limits) }),
		"retention": func(key string, v *value) {
			r.mapping(key, v, map[string]read{"closed_sessions": r.limit(limit{duration: &c.Retention.ClosedSessions})})
		},
		"desks": placed(func(key string, v *value) {
			before := len(r.problems)
			r.list(key, v, func(key string, v *value) { r.desk(key, v, c) })
			desksFit = len(r.problems) == before
			if len(v.items) == 0 && v.kind == kindList {
				r.problemf(v.at, key, "the list is empty; a host needs at least one desk")
			}
		}),
		"default_desk": placed(r.text(&c.DefaultDesk, nil)),
	})
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")

	if _, ok := places["desks"]; !ok {
		r.problemf(root.at, "desks", "missing; a host needs at least one desk: {name: …, plugin: …, config: {…}}")
	}
	if at, ok := places["default_desk"]; !ok && len(c.Desks) == 1 {
		c.DefaultDesk = c.Desks[0].Name
	} else if ok && c.DefaultDesk != "" && desksFit && !slices.Contains(c.deskNames(), c.DefaultDesk) {
		r.problemf(at, "default_desk", "there is no desk of this name%s", suggest(c.DefaultDesk, c.deskNames(), "the desks are"))
	}
	if c.Demo && !loopback(c.Listen) {
		r.problemf(places["demo"], "demo", "the demo pages are served on a loopback address only; set listen to 127.0.0.1:8080 or demo to false")
	}
	if c.Admin.Token == "" && !loopback(c.Admin.Listen) {
		r.problemf(places["admin.listen"], "admin.listen", "not a loopback address, which needs admin.token; set one, such as ${env:DESKHOST_ADMIN_TOKEN}")
	}
	if c.Identity.Required && c.Identity.JWKSFile == "" {
		r.problemf(places["identity.required"], "identity.required", "tokens cannot be required without keys to check them; set identity.jwks_file")
	}
	if c.Limits.TextBytes > c.Limits.BodyBytes {
		r.problemf(places["limits"], "limits.text_bytes", "larger than limits.body_bytes (%s), so that no such text can arrive; raise that too", formatSize(c.Limits.BodyBytes))
	}
	return c
}

func (c *Config) deskNames() []string {
	names := make([]string, len(c.Desks))
	for i, d := range c.Desks {
		names[i] = d.Name
	}
	return names
}

func (r *reader) limits(key string, v *value, l *Limits) {
	keys := map[string]read{}
	for name, how := range l.keys() {
		keys[name] = r.limit(how)
	}
	r.mapping(key, v, keys)
}

func (r *reader) limit(l limit) read {
	return func(key string, v *value) {
		if v.kind != kindText && v.kind != kindNumber {
			r.wrongKind(key, v, l.wants())
			return
		}
		fits := false
		switch {
		case l.duration != nil:
			if d, ok := parseDuration(v.text); ok && d >= l.least {
				*l.duration, fits = d, true
			}
		case l.size != nil:
			if n, ok := parseSize(v.text); ok && (l.most == 0 || n <= l.most) {
				*l.size, fits = n, true
			}
		case l.count != nil:
			n, err := strconv.Atoi(v.text)
			if err == nil && (l.upTo == 0 && n > 0 && (l.most == 0 || int64(n) <= l.most) || l.upTo > 0 && n >= 0 && n <= l.upTo) {
				*l.count, fits = n, true
			}
		}
		if !fits {
			r.unfit(key, v, l.wants())
		}
	}
}

func (l limit) wants() string {
	switch {
	case l.duration != nil && l.least > 0:
		return "a duration of at least " + l.least.String() + ", such as 30s or 10m"
	case l.duration != nil:
		return "a duration above zero, such as 30s, 10m, 24h or 7d"
	case l.size != nil && l.most > 0:
		return "a size of at most " + formatSize(l.most) + ", such as 32KiB or 1MiB"
	case l.size != nil:
		return "a size above zero, such as 32KiB or 256MiB"
	case l.upTo > 0:
		return fmt.Sprintf("a whole number from 0 to %d", l.upTo)
	case l.most > 0:
		return fmt.Sprintf("a whole number from 1 to %d", l.most)
	default:
		return "a whole number above zero"
	}
}

func (r *reader) desk(key string, v *value, c *Config) {
	d := Desk{Config: json.RawMessage("{}"), Key: key, positions: map[string]Position{"": v.at}}
	complete := r.mapping(key, v, map[string]read{
		"name": r.text(&d.Name, checkName),
		"plugin": func(key string, v *value) {
			d.PluginAt = v.at
			r.text(&d.Plugin, checkName)(key, v)
		},
		"sha256": func(key string, v *value) {
			d.PinAt = v.at
			r.text(&d.SHA256, checkSHA256)(key, v)
		},
		"user": r.text(&d.User, checkUser),
		"config": func(key string, v *value) {
			if v.kind == kindNull {
				return
			}
			if v.kind != kindMap {
				r.wrongKind(key, v, "a mapping: the keys that the plugin knows")
				return
			}
			encoded, err := json.Marshal(plain("", v.at, v, d.positions))
			if err != nil {
				r.problemf(v.at, key, "cannot be written as JSON: %v", err)
				return
			}
			d.Config = encoded
		},
	}, "name", "plugin")
	if !complete {
		return
	}
	d.SHA256 = strings.ToLower(d.SHA256)
	for i, other := range c.Desks {
		if other.Name == d.Name {
			r.problemf(v.at, key+".name", "desk %q is named twice, first as desks[%d]; names must differ", d.Name, i)
			return
		}
	}
	c.Desks = append(c.Desks, d)
}

// The escapes of RFC 6901.
var (
	pointerEscapes   = strings.NewReplacer("~", "~0", "/", "~1")
	pointerUnescapes = strings.NewReplacer("~0", "~", "~1", "/")
)

// plain turns a value into what encoding/json takes, and notes under its JSON
// pointer where each part stands: a value of a mapping stands at its key.
func plain(pointer string, at Position, v *value, positions map[string]Position) any {
	positions[pointer] = at
	switch v.kind {
	case kindMap:
		m := make(map[string]any, len(v.fields))
		for _, f := range v.fields {
			m[f.name] = plain(pointer+"/"+pointerEscapes.Replace(f.name), f.at, f.value, positions)
		}
		return m
	case kindList:
		l := make([]any, len(v.items))
		for i, item := range v.items {
			l[i] = plain(fmt.Sprintf("%s/%d", pointer, i), item.at, item, positions)
		}
		return l
	}
	return v.scalar
}

// mapping reads the fields of a mapping, and tells whether it is one, with all
// that it requires. An empty value is an empty mapping.
func (r *reader) mapping(key string, v *value, known map[string]read, required ...string) bool {
	if v.kind != kindMap && v.kind != kindNull {
		r.wrongKind(key, v, "a mapping with the keys "+strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		return false
	}
	given := map[string]bool{}
	for _, f := range v.fields {
		path := join(key, f.name)
		given[f.name] = true
		next, ok := known[f.name]
		if !ok {
			r.problemf(f.at, path, "there is no such key%s", suggest(f.name, slices.Sorted(maps.Keys(known)), "the keys here are"))
			continue
		}
		if f.value.kind != kindInvalid {
			next(path, f.value)
		}
	}
	complete := true
	for _, name := range required {
		if !given[name] {
			r.problemf(v.at, join(key, name), "missing")
			complete = false
		}
	}
	return complete
}

func (r *reader) list(key string, v *value, next read) {
	if v.kind != kindList {
		r.wrongKind(key, v, "a list")
		return
	}
	for i, item := range v.items {
		if item.kind != kindInvalid {
			next(fmt.Sprintf("%s[%d]", key, i), item)
		}
	}
}

// text reads a text. check, if given, returns what would be right for a text
// that is not.
func (r *reader) text(to *string, check func(text string) (wants string)) read {
	return func(key string, v *value) {
		if v.kind != kindText {
			r.wrongKind(key, v, "a text")
			return
		}
		if check != nil {
			if wants := check(v.text); wants != "" {
				r.unfit(key, v, wants)
				return
			}
		}
		*to = v.text
	}
}

func (r *reader) token(to *string) read {
	return func(key string, v *value) {
		v.secret = true
		r.text(to, func(text string) string {
			if len(text) >= minTokenBytes {
				return ""
			}
			return fmt.Sprintf("a secret of at least %d bytes, such as the output of `openssl rand -base64 24`", minTokenBytes)
		})(key, v)
	}
}

func (r *reader) path(to *string) read {
	return func(key string, v *value) {
		var path string
		r.text(&path, func(text string) string {
			if text != "" {
				return ""
			}
			return "a path"
		})(key, v)
		if path != "" {
			*to = r.absolute(path)
		}
	}
}

func (r *reader) boolean(to *bool) read {
	return func(key string, v *value) {
		b, ok := v.scalar.(bool)
		if !ok {
			r.wrongKind(key, v, "true or false")
			return
		}
		*to = b
	}
}

func (r *reader) wrongKind(key string, v *value, wants string) {
	found := string(v.kind)
	if v.kind == kindNumber || v.kind == kindBool {
		found = v.text
		if wants == "a text" {
			wants = "a text; put it in quotes"
		}
	}
	r.problemf(v.at, key, "found %s, expected %s", found, wants)
}

// unfit reports a scalar that is not what is wanted, and repeats it unless it
// is a secret.
func (r *reader) unfit(key string, v *value, wants string) {
	found := strconv.Quote(v.text)
	if v.secret {
		found = "something else (not shown, it is a secret)"
	}
	r.problemf(v.at, key, "found %s, expected %s", found, wants)
}

func checkName(text string) string {
	if nameForm.MatchString(text) {
		return ""
	}
	return "a name of at most 40 letters a-z, digits and hyphens that does not begin with a hyphen"
}

func checkSHA256(text string) string {
	if sha256Form.MatchString(text) {
		return ""
	}
	return "the 64 hexadecimal digits that `deskhost plugin info` prints"
}

func checkUser(text string) string {
	if userForm.MatchString(text) {
		return ""
	}
	return "the name or number of a system user"
}

func checkAddress(text string) string {
	if _, port, err := net.SplitHostPort(text); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n <= math.MaxUint16 {
			return ""
		}
	}
	return "an address and port, such as 127.0.0.1:8080"
}

func checkPublicURL(text string) string {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "an http or https address without a query, such as https://chat.example.com"
	}
	return ""
}

func checkOrigin(text string) string {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || strings.Contains(u.Host, "*") ||
		text != u.Scheme+"://"+u.Host {
		return "an origin: scheme, host and port only, no path and no *, such as https://www.example.com"
	}
	return ""
}

// loopback tells whether an address can be reached from this machine only.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return true // Reported already.
	}
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// suggest names the candidate that a writer may have meant, or else all of them.
func suggest(name string, candidates []string, these string) string {
	best, distance := "", 1+len(name)/3
	for _, c := range candidates {
		if d := editDistance(name, c); d <= distance {
			best, distance = c, d-1
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("; did you mean %s?", best)
	case len(candidates) == 0:
		return ""
	default:
		return "; " + these + " " + strings.Join(candidates, ", ")
	}
}

// editDistance counts the letters to insert, delete or replace (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
