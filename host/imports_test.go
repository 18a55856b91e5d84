package host_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/deskhost/deskhost/"

// rooms lists the folders of the module, each with the folders that its packages
// may import besides their own. Imports go down only: a room names rooms further
// down. A package belongs to the longest folder that begins its path; to "host"
// belongs only package host itself.
var rooms = []struct {
	folder string
	may    []string
}{
	{"host/cmd", []string{
		"host", "host/internal/client", "host/internal/config", "host/internal/desk", "host/internal/catalog", "host/internal/process",
		// For plugin new and plugin verify.
		"host/internal/scaffold", "sdk",
	}},
	{"host/internal/bench", []string{"host/internal/client", "host/internal/desk", "host/internal/catalog", "host/internal/process", "proto"}},
	{"host/internal/e2e", nil},
	{"host/internal/check", nil},
	{"host", []string{
		"host/internal/api", "host/internal/webhook", "host/internal/admin", "host/internal/session", "host/internal/identity",
		"host/internal/desk", "host/internal/journal", "host/internal/catalog", "host/internal/process", "host/internal/config",
		"host/internal/wirelog", "host/web", "proto",
	}},
	{"host/internal/api", []string{"host/internal/session", "host/internal/identity", "host/internal/problem", "host/internal/journal/record"}},
	{"host/internal/webhook", []string{"host/internal/session", "host/internal/desk", "host/internal/problem", "proto"}},
	{"host/internal/admin", []string{"host/internal/session", "host/internal/desk", "host/internal/catalog", "host/internal/problem"}},
	{"host/internal/session", []string{"host/internal/desk", "host/internal/journal", "host/internal/journal/record", "proto"}},
	{"host/internal/desk", []string{"host/internal/catalog", "host/internal/process", "proto"}},
	{"host/internal/journal", []string{"host/internal/journal/record"}},
	{"host/internal/journal/record", nil},
	{"host/internal/catalog", []string{"proto"}},
	{"host/internal/process", []string{"proto"}},
	{"host/internal/scaffold", nil},
	{"host/internal/wirelog", []string{"proto"}},
	{"host/internal/client", nil},
	{"host/internal/config", nil},
	{"host/internal/identity", nil},
	{"host/internal/problem", nil},
	{"host/web", nil},
	{"plugins/mock", []string{"sdk", "plugins/internal"}},
	{"plugins/genesys", []string{"sdk", "plugins/internal"}},
	{"plugins/twilio", []string{"sdk", "plugins/internal"}},
	// What the simulators of several vendors share, and the tests of plugins.
	{"plugins/internal", nil},
	{"plugins/internal/plugintest", []string{"sdk"}},
	{"examples", []string{"sdk"}},
	{"sdk", []string{"proto"}},
	{"proto", nil},
}

// vendors lists the rooms that a desk vendor builds with, down to which no part
// of the host may come, tests included. What they link, every plugin links.
var vendors = []string{"proto", "sdk", "plugins", "examples"}

// heavy lists modules of the host's that no plugin may link, but for those of
// which needed tells.
var heavy = []string{
	"github.com/cockroachdb/pebble", "github.com/danielgtaylor/huma", "github.com/spf13/cobra",
	"github.com/prometheus", websocket, "github.com/goccy/go-yaml",
}

const websocket = "github.com/gorilla/websocket"

// needed lists the plugins whose vendor can be reached by a heavy module only.
var needed = map[string]string{"plugins/genesys": websocket}

// testOnly lists modules that tests hold our own code against, and no program
// links.
var testOnly = []string{"github.com/twilio/twilio-go"}

// early is the package that has to be initialized before most of the host's program
// is, and so may link no modules but these: see its comment.
const early = "host/internal/process/launcher"

var earlyLinks = []string{"golang.org/x/sys", module + "host/internal/process/procstat"}

// goPackage is what the rules look at, as go list names it.
type goPackage struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	// Deps is all that the package links, directly or not.
	Deps []string
}

// in tells whether a package's path lies in a folder.
func in(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

// roomOf returns the room of a path within the module, or "".
func roomOf(path string) (room string) {
	for _, r := range rooms {
		if r.folder == "host" && path != "host" {
			continue
		}
		if in(path, r.folder) && len(r.folder) > len(room) {
			room = r.folder
		}
	}
	return room
}

func allowed(room string) []string {
	for _, r := range rooms {
		if r.folder == room {
			return r.may
		}
	}
	return nil
}

// violations returns a line for each import that breaks a rule.
func violations(packages []goPackage) (lines []string) {
	for _, p := range packages {
		path := strings.TrimPrefix(p.ImportPath, module)
		room := roomOf(path)
		if room == "" {
			lines = append(lines, path+" is in no room: say in the list of rooms what it may import")
			continue
		}
		for _, imported := range p.Imports {
			target, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			to := roomOf(target)
			if to != room && !slices.Contains(allowed(room), to) {
				may := "imports nothing else of ours"
				if a := allowed(room); len(a) > 0 {
					may = "may import " + strings.Join(a, ", ")
				}
				lines = append(lines, fmt.Sprintf("%s imports %s: %s %s", path, target, room, may))
			}
		}
		for _, linked := range p.Deps {
			if slices.ContainsFunc(testOnly, func(module string) bool { return in(linked, module) }) {
				lines = append(lines, fmt.Sprintf("%s links %s, which is for tests only", path, linked))
			}
			// The paths of modules begin with a domain's name.
			if domain, _, _ := strings.Cut(linked, "/"); path == early && strings.Contains(domain, ".") &&
				!slices.ContainsFunc(earlyLinks, func(folder string) bool { return in(linked, folder) }) {
				lines = append(lines, fmt.Sprintf("%s links %s: it would be initialized behind that", path, linked))
			}
			if target := strings.TrimPrefix(linked, module); in(path, "plugins") && path == roomOf(path) && in(target, path+"/"+path[len("plugins/"):]+"test") {
				lines = append(lines, fmt.Sprintf("%s links %s: a plugin does not carry its simulator", path, target))
			}
		}
		if !slices.ContainsFunc(vendors, func(folder string) bool { return in(path, folder) }) {
			continue
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			if target := strings.TrimPrefix(imported, module); in(target, "host") {
				lines = append(lines, fmt.Sprintf("a test of %s imports %s: what vendors build with knows nothing of the host", path, target))
			}
		}
		for _, linked := range p.Deps {
			i := slices.IndexFunc(heavy, func(module string) bool { return strings.HasPrefix(linked, module) })
			if i < 0 || needed[room] == heavy[i] {
				continue
			}
			why := "no plugin may"
			if in(path, "sdk") || in(path, "proto") {
				why = "every plugin would"
			}
			lines = append(lines, fmt.Sprintf("%s links %s: %s", path, linked, why))
		}
	}
	return lines
}

// TestImports holds the module to its layout.
func TestImports(t *testing.T) {
	t.Parallel()
	list := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports,Deps", module+"...")
	var stderr strings.Builder
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var packages []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	for _, want := range []string{"proto/desk/v1", "sdk", "host/internal/session"} {
		if !slices.ContainsFunc(packages, func(p goPackage) bool { return p.ImportPath == module+want }) {
			t.Errorf("go list has not listed %s", want)
		}
	}
	for _, line := range violations(packages) {
		t.Error(line)
	}
}

// TestImportRules breaks each rule in a module that does not exist.
func TestImportRules(t *testing.T) {
	t.Parallel()
	graph := func(from string, imports ...string) goPackage {
		for i := range imports {
			imports[i] = module + imports[i]
		}
		return goPackage{ImportPath: module + from, Imports: imports, Deps: imports}
	}
	for name, c := range map[string]struct {
		p    goPackage
		want string
	}{
		"down":                {graph("host/internal/api", "host/internal/session", "host/internal/journal/record/v1"), ""},
		"own room":            {graph("host/internal/journal/pebble", "host/internal/journal"), ""},
		"assembly":            {graph("host", "host/internal/api", "host/internal/config", "host/web"), ""},
		"verify":              {graph("host/cmd/deskhost", "host", "sdk/desktest"), ""},
		"own plugin":          {graph("plugins/mock", "plugins/mock/adapter", "sdk"), ""},
		"outside":             {goPackage{ImportPath: module + "sdk", Imports: []string{"fmt", "google.golang.org/grpc"}}, ""},
		"heavy host":          {goPackage{ImportPath: module + "host/internal/api", Deps: []string{"github.com/danielgtaylor/huma/v2"}}, ""},
		"helper in host test": {goPackage{ImportPath: module + "host/internal/desk", XTestImports: []string{module + "sdk"}}, ""},

		"up":              {graph("host/internal/session", "host/internal/api"), "host/internal/session imports host/internal/api: host/internal/session may import host/internal/desk,"},
		"sideways":        {graph("host/internal/api", "host/internal/admin"), "host/internal/api imports host/internal/admin"},
		"past session":    {graph("host/internal/api", "host/internal/journal"), "host/internal/api imports host/internal/journal:"},
		"desk to journal": {graph("host/internal/desk", "host/internal/journal"), "host/internal/desk imports host/internal/journal"},
		"config above":    {graph("host/internal/desk", "host/internal/config"), "host/internal/desk imports host/internal/config"},
		"config below":    {graph("host/internal/config", "host/internal/desk"), "host/internal/config imports nothing else of ours"},
		"host to sdk":     {graph("host", "sdk"), "host imports sdk: host may import"},
		"host to plugin":  {graph("host/internal/bench", "plugins/mock"), "host/internal/bench imports plugins/mock"},
		"plugin to host":  {graph("plugins/mock/adapter", "host/internal/desk"), "plugins/mock/adapter imports host/internal/desk: plugins/mock may import sdk"},
		"plugin to wire":  {graph("plugins/mock", "proto/desk/v1"), "plugins/mock imports proto/desk/v1"},
		"plugin to other": {graph("plugins/twilio", "plugins/genesys"), "plugins/twilio imports plugins/genesys"},
		"example to host": {graph("examples/echo", "host"), "examples/echo imports host"},
		"sdk to host":     {graph("sdk", "host"), "sdk imports host: sdk may import proto"},
		"wire to sdk":     {graph("proto/desk/v1", "sdk"), "proto/desk/v1 imports sdk: proto imports nothing else of ours"},
		"no room":         {graph("util"), "util is in no room"},
		"no room below":   {graph("host/internal/util"), "host/internal/util is in no room"},
		"look-alike":      {graph("sdkish"), "sdkish is in no room"},
		"sdk test":        {goPackage{ImportPath: module + "sdk", TestImports: []string{module + "host/internal/desk"}}, "a test of sdk imports host/internal/desk"},
		"plugin test":     {goPackage{ImportPath: module + "plugins/mock", XTestImports: []string{module + "host"}}, "a test of plugins/mock imports host"},
		"simulator's":     {graph("plugins/twilio/twiliotest/simulator", "plugins/twilio/twiliotest"), ""},
		"simulator":       {graph("plugins/twilio", "plugins/twilio/twiliotest"), "plugins/twilio links plugins/twilio/twiliotest: a plugin does not carry its simulator"},
		"vendor's own":    {goPackage{ImportPath: module + "plugins/twilio/client", Deps: []string{"github.com/twilio/twilio-go/client"}}, "plugins/twilio/client links github.com/twilio/twilio-go/client, which is for tests only"},
		"heavy plugin":    {goPackage{ImportPath: module + "plugins/mock/adapter", Deps: []string{websocket}}, "plugins/mock/adapter links github.com/gorilla/websocket: no plugin may"},
		"needed":          {goPackage{ImportPath: module + "plugins/genesys/cloud", Deps: []string{websocket}}, ""},
		"needs no more":   {goPackage{ImportPath: module + "plugins/genesys/cloud", Deps: []string{"github.com/spf13/cobra"}}, "plugins/genesys/cloud links github.com/spf13/cobra: no plugin may"},
		"early":           {goPackage{ImportPath: module + early, Deps: []string{"encoding/json", "vendor/golang.org/x/net/idna", "golang.org/x/sys/unix"}}, ""},
		"early, and late": {goPackage{ImportPath: module + early, Deps: []string{"google.golang.org/grpc"}}, early + " links google.golang.org/grpc: it would be initialized behind that"},
		"heavy sdk":       {goPackage{ImportPath: module + "sdk", Deps: []string{"github.com/spf13/cobra"}}, "sdk links github.com/spf13/cobra: every plugin would"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := violations([]goPackage{c.p})
			if c.want == "" {
				if len(got) > 0 {
					t.Errorf("refused: %q", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("got %q, expected a line with %q", got, c.want)
			}
		})
	}
}
