import { HostClient } from "./client.js";
import type { CarbonParameters, ServiceDeskFactory, WebChatParameters } from "./contract.js";
import { ServiceDesk } from "./servicedesk.js";
import type { Client, ClientOptions, ServiceDeskOptions } from "./types.js";

export * from "./contract.js";
export * from "./types.js";

/** Makes a client. Nothing is asked of the host before the first call that needs it. */
export function createClient(options: ClientOptions): Client {
  return new HostClient(options);
}

/**
 * Makes the factory that IBM's web chat and @carbon/ai-chat take as `serviceDeskFactory`. Nothing is
 * asked of the host before the widget asks for an agent, or picks up a chat after a reload.
 */
export function serviceDeskFactory(options: ServiceDeskOptions = {}): ServiceDeskFactory {
  return ((parameters: WebChatParameters | CarbonParameters) => {
    const desk = new ServiceDesk(options, parameters);
    // The hosted web chat wants the desk itself, @carbon/ai-chat a promise of it.
    return "persistedState" in parameters ? Promise.resolve(desk) : desk;
  }) as ServiceDeskFactory;
}
