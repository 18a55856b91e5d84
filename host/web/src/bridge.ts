import { HostClient } from "./client.js";
import type { Client, ClientOptions } from "./types.js";

export * from "./types.js";

/** Makes a client. Nothing is asked of the host before the first call that needs it. */
export function createClient(options: ClientOptions): Client {
  return new HostClient(options);
}
