// @ts-check
import { sentence } from "../failures.js";
import { html } from "../html.js";
import { t } from "../texts.js";

/**
 * What a good set has, what of it is there, and what would help.
 * @param {{set: any}} props the `set` of a check
 */
export function ShotPlan({ set }) {
  const words = t.plan;
  /** @param {string} shot */
  const name = (shot) => words.names[/** @type {keyof typeof words.names} */ (shot)];
  if (!set.plan.length && !set.advice.length) return null;
  return html`
    <section class="card stack" aria-labelledby="plan">
      ${
        set.plan.length > 0 &&
        html`
        <h2 id="plan">${words.title}</h2>
        <ul class="plan">
          ${set.plan.map(
            (/** @type {any} */ one) => html`
            <li key=${one.shot} class=${one.have >= one.wanted ? "filled" : ""}>
              <span class="dot" aria-hidden="true">✓</span>
              <span>${name(one.shot)}</span>
              <span class="soft small">${words.of(one.have, one.wanted)}</span>
            </li>
          `,
          )}
        </ul>
      `
      }
      ${
        set.advice.length > 0 &&
        html`
        <h2 id=${set.plan.length ? undefined : "plan"}>${t.photos.advice}</h2>
        <ul class="stack tight small">
          ${set.advice.map((/** @type {any} */ one) => html`<li key=${one.code}>${sentence(one.message)} <span class="soft">${sentence(one.hint)}</span></li>`)}
        </ul>
      `
      }
    </section>
  `;
}
