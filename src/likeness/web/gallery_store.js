// @ts-check
/** The kept images that the gallery shows, in pages, the newest first. */
import { call, get } from "./api.js";
import { signal } from "./html.js";

const FIRST_PAGE = 36; // fills most windows
const PAGE = 60;

/** @typedef {{adapter: string | null, favourites: boolean}} Filter */
/** @type {import("./html.js").Signal<{images: any[], next: string | null, isLoaded: boolean}>} */
const state = signal({ images: [], next: null, isLoaded: false });
/** @type {Filter} */
let filter = { adapter: null, favourites: false };
let round = 0; // of lists that were asked for
let edits = 0; // of the list on the page
let isLoadingMore = false;

/** @param {Filter} found @param {string} [before] */
function path({ adapter, favourites }, before = "") {
  const query = new URLSearchParams({ limit: String(before ? PAGE : FIRST_PAGE), favourites: String(favourites) });
  if (adapter) query.set("adapter", adapter);
  if (before) query.set("before", before);
  return `/images?${query}`;
}

/** @param {(images: any[]) => any[]} changed */
function edit(changed) {
  edits += 1;
  state.value = { ...state.peek(), images: changed(state.peek().images) };
}

/** @param {Filter} wanted */
async function load(wanted) {
  filter = wanted;
  const mine = ++round;
  let page;
  let asked;
  do {
    asked = edits;
    page = await get(path(wanted));
    if (mine !== round) return;
  } while (asked !== edits); // the list may be from before the edit
  state.value = { images: page.images, next: page.next, isLoaded: true };
}

async function more() {
  const { images, next } = state.peek();
  if (!next || isLoadingMore) return;
  const last = images.at(-1);
  if (!last) return load(filter); // all of the first page are deleted
  isLoadingMore = true;
  const mine = round;
  try {
    const page = await get(path(filter, last.id));
    if (mine === round)
      state.value = { images: [...state.peek().images, ...page.images], next: page.next, isLoaded: true };
  } finally {
    isLoadingMore = false;
  }
}

/** A new image. @param {any} image */
function add(image) {
  if (filter.favourites || (filter.adapter && filter.adapter !== (image.adapter || "base"))) return;
  edit((images) => [image, ...images.filter((one) => one.id !== image.id)]);
}

/** @param {string[]} ids */
async function remove(ids) {
  for (const id of ids) {
    await call("DELETE", `/images/${id}`);
    edit((images) => images.filter((one) => one.id !== id));
  }
}

/** @param {any} image @param {boolean} isFavourite */
async function favour(image, isFavourite) {
  const changed = await call("PUT", `/images/${image.id}/favourite`, { json: { is_favourite: isFavourite } });
  edit((images) => images.map((one) => (one.id === image.id ? changed : one)));
}

/** Leave out what does not match the filter any more. Not as soon as it is unmarked: its viewer would close. */
function tidy() {
  if (filter.favourites) edit((images) => images.filter((one) => one.is_favourite));
}

export const gallery = { add, favour, load, more, remove, state, tidy };
