// Never run: tsc checks here that the bridge is what both generations of the widget take.

import type { PublicConfig, ServiceDesk } from "@carbon/ai-chat";
import { serviceDeskFactory, type WidgetDesk } from "../../dist/bridge.js";
import type * as WebChat from "./webchat.js";

const factory = serviceDeskFactory({
  url: "https://desk.example.com",
  desk: "support",
  user: { id: "u1", name: "Kim", attributes: { plan: "gold" } },
  locale: "en-GB",
  identityToken: async () => "a signed token",
});

export const carbon: Required<Pick<PublicConfig, "serviceDeskFactory">> = { serviceDeskFactory: factory };
export const hosted: WebChat.ServiceDeskFactory = factory;

/** None of the optional calls is missing. */
export const every = (desk: WidgetDesk): [Required<ServiceDesk>, Required<WebChat.ServiceDesk>] => [desk, desk];
