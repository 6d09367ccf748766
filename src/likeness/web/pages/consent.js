// @ts-check
import { call } from "../api.js";
import { complain } from "../failures.js";
import { html, useState } from "../html.js";
import { about, go } from "../state.js";
import { t } from "../texts.js";

const NAME = /^[a-z0-9][a-z0-9_-]{0,62}$/;
const OTHER = "other";

/** Name, class noun and consent of a new subject. */
export function Page() {
  const [name, setName] = useState("");
  const [noun, setNoun] = useState("person");
  const [thing, setThing] = useState("");
  const [isMe, setMe] = useState(true);
  const [who, setWho] = useState("");
  const [agreed, setAgreed] = useState(false);
  const [wasAsked, setAsked] = useState(false);
  const words = t.consent;
  const isGood = { name: NAME.test(name), agreed };
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    setAsked(true);
    if (!isGood.name || !agreed) {
      document.getElementById(isGood.name ? "agreed" : "name")?.focus();
      return;
    }
    try {
      const class_noun = noun === OTHER ? thing.trim() : noun;
      await call("POST", "/subjects", { json: { name, class_noun, consent: words.words(isMe, who.trim()) } });
      go("photos", name);
    } catch (error) {
      complain(error);
    }
  };
  /** @param {(text: string) => void} set */
  const typed = (set) => (/** @type {any} */ event) => set(event.currentTarget.value);
  return html`
    <form class="narrow stack wide" onSubmit=${submit} novalidate>
      <div class="stack tight">
        <h1 tabindex="-1">${words.title}</h1>
        <p class="soft">${words.lead}</p>
      </div>
      <div class="field">
        <label for="name">${words.name}</label>
        <input id="name" type="text" value=${name} autocomplete="off" autocapitalize="none" spellcheck=${false} maxlength="63" required
          aria-describedby="name-hint" aria-invalid=${wasAsked && !isGood.name} onInput=${(/** @type {any} */ event) => setName(event.currentTarget.value.toLowerCase().replace(/\s+/g, "-"))} />
        <p id="name-hint" class=${wasAsked && !isGood.name ? "error small" : "soft small"}>${wasAsked && !isGood.name ? words.nameError : words.nameHint}</p>
      </div>
      <div class="field">
        <label for="noun">${words.noun}</label>
        <select id="noun" value=${noun} onChange=${typed(setNoun)}>
          ${Object.entries(words.nouns).map(([key, text]) => html`<option key=${key} value=${key}>${text}</option>`)}
          <option value=${OTHER}>${words.other}</option>
        </select>
      </div>
      ${
        noun === OTHER &&
        html`
        <div class="field">
          <label for="thing">${words.otherNoun}</label>
          <input id="thing" type="text" value=${thing} maxlength="100" required aria-describedby="thing-hint" onInput=${typed(setThing)} />
          <p id="thing-hint" class="soft small">${words.otherHint}</p>
        </div>
      `
      }
      ${
        noun !== OTHER &&
        html`
        <fieldset class="stack tight">
          <legend>${words.whose}</legend>
          <label class="tick"><input type="radio" name="whose" checked=${isMe} onChange=${() => setMe(true)} />${words.me}</label>
          <label class="tick"><input type="radio" name="whose" checked=${!isMe} onChange=${() => setMe(false)} />${words.them}</label>
          ${
            !isMe &&
            html`
            <div class="field">
              <label for="who">${words.who}</label>
              <input id="who" type="text" value=${who} maxlength="500" required aria-describedby="who-hint" onInput=${typed(setWho)} />
              <p id="who-hint" class="soft small">${words.whoHint}</p>
            </div>
          `
          }
        </fieldset>
      `
      }
      <dl class="card facts">
        ${words.facts.map(
          ([title, text]) => html`
          <dt key=${title}>${title}</dt>
          <dd>${typeof text === "function" ? text(about.value.keep_photos_days) : text}</dd>
        `,
        )}
      </dl>
      <div class="stack tight">
        <label class="tick">
          <input id="agreed" type="checkbox" checked=${agreed} aria-invalid=${wasAsked && !agreed} onChange=${(/** @type {any} */ event) => setAgreed(event.currentTarget.checked)} />
          ${words.agree}
        </label>
        ${wasAsked && !agreed && html`<p class="error small" role="alert">${words.agreeError}</p>`}
      </div>
      <button class="button main-button big" type="submit">${words.submit}</button>
    </form>
  `;
}
