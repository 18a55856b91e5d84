package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// screen is where a conversation is shown and typed. Its methods are for one
// goroutine.
type screen interface {
	// say shows what belongs to the conversation, note what goes on around it.
	// Both take clean text, which may have several lines.
	say(text string)
	note(text string)
	// status shows something that is so for now; empty ends it.
	status(text string)
	inputs() <-chan input
	// interactive tells whether somebody sits there.
	interactive() bool
	// close gives the terminal back. What is said or noted afterwards is still
	// shown. It may be called again.
	close()
}

// input is one thing that the user does.
type input struct {
	kind inputKind
	line string
	err  error // with inputEnd, what cut the input off
}

type inputKind int

const (
	inputLine inputKind = iota
	inputKey            // a key that changes the line
	inputEnd            // there is no more
)

// inbox hands on what a reading goroutine gets. That goroutine cannot be ended
// while it waits for the user: it ends with the process, and hands on nothing
// once the screen is closed.
type inbox struct {
	taken  chan input
	closed chan struct{}
	once   sync.Once
}

func newInbox() inbox { return inbox{taken: make(chan input, 1), closed: make(chan struct{})} }

func (b *inbox) put(in input) {
	select {
	case b.taken <- in:
	case <-b.closed:
	}
}

func (b *inbox) inputs() <-chan input { return b.taken }

// terminal is a screen on a terminal: lines appear above the one that is edited.
type terminal struct {
	inbox

	in, out *os.File
	was     *term.State
	editor  *term.Terminal
	plain   bool // without colours

	mu     sync.Mutex
	shown  string // the status
	isOpen bool
}

func openTerminal(in, out *os.File) (*terminal, error) {
	was, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	t := &terminal{inbox: newInbox(), in: in, out: out, was: was, plain: os.Getenv("NO_COLOR") != "", isOpen: true}
	t.editor = term.NewTerminal(t, t.prompt())
	t.editor.AutoCompleteCallback = func(string, int, rune) (string, int, bool) {
		select {
		case t.taken <- input{kind: inputKey}:
		default: // One more key tells nothing new.
		}
		return "", 0, false
	}
	t.fit()
	go t.read()
	return t, nil
}

func (t *terminal) read() {
	for {
		line, err := t.editor.ReadLine()
		switch {
		case err == nil, errors.Is(err, term.ErrPasteIndicator):
			t.editor.SetPrompt(t.prompt())
			t.put(input{kind: inputLine, line: line})
		case errors.Is(err, io.EOF): // Ctrl-C or Ctrl-D
			t.put(input{kind: inputEnd})
			return
		default:
			t.put(input{kind: inputEnd, err: err})
			return
		}
	}
}

// Read is what the editor reads keys with.
func (t *terminal) Read(b []byte) (int, error) {
	n, err := t.in.Read(b)
	t.fit()
	if bytes.IndexByte(b[:n], '\r') >= 0 {
		// The line stays on the screen; the status that stands before it must not.
		t.editor.SetPrompt(promptMark)
		t.repaint()
	}
	return n, err
}

// Write is what the editor draws with.
func (t *terminal) Write(b []byte) (int, error) { return t.out.Write(b) }

// fit follows the terminal's size. It is looked at when something happens; the
// signal that tells of changes is not there on every system.
func (t *terminal) fit() {
	if width, height, err := term.GetSize(int(t.out.Fd())); err == nil && width > 0 {
		_ = t.editor.SetSize(width, height)
	}
}

const promptMark = "> "

func (t *terminal) prompt() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shown == "" {
		return promptMark
	}
	return t.faint(t.shown) + " " + promptMark
}

func (t *terminal) status(text string) {
	t.mu.Lock()
	same := t.shown == text
	t.shown = text
	t.mu.Unlock()
	if !same {
		t.editor.SetPrompt(t.prompt())
		t.repaint()
	}
}

// repaint draws the edited line again: the editor does so behind each text, be
// it empty.
func (t *terminal) repaint() {
	if t.open() {
		_, _ = t.editor.Write(nil)
	}
}

func (t *terminal) open() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.isOpen
}

func (t *terminal) say(text string) {
	// There is nobody to tell that the terminal is gone.
	if t.open() {
		t.fit()
		_, _ = t.editor.Write([]byte(text + "\n"))
	} else {
		_, _ = fmt.Fprintln(t.out, text)
	}
}

func (t *terminal) note(text string) { t.say(t.faint(text)) }

func (t *terminal) faint(text string) string {
	if t.plain {
		return text
	}
	return "\x1b[2m" + text + "\x1b[0m"
}

func (t *terminal) interactive() bool { return true }

func (t *terminal) close() {
	t.once.Do(func() {
		close(t.closed)
		t.mu.Lock()
		t.isOpen = false
		t.mu.Unlock()
		// The prompt goes; what stands above it stays.
		_, _ = t.out.WriteString("\r\x1b[K")
		_ = term.Restore(int(t.in.Fd()), t.was)
	})
}

// pipes is a screen without a terminal: lines in, lines out.
type pipes struct {
	inbox

	out, err io.Writer
}

// maxLine bounds a line of input; what a host takes is shorter.
const maxLine = 1 << 20

func newPipes(in io.Reader, out, err io.Writer) *pipes {
	p := &pipes{inbox: newInbox(), out: out, err: err}
	go func() {
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			p.put(input{kind: inputLine, line: strings.TrimSuffix(lines.Text(), "\r")})
		}
		p.put(input{kind: inputEnd, err: lines.Err()})
	}()
	return p
}

// Nobody can be told of an output that is closed.
func (p *pipes) say(text string)   { _, _ = fmt.Fprintln(p.out, text) }
func (p *pipes) note(text string)  { _, _ = fmt.Fprintln(p.err, text) }
func (p *pipes) status(string)     {}
func (p *pipes) interactive() bool { return false }
func (p *pipes) close()            { p.once.Do(func() { close(p.closed) }) }
