//go:build unix

package desk

import (
	"context"
	"strconv"
	"testing"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// benchmarkDesk is a desk that is ready, with a process of its own.
func benchmarkDesk(b *testing.B) Generation {
	l := newListener()
	l.quiet = true
	f := newFixture(b, "fake", l)
	f.run(b)
	return await(b, l.ready)
}

// BenchmarkEvents measures events from a plugin process, over mutual TLS, up to
// their acknowledgement.
func BenchmarkEvents(b *testing.B) {
	g := benchmarkDesk(b)
	b.ResetTimer()
	if _, err := g.StartChat(context.Background(), &deskv1.StartChatRequest{ChatId: "c", Text: "burst " + strconv.Itoa(b.N)}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkCall measures one call after the other.
func BenchmarkCall(b *testing.B) {
	g := benchmarkDesk(b)
	b.ResetTimer()
	for range b.N {
		if err := g.UserTyping(context.Background(), &deskv1.UserTypingRequest{ChatId: "c1", Typing: true}); err != nil {
			b.Fatal(err)
		}
	}
}
