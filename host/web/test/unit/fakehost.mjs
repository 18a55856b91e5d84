// A host in memory that answers as docs/http-api.md says, and fails on request.

const json = (status, body, headers) => new Response(body && JSON.stringify(body), { status, headers });
const problem = (status, code, more = {}, headers) => json(status, { status, code, title: code, ...more }, headers);

export class FakeHost {
  sessions = new Map();
  /** Every call that reached the host, as "METHOD /path". */
  calls = [];
  sockets = new Set();
  /** Nothing answers. */
  down = false;
  /** Something between page and host lets no WebSocket through. */
  blockSockets = false;
  /** How many of the next calls are carried out, while their answer is lost on the way. */
  loseAnswers = 0;
  /** Answers, or functions that give one, for the next calls of a path's end: {"/chat": [Response]}. */
  scripted = {};
  /** What POST messages answers: "delivered" or "accepted". */
  sendStatus = "delivered";
  connections = 0;

  fetch = async (address, init = {}) => {
    const url = new URL(address);
    init.signal?.throwIfAborted();
    if (this.down) throw new TypeError("fetch failed");
    const name = `${init.method ?? "GET"} ${url.pathname.replace(/^\/v1\/sessions\/[^/]+/, "")}`;
    this.calls.push(name);
    const scripted = this.scripted[name]?.shift();
    const answer = scripted ? await scripted() : this.answer(url, init);
    if (this.loseAnswers > 0) {
      this.loseAnswers--;
      throw new TypeError("fetch failed");
    }
    return answer;
  };

  answer(url, { method = "GET", headers = {}, body, signal }) {
    const [, , , id, action = ""] = url.pathname.split("/");
    const sent = body ? JSON.parse(body) : undefined;
    if (!id) {
      const made = { session_id: `s${this.sessions.size + 1}`, token: `t${this.sessions.size + 1}`, entries: [], chats: new Map(), messages: new Map(), body: sent };
      this.sessions.set(made.session_id, made);
      return json(201, { session_id: made.session_id, token: made.token });
    }
    const session = this.sessions.get(id);
    if (!session) return problem(404, "session_unknown");
    if (headers.authorization !== `Bearer ${session.token}`) return problem(401, "token_wrong");
    switch (`${method} ${action}`) {
      case "GET ":
        return json(200, { session_id: id, last_seq: session.entries.length, chat: session.chat });
      case "PATCH ":
        session.patched = sent;
        return json(204);
      case "DELETE ":
        this.forget(id);
        return json(204);
      case "GET availability":
        return json(200, { online: true });
      case "POST chat": {
        const known = session.chats.get(sent.id);
        if (known) return json(201, { chat_id: known });
        if (session.chat) return problem(409, "chat_open", { chat_id: session.chat.chat_id });
        const chat_id = `${id}-c${session.chats.size + 1}`;
        session.chats.set(sent.id, chat_id);
        session.chat = { chat_id, id: sent.id, state: "waiting" };
        session.started = sent;
        this.append(id, { type: "chat_requested", desk: "support" });
        this.append(id, { type: "chat_started" });
        return json(201, { chat_id });
      }
      case "DELETE chat":
        if (session.chat) this.end(id, "user");
        return json(204);
      case "POST messages": {
        let message = session.messages.get(sent.id);
        if (!message) {
          // Every message of the client names its chat.
          if (session.chat?.chat_id !== (sent.chat_id ?? "none")) return problem(409, "no_chat");
          const { seq } = this.append(id, { type: "message", from: "user", id: sent.id, text: sent.text });
          message = { seq, status: this.sendStatus };
          session.messages.set(sent.id, message);
        }
        return json(message.status === "accepted" ? 202 : 200, message);
      }
      case "POST typing":
        session.typing = [...(session.typing ?? []), sent.typing];
        return json(204);
      case "POST read":
        return json(204);
      case "GET events":
        return this.stream(session, Number(url.searchParams.get("after")), signal);
    }
    return problem(404, "not_found");
  }

  /** Appends an entry to the session's log and pushes it. */
  append(id, entry) {
    const session = this.sessions.get(id);
    const full = { seq: session.entries.length + 1, time: "2026-01-02T15:04:05Z", chat_id: session.chat?.chat_id, ...entry };
    session.entries.push(full);
    this.push(id, full);
    return full;
  }

  push(id, entry) {
    for (const socket of this.sockets) if (socket.id === id) socket.take(entry);
  }

  end(id, by, reason) {
    this.append(id, { type: "chat_ended", by, reason });
    this.sessions.get(id).chat = undefined;
  }

  forget(id) {
    this.sessions.delete(id);
    this.cut(4404);
  }

  /** Closes every connection. */
  cut(code = 1006) {
    for (const socket of [...this.sockets]) socket.end(code);
  }

  crash() {
    this.down = true;
    this.cut();
  }

  stream(session, after, signal) {
    const encoder = new TextEncoder();
    let controller;
    const body = new ReadableStream({ start: (c) => (controller = c) });
    const socket = {
      id: session.session_id,
      take: (entry) => {
        // In two pieces, as networks cut where they like.
        const text = `id: ${entry.seq}\ndata: ${JSON.stringify(entry)}\n\n`;
        controller.enqueue(encoder.encode(text.slice(0, 9)));
        controller.enqueue(encoder.encode(text.slice(9)));
      },
      end: () => {
        this.sockets.delete(socket);
        controller.close();
      },
    };
    signal.addEventListener("abort", () => {
      if (this.sockets.delete(socket)) controller.error(signal.reason);
    });
    this.attach(socket, after);
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  }

  attach(socket, after) {
    this.connections++;
    this.sockets.add(socket);
    for (const entry of this.sessions.get(socket.id).entries.slice(after)) socket.take(entry);
  }

  /** The WebSocket class of a page that talks to this host. */
  get WebSocket() {
    const host = this;
    return class {
      constructor(address, protocols) {
        const url = new URL(address);
        this.id = url.pathname.split("/")[3];
        queueMicrotask(() => {
          const session = host.sessions.get(this.id);
          const allowed = session && protocols[0] === "deskhost.v1" && protocols[1] === `bearer.${session.token}`;
          if (this.closed) return;
          if (host.down || host.blockSockets || !allowed) return this.onclose?.({ code: 1006 });
          this.onopen?.();
          host.attach(this, Number(url.searchParams.get("after")));
        });
      }
      take(entry) {
        this.onmessage?.({ data: JSON.stringify(entry) });
      }
      end(code) {
        host.sockets.delete(this);
        this.onclose?.({ code });
      }
      close() {
        this.closed = true;
        host.sockets.delete(this);
      }
    };
  }
}

/** A Storage in memory. */
export class FakeStorage {
  items = new Map();
  getItem(key) {
    return this.items.get(key) ?? null;
  }
  setItem(key, value) {
    this.items.set(key, value);
  }
  removeItem(key) {
    this.items.delete(key);
  }
}

export { json, problem };
