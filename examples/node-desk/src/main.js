import { name, version } from "../package.json";
import configSchema from "./config.schema.json";
import { Desk } from "./desk.js";
import { serve } from "./serve.js";

serve({
  name: name.replace("deskhost-plugin-", ""),
  version,
  title: "Mock desk, by way of Node",
  config_schema: configSchema,
  send_dedupe: "SEND_DEDUPE_KEY",
  replay: "REPLAY_CURSOR",
  state_formats: [Desk.stateFormat],
}, (host) => new Desk(host));
