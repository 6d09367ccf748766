// @ts-check
import { html } from "../html.js";
import { PendingTile } from "./pending_tile.js";

/** The images of one of the two requests that are compared. @param {{run: import("../studio_runs.js").Run}} props */
export function RunTiles({ run }) {
  return html`
    <div class="stack tight">
      <p class="small soft break">${run.label}</p>
      <ul class="grid">
        ${run.tiles.map((tile) =>
          tile.id
            ? html`<li key=${tile.place} class="tile whole"><img src=${`/v1/images/${tile.id}/thumbnail`} alt=${run.label} width="160" height="160" /></li>`
            : html`<${PendingTile} key=${tile.place} tile=${tile} />`,
        )}
      </ul>
    </div>
  `;
}
