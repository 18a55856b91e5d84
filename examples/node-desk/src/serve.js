// What every plugin does that is not its vendor's business: it shows its host who
// it is, serves the calls of desk.proto, and ends when it has to. It knows nothing
// of any desk, and may be taken as it is for another. docs/wire-protocol.md
// tells the rules that it keeps.
import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { fromJSON } from "@grpc/proto-loader";
import deskProto from "../../../proto/desk/v1/desk.proto";
import { makeCertificate } from "./certificate.js";
import { EventStream } from "./events.js";
import { Failure, unlessCut } from "./failure.js";
import statusProto from "./status.proto";

// What both sides agree on before the first call: proto/desk/v1/handshake.go.
const CORE_PROTOCOL_VERSION = 1;
const PROTOCOL_VERSION = 1;
const COOKIE = "desk.v1:4f0f6d5c8e7b4a0f9a54b1f2f2d1c6aa";
const MAX_MESSAGE_BYTES = 4 << 20;

/** How long the drain after SIGTERM may take, in milliseconds. */
const DRAIN_TIME = 10_000;
/** How much of an error's text is passed on: some vendors answer with a whole page. */
const MAX_ERROR_TEXT = 2048;

const asInTheFile = { keepCase: true, longs: Number, enums: String, defaults: true };
const contract = fromJSON(deskProto, asInTheFile);
const details = fromJSON(statusProto, asInTheFile);

/** The optional calls, and by which capability a plugin declares them. */
const CAPABILITIES = {
  areAnyAgentsOnline: "CAPABILITY_AVAILABILITY",
  updateState: "CAPABILITY_UPDATE_STATE",
  userTyping: "CAPABILITY_USER_TYPING",
  userReadMessages: "CAPABILITY_USER_READ",
  resumeChat: "CAPABILITY_RESUME", // quiesceChat with it
  handleHTTP: "CAPABILITY_HTTP",
};

/** For tools that know gRPC and not the Failure. */
const CODES = {
  RETRY: grpc.status.UNAVAILABLE,
  CHAT_OVER: grpc.status.FAILED_PRECONDITION,
  REFUSED: grpc.status.FAILED_PRECONDITION,
  CHAT_UNKNOWN: grpc.status.NOT_FOUND,
  INVALID: grpc.status.INVALID_ARGUMENT,
  UNSUPPORTED: grpc.status.UNIMPLEMENTED,
  OUTCOME_UNKNOWN: grpc.status.UNKNOWN,
};

/**
 * The host, as a desk sees it.
 * @typedef {object} Host
 * @property {(event: object) => Promise<void>} emit sends an Event of desk.proto, and resolves
 *   once it is stored; rejected with Refused if the host refuses it
 * @property {(level: "debug"|"info"|"warn"|"error", message: string, fields?: object) => void} log
 *   writes to the host's log; no secrets, and nothing of what people write
 */

/**
 * Serves a plugin until its host ends it.
 * @param {object} describe what Describe says, but for the capabilities, which follow from the desk's methods
 * @param {(host: Host) => object} makeDesk makes the desk. Its methods are named as the calls, startChat
 *   and so on. Each takes the request and a signal that is aborted when the call is cut off, and returns
 *   the response, if there is something to say, or a promise of it. A call that fails throws a Failure.
 */
export function serve(describe, makeDesk) {
  if (process.argv[2] === "--version") {
    console.log(describe.name, describe.version);
    return;
  }
  const hostCertificate = process.env.PLUGIN_CLIENT_CERT;
  if (process.env.DESKHOST_PLUGIN !== COOKIE || !hostCertificate) {
    console.error(`${describe.name} ${describe.version} is a plugin of deskhost and does nothing by itself.
Put this file into deskhost's plugin folder as deskhost-plugin-${describe.name}, name it
under "desks" in deskhost.yaml with "plugin: ${describe.name}", and start "deskhost run".`);
    process.exitCode = 1;
    return;
  }

  const stream = new EventStream(contract["desk.v1.Event"].serialize);
  const desk = makeDesk({ emit: (event) => stream.emit(event), log });
  let drained;
  const drain = () => (drained ??= Promise.resolve(desk.drain?.()).then(() => stream.flush()));

  endWithHost(drain);
  const server = new grpc.Server({
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
  });
  server.addService(contract["desk.v1.DeskService"], {
    ...calls(desk),
    Describe: unary(() => ({
      ...describe,
      capabilities: Object.keys(CAPABILITIES).filter((name) => desk[name]).map((name) => CAPABILITIES[name]),
    })),
    Configure: unary((request, cut) => desk.configure?.(request, cut)),
    // It answers: that is all there is to say of most plugins. A vendor who is
    // down is no reason to start the plugin anew.
    Health: unary(() => desk.health?.() ?? { healthy: true }),
    Drain: unary((_, cut) => unlessCut(drain(), cut)),
    Events: (call) => stream.serve(call),
  });
  listen(server, hostCertificate);
}

/** Listens for the host, and tells it where: the handshake. */
function listen(server, hostCertificate) {
  const { key, cert, der } = makeCertificate();
  const credentials = grpc.ServerCredentials.createSsl(
    Buffer.from(hostCertificate),
    [{ private_key: Buffer.from(key), cert_chain: Buffer.from(cert) }],
    true, // nobody without the host's certificate gets an answer
  );
  const windows = process.platform === "win32";
  const socket = join(process.env.PLUGIN_UNIX_SOCKET_DIR || tmpdir(), `plugin-${randomBytes(4).toString("hex")}`);
  server.bindAsync(windows ? "127.0.0.1:0" : `unix:${socket}`, credentials, (err, port) => {
    if (err) throw err;
    if (!windows) process.on("exit", () => rmSync(socket, { force: true }));
    const [network, address] = windows ? ["tcp", `127.0.0.1:${port}`] : ["unix", socket];
    const certificate = der.toString("base64").replace(/=+$/, ""); // go-plugin takes no padding
    console.log([CORE_PROTOCOL_VERSION, PROTOCOL_VERSION, network, address, "grpc", certificate].join("|"));
  });
}

/** A plugin lives no longer than its host, drains when it is asked to end, and leaves Ctrl-C to the host. */
function endWithHost(drain) {
  const end = () => {
    log("info", "standard input has ended, and with it the host; the plugin ends");
    process.exit();
  };
  process.stdin.on("end", end).on("error", end).resume();
  process.on("SIGINT", () => {});
  process.once("SIGTERM", () => {
    log("info", "SIGTERM: the plugin drains and ends");
    setTimeout(() => process.exit(), DRAIN_TIME);
    drain().catch((err) => log("warn", "drain after SIGTERM", { error: err.message })).then(() => process.exit());
  });
}

/** The desk's methods as calls. One that the desk lacks is left to gRPC, which answers UNIMPLEMENTED. */
function calls(desk) {
  const served = {};
  for (const name of Object.keys(contract["desk.v1.DeskService"])) {
    const method = name[0].toLowerCase() + name.slice(1);
    if (desk[method]) served[name] = unary((request, cut) => desk[method](request, cut));
  }
  return served;
}

function unary(answer) {
  return async (call, respond) => {
    const cutting = new AbortController();
    call.on("cancelled", () => cutting.abort(new Failure("OUTCOME_UNKNOWN", "the call was cut off")));
    try {
      respond(null, (await answer(call.request, cutting.signal)) ?? {});
    } catch (err) {
      if (!(err instanceof Failure)) log("error", "a call failed in a way that was not foreseen", { call: call.getPath(), stack: err.stack });
      respond(statusOf(err instanceof Failure ? err : new Failure("OUTCOME_UNKNOWN", err.message)));
    }
  };
}

/** The gRPC status of a failed call, with the Failure in its details. */
function statusOf(failure) {
  const message = failure.message.slice(0, MAX_ERROR_TEXT);
  const detail = contract["desk.v1.Failure"].serialize({
    kind: `FAILURE_KIND_${failure.kind}`,
    message,
    user_message: failure.userMessage,
    retry_after: failure.retryAfter && { seconds: Math.ceil(failure.retryAfter) },
  });
  const code = CODES[failure.kind];
  const metadata = new grpc.Metadata();
  metadata.set("grpc-status-details-bin", details["google.rpc.Status"].serialize({
    code,
    message,
    details: [{ type_url: "type.googleapis.com/desk.v1.Failure", value: detail }],
  }));
  return { code, details: message, metadata };
}

/** Writes a line of hclog's JSON, whose level the host keeps. */
function log(level, message, fields = {}) {
  const line = { "@level": level, "@message": message, "@timestamp": new Date().toISOString(), ...fields };
  process.stderr.write(`${JSON.stringify(line)}\n`);
}
