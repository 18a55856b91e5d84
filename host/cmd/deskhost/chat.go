package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/deskhost/deskhost/host/internal/client"
)

// farewellTimeout bounds what is still told to the host when the user has left.
const farewellTimeout = time.Second

// chatOptions are the flags of chat.
type chatOptions struct {
	url, desk, name, locale, text, state string
}

func chatCommand() *cobra.Command {
	var o chatOptions
	cmd := &cobra.Command{
		Use:   "chat",
		Short: "Chat with an agent in the terminal",
		Long: `Chat with an agent in the terminal, as a user does in the widget of a page.

/end ends the chat. Ctrl-C, Ctrl-D and /quit leave it open: the same command
goes on with it and shows what was said meanwhile. Everything else that is typed
goes to the agent, line by line.

Without a terminal, lines of standard input are messages and lines of standard
output the conversation; what goes on around it is told on standard error. At
the end of its input the command waits until the desk has the messages.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return chat(cmd, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.url, "url", "http://127.0.0.1:8080", "`address` of the host")
	flags.StringVar(&o.desk, "desk", "", "`name` of the desk (default: the host's default desk)")
	flags.StringVar(&o.name, "name", "", "the user's `name`")
	flags.StringVar(&o.locale, "locale", "", "the user's `language`, such as en-GB")
	flags.StringVar(&o.text, "text", "", "what the agent reads first")
	flags.StringVar(&o.state, "state", "", "`file` that keeps the open chat, with its secret token (default: one in your state folder for each address and desk)")
	return cmd
}

func chat(cmd *cobra.Command, o chatOptions) error {
	o.url = strings.TrimSuffix(o.url, "/")
	host, err := client.New(o.url)
	if err != nil {
		return err
	}
	store, err := newChatStore(o)
	if err != nil {
		return err
	}
	state, err := store.load()
	if err != nil {
		return err
	}

	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// From the first signal on, a second has its usual effect.
	context.AfterFunc(ctx, stop)

	screen, err := openScreen(cmd)
	if err != nil {
		return err
	}
	defer screen.close()

	c := &conversation{
		options: o,
		client:  host,
		store:   store,
		screen:  screen,
		state:   state,
		todo:    make(chan func() error),
	}
	err = c.run(ctx)
	// From here on Ctrl-C is a signal again, and ends at once.
	screen.close()
	stop()
	c.farewell()
	return err
}

// openScreen takes the terminal if there is one on both sides.
func openScreen(cmd *cobra.Command) (screen, error) {
	in, fileIn := cmd.InOrStdin().(*os.File)
	out, fileOut := cmd.OutOrStdout().(*os.File)
	if !fileIn || !fileOut || os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) {
		return newPipes(cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()), nil
	}
	s, err := openTerminal(in, out)
	if err != nil {
		return nil, fmt.Errorf("the terminal cannot be read key by key: %w; with TERM=dumb it is read line by line", err)
	}
	return s, nil
}
