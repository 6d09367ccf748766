// @ts-check
import { html, signal, useEffect, useRef } from "../html.js";
import { t } from "../texts.js";

/** @typedef {{text: string, action: string, answer: (yes: boolean) => void}} Question */
/** @type {import("../html.js").Signal<Question | null>} */
const question = signal(null);

/**
 * Ask before something that cannot be undone.
 * @param {string} text
 * @param {string} action the text of the button that does it
 * @returns {Promise<boolean>}
 */
export function ask(text, action = t.actions.delete) {
  return new Promise((resolve) => {
    question.value = { text, action, answer: resolve };
  });
}

/** The dialog of `ask`; a page that asks has one. */
export function Confirm() {
  const dialog = useRef(null);
  const asked = question.value;
  useEffect(() => {
    const box = /** @type {HTMLDialogElement | null} */ (dialog.current);
    if (asked && box && !box.open) box.showModal();
  }, [asked]);
  if (!asked) return null;
  /** @param {boolean} yes */
  const answer = (yes) => {
    question.value = null;
    /** @type {HTMLDialogElement | null} */ (dialog.current)?.close(); // gives the focus back, as removing it does not
    asked.answer(yes);
  };
  return html`
    <dialog class="sheet ask stack" ref=${dialog} aria-labelledby="question" onClose=${() => question.value && answer(false)}>
      <p id="question">${asked.text}</p>
      <div class="row">
        <button class="button bad-button" type="button" onClick=${() => answer(true)}>${asked.action}</button>
        <button class="button" type="button" autofocus onClick=${() => answer(false)}>${t.actions.keep}</button>
      </div>
    </dialog>
  `;
}
