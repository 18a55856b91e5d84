package process

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"
)

const (
	// maxLogLine is how much of a line is logged.
	maxLogLine = 8 << 10
	// lastLines is how many lines are kept for errors; maxQuoted bounds each.
	lastLines = 20
	maxQuoted = 512
	// readLines and readBytes bound what is read in a second, logged or not, so
	// that a storm costs the host little; the process waits.
	readLines = 20_000
	readBytes = 8 << 20
	// logBurst is for how many seconds' worth of log there is room at once.
	logBurst = 5
)

// output takes what a process writes: it logs it, within limits, and remembers
// the last lines on standard error. It is safe for concurrent use.
type output struct {
	log          hclog.Logger
	lines, bytes *rate.Limiter

	read struct{ lines, bytes *rate.Limiter }
	// ended is closed when the process has ended: what is left is read at once.
	ended chan struct{}

	mu sync.Mutex
	// dropped counts lines, the first of them at droppedAt.
	dropped   int
	droppedAt time.Time
	tail      [][]byte // at most lastLines, oldest first
	// full is set behind the lines of a crash: their beginning says what it was,
	// and hundreds of lines of stack may follow.
	full bool
}

func newOutput(log hclog.Logger, limits Limits) *output {
	o := &output{
		log:   log,
		ended: make(chan struct{}),
		lines: rate.NewLimiter(rate.Limit(limits.LogLines), logBurst*limits.LogLines),
		// One line always fits.
		bytes: rate.NewLimiter(rate.Limit(limits.LogBytes), max(maxLogLine, logBurst*int(limits.LogBytes))),
	}
	o.read.lines = rate.NewLimiter(readLines, readLines)
	o.read.bytes = rate.NewLimiter(readBytes, readBytes)
	return o
}

// copyLines passes what is read on to w, no faster than is bearable, until the
// end of the process or the close that follows it.
func (o *output) copyLines(w *lineWriter, from io.Reader) {
	buf := make([]byte, readLines) // a read has no more lines than that
	for {
		n, err := from.Read(buf)
		o.pace(buf[:n])
		_, _ = w.Write(buf[:n]) // it never fails
		if err != nil {
			break
		}
	}
	w.flush()
}

// pace waits for as long as reading that much takes.
func (o *output) pace(part []byte) {
	now := time.Now()
	wait := max(
		o.read.lines.ReserveN(now, min(readLines, bytes.Count(part, []byte{'\n'}))).DelayFrom(now),
		o.read.bytes.ReserveN(now, min(readBytes, len(part))).DelayFrom(now),
	)
	if wait == 0 {
		return
	}
	select {
	case <-time.After(wait):
	case <-o.ended:
	}
}

// readStderr logs a process's standard error until its end.
func readStderr(stderr *os.File, out *output) {
	out.copyLines(&lineWriter{limit: maxLogLine, emit: out.stderr}, stderr)
}

// stderr takes one line, less the cut bytes at its end.
func (o *output) stderr(line []byte, cut int) {
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	o.remember(line)
	if o.allow(line) {
		e := parseLine(line)
		if cut > 0 {
			e.level = max(e.level, hclog.Warn)
			e.args = append(e.args, "bytes_cut", cut)
		}
		o.log.Log(e.level, e.message, e.args...)
	}
}

// remember keeps a line for an error, unless it only says that all goes well.
func (o *output) remember(line []byte) {
	if bytes.Contains(line, []byte(`"@level":"debug"`)) || bytes.Contains(line, []byte(`"@level":"trace"`)) {
		return
	}
	crash := bytes.HasPrefix(line, []byte("panic: ")) || bytes.HasPrefix(line, []byte("fatal error: ")) ||
		bytes.HasPrefix(line, []byte("Traceback "))
	o.mu.Lock()
	defer o.mu.Unlock()
	if crash && !o.full {
		o.full = true
		o.tail = o.tail[max(0, len(o.tail)-lastLines/4):]
	}
	if len(o.tail) == lastLines {
		if o.full {
			return
		}
		o.tail = slices.Delete(o.tail, 0, 1)
	}
	o.tail = append(o.tail, bytes.Clone(line[:min(len(line), maxLogLine)]))
}

// stdout takes one line. What a plugin prints there is for nobody in particular.
func (o *output) stdout(line []byte, cut int) {
	line = line[:min(len(line), maxLogLine)]
	if len(bytes.TrimSpace(line)) > 0 && o.allow(line) {
		o.log.Debug("standard output", "line", string(line), "bytes_cut", cut)
	}
}

// tellEvery is how often it is told at most that lines are dropped.
const tellEvery = time.Second

// allow takes a line from the buckets, and tells now and then of those that it
// could not take.
func (o *output) allow(line []byte) bool {
	now := time.Now()
	if o.lines.AllowN(now, 1) && o.bytes.AllowN(now, len(line)) {
		o.tellDropped(now.Add(-tellEvery))
		return true
	}
	o.mu.Lock()
	if o.dropped == 0 {
		o.droppedAt = now
	}
	o.dropped++
	o.mu.Unlock()
	o.tellDropped(now.Add(-tellEvery))
	return false
}

// tellDropped tells how many lines were dropped, if the first was by then.
func (o *output) tellDropped(by time.Time) {
	o.mu.Lock()
	n := o.dropped
	if o.droppedAt.After(by) {
		n = 0
	}
	if n > 0 {
		o.dropped = 0
	}
	o.mu.Unlock()
	if n > 0 {
		o.log.Warn(fmt.Sprintf("%d lines dropped: the plugin writes more than %.0f lines or %.0f bytes a second", n, o.lines.Limit(), o.bytes.Limit()))
	}
}

// last returns the last lines on standard error, made readable.
func (o *output) last() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := make([]string, len(o.tail))
	for i, line := range o.tail {
		e := parseLine(line)
		var b strings.Builder
		b.WriteString(e.message)
		for j := 0; j+1 < len(e.args); j += 2 {
			fmt.Fprintf(&b, " %s=%s", e.args[j], e.args[j+1])
		}
		lines[i] = strings.ToValidUTF8(b.String()[:min(b.Len(), maxQuoted)], "")
	}
	return lines
}

// logEntry is a line as it is logged.
type logEntry struct {
	level   hclog.Level
	message string
	args    []any
}

// parseLine reads a line of hclog's JSON format, with whatever types its fields
// have. Any other line is logged as it is, at debug level.
func parseLine(line []byte) logEntry {
	plain := logEntry{level: hclog.Debug, message: clean(string(line))}
	if line[0] != '{' {
		return plain
	}
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil || fields["@message"] == nil {
		return plain
	}
	level, _ := fields["@level"].(string)
	e := logEntry{level: hclog.LevelFromString(level), message: clean(display(fields["@message"]))}
	if e.level == hclog.NoLevel || e.level == hclog.Off {
		e.level = hclog.Debug
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		switch key {
		case "@message", "@level", "@timestamp":
		default:
			e.args = append(e.args, clean(strings.TrimPrefix(key, "@")), display(fields[key]))
		}
	}
	return e
}

// display renders a value of a JSON log line.
func display(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// clean keeps a line of a plugin from looking like several of the host.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// lineWriter cuts what is written to it into lines of at most limit bytes. Of a
// longer line it keeps the beginning and counts the rest.
type lineWriter struct {
	limit int
	emit  func(line []byte, cut int) // must not keep the line

	line []byte
	cut  int
}

// Write never fails.
func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		part, rest, complete := bytes.Cut(p, []byte{'\n'})
		keep := min(len(part), w.limit-len(w.line))
		w.line = append(w.line, part[:keep]...)
		w.cut += len(part) - keep
		if !complete {
			return n, nil
		}
		w.emit(w.line, w.cut)
		w.line, w.cut = w.line[:0], 0
		p = rest
	}
}

// flush emits a line that has no end.
func (w *lineWriter) flush() {
	if len(w.line) > 0 {
		w.emit(w.line, w.cut)
		w.line, w.cut = nil, 0
	}
}
