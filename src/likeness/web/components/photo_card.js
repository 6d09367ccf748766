// @ts-check
import { sentence } from "../failures.js";
import { html, useState } from "../html.js";
import { t } from "../texts.js";

/**
 * One photograph with its verdict.
 * @param {{label: string, state: string, url: string, reasons: any[], shows?: string[], cropUrl?: string,
 *   onRemove?: () => void, onAgain?: () => void, onKeep?: () => void}} props
 */
export function PhotoCard({ label, state, url, reasons, shows = [], cropUrl, onRemove, onAgain, onKeep }) {
  const [hasCrop, setCrop] = useState(false);
  const [isBroken, setBroken] = useState(false); // the browser cannot show the file
  const words = t.photos;
  const isStranger = reasons.some((one) => one.code === "other_person");
  return html`
    <li class=${`photo card ${state}`}>
      <div class="frame" aria-busy=${state === "sending"}>
        ${url && !isBroken && html`<img onError=${() => setBroken(true)} src=${hasCrop && cropUrl ? cropUrl : url} alt=${hasCrop ? words.cropAlt : label} width="320" height="320" loading="lazy" decoding="async" />`}
      </div>
      <div class="said">
        <span class=${`chip ${state}`}>${words.states[/** @type {keyof typeof words.states} */ (state)]}</span>
        ${(!url || isBroken) && html`<span class="soft">${label}</span>`}
        ${reasons.map((one) => html`<p key=${one.code}>${sentence(one.message)} <span class="soft">${sentence(one.hint)}</span></p>`)}
        ${!reasons.length && shows.length > 0 && html`<p class="soft">${shows.map((one) => t.plan.names[/** @type {keyof typeof t.plan.names} */ (one)]).join(", ")}</p>`}
        ${cropUrl && html`<button class="button plain-button" type="button" aria-pressed=${hasCrop} onClick=${() => setCrop(!hasCrop)}>${words.crop}</button>`}
        ${state === "failed" && onAgain && html`<button class="button plain-button" type="button" onClick=${onAgain}>${t.actions.again}</button>`}
        ${state === "refused" && isStranger && onKeep && html`<button class="button plain-button" type="button" onClick=${onKeep}>${words.stranger}</button>`}
      </div>
      ${onRemove && html`<button class="button round remove" type="button" aria-label=${words.remove(label)} onClick=${onRemove}>×</button>`}
    </li>
  `;
}
