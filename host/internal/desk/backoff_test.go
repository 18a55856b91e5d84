package desk

import (
	"testing"
	"time"
)

func TestBackoffDoublesAndForgets(t *testing.T) {
	l, now := DefaultLimits(), time.Now()
	var b backoff
	want := time.Second
	for i := range 100 {
		got, quarantined := b.next(&l, now, 9*time.Minute, false)
		if limit := min(l.BackoffMax, want+want/4); got < want || got > limit || quarantined {
			t.Fatalf("wait %d is %v, want %v to %v", i, got, want, limit)
		}
		want = min(l.BackoffMax, want*2)
	}
	if got, _ := b.next(&l, now, 10*time.Minute, false); got > 2*time.Second {
		t.Errorf("wait after a long time of health is %v", got)
	}
	if got, _ := b.next(&l, now, 0, false); got < 2*time.Second {
		t.Errorf("second wait is %v", got)
	}
}

func TestQuarantine(t *testing.T) {
	l, now := DefaultLimits(), time.Now()
	var b backoff
	crash := func(after, ready time.Duration) (time.Duration, bool) {
		now = now.Add(after)
		return b.next(&l, now, ready, true)
	}
	// Four in ten minutes, and those before are forgotten.
	for i := range 20 {
		if _, quarantined := crash(151*time.Second, 0); quarantined {
			t.Fatalf("in quarantine after crash %d", i)
		}
	}
	crash(time.Second, 0)
	wait, quarantined := crash(time.Second, 0)
	if !quarantined || wait < 10*time.Minute || wait > 12*time.Minute+30*time.Second {
		t.Errorf("wait %v, in quarantine %v", wait, quarantined)
	}
	// A probe that crashes leads back into it, however long after.
	if _, quarantined := crash(time.Hour, 9*time.Minute); !quarantined {
		t.Error("out of quarantine without having been healthy")
	}
	if wait, quarantined := crash(time.Hour, 10*time.Minute); quarantined || wait > 2*time.Second {
		t.Errorf("wait %v, in quarantine %v, after ten healthy minutes", wait, quarantined)
	}
}
