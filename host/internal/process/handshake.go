package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"

	goplugin "github.com/hashicorp/go-plugin"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

const (
	// maxHandshake bounds the handshake line, which holds a certificate.
	maxHandshake = 16 << 10
	// maxNoise is how many other lines may come before it.
	maxNoise = 1000
)

// The handshake line of go-plugin:
// core version | application version | network | address | protocol | certificate [| more].
var (
	handshakeLine = regexp.MustCompile(`^\s*(\d+)\|(\d+)\|(unix|tcp)\|[^|]+(?:\|([a-z]+))?(?:\|([A-Za-z0-9+/]*={0,2}))?(?:\|.*)?\s*$`)
	// A certificate is long; older plugins put other things in its place.
	minCertificate = 51
)

// handshake is the line, or why there is none: io.EOF if the output ended.
type handshake struct {
	line string
	err  error
}

// readStdout looks for the handshake among what the process writes on standard
// output, tells it once, and logs all else, so that the process never blocks.
func readStdout(stdout *os.File, out *output, found chan<- handshake) {
	waiting, noise := true, 0
	tell := func(h handshake) {
		found <- h
		waiting = false
	}
	w := &lineWriter{limit: maxHandshake, emit: func(line []byte, cut int) {
		if waiting && cut == 0 && handshakeLine.Match(line) {
			if noise > 0 {
				out.log.Warn("the plugin wrote on standard output before the handshake; lines for the log belong on standard error", "lines", noise)
			}
			tell(handshake{string(bytes.TrimSpace(line)), checkHandshake(line)})
			return
		}
		out.stdout(line, cut)
		if noise++; waiting && noise > maxNoise {
			tell(handshake{err: fmt.Errorf("more than %d lines on standard output before the handshake; is it a deskhost plugin?", maxNoise)})
		}
	}}
	out.copyLines(w, stdout)
	if waiting {
		tell(handshake{err: io.EOF})
	}
}

// checkHandshake says which side has to change if the two do not match.
// go-plugin's own errors name neither file nor remedy.
func checkHandshake(line []byte) error {
	m := handshakeLine.FindSubmatch(line)
	core, app, protocol, cert := string(m[1]), string(m[2]), string(m[4]), m[5]
	if core != fmt.Sprint(goplugin.CoreProtocolVersion) {
		return fmt.Errorf("it speaks go-plugin's core protocol %s, and this deskhost %d; it has to be built with hashicorp/go-plugin 1", core, goplugin.CoreProtocolVersion)
	}
	if app != fmt.Sprint(deskv1.ProtocolVersion) {
		return fmt.Errorf("it speaks version %s of the desk protocol, and this deskhost version %d; install a build of the plugin for version %d, or the deskhost that the plugin asks for", app, deskv1.ProtocolVersion, deskv1.ProtocolVersion)
	}
	if protocol != string(goplugin.ProtocolGRPC) {
		return fmt.Errorf("it serves go-plugin over %q, and deskhost speaks grpc only", protocol)
	}
	if len(cert) < minCertificate {
		return fmt.Errorf("its handshake holds no certificate; a plugin has to take the one in PLUGIN_CLIENT_CERT and answer with its own (go-plugin's AutoMTLS)")
	}
	if bytes.HasSuffix(cert, []byte("=")) {
		return fmt.Errorf("the certificate in its handshake is base64 with padding; go-plugin takes it without the = at the end")
	}
	return nil
}
