// @ts-check
import { html } from "../html.js";
import { SAMPLES } from "../suggestions/samples.js";
import { t } from "../texts.js";

/**
 * Prompts with a picture that the base made of each.
 * @param {{prompt: string, isBase: boolean, noun: string, onPick: (prompt: string) => void}} props
 */
export function Ideas({ prompt, isBase, noun, onPick }) {
  return html`
    <div class="field">
      <span class="label" id="ideas">${t.studio.suggestions}</span>
      <div class="ideas" role="group" aria-labelledby="ideas" tabindex="0">
        ${SAMPLES.map((one) => {
          const said = isBase ? one.prompt.replace("{me}", noun) : one.prompt;
          return html`
            <button key=${one.file} class="idea" type="button" aria-pressed=${prompt === said} onClick=${() => onPick(said)}>
              <img src=${`/web/suggestions/${one.file}`} alt="" width="92" height="92" loading="lazy" />
              <span>${one.label}</span>
            </button>
          `;
        })}
      </div>
    </div>
  `;
}
