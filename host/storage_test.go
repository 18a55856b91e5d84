package host

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/host/internal/admin"
)

func TestStorage(t *testing.T) {
	var log bytes.Buffer
	var free, reserve uint64 = 1000, 300
	var broken error
	s := &storage{
		free:    func() (uint64, error) { return free, broken },
		used:    func() uint64 { return 50 },
		reserve: func() uint64 { return reserve },
		log:     hclog.New(&hclog.LoggerOptions{Output: &log}),
	}
	for _, step := range []struct {
		name   string
		change func()
		want   admin.Storage
		logged string
	}{
		{"room", func() {}, admin.Storage{Journal: 50, Free: 1000, Reserve: 300}, ""},
		{"just enough", func() { free = 300 }, admin.Storage{Journal: 50, Free: 300, Reserve: 300}, ""},
		{"too little", func() { free = 299 }, admin.Storage{Journal: 50, Free: 299, Reserve: 300, Full: true}, "nearly full"},
		{"still", func() { free = 0 }, admin.Storage{Journal: 50, Reserve: 300, Full: true}, ""},
		{"a lower reserve", func() { free, reserve = 200, 100 }, admin.Storage{Journal: 50, Free: 200, Reserve: 100}, "has room again"},
		{"not known", func() { broken = errors.New("stale handle") }, admin.Storage{Journal: 50, Reserve: 100, Problem: "stale handle"}, "stale handle"},
		{"still not", func() {}, admin.Storage{Journal: 50, Reserve: 100, Problem: "stale handle"}, ""},
		{"full at once", func() { broken, free = nil, 1 }, admin.Storage{Journal: 50, Free: 1, Reserve: 100, Full: true}, "nearly full"},
	} {
		step.change()
		log.Reset()
		s.look()
		if got := s.state(); got != step.want || s.full() != step.want.Full {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
		if got := log.String(); (step.logged == "") != (got == "") || !strings.Contains(got, step.logged) {
			t.Errorf("%s: logged %q, want %q", step.name, got, step.logged)
		}
	}
}
