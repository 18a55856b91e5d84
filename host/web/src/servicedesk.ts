import { HostClient } from "./client.js";
import type {
  ConnectMessage,
  WebChatParameters,
  WidgetAvailability,
  WidgetCallback,
  WidgetDesk,
  WidgetMessage,
  WidgetProfile,
  WidgetUpload,
} from "./contract.js";
import type { Agent, ChatInfo, ClientError, Entry, Part, ServiceDeskOptions, StartOptions, Texts } from "./types.js";

const english: Texts = {
  stillWaiting: "You are still waiting for an agent.",
  disconnected: "The connection was lost. Trying again; you keep your place.",
  ended: "The chat was ended, as the connection to the agent was lost.",
  noFiles: "Files cannot be sent in this chat.",
};

/** Kinds of setErrorStatus. */
const connecting = 1;
const disconnected = 2;
const userMessage = 3;

/** The agent gets so much of the conversation so far, counted from its end. */
const maxHistory = { items: 100, characters: 50_000 };
/** Messages that come together are read together. */
const readDelay = 300;

/** As much of a widget's instance as is used, where it is there. */
interface Instance {
  on?(handler: { type: string; handler: (event: { data?: unknown }) => void }): unknown;
  getState?(): { humanAgent?: { isConnected?: boolean }; viewState?: { mainWindow?: boolean } };
  messaging?: { addMessage?(message: object): Promise<void> };
  serviceDesk?: { endConversation?(): Promise<void> };
}

/** A `connect_to_agent` item, wherever it stands in the assistant's answer. */
interface ConnectItem {
  response_type: "connect_to_agent";
  message_to_human_agent?: string;
  transfer_info?: { summary_message_to_agent?: unknown };
}

type Said = NonNullable<StartOptions["history"]>[number];

/**
 * The desk of one widget: turns the widget's calls into the client's, and the chat's entries into the
 * widget's callbacks. It keeps only what the widget cannot be asked.
 */
export class ServiceDesk implements WidgetDesk {
  private readonly client: HostClient;
  private readonly callback: WidgetCallback;
  private readonly instance: Instance;
  private readonly texts: Texts;
  /** The conversation with the assistant. */
  private readonly said: { from: Said["from"]; message: unknown; time: string }[] = [];

  /** How far the widget is: it has no chat, shows that it waits, or lets the user write to an agent. */
  private stage: "none" | "waiting" | "joined" = "none";
  /** Counts what the widget began, so that a slow start knows that it was given up meanwhile. */
  private turn = 0;
  /** Resolves once the end that the widget asked for is sure, or given up. */
  private ending: Promise<void> = Promise.resolve();
  /** The id of the agent that the widget shows, if there is one. */
  private present: string | undefined;
  /** The agents that the widget knows. */
  private known = new Set<string>();
  /** The wait as last told by the desk. */
  private wait: WidgetAvailability = {};
  /** What is out of reach, and whether the widget shows it. */
  private readonly away = new Set<"host" | "desk" | "vendor">();
  private awayShown = false;
  private typing = false;
  private reading: ReturnType<typeof setTimeout> | undefined;
  /** The last callback: the next one waits for it. */
  private last: Promise<unknown> = Promise.resolve();
  /** Called when a chat that the widget does not show any more has ended. */
  private onEnd: (() => void) | undefined;

  constructor(
    private readonly options: ServiceDeskOptions,
    { callback, instance }: WebChatParameters,
  ) {
    this.callback = callback;
    this.instance = instance as Instance;
    this.texts = { ...english, ...options.texts };
    this.client = new HostClient({
      ...options,
      onEntry: (entry) => this.tell(() => this.show(entry)),
      onConnection: (connection) => {
        if (connection === "offline") this.setAway("host", true);
        if (connection === "online") this.setAway("host", false);
        if (connection === "idle") this.away.delete("host"); // The chat is over.
      },
      onSessionLost: () => void this.tell(() => this.over("host")),
    });
    this.collectHistory();
    if (!this.client.chatOpen) this.mark(false);
    // A chat that an agent has joined is picked up by reconnect.
    else if (!this.instance.getState?.().humanAgent?.isConnected) this.offerToGoOn();
  }

  readonly getName = (): string => this.options.name ?? "deskhost";

  readonly areAnyAgentsOnline = async (): Promise<boolean | null> => {
    if (this.client.chatOpen) return true; // It is only to be picked up.
    return (await this.client.availability()).online;
  };

  readonly startChat = async (
    connectMessage: ConnectMessage,
    { preStartChatPayload }: { preStartChatPayload?: unknown } = {},
  ): Promise<void> => {
    const turn = ++this.turn;
    await this.ending;
    if (this.client.chatOpen) {
      const open = await this.client.resume();
      if (turn !== this.turn) return;
      if (open) return this.goOn(open);
      if (this.client.chatOpen) await new Promise<void>((done) => (this.onEnd = done));
    }
    const item = connectItem(connectMessage);
    const history = await (this.options.history?.() ?? this.history());
    const signInToken = await valueOf(this.options.signInToken);
    if (turn !== this.turn) return;
    this.enter("waiting");
    try {
      await this.client.startChat({
        connectMessage: preStartChatPayload ? { ...connectMessage, preStartChatPayload } : connectMessage,
        text: [item?.message_to_human_agent, textOf(item?.transfer_info?.summary_message_to_agent)]
          .filter(Boolean)
          .join("\n\n"),
        ...(history && { history }),
        ...(signInToken && { signInToken }),
      });
    } catch (error) {
      // A widget that has given the chat up may have begun another, which this must not end.
      if (turn !== this.turn) return;
      this.enter("none");
      const messageToUser = (error as ClientError).details?.["user_message"];
      if (messageToUser) await this.callback.setErrorStatus({ type: connecting, messageToUser: String(messageToUser) });
      throw error;
    }
  };

  readonly endChat = (): Promise<void> => {
    this.turn++;
    this.enter("none");
    this.ending = this.end();
    return this.ending;
  };

  /** Goes on for as long as the host is away: the widget shows the end already. */
  private async end(): Promise<void> {
    while (this.client.chatOpen) {
      try {
        await this.client.endChat();
      } catch (error) {
        if ((error as ClientError).code !== "unreachable") return;
      }
    }
  }

  readonly sendMessageToAgent = async (
    message: WidgetMessage,
    messageID: string,
    { filesToUpload = [] }: { filesToUpload?: readonly WidgetUpload[] } = {},
  ): Promise<void> => {
    this.filesSelectedForUpload(filesToUpload);
    const { text } = message.input as { text?: string };
    // A message of nothing but files has no text.
    if (text) await this.client.send(text, { id: message.id ?? messageID });
  };

  readonly userTyping = async (isTyping: boolean): Promise<void> => this.client.typing(isTyping);

  readonly userReadMessages = async (): Promise<void> => this.client.read();

  readonly updateState = (state: { sessionID?: string; userID?: string; locale?: string }): Promise<void> =>
    this.client.update({
      ...(state.userID && { user: { ...this.options.user, id: state.userID } }),
      ...(state.sessionID && { assistantSessionId: state.sessionID }),
      ...(state.locale && { locale: state.locale }),
    });

  readonly filesSelectedForUpload = (uploads: readonly WidgetUpload[]): void => {
    for (const { id } of uploads) void this.tell(() => this.callback.setFileUploadStatus(id, true, this.texts.noFiles));
  };

  readonly screenShareStop = async (): Promise<void> => {};

  readonly reconnect = async (): Promise<boolean> => {
    const turn = ++this.turn;
    this.stage = "joined";
    const open = await this.client.resume();
    if (turn !== this.turn) return false;
    if (!open && !this.client.chatOpen) {
      this.enter("none");
      return false;
    }
    // What was said meanwhile, perhaps to the end, follows as entries.
    this.stage = "joined";
    this.present = open?.agent?.id;
    if (this.present) this.known.add(this.present);
    this.setAway("desk", open?.desk_away ?? false);
    return true;
  };

  // A chat of an earlier load of the page.

  /**
   * A widget tells a desk nothing of a reload before an agent has joined, and begins a chat only by a
   * card. So the card is shown again; it leads back into the same chat.
   */
  private offerToGoOn(): void {
    let offered = false;
    this.instance.on?.({
      type: "chat:ready",
      handler: () => {
        if (offered || !this.client.chatOpen || this.stage !== "none") return;
        offered = true;
        const generic = [{ response_type: "connect_to_agent", agent_available: { message: this.texts.stillWaiting } }];
        void this.instance.messaging?.addMessage?.({ output: { generic } });
      },
    });
  }

  /** Shows the open chat in a widget that has just asked for one. */
  private goOn(open: ChatInfo): void {
    this.enter("waiting");
    this.setAway("desk", open.desk_away);
    if (open.state !== "connected") return;
    void this.tell(async () => {
      await this.join(open.agent ?? { id: "", nickname: "" });
      if (!open.agent) await this.leave();
    });
  }

  private enter(stage: "none" | "waiting"): void {
    if (stage !== this.stage) this.mark(stage !== "none");
    this.stage = stage;
    this.present = undefined;
    this.known.clear();
    this.wait = {};
    this.typing = false;
    this.away.delete("desk");
    this.away.delete("vendor");
    this.awayShown = false;
  }

  /** With a state that is kept, the widget does not greet after a reload. */
  private mark(open: boolean): void {
    this.callback.updatePersistedState?.(open && { chat: true }, false);
  }

  // What the widget is told.

  /** Runs one callback after another: a widget that is told two things at once mixes them up. */
  private tell(fn: () => Promise<void>): Promise<void> {
    const told = this.last.then(fn).catch((error) => console.error("deskhost: the widget failed", error));
    this.last = told;
    return told;
  }

  private async show(entry: Entry): Promise<void> {
    if (this.stage === "none" && entry.type !== "chat_ended") return;
    const { callback } = this;
    switch (entry.type) {
      case "agent_joined":
        return this.join(entry.agent);
      case "agent_left":
        // Another may have taken the chat over before.
        if (entry.agent_id && this.present && entry.agent_id !== this.present) return;
        return this.leave();
      case "transfer_started":
        this.present = undefined;
        // A widget takes someone named here for joined.
        return callback.beginTransferToAnotherAgent(
          entry.agent && this.stage === "joined" ? this.profile(entry.agent) : undefined,
        );
      case "message":
        if (entry.from === "user") return;
        await callback.sendMessageToUser(
          messageOf(entry),
          entry.agent_id && this.known.has(entry.agent_id) ? entry.agent_id : undefined,
        );
        return this.readSoon();
      case "message_status":
        if (entry.status === "delivered" || !callback.updatePersistedState) return;
        return callback.setErrorStatus({ type: userMessage, messageID: entry.id });
      case "agent_typing":
        this.typing = entry.typing;
        return callback.agentTyping(entry.typing);
      case "agent_read":
        return callback.agentReadMessages();
      case "availability":
        this.wait = availabilityOf(entry);
        if (this.stage === "waiting" && !this.awayShown) await callback.updateAgentAvailability(this.wait);
        return;
      case "error":
        // That there is no connection to an agent is told with the end that follows.
        if (entry.kind === "disconnected") this.setAway("vendor", entry.disconnected !== false);
        return;
      case "desk_away":
      case "desk_back":
        return this.setAway("desk", entry.type === "desk_away");
      case "chat_ended":
        return this.over(entry.by, entry.message);
    }
  }

  private async join(agent: Agent): Promise<void> {
    if (this.present === agent.id) return; // The widget has learnt it in another way.
    const waiting = this.stage === "waiting";
    this.stage = "joined";
    this.present = agent.id;
    await this.callback.agentJoined(this.profile(agent));
    // To a waiting user it was shown as a text, which is gone now.
    if (waiting) this.awayShown = false;
    await this.showAway();
  }

  private async leave(): Promise<void> {
    this.present = undefined;
    if (this.stage === "joined") await this.callback.agentLeftChat();
  }

  private async over(by: "user" | "agent" | "desk" | "host", message?: string): Promise<void> {
    const { callback, stage } = this;
    this.enter("none");
    this.onEnd?.();
    if (stage === "waiting") {
      await callback.setErrorStatus({ type: connecting, ...(message && { messageToUser: message }) });
    } else if (stage === "joined") {
      const fault = by === "desk" || by === "host";
      const text = message || (fault && this.texts.ended);
      const response_type = fault ? "inline_error" : "text";
      if (text) await callback.sendMessageToUser({ output: { generic: [{ response_type, text }] } });
      // Not everything is the agent's doing, and a widget has other words for that.
      const end = by === "agent" ? undefined : this.instance.serviceDesk?.endConversation;
      await (end ? end() : callback.agentEndedChat());
    }
  }

  private setAway(what: "host" | "desk" | "vendor", away: boolean): void {
    if (away) this.away.add(what);
    else this.away.delete(what);
    void this.tell(() => this.showAway());
  }

  private async showAway(): Promise<void> {
    const away = this.away.size > 0;
    if (away === this.awayShown || this.stage === "none") return;
    this.awayShown = away;
    if (this.stage === "joined") {
      await this.callback.setErrorStatus({ type: disconnected, isDisconnected: away });
      // That the agent has stopped may never be heard.
      if (away && this.typing) await this.callback.agentTyping((this.typing = false));
    } else {
      // DISCONNECTED would end the chat in a widget that still waits.
      await this.callback.updateAgentAvailability(away ? { message: this.texts.disconnected } : this.wait);
    }
  }

  private profile({ id, nickname, avatar_url, bot }: Agent): WidgetProfile {
    this.known.add(id);
    return { id, nickname, user_type: bot ? "bot" : "human", ...(avatar_url && { profile_picture_url: avatar_url }) };
  }

  /** Not every widget tells what the user has seen. */
  private readSoon(): void {
    this.reading ??= setTimeout(() => {
      this.reading = undefined;
      const open = this.instance.getState?.().viewState?.mainWindow !== false;
      if (open && globalThis.document?.visibilityState === "visible") this.client.read();
    }, readDelay);
  }

  private collectHistory(): void {
    const collect = (type: string, from: Said["from"]) =>
      this.instance.on?.({
        type,
        handler: ({ data }) => {
          this.said.push({ from, message: data, time: new Date().toISOString() });
          if (this.said.length > maxHistory.items) this.said.shift();
        },
      });
    // The events behind them come only when the answer has been shown.
    collect("pre:send", "user");
    collect("pre:receive", "assistant");
    this.instance.on?.({ type: "restartConversation", handler: () => void this.said.splice(0) });
  }

  /** The end of the conversation with the assistant, as far as it has text. */
  private history(): Said[] {
    const history: Said[] = [];
    let left = maxHistory.characters;
    for (const { from, message, time } of [...this.said].reverse()) {
      const { input, output } = message as Partial<WidgetMessage & ConnectMessage>;
      const text = textOf(from === "user" ? input : output?.generic);
      left -= text.length;
      if (left < 0) break;
      if (text) history.unshift({ from, text, time });
    }
    return history;
  }
}

function connectItem({ output }: ConnectMessage): ConnectItem | undefined {
  return (output.generic as ConnectItem[] | undefined)?.find((item) => item?.response_type === "connect_to_agent");
}

/** The text of a string, an item of an answer, or several of them. */
function textOf(value: unknown): string {
  if (Array.isArray(value)) return value.map(textOf).filter(Boolean).join("\n\n");
  if (typeof value === "object" && value !== null) return textOf((value as { text?: unknown }).text);
  return typeof value === "string" ? value : "";
}

async function valueOf<T>(value: T | (() => T | Promise<T>)): Promise<T> {
  return typeof value === "function" ? (value as () => T | Promise<T>)() : value;
}

function availabilityOf({ wait_minutes, position, message }: Entry & { type: "availability" }): WidgetAvailability {
  return {
    ...(wait_minutes !== undefined && { estimatedWaitTime: wait_minutes, estimated_wait_time: wait_minutes }),
    ...(position !== undefined && { positionInQueue: position, position_in_queue: position }),
    ...(message && { message }),
  };
}

function messageOf({ chat_id, id, text, parts }: Entry & { type: "message"; from: "agent" }): object {
  const generic = (parts ?? []).map(itemOf).filter(Boolean);
  return {
    // Widgets keep messages of all chats by their id.
    id: `${chat_id}-${id}`,
    output: { generic: generic.length ? generic : [{ response_type: "text", text }] },
  };
}

/** Undefined for what this module does not know yet. */
function itemOf(part: Part): object | undefined {
  switch (part.type) {
    case "text":
    case "inline_error":
      return { response_type: part.type, text: part.text };
    case "image":
    case "video":
      return { response_type: part.type, source: part.url, title: part.title, alt_text: part.alt_text };
    case "link":
      return link(part.url, part.label);
    case "file":
      return link(part.url, part.name);
    case "quick_replies":
      // A widget would send the reply to the assistant.
      return { response_type: "text", text: [part.text ?? "", ...part.replies.map(({ label }) => `- ${label}`)].join("\n") };
    case "user_defined":
      return { response_type: "user_defined", user_defined: part.data };
  }
}

function link(url: string, label = url): object {
  return { response_type: "button", button_type: "url", kind: "LINK", url, label, target: "_blank" };
}
