// @ts-check
import { html } from "../html.js";

/** A command of the shell: lines end between its words, not inside of an option. @param {{text: string}} props */
export function Command({ text }) {
  return html`<code class="command">${text.split(" ").map((word) => html`<span key=${word}>${word}</span>${" "}`)}</code>`;
}
