// @ts-check
import { call } from "../api.js";
import { complain } from "../failures.js";
import { html, useRef, useState } from "../html.js";
import { t } from "../texts.js";

/**
 * A backup of everything, and its restoration.
 * @param {{onRestored: () => void}} props
 */
export function Backup({ onRestored }) {
  const [isBusy, setBusy] = useState(false);
  const [restored, setRestored] = useState(/** @type {any} */ (null));
  const input = useRef(null);
  const words = t.people;
  /** @param {any} event */
  const chosen = async (event) => {
    const file = event.currentTarget.files[0];
    event.currentTarget.value = ""; // so that the same file can be chosen again
    if (!file) return;
    setBusy(true);
    setRestored(null);
    const form = new FormData();
    form.append("file", file);
    try {
      setRestored(await call("POST", "/backup", { body: form }));
      onRestored();
    } catch (error) {
      complain(error);
    }
    setBusy(false);
  };
  return html`
    <section class="card stack" aria-labelledby="backup">
      <h2 id="backup">${words.backup}</h2>
      <p class="soft small">${words.backupLead}</p>
      <div class="row">
        <a class="button" href="/v1/backup" download>${words.makeBackup}</a>
        <button class="button" type="button" disabled=${isBusy} onClick=${() => /** @type {any} */ (input.current)?.click()}>${isBusy ? words.restoring : words.restore}</button>
        <input ref=${input} type="file" accept=".zip,application/zip" hidden aria-label=${words.restore} onChange=${chosen} />
      </div>
      <p class="soft small">${words.restoreNote}</p>
      <div class="stack tight small" role="status">
        ${
          restored &&
          html`
          <p>${words.restored(restored)}</p>
          ${restored.left_out.map((/** @type {any} */ one) => html`<p key=${one.name + one.reason} class="break">${words.leftOut(one)}</p>`)}
        `
        }
      </div>
    </section>
  `;
}
