package desktest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

var (
	// handshakeLine is core version | desk protocol | network | address | grpc | certificate [| more].
	handshakeLine   = regexp.MustCompile(`^1\|1\|(unix|tcp)\|[^|]+\|grpc\|[A-Za-z0-9+/]{51,}={0,2}(\|.*)?$`)
	pluginName      = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)
	semanticVersion = regexp.MustCompile(`^\d{1,9}\.\d{1,9}\.\d{1,9}([-+][0-9A-Za-z.+-]{1,60})?$`)
)

func checkHandshake(t *trial) {
	s := t.start()
	if line := s.firstLine(); !handshakeLine.MatchString(line) {
		t.failf("the first line was %.200q", line)
	}
	ctx, cancel := t.soon()
	defer cancel()
	if _, err := s.Describe(ctx, &deskv1.DescribeRequest{}); err != nil && failureOf(err) == nil {
		t.failf("after the handshake no call gets through: %w", err)
	}
}

func checkMutualTLS(t *trial) {
	s := t.start()
	for what, creds := range map[string]credentials.TransportCredentials{
		"without encryption": insecure.NewCredentials(),
		// Whose certificate the plugin shows is not in question here.
		"without a certificate": credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}), //nolint:gosec // see above
	} {
		conn, err := s.dial(creds)
		t.must("dialling", err)
		ctx, cancel := t.soon()
		_, err = deskv1.NewDeskServiceClient(conn).Describe(ctx, &deskv1.DescribeRequest{})
		cancel()
		_ = conn.Close()
		if err == nil || failureOf(err) != nil {
			t.failf("a client %s was served", what)
		}
	}
}

func checkName(t *trial) {
	s := t.described()
	file, ok := strings.CutPrefix(strings.TrimSuffix(filepath.Base(t.plugin.File), ".exe"), deskv1.FilePrefix)
	switch name := s.describe.GetName(); {
	case !pluginName.MatchString(name):
		t.failf("the name %q is not of the form %s", name, pluginName)
	case !ok:
		t.failf("the file is named %s, where %s%s was due", filepath.Base(t.plugin.File), deskv1.FilePrefix, name)
	case name != file:
		t.failf("the name %q, and the file's is %q", name, file)
	}
}

func checkVersion(t *trial) {
	if v := t.described().describe.GetVersion(); !semanticVersion.MatchString(v) {
		t.failf("the version %q", v)
	}
}

func checkValues(t *trial) {
	d := t.described().describe
	seen := map[deskv1.Capability]bool{}
	for _, c := range d.GetCapabilities() {
		if _, known := deskv1.Capability_name[int32(c)]; !known || c == deskv1.Capability_CAPABILITY_UNSPECIFIED || seen[c] {
			t.failf("the capabilities %v", d.GetCapabilities())
		}
		seen[c] = true
	}
	if _, known := deskv1.SendDedupe_name[int32(d.GetSendDedupe())]; !known {
		t.failf("a send_dedupe of %d", d.GetSendDedupe())
	}
	if _, known := deskv1.Replay_name[int32(d.GetReplay())]; !known {
		t.failf("a replay of %d", d.GetReplay())
	}
	formats := map[uint32]bool{0: true}
	for _, f := range d.GetStateFormats() {
		if formats[f] {
			t.failf("the state formats %v; they begin at 1", d.GetStateFormats())
		}
		formats[f] = true
	}
	if d.GetReplay() == deskv1.Replay_REPLAY_CURSOR && !seen[deskv1.Capability_CAPABILITY_RESUME] {
		t.failf("replay by cursor without CAPABILITY_RESUME, whose state holds the cursor")
	}
}

func checkDescribeAgain(t *trial) {
	s := t.ready()
	ctx, cancel := t.soon()
	defer cancel()
	again, err := s.Describe(ctx, &deskv1.DescribeRequest{})
	t.must("Describe after Configure", err)
	if !proto.Equal(s.describe, again) {
		t.failf("first %v, then %v", s.describe, again)
	}
}

// noLoader refuses references out of a schema.
type noLoader struct{}

func (noLoader) Load(string) (any, error) {
	return nil, errors.New("it refers to something outside itself")
}

// fits holds a configuration to the plugin's schema.
func (t *trial) fits(d *deskv1.DescribeResponse, config []byte) error {
	if strings.TrimSpace(d.GetConfigSchema()) == "" {
		return nil
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(d.GetConfigSchema()))
	t.must("the schema is no JSON", err)
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(noLoader{})
	const location = "plugin-schema:config"
	t.must("the schema", compiler.AddResource(location, doc))
	schema, err := compiler.Compile(location)
	t.must("the schema is not valid", err)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(config))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

func checkSchema(t *trial) {
	t.must("the configuration does not fit", t.fits(t.described().describe, t.plugin.Config))
}

func checkConfigure(t *trial) { t.ready() }

func checkBadConfig(t *trial) {
	if len(t.plugin.BadConfig) == 0 {
		t.notTested("no bad configuration was given")
	}
	s := t.described()
	if t.fits(s.describe, t.plugin.BadConfig) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.ctx, 3*patience)
	defer cancel()
	_, err := s.Configure(ctx, t.configuration(t.plugin.BadConfig))
	t.wantKind("Configure", err, deskv1.FailureKind_FAILURE_KIND_INVALID)
}

func checkHealth(t *trial) {
	s := t.ready()
	for range 3 {
		ctx, cancel := t.soon()
		h, err := s.Health(ctx, &deskv1.HealthRequest{})
		cancel()
		t.must("Health", err)
		if !h.GetHealthy() {
			t.failf("not healthy: %q", h.GetMessage())
		}
	}
}
