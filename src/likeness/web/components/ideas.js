// @ts-check
import { html } from "../html.js";
import { about } from "../state.js";
import { SAMPLES } from "../suggestions/samples.js";
import { t } from "../texts.js";

/**
 * Prompts, with a picture that the base made of each if it is the built-in base. Of other bases there are none.
 * @param {{prompt: string, isBase: boolean, noun: string, onPick: (prompt: string) => void}} props
 */
export function Ideas({ prompt, isBase, noun, onPick }) {
  const hasPictures = about.value.base === "built-in";
  return html`
    <div class="field">
      <span class="label" id="ideas">${t.studio.suggestions}</span>
      <div class="ideas" role="group" aria-labelledby="ideas" tabindex="0">
        ${SAMPLES.map((one) => {
          const said = isBase ? one.prompt.replace("{me}", noun) : one.prompt;
          return html`
            <button key=${one.file} class="idea" type="button" aria-pressed=${prompt === said} onClick=${() => onPick(said)}>
              ${hasPictures && html`<img src=${`/web/suggestions/${one.file}`} alt="" width="92" height="92" loading="lazy" />`}
              <span>${one.label}</span>
            </button>
          `;
        })}
      </div>
    </div>
  `;
}
