package process

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/encoding/protowire"
)

func TestParseLine(t *testing.T) {
	tests := []struct {
		line, message string
		level         hclog.Level
		args          []any
	}{
		{`plain text`, "plain text", hclog.Debug, nil},
		{`{"@level":"warn","@message":"slow","@timestamp":"x","b":2,"a":"one"}`, "slow", hclog.Warn, []any{"a", "one", "b", "2"}},
		{`{"@level":"error","@message":"slow","@module":"api"}`, "slow", hclog.Error, []any{"module", "api"}},
		// Each of these panics, or is lost, in go-plugin's parser.
		{`{"@message":5}`, "5", hclog.Debug, nil},
		{`{"@message":{"a":[1]},"@level":7,"@timestamp":8}`, `{"a":[1]}`, hclog.Debug, nil},
		{`{"@message":"x","@level":"off"}`, "x", hclog.Debug, nil},
		{`{"level":"info"}`, `{"level":"info"}`, hclog.Debug, nil},
		{`{"@message":`, `{"@message":`, hclog.Debug, nil},
		{`{"@message":"two\nlines","k\n":"v"}`, "two lines", hclog.Debug, []any{"k ", "v"}},
	}
	for _, test := range tests {
		e := parseLine([]byte(test.line))
		if e.message != test.message || e.level != test.level || !slices.Equal(e.args, test.args) {
			t.Errorf("%s: got %+v", test.line, e)
		}
	}
}

func TestLineWriterCapsLines(t *testing.T) {
	var got []string
	w := &lineWriter{limit: 4, emit: func(line []byte, cut int) { got = append(got, fmt.Sprint(string(line), "+", cut)) }}
	for _, part := range []string{"a", "b\n\ncdef\nlong", "er line\nx", "y"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	w.flush()
	w.flush()
	if want := []string{"ab+0", "+0", "cdef+0", "long+7", "xy+0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLogStormIsLimitedAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		const lineBurst = 500
		out := newOutput(hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: &logged}), DefaultLimits())
		for i := range 100000 {
			out.stderr(fmt.Appendf(nil, "line %d", i), 0)
		}
		if n := strings.Count(logged.String(), "\n"); n != lineBurst {
			t.Errorf("%d lines were logged, want %d", n, lineBurst)
		}
		time.Sleep(time.Second) // of the fake clock
		out.stderr([]byte("calm again"), 0)
		if want := fmt.Sprint(100000-lineBurst, " lines dropped"); !strings.Contains(logged.String(), want) {
			t.Errorf("not told: %s", want)
		}
		if last := out.last(); len(last) != lastLines || last[lastLines-1] != "calm again" {
			t.Errorf("last lines %q", last)
		}
	})
}

func TestLastLinesBeginWithTheCrash(t *testing.T) {
	out := newOutput(hclog.NewNullLogger(), DefaultLimits())
	for i := range 50 {
		out.stderr(fmt.Appendf(nil, "before %d", i), 0)
	}
	out.stderr([]byte(`{"@level":"debug","@message":"all is well"}`), 0)
	out.stderr([]byte("panic: nil map"), 0)
	for i := range 50 {
		out.stderr(fmt.Appendf(nil, "stack %d", i), 0)
	}
	last := out.last()
	if len(last) != lastLines || last[0] != "before 45" || last[5] != "panic: nil map" || last[6] != "stack 0" {
		t.Errorf("last lines %q", last)
	}
}

func TestParseStdio(t *testing.T) {
	b := protowire.AppendTag(nil, 9, protowire.Fixed32Type)
	b = protowire.AppendFixed32(b, 1)
	b = protowire.AppendTag(b, stdioChannel, protowire.VarintType)
	b = protowire.AppendVarint(b, stdioStderr)
	b = protowire.AppendTag(b, stdioData, protowire.BytesType)
	b = protowire.AppendBytes(b, []byte("hello"))
	if channel, data := parseStdio(b); channel != stdioStderr || string(data) != "hello" {
		t.Errorf("%d, %q", channel, data)
	}
	parseStdio(b[:len(b)-2]) // does not panic
}
