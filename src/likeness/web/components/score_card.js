// @ts-check
import { html } from "../html.js";
import { t } from "../texts.js";

/** @param {{label: string, share: number}} props 0..1 */
function Gauge({ label, share }) {
  const percent = Math.round(Math.min(Math.max(share, 0), 1) * 100);
  return html`
    <div class="gauge">
      <div class="row spread"><span>${label}</span><strong>${percent} %</strong></div>
      <progress max="100" value=${percent} aria-label=${label}></progress>
    </div>
  `;
}

/** The score card of an adapter. @param {{card: any}} props the document of `likeness score --json` */
export function ScoreCard({ card }) {
  const words = t.score;
  const like = card.likeness;
  return html`
    <section class="card stack" aria-labelledby="score">
      <h2 id="score">${words.title}</h2>
      ${
        like &&
        html`
        <${Gauge} label=${words.similar} share=${like.alike} />
        ${like.gained !== null && like.gained !== undefined && html`<${Gauge} label=${words.gained} share=${like.gained} />`}
      `
      }
      <${Gauge} label=${words.prompts} share=${card.prompt.recognised} />
      <dl class="facts small">
        ${like && html`<dt>${words.faces}</dt><dd>${words.ofPortraits(like.faces, like.portraits)}</dd>`}
        <dt>${words.copies}</dt><dd>${card.overfitting.copies}</dd>
      </dl>
      <p class="soft small">${words.note}</p>
    </section>
  `;
}
