// Command deskhost-plugin-mock is the plugin for the mock desk and, as
// "deskhost-plugin-mock desk", the desk server itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/deskhost/deskhost/plugins/mock/adapter"
	"github.com/deskhost/deskhost/plugins/mock/mockdesk"
	"github.com/deskhost/deskhost/sdk"
)

// version is that of the plugin; the release build sets it.
var version = "0.1.0"

// dedupe is what the plugin says of how its desk takes a message that comes
// again: "key" or "none". It has to be said before there is a configuration, so
// a plugin for a desk whose script has dedupe false is another build.
var dedupe = "key"

func main() {
	if len(os.Args) < 2 || os.Args[1] != "desk" {
		plugin := adapter.Plugin(version)
		if dedupe == "none" {
			plugin.SendDedupe = sdk.DedupeNone
		}
		sdk.Serve(plugin)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := runDesk(ctx, os.Args[2:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "deskhost-plugin-mock desk:", err)
		os.Exit(1)
	}
}

// runDesk runs the desk server until ctx ends. It prints one line once it
// listens.
func runDesk(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("deskhost-plugin-mock desk", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:9000", "`address` to listen on; there are no passwords, so keep to loopback")
	scriptFile := flags.String("script", "", "`file` with the script, a JSON object of the plugin's configuration without url")
	console := flags.Bool("console", false, "have a person at the console answer, not the script")
	publicURL := flags.String("public-url", "", "`URL` at which browsers reach the server (default: the address listened on)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see -h", flags.Arg(0))
	}
	var text []byte
	if *scriptFile != "" {
		var err error
		if text, err = os.ReadFile(*scriptFile); err != nil {
			return err
		}
	}
	script, err := mockdesk.ParseScript(text)
	if err != nil {
		return fmt.Errorf("script %s: %w", *scriptFile, err)
	}
	script.Console = script.Console || *console

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	base := *publicURL
	if base == "" {
		base = "http://" + listener.Addr().String()
	}
	desk := mockdesk.New(script, base+"/console/")
	server := &http.Server{Handler: desk, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	fmt.Fprintf(out, "mock desk on http://%s, console at %s/console/\n", listener.Addr(), base)

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	desk.Close() // ends the feeds, for which Shutdown would wait
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(ending); err != nil {
		return server.Close()
	}
	return nil
}
