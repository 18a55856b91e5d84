package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/deskhost/deskhost/host/internal/catalog"
	"github.com/deskhost/deskhost/host/internal/desk/schema"
	"github.com/deskhost/deskhost/host/internal/process"
	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// batchFraming is what encoding adds to the events of a batch, at most.
const batchFraming = 8 * deskv1.MaxBatchEvents

var semanticVersion = regexp.MustCompile(`^\d{1,9}\.\d{1,9}\.\d{1,9}([-+][0-9A-Za-z.+-]{1,60})?$`)

// Inspect starts a plugin for as long as it takes to ask what it is. It is for
// lists of plugins, and for checks of a configuration. A plugin that says to be
// another is returned with the error.
func Inspect(ctx context.Context, src Source, program catalog.Copy, limits Limits, log hclog.Logger) (*deskv1.DescribeResponse, error) {
	proc, describe, err := launch(ctx, program, src, limits, log)
	if err != nil {
		return describe, err
	}
	// It was not configured, so there is nothing to drain.
	return describe, proc.Kill()
}

// start takes a new process to ready.
func start(ctx context.Context, r recipe, number uint64) (*running, error) {
	log := r.opts.Log.With("generation", number)
	proc, describe, err := launch(ctx, r.copy, r.opts.Source, r.opts.Limits, log)
	if err != nil {
		return nil, err
	}
	g := newRunning(r.opts, number, r.copy.Plugin, proc, describe, log)
	if err := g.configure(ctx, r.opts); err != nil {
		return nil, g.abandon(err)
	}
	if err := g.open(); err != nil {
		return nil, g.abandon(err)
	}
	return g, nil
}

// launch starts a plugin's process and asks what it is.
func launch(ctx context.Context, program catalog.Copy, src Source, limits Limits, log hclog.Logger) (*process.Process, *deskv1.DescribeResponse, error) {
	proc, err := process.Start(ctx, process.Config{
		Path: program.Path, Name: catalog.FileName(program.Name), RunDir: src.RunDir,
		User: src.User, Limits: limits.Process, StartTimeout: limits.StartTimeout, Log: log,
	})
	if err != nil {
		return nil, nil, named(program.Plugin, "", err)
	}
	describe, err := askDescribe(ctx, program.Plugin, proc, limits)
	if err != nil {
		if exit := endedBy(proc, err); exit != nil {
			err = exit
		}
		if stop := proc.Kill(); stop != nil {
			log.Error("the plugin's process cannot be ended", "error", stop)
		}
		return nil, describe, named(program.Plugin, "", err)
	}
	return proc, describe, nil
}

// askDescribe asks a process what it is, and checks the answer, which comes with
// an error if the plugin's name is another.
func askDescribe(ctx context.Context, plugin catalog.Plugin, proc *process.Process, limits Limits) (*deskv1.DescribeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, limits.StartTimeout)
	defer cancel()
	d, err := deskv1.NewDeskServiceClient(proc.Conn()).Describe(ctx, &deskv1.DescribeRequest{})
	if err != nil {
		return nil, lost(fmt.Errorf("asking it what it is (Describe): %w", err))
	}
	if d.GetName() != plugin.Name {
		return d, operatorError{fmt.Errorf("it says that its name is %q; name its file %s and use that name in the configuration",
			d.GetName(), deskv1.FilePrefix+d.GetName())}
	}
	if !semanticVersion.MatchString(d.GetVersion()) {
		return nil, operatorError{fmt.Errorf("its version %q is not of the form 1.2.3; ask the vendor for a build with a semantic version", d.GetVersion())}
	}
	return d, nil
}

// configure checks the configuration against the plugin's schema and hands it
// over.
func (g *running) configure(ctx context.Context, opts Options) error {
	config := opts.Config
	if len(config) == 0 {
		config = json.RawMessage("{}")
	}
	problems, err := schema.Validate(g.describe.GetConfigSchema(), config)
	if err != nil {
		return operatorError{fmt.Errorf("its configuration schema cannot be used; ask the vendor: %w", err)}
	}
	if len(problems) > 0 {
		lines := make([]string, len(problems))
		for i, p := range problems {
			lines[i] = p.String()
		}
		return operatorError{fmt.Errorf("the configuration of desk %q does not fit the plugin's schema: %s", opts.Name, strings.Join(lines, "; "))}
	}
	ctx, cancel := context.WithTimeout(ctx, opts.Limits.ConfigureTimeout)
	defer cancel()
	_, err = g.client.Configure(ctx, &deskv1.ConfigureRequest{
		DeskName: opts.Name, ConfigJson: config, WebhookBaseUrl: opts.WebhookBaseURL,
	})
	if err == nil {
		return nil
	}
	failure := g.callError("Configure", err)
	switch failure.Kind {
	case deskv1.FailureKind_FAILURE_KIND_INVALID:
		return operatorError{fmt.Errorf("the plugin does not accept the configuration of desk %q: %w", opts.Name, failure)}
	case deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN:
		return lost(failure)
	default:
		return failure
	}
}

// open begins the event stream.
func (g *running) open() error {
	stream, err := g.client.Events(g.ctx, grpc.MaxCallRecvMsgSize(deskv1.MaxBatchBytes+batchFraming))
	if err != nil {
		return lost(fmt.Errorf("opening the event stream: %w", err))
	}
	err = stream.Send(&deskv1.EventsRequest{Kind: &deskv1.EventsRequest_Open{Open: &deskv1.EventsOpen{
		Window:         g.limits.Window,
		ChatWindow:     g.limits.chatWindow(),
		MaxBatchEvents: deskv1.MaxBatchEvents,
		MaxBatchBytes:  deskv1.MaxBatchBytes,
		MaxEventBytes:  deskv1.MaxEventBytes,
	}}})
	if err != nil {
		// The reason is for the receiver.
		if _, recv := stream.Recv(); recv != nil {
			err = recv
		}
		return lost(fmt.Errorf("opening the event stream: %w", err))
	}
	g.stream = stream
	return nil
}

// abandon ends a process that did not come to ready, and says why it did not.
func (g *running) abandon(err error) error {
	if exit := endedBy(g.proc, err); exit != nil {
		err = exit
	}
	g.end(err)
	if stop := g.proc.Kill(); stop != nil {
		return notEnded(err, stop)
	}
	return named(g.plugin, g.describe.GetVersion(), err)
}

// lostError marks an error that the end of the process may have caused.
type lostError struct{ error }

func (e lostError) Unwrap() error { return e.error }

// lost marks an error of gRPC unless it tells of something else for certain.
func lost(err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.Internal, codes.Unknown:
		return lostError{err}
	default:
		return err
	}
}

// exitWait is how long after its connection broke a process may take to end.
const exitWait = time.Second

// endedBy tells whether an error comes from the process's own end, which says
// more. A process that dies takes its connection along a moment before its end
// is seen.
func endedBy(proc live, err error) error {
	if !errors.As(err, new(lostError)) {
		return nil
	}
	select {
	case <-proc.Exited():
		return proc.Exit()
	case <-time.After(exitWait):
		return nil
	}
}

// named says which plugin an error is about.
func named(plugin catalog.Plugin, version string, err error) error {
	if version != "" {
		version = " " + version
	}
	return fmt.Errorf("plugin %q%s (%s): %w", plugin.Name, version, plugin.File, err)
}

// errNotEnded is a process that outlived SIGKILL.
var errNotEnded = errors.New("the process cannot be ended")

func notEnded(cause, stop error) error {
	return fmt.Errorf("%w: %w (after: %w)", errNotEnded, stop, cause)
}
