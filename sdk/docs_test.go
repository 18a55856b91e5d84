package sdk_test

import (
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// guide is the page for vendors.
func guide(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/write-a-plugin.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestGuideListsTheContract holds the tables of the page to desk.v1.
func TestGuideListsTheContract(t *testing.T) {
	t.Parallel()
	file := deskv1.File_desk_v1_desk_proto
	contract := map[string][]string{"Call": nil}
	calls := file.Services().ByName("DeskService").Methods()
	for i := range calls.Len() {
		contract["Call"] = append(contract["Call"], string(calls.Get(i).Name()))
	}
	oneof := func(message, name protoreflect.Name) (kinds []string) {
		fields := file.Messages().ByName(message).Oneofs().ByName(name).Fields()
		for i := range fields.Len() {
			kinds = append(kinds, string(fields.Get(i).Message().Name()))
		}
		return kinds
	}
	contract["Event"] = oneof("Event", "payload")
	contract["Part of a message"] = oneof("MessagePart", "kind")

	row := regexp.MustCompile("^\\| `(\\w+)` \\|.* (\\d+\\.\\d+) \\|$")
	for what, want := range contract {
		_, table, found := strings.Cut(guide(t), "\n| "+what+" |")
		if !found {
			t.Errorf("the page has no table of the kind %q", what)
			continue
		}
		table, _, _ = strings.Cut(table, "\n\n")
		var listed []string
		for _, line := range strings.Split(table, "\n")[2:] {
			cells := row.FindStringSubmatch(line)
			if cells == nil {
				t.Errorf("a row without a name or a release: %s", line)
				continue
			}
			listed = append(listed, cells[1])
		}
		if !slices.Equal(listed, want) {
			t.Errorf("%s: the page lists\n%q, and desk.v1 has\n%q", what, listed, want)
		}
	}
}

// TestGuideListsWhatIsLinked holds the page to what the smallest plugin links.
func TestGuideListsWhatIsLinked(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the page lists the modules of a program for Linux")
	}
	_, list, _ := strings.Cut(guide(t), "<!-- modules -->")
	list, _, _ = strings.Cut(list, "<!-- end -->")
	var listed []string
	for _, name := range regexp.MustCompile("`([\\w.]+\\.\\w+/[\\w./-]+)`").FindAllStringSubmatch(list, -1) {
		listed = append(listed, name[1])
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "../examples/echo").Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	for _, names := range [][]string{listed, linked} {
		slices.Sort(names)
	}
	if linked = slices.Compact(linked); !slices.Equal(listed, linked) {
		t.Errorf("the page lists\n%q, and the plugin links\n%q", listed, linked)
	}
}
