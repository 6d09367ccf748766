// @ts-check
import { call } from "../api.js";
import { complain } from "../failures.js";
import { html, useState } from "../html.js";
import { about, go, takeRepeated } from "../state.js";
import { t } from "../texts.js";

/**
 * The button that starts a training, with its recipe behind 'more'.
 * @param {{subject: any, set: any, isBusy: boolean}} props `set` of a check; null without photographs
 */
export function TrainForm({ subject, set, isBusy }) {
  const [before] = useState(() => takeRepeated(subject.name));
  const { steps: stepsBefore = "", class_images: classImagesBefore = "", ...others } = before?.recipe_changes || {};
  const [recipe, setRecipe] = useState(before?.recipe || "standard");
  const [steps, setSteps] = useState(String(stepsBefore));
  const [classImages, setClassImages] = useState(String(classImagesBefore));
  const [keepsOthers, setKeepsOthers] = useState(true);
  const [noun, setNoun] = useState(subject.class_noun);
  const [isSending, setSending] = useState(false);
  const words = t.photos;
  const count = set ? set.count : 0;
  const isRefused = count === 0 || set.advice.some((/** @type {any} */ one) => one.verdict === "refused");
  /** @param {Event} event */
  const start = async (event) => {
    event.preventDefault();
    setSending(true);
    /** @type {Record<string, any>} */
    const recipe_changes = keepsOthers ? { ...others } : {};
    if (steps) recipe_changes.steps = Number(steps);
    if (classImages) recipe_changes.class_images = Number(classImages);
    try {
      const job = await call("POST", "/jobs", {
        json: {
          name: subject.name,
          recipe,
          recipe_changes,
          class_noun: noun.trim() || null,
          replace: subject.has_adapter,
        },
      });
      go("training", job.id);
    } catch (error) {
      setSending(false);
      complain(error);
    }
  };
  return html`
    <form class="card stack" onSubmit=${start}>
      <button class="button main-button big full" type="submit" disabled=${isBusy || isSending || isRefused}>${words.train}</button>
      ${set && isRefused && html`<p class="soft small">${words.tooFew}</p>`}
      ${subject.has_adapter && html`<p class="soft small">${words.replace}</p>`}
      <details open=${before !== null}>
        <summary>${t.actions.more}</summary>
        <div class="stack">
          <div class="field">
            <label for="recipe">${words.recipe}</label>
            <select id="recipe" value=${recipe} onChange=${(/** @type {any} */ event) => setRecipe(event.currentTarget.value)}>
              ${about.value.recipes.map(
                (/** @type {any} */ one) => html`
                <option key=${one.name} value=${one.name}>${words.recipes[/** @type {keyof typeof words.recipes} */ (one.name)] || one.name}</option>
              `,
              )}
            </select>
          </div>
          ${
            subject.class_noun !== "" &&
            html`
            <div class="field">
              <label for="class-noun">${words.classNoun}</label>
              <input id="class-noun" type="text" maxlength="100" value=${noun} autocapitalize="none" aria-describedby="noun-hint" onInput=${(/** @type {any} */ event) => setNoun(event.currentTarget.value)} />
              <p id="noun-hint" class="soft small">${words.nounHint}</p>
            </div>
          `
          }
          <div class="pair">
            <div class="field">
              <label for="steps">${words.steps}</label>
              <input id="steps" type="number" min="1" max="20000" value=${steps} aria-describedby="steps-hint" onInput=${(/** @type {any} */ event) => setSteps(event.currentTarget.value)} />
            </div>
            <div class="field">
              <label for="class-images">${words.classImages}</label>
              <input id="class-images" type="number" min="0" max="1000" value=${classImages} aria-describedby="class-hint" onInput=${(/** @type {any} */ event) => setClassImages(event.currentTarget.value)} />
            </div>
          </div>
          <p id="steps-hint" class="soft small">${words.stepsHint}</p>
          <p id="class-hint" class="soft small">${words.classHint}</p>
          ${
            Object.keys(others).length > 0 &&
            html`
            <label class="tick">
              <input type="checkbox" checked=${keepsOthers} onChange=${(/** @type {any} */ event) => setKeepsOthers(event.currentTarget.checked)} />
              <span class="break">${words.others(others)}</span>
            </label>
          `
          }
        </div>
      </details>
    </form>
  `;
}
