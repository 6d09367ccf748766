// @ts-check
import { html } from "../html.js";
import { t } from "../texts.js";

/** The images of one request while they are made. @param {{run: import("../studio_runs.js").Run}} props */
export function RunTiles({ run }) {
  return html`
    <div class="stack tight">
      <p class="small soft break">${run.label}</p>
      <ul class="grid">
        ${run.tiles.map(
          (tile) => html`
          <li key=${tile.place} class="tile" aria-busy=${!tile.id}>
            ${
              tile.id
                ? html`<img src=${`/v1/images/${tile.id}/thumbnail`} alt=${run.label} width="160" height="160" />`
                : tile.url && html`<img src=${tile.url} alt=${t.studio.inWork(tile.place + 1)} />`
            }
            ${!tile.id && html`<span class="wait">${t.studio.step(tile.step, tile.steps)}</span>`}
          </li>
        `,
        )}
      </ul>
    </div>
  `;
}
