// @ts-check
import { html } from "../html.js";
import { dismiss, notes } from "../state.js";
import { t } from "../texts.js";

/** Short messages, read out by screen readers as they come. */
export function Notes() {
  return html`
    <div class="notes" role="status" aria-live="polite">
      ${notes.value.map(
        (note) => html`
        <div class="note" key=${note.id}>
          <div>
            <p>${note.text}</p>
            ${note.hint && html`<p class="small">${note.hint}</p>`}
            ${note.requestId && html`<p class="small">${t.requestId} ${note.requestId}</p>`}
          </div>
          <button class="button plain-button" type="button" onClick=${() => dismiss(note.id)}>${t.actions.close}</button>
        </div>
      `,
      )}
    </div>
  `;
}
