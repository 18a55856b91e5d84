// The simulator is a Twilio account as a process of its own, for tests and for
// trying deskhost without one. See package twiliotest.
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
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address to listen on; whoever reaches it plays the agents, so keep it to loopback")
	greeting := flag.String("greeting", "", "what the Studio flow says to a customer's first message")
	flag.Parse()
	if err := run(*listen, *greeting); err != nil {
		fmt.Fprintln(os.Stderr, "twilio simulator:", err)
		os.Exit(1)
	}
}

func run(address, greeting string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	account := twiliotest.New(twiliotest.Options{Greeting: greeting, Log: hclog.New(&hclog.LoggerOptions{Name: "twilio-simulator"})})
	server := &http.Server{Handler: account, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintf(os.Stdout, "Twilio Flex simulator at http://%s, console at http://%s/console/\n", listener.Addr(), listener.Addr())

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case <-ctx.Done():
	case err := <-served:
		account.Close()
		return err
	}
	account.Close() // ends what the server would wait for
	soon, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(soon); err != nil {
		return err
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
