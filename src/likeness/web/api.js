// @ts-check
/** The client of /v1. Whatever the app does goes through here, so any other client can do the same. */
import { needsSignIn, serverGone } from "./state.js";

/** A response that is not a success: a sentence, and what to do about it. */
export class Refusal extends Error {
  /**
   * @param {number} status
   * @param {{code?: string, message?: string, hint?: string}} said
   * @param {string} requestId
   */
  constructor(status, said, requestId) {
    super(said.message || `the server answered ${status}`);
    this.status = status;
    this.code = said.code || "";
    this.hint = said.hint || "";
    this.requestId = requestId;
  }
}

/** The server does not answer. */
export class Unreachable extends Error {}

/**
 * @typedef {object} Options
 * @property {unknown} [json] body as JSON
 * @property {BodyInit} [body] body as it is
 * @property {string} [type] media type of `body`
 * @property {string} [accept]
 * @property {AbortSignal} [signal]
 */

/**
 * Send a request; returns the response if it is a success.
 * @param {string} method
 * @param {string} path below /v1
 * @param {Options} [options]
 * @returns {Promise<Response>}
 */
export async function send(method, path, options = {}) {
  /** @type {Record<string, string>} */
  const headers = {};
  let body = options.body;
  if (options.json !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(options.json);
  } else if (options.type) headers["Content-Type"] = options.type;
  if (options.accept) headers.Accept = options.accept;
  let response;
  try {
    response = await fetch(`/v1${path}`, { method, headers, body, signal: options.signal, cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    serverGone.value = true;
    throw new Unreachable();
  }
  serverGone.value = false;
  if (response.ok) return response;
  const document = await response.json().catch(() => ({}));
  if (response.status === 401) needsSignIn.value = true;
  throw new Refusal(response.status, document.error || {}, response.headers.get("X-Request-Id") || "");
}

/**
 * The JSON document of a response; null if it has none.
 * @param {string} method
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<any>}
 */
export async function call(method, path, options) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : response.json();
}

/** @param {string} path */
export const get = (path) => call("GET", path);

/**
 * The server-sent events of a response, as they come.
 * @param {Response} response
 * @returns {AsyncGenerator<{kind: string, data: any}>}
 */
export async function* events(response) {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop() || "";
    for (const block of blocks) {
      let kind = "message";
      let data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) kind = line.slice(7);
        else if (line.startsWith("data: ")) data += line.slice(6);
      }
      if (data) yield { kind, data: JSON.parse(data) };
    }
  }
}

/**
 * Every item of a list that comes in pages.
 * @param {string} path
 * @param {string} field
 * @returns {Promise<any[]>}
 */
export async function all(path, field) {
  const found = [];
  let after = "";
  do {
    const page = await get(`${path}?limit=1000&after=${encodeURIComponent(after)}`);
    found.push(...page[field]);
    after = page.next || "";
  } while (after);
  return found;
}
