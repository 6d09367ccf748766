// @ts-check
/** What is shown of an error: sentences of the server with their hints. */
import { Refusal, Unreachable } from "./api.js";
import { say } from "./state.js";
import { t } from "./texts.js";

/** @param {string} text */
const sentence = (text) => text && text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

/** @param {unknown} error @returns {{text: string, hint: string, requestId: string}} */
export function told(error) {
  if (error instanceof Unreachable) return { text: t.gone, hint: "", requestId: "" };
  if (error instanceof Refusal) {
    return {
      text: sentence(error.message),
      hint: sentence(error.hint),
      requestId: error.status >= 500 ? error.requestId : "",
    };
  }
  return { text: sentence(String(error)), hint: "", requestId: "" };
}

/**
 * Show an error at the bottom; while the server is away, a note says so already.
 * @param {unknown} error
 */
export function complain(error) {
  if (error instanceof Unreachable || (error instanceof DOMException && error.name === "AbortError")) return;
  const { text, hint, requestId } = told(error);
  say(text, { hint, requestId, isError: true });
}

export { sentence };
