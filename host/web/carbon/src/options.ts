// What both pages give the widget. ?desk=NAME talks to another desk, ?skip connects without the card,
// ?availability=SECONDS and ?join=SECONDS set the widget's time-outs, ?inside lets tests see its state.

import type { ChatInstance, PublicConfig } from "@carbon/ai-chat";
import { serviceDeskFactory } from "../../dist/bridge.js";
import { answer } from "./assistant.js";

const query = new URLSearchParams(location.search);
const desk = query.get("desk");

export const options: PublicConfig & { exposeServiceManagerForTesting: boolean } = {
  exposeServiceManagerForTesting: query.has("inside"),
  openChatByDefault: true,
  messaging: { customSendMessage: answer },
  serviceDeskFactory: serviceDeskFactory({ locale: navigator.language, ...(desk && { desk }) }),
  // The widget's own words tell the user to connect again, which is done for them, and that they have
  // ended what somebody else did.
  strings: {
    agent_disconnected: "The connection was lost. It comes back by itself.",
    agent_conversationWasEnded: "The chat has ended.",
    errors_singleMessage: "This message may not have arrived.",
  },
  serviceDesk: {
    skipConnectHumanAgentCard: query.has("skip"),
    ...(query.has("availability") && { availabilityTimeoutSeconds: Number(query.get("availability")) }),
    ...(query.has("join") && { agentJoinTimeoutSeconds: Number(query.get("join")) }),
  },
};

declare global {
  /** For the console, and for tests. */
  var chat: ChatInstance | undefined;
}

export function onAfterRender(instance: ChatInstance): void {
  globalThis.chat = instance;
}
