// @ts-check
import { html } from "../html.js";

/**
 * A table that scrolls sideways where it does not fit.
 * @param {{label: string, heads: string[], rows: any[][], empty: string}} props
 */
export function DataTable({ label, heads, rows, empty }) {
  if (!rows.length) return html`<p class="soft">${empty}</p>`;
  return html`
    <div class="table" tabindex="0" role="group" aria-label=${label}>
      <table>
        <thead><tr>${heads.map((head) => (head ? html`<th key=${head} scope="col">${head}</th>` : html`<td></td>`))}</tr></thead>
        <tbody>${rows.map((row, place) => html`<tr key=${place}>${row.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody>
      </table>
    </div>
  `;
}
