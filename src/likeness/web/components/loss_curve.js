// @ts-check
import { html } from "../html.js";
import { t } from "../texts.js";

const POINTS = 120;

/**
 * The loss over the steps, smoothed.
 * @param {{losses: number[]}} props
 */
export function LossCurve({ losses }) {
  if (losses.length < 2) return null;
  const smooth = [];
  let mean = losses[0];
  for (const loss of losses) smooth.push((mean += 0.15 * (loss - mean)));
  const every = Math.max(1, Math.floor(smooth.length / POINTS));
  const shown = smooth.filter((_, place) => place % every === 0 || place === smooth.length - 1);
  const low = Math.min(...shown);
  const high = Math.max(...shown, low + 1e-9);
  const points = shown.map(
    (loss, place) =>
      `${((place / (shown.length - 1)) * 300).toFixed(1)} ${(94 - ((loss - low) / (high - low)) * 88).toFixed(1)}`,
  );
  return html`
    <figure class="stack tight">
      <figcaption class="label">${t.training.loss}</figcaption>
      <svg class="curve" viewBox="0 0 300 100" preserveAspectRatio="none" role="img" aria-label=${t.training.lossLabel(smooth[0], smooth.at(-1) || 0)}>
        <line x1="0" y1="94" x2="300" y2="94" />
        <path d=${`M${points.join("L")}`} />
      </svg>
    </figure>
  `;
}
