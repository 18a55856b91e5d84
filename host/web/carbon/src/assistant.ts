import { ButtonItemType, MessageResponseTypes, type ChatInstance, type GenericItem, type MessageRequest } from "@carbon/ai-chat";

/** A small assistant that answers by itself until the user asks for a human. */
export async function answer(request: MessageRequest, _: unknown, instance: ChatInstance): Promise<void> {
  await instance.messaging.addMessage({ output: { generic: itemsFor(request.input.text?.trim() ?? "") } });
}

function itemsFor(said: string): GenericItem[] {
  if (said === "") {
    return [
      text("Hello! I am a small assistant. Ask me about **opening hours** or **prices**, or for a **human**."),
      ...["Opening hours", "A human, please"].map((label) => ({
        response_type: MessageResponseTypes.BUTTON,
        button_type: ButtonItemType.POST_BACK,
        label,
        value: { input: { text: label } },
      })),
    ];
  }
  if (/human|agent|person|somebody/i.test(said)) return [text("I will see who is there."), connect(said)];
  if (/hour|open/i.test(said)) return [text("We are here from 9 to 5, Monday to Friday.")];
  if (/price|cost/i.test(said)) return [text("| What | Price |\n|---|---|\n| A lamp | 40 € |\n| A chair | 60 € |")];
  return [text("I do not know that. Shall I get you **a human**?")];
}

/** What makes a widget offer an agent. */
export function connect(about: string): GenericItem {
  return {
    response_type: MessageResponseTypes.CONNECT_TO_HUMAN_AGENT,
    message_to_human_agent: about,
    agent_available: { message: "Somebody is there for you." },
    agent_unavailable: { message: "Nobody is there at the moment. Please come back later." },
    transfer_info: { summary_message_to_agent: [{ response_type: MessageResponseTypes.TEXT, text: "The user asked the assistant for a human." }] },
  };
}

function text(said: string): GenericItem {
  return { response_type: MessageResponseTypes.TEXT, text: said };
}
