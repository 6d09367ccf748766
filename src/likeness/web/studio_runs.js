// @ts-check
/** Image requests that are under way: previews while they are made, then the kept image goes to the gallery. */
import { events, send } from "./api.js";
import { complain } from "./failures.js";
import { gallery } from "./gallery_store.js";
import { signal } from "./html.js";
import { say } from "./state.js";
import { sentence } from "./failures.js";
import { t } from "./texts.js";

/** @typedef {{place: number, url: string, step: number, steps: number, id: string | null}} Tile */
/**
 * @typedef {{id: number, label: string, tiles: Tile[], ids: string[], isCompared: boolean, isOver: boolean,
 *   stop: () => void}} Run
 */
/** @type {import("./html.js").Signal<Run[]>} */
export const runs = signal([]);
let lastId = 0;

/** @param {string} base64 @param {string} type */
function blobUrl(base64, type) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type }));
}

/** @param {number} id @param {(run: Run) => Partial<Run>} change */
function change(id, change) {
  runs.value = runs.value.map((one) => (one.id === id ? { ...one, ...change(one) } : one));
}

/** @param {number} id @param {number} place @param {Partial<Tile>} values */
function mark(id, place, values) {
  change(id, (run) => ({
    tiles: run.tiles.map((tile) => {
      if (tile.place !== place) return tile;
      if (values.url && tile.url) URL.revokeObjectURL(tile.url);
      return { ...tile, ...values };
    }),
  }));
}

/**
 * Make images and keep them; returns their ids, those of a stopped run too.
 * @param {any} order of POST /v1/images
 * @param {string} label
 * @param {{isCompared?: boolean}} [options] a compared run stays on the page when it is over
 */
export async function make(order, label, { isCompared = false } = {}) {
  const id = ++lastId;
  const stop = new AbortController();
  const tiles = Array.from({ length: order.n }, (_, place) => ({
    place,
    url: "",
    step: 0,
    steps: order.steps,
    id: null,
  }));
  runs.value = [{ id, label, tiles, ids: [], isCompared, isOver: false, stop: () => stop.abort() }, ...runs.value];
  try {
    const response = await send("POST", "/images", {
      json: { ...order, keep: true },
      accept: "text/event-stream",
      signal: stop.signal,
    });
    for await (const { kind, data } of events(response)) {
      if (kind === "step")
        mark(id, data.place, {
          step: data.step,
          steps: data.steps,
          ...(data.preview ? { url: blobUrl(data.preview, "image/jpeg") } : {}),
        });
      if (kind === "error")
        throw new Error(
          [data.error.message, data.error.hint]
            .filter((text) => text)
            .map(sentence)
            .join(" "),
        );
      if (kind !== "image") continue;
      mark(id, data.place, { id: data.id });
      change(id, (run) => ({ ids: [...run.ids, data.id] }));
      if (data.unread && data.place === 0) say(t.studio.unread(data.unread));
      gallery.add({
        id: data.id,
        adapter: order.adapter,
        media_type: data.media_type,
        bytes: 0,
        created: new Date().toISOString(),
        is_favourite: false,
        prompt: data.prompt,
        negative_prompt: order.negative_prompt,
        width: data.width,
        height: data.height,
        seed: data.seed,
        steps: order.steps,
        guidance_scale: order.guidance_scale,
        adapter_scale: order.adapter_scale,
      });
    }
  } catch (error) {
    if (error instanceof Error && error.constructor === Error) say(error.message, { isError: true });
    else complain(error);
  }
  const ended = runs.value.find((one) => one.id === id);
  ended?.tiles.forEach((tile) => tile.url && URL.revokeObjectURL(tile.url));
  if (isCompared && ended?.ids.length)
    change(id, (run) => ({
      isOver: true,
      tiles: run.tiles.filter((tile) => tile.id).map((tile) => ({ ...tile, url: "" })),
    }));
  else runs.value = runs.value.filter((one) => one.id !== id);
  return ended?.ids || [];
}

/** Take finished comparisons off the page; their images stay in the gallery. */
export function clearFinished() {
  runs.value = runs.value.filter((one) => !one.isOver);
}
