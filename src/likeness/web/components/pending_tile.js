// @ts-check
import { html } from "../html.js";
import { t } from "../texts.js";

/** An image while it is made. @param {{tile: import("../studio_runs.js").Tile}} props */
export function PendingTile({ tile }) {
  return html`
    <li class="tile whole" aria-busy="true">
      ${tile.url && html`<img src=${tile.url} alt=${t.studio.inWork(tile.place + 1)} />`}
      <span class="wait">${t.studio.step(tile.step, tile.steps)}</span>
    </li>
  `;
}
