package desk

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// Whatever the order of settling: each event is acknowledged once and in order,
// none before it is settled, a refusal goes with it, and no window is exceeded.
func TestAcksAreCumulativeAndKeepTheWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		window := rapid.IntRange(1, 12).Draw(t, "window")
		chatWindow := rapid.IntRange(1, window).Draw(t, "chat window")
		a := newAcks(uint32(window), uint32(chatWindow))

		type event struct {
			chat             string
			settled, refused bool
		}
		var all []event // the model: event seq is all[seq-1]
		acked := 0
		waiting := func(chat string) int {
			n := 0
			for _, e := range all[acked:] {
				if chat == "" || e.chat == chat {
					n++
				}
			}
			return n
		}
		t.Repeat(map[string]func(*rapid.T){
			"arrive": func(t *rapid.T) {
				chat := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "chat")
				fits := waiting("") < window && waiting(chat) < chatWindow
				if err := a.arrive(uint64(len(all)+1), chat); (err == nil) != fits {
					t.Fatalf("arrive of %q: %v; %d wait, %d of the chat", chat, err, waiting(""), waiting(chat))
				}
				if fits {
					all = append(all, event{chat: chat})
				}
			},
			"arrive out of turn": func(t *rapid.T) {
				seq := rapid.Uint64Range(0, uint64(len(all)+5)).Draw(t, "seq")
				if seq != uint64(len(all)+1) && a.arrive(seq, "a") == nil {
					t.Fatalf("event %d was let in after %d", seq, len(all))
				}
			},
			"settle": func(t *rapid.T) {
				seq := rapid.IntRange(0, len(all)+2).Draw(t, "seq")
				refuse := rapid.Bool().Draw(t, "refuse")
				var refusal *Refusal
				if refuse {
					refusal = &Refusal{Code: deskv1.RefusalCode_REFUSAL_CODE_CHAT_OVER, Reason: fmt.Sprint(seq)}
				}
				waits := seq >= 1 && seq <= len(all) && !all[seq-1].settled
				if a.settle(uint64(seq), refusal) != waits {
					t.Fatalf("settle of %d did not report %v", seq, waits)
				}
				if waits {
					all[seq-1].settled, all[seq-1].refused = true, refuse
				}
			},
			"acknowledge": func(t *rapid.T) {
				upTo := acked
				var refused []uint64
				for upTo < len(all) && all[upTo].settled {
					upTo++
					if all[upTo-1].refused {
						refused = append(refused, uint64(upTo))
					}
				}
				if told := len(a.due) > 0; !told && upTo > acked {
					t.Fatal("there is something to acknowledge, and the sender was not told")
				}
				ack := a.next()
				if upTo == acked {
					if ack != nil {
						t.Fatalf("acknowledged %v with nothing settled", ack)
					}
					return
				}
				select {
				case <-a.due:
				default:
				}
				var got []uint64
				for _, r := range ack.GetRefusals() {
					got = append(got, r.GetSeq())
					if r.GetReason() != fmt.Sprint(r.GetSeq()) {
						t.Fatalf("refusal %v has the reason of another", r)
					}
				}
				if ack.GetSeq() != uint64(upTo) || !slices.Equal(got, refused) {
					t.Fatalf("acknowledged %v, want up to %d with %v refused", ack, upTo, refused)
				}
				acked = upTo
			},
		})
	})
}

func TestTruncateKeepsCharactersWhole(t *testing.T) {
	if got := truncate("abc", 3); got != "abc" {
		t.Errorf("got %q", got)
	}
	got := truncate(strings.Repeat("ä", 10), 5)
	if got != "ää" || !utf8.ValidString(got) {
		t.Errorf("got %q", got)
	}
}

// The plugin takes no message above its limit, so a window that an operator widened
// must not be refused in one.
func TestRefusalsFitIntoMessages(t *testing.T) {
	const window = 4 * deskv1.DefaultWindow
	a := newAcks(window, window)
	for seq := uint64(1); seq <= window; seq++ {
		if err := a.arrive(seq, "c"); err != nil {
			t.Fatal(err)
		}
		a.settle(seq, &Refusal{Code: deskv1.RefusalCode_REFUSAL_CODE_INVALID, Reason: strings.Repeat("x", 2*maxReason)})
	}
	var acked, refused uint64
	for ack := a.next(); ack != nil; ack = a.next() {
		if size := proto.Size(ack); size > deskv1.MaxMessageBytes {
			t.Fatalf("an acknowledgement of %d bytes", size)
		}
		for _, r := range ack.GetRefusals() {
			if refused++; r.GetSeq() != refused || r.GetSeq() > ack.GetSeq() {
				t.Fatalf("refusal of %d in the acknowledgement of %d, want %d", r.GetSeq(), ack.GetSeq(), refused)
			}
		}
		acked = ack.GetSeq()
	}
	if acked != window || refused != window {
		t.Errorf("%d acknowledged, %d refused, want %d", acked, refused, window)
	}
}
