// @ts-check
import { html } from "../html.js";
import { t } from "../texts.js";

/** What one more photograph would improve most. @param {{shot: string | null}} props */
export function NextShot({ shot }) {
  const { names, hints, next } = t.plan;
  if (shot === null) return html`<p class="next">${t.photos.good}</p>`;
  const key = /** @type {keyof typeof names} */ (shot);
  return html`<p class="next"><strong>${next}: ${names[key]}.</strong> ${hints[key]}</p>`;
}
