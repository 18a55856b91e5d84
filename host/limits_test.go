package host

import (
	"testing"

	"github.com/deskhost/deskhost/host/internal/api"
	"github.com/deskhost/deskhost/host/internal/config"
	"github.com/deskhost/deskhost/host/internal/session"
)

// TestDefaultsAgree holds that a limit which the file leaves out is the same
// wherever it is known.
func TestDefaultsAgree(t *testing.T) {
	if got, want := sessionLimits(config.DefaultLimits()), session.DefaultLimits(); got != want {
		t.Errorf("session limits are\n%+v, want\n%+v", got, want)
	}
	if got, want := apiLimits(config.DefaultLimits()), api.DefaultLimits(); got != want {
		t.Errorf("API limits are\n%+v, want\n%+v", got, want)
	}
}

func TestCallOutlivesItsWaits(t *testing.T) {
	l := config.DefaultLimits()
	l.StartTimeout *= 10
	if got := apiLimits(l).Call; got <= l.StartTimeout {
		t.Errorf("a call ends after %v, while a start may take %v", got, l.StartTimeout)
	}
}
