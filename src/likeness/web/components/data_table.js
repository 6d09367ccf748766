// @ts-check
import { html } from "../html.js";

/**
 * A table that scrolls sideways where it does not fit; on a phone, a list of rows. The roles say that it is a table there
 * too: browsers take it for none when its display changes.
 * @param {{label: string, heads: string[], rows: any[][], empty: string}} props
 */
export function DataTable({ label, heads, rows, empty }) {
  if (!rows.length) return html`<p class="soft">${empty}</p>`;
  return html`
    <div class="table" tabindex="0" role="group" aria-label=${label}>
      <table role="table">
        <thead role="rowgroup"><tr role="row">${heads.map((head) => (head ? html`<th key=${head} role="columnheader" scope="col">${head}</th>` : html`<td role="cell"></td>`))}</tr></thead>
        <tbody role="rowgroup">
          ${rows.map((row, place) => html`<tr key=${place} role="row">${row.map((cell, column) => html`<td role="cell" data-head=${heads[column]}>${cell}</td>`)}</tr>`)}
        </tbody>
      </table>
    </div>
  `;
}
