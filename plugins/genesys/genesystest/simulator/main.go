// Command simulator serves a simulator of Genesys Cloud, package genesystest, so
// that a plugin can be tried and tested without an account of the vendor's. It
// owns the flags and the listener. "make run DESK=genesys" starts it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/deskhost/deskhost/plugins/genesys/genesystest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "genesys simulator:", err)
		os.Exit(1)
	}
}

func run() error {
	var options genesystest.Options
	listen := flag.String("listen", "127.0.0.1:9000", "address to listen on; whoever reaches it plays the agents, so keep it to loopback")
	flag.StringVar(&options.Deployment, "deployment", "", "id of the deployment (default one that is printed)")
	flag.StringVar(&options.OrganizationID, "organization", "", "id of the organization (default one that is printed)")
	flag.StringVar(&options.Queue, "queue", "", `name of the queue (default "Support")`)
	flag.StringVar(&options.QueueID, "queue-id", "", "id of the queue (default one that is printed)")
	flag.StringVar(&options.ClientID, "client-id", "", `id of the OAuth client (default "client")`)
	flag.StringVar(&options.ClientSecret, "client-secret", "", `secret of the OAuth client (default "secret")`)
	flag.BoolVar(&options.RequireAuth, "require-auth", false, "refuse guests who have not signed in")
	flag.StringVar(&options.DisconnectType, "disconnect", "", `what a guest is told when the agent ends: "ReadOnly", "Send" or "None" (default "ReadOnly")`)
	flag.DurationVar(&options.SessionLife, "session-life", 0, "life of a session of Web Messaging after its last message (default 15m)")
	flag.DurationVar(&options.TokenLife, "token-life", 0, "life of JWTs and access tokens (default 1h)")
	origins := flag.String("origins", "", "comma-separated origins that the deployment is restricted to (default any)")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if *origins != "" {
		options.Origins = strings.Split(*origins, ",")
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	simulator := genesystest.New(options)
	server := &http.Server{Handler: simulator, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	o := simulator.Options()
	fmt.Fprintf(os.Stdout, "Genesys Cloud simulator at http://%s, console at http://%s/console/: deployment %s, organization %s, queue %q (%s)\n",
		l.Addr(), l.Addr(), o.Deployment, o.OrganizationID, o.Queue, o.QueueID)
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = server.Close()
	}
	simulator.Close()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
