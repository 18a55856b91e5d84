// The pages at /carbon/ in a browser: the widget as its user meets it.

import { Page } from "./harness.mjs";

/** What the pages show while host, desk or network are away during a chat. */
export const lost = "The connection was lost. It comes back by itself.";

export class Widget extends Page {
  /** variant: "" for the web component, "react.html" for the React one. */
  static async open(chromium, host, query = "", { variant = "", ...options } = {}) {
    const page = await super.open(chromium, host, `carbon/${variant}${query}`, options);
    await page.ready();
    return page;
  }

  /** Waits until the widget takes input. */
  ready() {
    return this.tab.waitForFunction(() => globalThis.chat?.getState().isHydratingCounter === 0);
  }

  async reload() {
    await this.tab.reload();
    await this.ready();
  }

  /** What the widget shows of the conversation, one element a message. */
  get log() {
    return this.tab.locator('[data-testid^="message-by-index-"]');
  }

  /** Waits for a text in the conversation. */
  sees(text) {
    return this.log.filter({ hasText: text }).last().waitFor();
  }

  /** Waits until the agent is shown typing, or with false until not any more. */
  typing(shown = true) {
    return this.tab.locator("cds-aichat-processing").first().waitFor({ state: shown ? "visible" : "hidden" });
  }

  /** The input, once it may be used. */
  get input() {
    return this.tab.locator('[data-testid="input_field"][contenteditable="true"]');
  }

  async says(text) {
    await this.input.click();
    await this.tab.keyboard.insertText(text);
    await this.tab.keyboard.press("Enter");
  }

  /** Waits for the mark that the widget puts below a message of the user's, or with false until it is gone. */
  async failed(text, failed = true) {
    const mark = this.log.filter({ hasText: text }).getByText("This message may not have arrived.");
    await mark.waitFor({ state: failed ? "visible" : "detached" });
  }

  /** Waits for the widget's own idea of a message of the user's. It shows "retrying" to nobody. Wants ?inside. */
  sending(text, state) {
    return this.tab.waitForFunction(
      ({ text, wanted }) =>
        Object.values(globalThis.chat.serviceManager.store.getState().allMessagesByID).find(
          ({ input }) => input?.text === text,
        )?.history?.error_state === wanted,
      { text, wanted: { done: 1, retrying: 4 }[state] },
    );
  }

  button(name) {
    return this.tab.getByRole("button", { name, exact: true });
  }

  /** Asks the assistant for a human. */
  async asks() {
    await this.sees("I am a small assistant");
    await this.says("A human, please");
  }

  /** Asks for a human once more, behind the end of a chat. */
  async asksAgain() {
    await this.tab.getByText("Type something...").first().waitFor();
    const cards = await this.log.filter({ hasText: "Live agent support" }).count();
    await this.says("A human, please");
    await this.log.filter({ hasText: "Live agent support" }).nth(cards).waitFor();
    await this.button("Connect to agent").last().click();
    await this.is("waiting");
  }

  /** Waits for the widget's idea of the chat: none, waiting or connected. */
  is(state) {
    return this.tab.waitForFunction((state) => {
      const { isConnecting, isConnected } = globalThis.chat?.getState().humanAgent ?? {};
      return state === (isConnected ? "connected" : isConnecting ? "waiting" : "none");
    }, state);
  }

  async waits() {
    await this.asks();
    await this.button("Connect to agent").click();
    await this.is("waiting");
  }

  /** The same at a desk whose agent joins by herself, perhaps before anybody sees the user wait. */
  async connects() {
    await this.asks();
    await this.button("Connect to agent").click();
    await this.is("connected");
  }

  async cancels() {
    await this.button("Cancel").click();
    await this.button("Cancel request").click();
    await this.is("none");
  }

  async disconnects() {
    await this.button("Disconnect").click();
    await this.tab.getByText("Disconnect from live agent?").waitFor();
    await this.button("Disconnect").last().click();
    await this.assistantReturns();
    await this.is("none");
  }

  /**
   * The assistant speaks up 1.5 s after the end of a chat with an agent. A card that was asked for sooner
   * would then stand above its words, where the widget lets nobody use it.
   */
  assistantReturns() {
    return this.sees("Can I help you with anything else?");
  }

  /** All texts of a form such as "agent 7", in the order of the conversation. */
  async told(pattern) {
    const text = await this.log.evaluateAll((messages) => {
      const texts = [];
      const collect = (node) => {
        if (node instanceof Text) texts.push(node.data);
        for (const child of [...(node.shadowRoot?.childNodes ?? []), ...node.childNodes]) collect(child);
      };
      messages.forEach(collect);
      return texts.join("\n");
    });
    return text.match(pattern) ?? [];
  }
}
