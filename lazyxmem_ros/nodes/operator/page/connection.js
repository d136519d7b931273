// SPDX-License-Identifier: Apache-2.0
// The WebSocket to the console: it comes back by itself, and what was commanded is not lost.

const PROTOCOL = 2;
const RETRY_MS = [300, 600, 1000, 2000, 3000];
const SILENCE_MS = 4000; // the server speaks once a second, but not while a picture is on its way
const LONGEST_SILENCE_MS = 30000;
const REPLACED = 4001;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A message as the server takes it: text, or, with bytes, a length, the text and the bytes. */
export function frame(message, payload) {
  const text = JSON.stringify(message);
  if (!payload) return text;
  const head = encoder.encode(text);
  const data = new Uint8Array(4 + head.length + payload.length);
  new DataView(data.buffer).setUint32(0, head.length, true);
  data.set(head, 4);
  data.set(payload, 4 + head.length);
  return data;
}

const tooLarge = (seq) => ({ seq, ok: false, code: "too_large", detail: "" });

/** {message, payload} of what the server sent. */
export function unframe(data) {
  if (typeof data === "string") return { message: JSON.parse(data), payload: null };
  const length = new DataView(data).getUint32(0, true);
  const message = JSON.parse(decoder.decode(new Uint8Array(data, 4, length)));
  return { message, payload: new Uint8Array(data, 4 + length) };
}

export function newSession() {
  const numbers = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(numbers, (number) => number.toString(16).padStart(2, "0")).join("");
}

/**
 * on.message(message, payload), on.open(), on.closed(reason) with reason "lost", or "version" where the
 * page has to be loaded anew; then it ends.
 */
export class Connection {
  constructor(on, name) {
    this.on = on;
    this.name = name;
    this.session = newSession();
    this.socket = null;
    this.open = false;
    this.ended = false;
    this.attempts = 0;
    this.seq = 0;
    this.commands = new Map(); // seq -> {data, resolve}
    this.maxMessage = Infinity; // bytes, once the console has said it
    this.silenceMs = SILENCE_MS;
    this.heardAt = performance.now();
    setInterval(() => this.checkSilence(), 1000);
    window.addEventListener("online", () => this.connect());
    this.connect();
  }

  connect() {
    if (this.ended || this.socket) return;
    clearTimeout(this.retry);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const who = new URLSearchParams({ session: this.session });
    const socket = new WebSocket(`${scheme}://${location.host}/connect?${who}`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.heardAt = performance.now();
    socket.onopen = () => this.hello();
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      const { message, payload } = unframe(event.data);
      this.hear(message);
      if (message.type === "welcome") this.welcome(message);
      if (message.type === "done") this.finish(message);
      if (message.type === "refused" && message.code === "protocol") this.end();
      else this.on.message(message, payload);
    };
    socket.onclose = (event) => this.lost(socket, event.code);
  }

  /** Say who this is, at first and under another name. */
  hello() {
    if (!this.socket || this.socket.readyState !== WebSocket.OPEN) return;
    const { session, name } = this;
    this.socket.send(JSON.stringify({ type: "hello", protocol: PROTOCOL, session, name }));
  }

  welcome({ max_message: maxMessage }) {
    this.maxMessage = maxMessage;
    if (this.open) return; // under another name
    this.open = true;
    this.attempts = 0;
    for (const [seq, { data }] of [...this.commands]) this.pass(seq, data);
    this.on.open();
  }

  lost(socket, code) {
    if (socket !== this.socket) return;
    this.socket = null;
    this.open = false;
    if (code === REPLACED) this.session = newSession();
    this.on.closed("lost");
    const wait = RETRY_MS[Math.min(this.attempts, RETRY_MS.length - 1)];
    this.attempts += 1;
    this.retry = setTimeout(() => this.connect(), wait);
  }

  /** The server speaks another protocol, and will however often it is asked. */
  end() {
    const { socket } = this;
    this.ended = true;
    this.socket = null;
    this.open = false;
    socket.close();
    this.on.closed("version");
  }

  /** Something has come. How long a picture takes, the next one may take, too. */
  hear(message) {
    const now = performance.now();
    if (message.type === "picture") this.allow(2 * (now - this.heardAt));
    this.heardAt = now;
  }

  /**
   * A connection that was cut need not say so. One that is slow is silent until a picture has come: the
   * next time it gets longer.
   */
  checkSilence() {
    const socket = this.socket;
    if (!socket || performance.now() - this.heardAt < this.silenceMs) return;
    if (this.open) this.allow(2 * this.silenceMs);
    this.lost(socket, 0);
    socket.close();
  }

  allow(silenceMs) {
    this.silenceMs = Math.min(LONGEST_SILENCE_MS, Math.max(SILENCE_MS, silenceMs));
  }

  /** Say something that may be lost with the connection. With a mask it is a question for another. */
  send(message, payload) {
    if (!this.open) return;
    const data = frame(message, payload);
    if (this.fits(data)) this.socket.send(data);
    else queueMicrotask(() => this.on.message({ type: "refined", ...tooLarge(message.seq) }, null));
  }

  /** Whether the console takes it; what is too large would end the connection. */
  fits(data) {
    return typeof data === "string" || data.length <= this.maxMessage;
  }

  pass(seq, data) {
    if (this.fits(data)) this.socket.send(data);
    else this.finish(tooLarge(seq));
  }

  /** Say something that must arrive; the promise gets the server's "done". */
  command(message, payload) {
    this.seq += 1;
    const data = frame({ ...message, seq: this.seq }, payload);
    const seq = this.seq;
    return new Promise((resolve) => {
      this.commands.set(seq, { data, resolve });
      if (this.open) this.pass(seq, data);
    });
  }

  finish(done) {
    const command = this.commands.get(done.seq);
    this.commands.delete(done.seq);
    if (command) command.resolve(done);
  }

  /** A number for what is answered by other means than "done". */
  number() {
    this.seq += 1;
    return this.seq;
  }
}

/** Exchange the token in the address for a cookie; whether the page may connect. */
export async function logIn() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return true;
  history.replaceState(null, "", location.pathname);
  try {
    const answer = await fetch("/session", { method: "POST", body: token });
    return answer.ok;
  } catch {
    return true; // the connection says that nobody is there
  }
}

/** Reasons why the console lets a browser in no more, by the status that it answers with. */
const REFUSALS = new Map([[401, "token"], [403, "origin"], [503, "full"]]);

/** Why the console does not let this page in, of REFUSALS; "" where it does, or says nothing. */
export async function refusal(session) {
  try {
    const who = new URLSearchParams({ origin: location.origin, session });
    const answer = await fetch(`/session?${who}`);
    return REFUSALS.get(answer.status) || "";
  } catch {
    return "";
  }
}

export const isRefusal = (reason) => [...REFUSALS.values()].includes(reason);
