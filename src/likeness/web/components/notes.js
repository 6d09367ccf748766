// @ts-check
import { html, useEffect } from "../html.js";
import { coveringDialogs, dismiss, notes, serverGone } from "../state.js";
import { t } from "../texts.js";

/** For a modal dialog that has the notes inside of it, in place of those of the page. */
export function useNotesInside() {
  useEffect(() => {
    coveringDialogs.value = coveringDialogs.peek() + 1;
    return () => {
      coveringDialogs.value = coveringDialogs.peek() - 1;
    };
  }, []);
}

/** Short messages over the page, which moves nothing; read out by screen readers as they come. */
export function Notes() {
  return html`
    <div class="notes" role="status" aria-live="polite">
      ${serverGone.value && html`<div class="note gone" key="gone"><p>${t.gone}</p></div>`}
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
