// @ts-check
import { html } from "../html.js";
import { t } from "../texts.js";

/** @param {{width: number, height: number}} one */
export const sizeOf = (one) => `${one.width}x${one.height}`;

/**
 * The shape of the pictures, where the base makes several.
 * @param {{shapes: {aspect: string, width: number, height: number}[], size: string, onPick: (size: string) => void}} props
 *   `size`: of the shape that is chosen; any other means the first, the square
 */
export function ShapeChoice({ shapes, size, onPick }) {
  if (shapes.length < 2) return null;
  const chosen = shapes.find((one) => sizeOf(one) === size) || shapes[0];
  return html`
    <div class="field">
      <label for="shape">${t.studio.shape}</label>
      <select id="shape" value=${sizeOf(chosen)} onChange=${(/** @type {any} */ event) => onPick(event.currentTarget.value)}>
        ${shapes.map((one) => html`<option key=${sizeOf(one)} value=${sizeOf(one)}>${t.studio.shapeOf(one)}</option>`)}
      </select>
    </div>
  `;
}
