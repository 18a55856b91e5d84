/**
 * What an event of the desk says to the host, as the field of desk.proto's Event;
 * nothing if it is not for the host, such as the echo of what the user did.
 * @param {object} event as plugins/mock/deskapi has it
 * @returns {object|undefined}
 */
export function payloadOf(event) {
  switch (event.type) {
    case "agent_joined":
      return { agent_joined: { agent: agentOf(event.agent) } };
    case "agent_left":
      return { agent_left: { agent_id: event.agent_id } };
    case "agent_message": {
      const parts = event.parts.map(partOf).filter((part) => part);
      return parts.length > 0 ? { message_to_user: { agent_id: event.agent_id, parts } } : undefined;
    }
    case "agent_read":
      return { agent_read_messages: {} };
    case "agent_typing":
      return { agent_typing: { typing: event.typing, agent_id: event.agent_id } };
    case "transfer":
      return { transfer_started: { agent: event.agent && agentOf(event.agent) } };
    case "in_queue": {
      const { wait_minutes, position, message } = event.availability;
      return { availability_changed: { wait_minutes, position, message } };
    }
    case "capable":
      return { capabilities_changed: event.capabilities };
    case "in_trouble":
      return troubleOf(event.trouble);
    case "ended":
      return { agent_ended_chat: { reason: event.reason } };
  }
  return undefined;
}

const agentOf = ({ bot, ...agent }) => ({ ...agent, kind: bot ? "AGENT_KIND_BOT" : "AGENT_KIND_HUMAN" });

function troubleOf({ kind, message, message_id }) {
  const status = { user_message: message, log_message: `the desk reports ${kind}` };
  switch (kind) {
    case "no_agent":
      return { error_status: { ...status, kind: "ERROR_KIND_CONNECTING" } };
    case "link_lost":
    case "link_back":
      return { error_status: { ...status, kind: "ERROR_KIND_DISCONNECTED", disconnected: kind === "link_lost" } };
    case "message_failed":
      return { error_status: { ...status, kind: "ERROR_KIND_USER_MESSAGE", message_id } };
  }
  return undefined;
}

/** Nothing for what this version does not know. */
function partOf({ type, size, data, ...part }) {
  switch (type) {
    case "text":
    case "image":
    case "video":
    case "link":
    case "inline_error":
    case "quick_replies":
      return { [type]: part };
    case "file":
      return { file: { ...part, size_bytes: size } };
    case "user_defined":
      return { user_defined: { data: structOf(data) } };
  }
  return undefined;
}

/** A JSON object as google.protobuf.Struct. */
function structOf(object) {
  return { fields: Object.fromEntries(Object.entries(object).map(([name, value]) => [name, valueOf(value)])) };
}

function valueOf(value) {
  if (value === null) return { nullValue: "NULL_VALUE" };
  if (Array.isArray(value)) return { listValue: { values: value.map(valueOf) } };
  switch (typeof value) {
    case "object":
      return { structValue: structOf(value) };
    case "number":
      return { numberValue: value };
    case "boolean":
      return { boolValue: value };
    default:
      return { stringValue: value };
  }
}
