// @ts-check
/** What several pages share: the route, the installation, the connection, the short messages at the bottom. */
import { signal } from "./html.js";

/** @typedef {{page: string, name: string}} Route */

/** @returns {Route} */
function parsed() {
  const [page = "", name = ""] = location.hash.replace(/^#\/?/, "").split("/");
  let decoded = "";
  try {
    decoded = decodeURIComponent(name);
  } catch {
    // a malformed address names nothing
  }
  return { page, name: decoded };
}

export const route = signal(parsed());
addEventListener("hashchange", () => {
  route.value = parsed();
});

/**
 * @param {string} page
 * @param {string} [name]
 */
export const address = (page, name) => `#/${page}${name ? `/${encodeURIComponent(name)}` : ""}`;

/**
 * @param {string} page
 * @param {string} [name]
 */
export function go(page, name) {
  location.hash = address(page, name);
}

/** The document of /v1/about; null until it has come. @type {import("./html.js").Signal<any>} */
export const about = signal(null);
export const needsSignIn = signal(false);
export const serverGone = signal(false);

/** @typedef {{name: string, recipe: string, recipe_changes: Record<string, any>}} Repeated */
/** The training that is to be done again. @type {Repeated | null} */
let repeated = null;

/** For the form beside the photographs, which the next page shows. @param {Repeated} job */
export function repeat(job) {
  repeated = job;
}

/** The training of this subject that is to be done again; null: none. @param {string} name */
export function takeRepeated(name) {
  const found = repeated?.name === name ? repeated : null;
  repeated = null;
  return found;
}

/** Counts up when the server is back, so that pages load again. */
export const revision = signal(0);

/** @typedef {{id: number, text: string, hint?: string, requestId?: string, isError?: boolean}} Note */
/** @type {import("./html.js").Signal<Note[]>} */
export const notes = signal([]);
/** Open dialogs that show the notes themselves: what is outside of a modal dialog is covered, and inert. */
export const coveringDialogs = signal(0);
let lastNote = 0;

/**
 * Show a short message; errors stay until they are closed.
 * @param {string} text
 * @param {{hint?: string, requestId?: string, isError?: boolean}} [more]
 */
export function say(text, more = {}) {
  const note = { id: ++lastNote, text, ...more };
  notes.value = [...notes.value.filter((one) => one.text !== text), note].slice(-3);
  if (!more.isError) setTimeout(() => dismiss(note.id), 5000);
}

/** @param {number} id */
export function dismiss(id) {
  notes.value = notes.value.filter((one) => one.id !== id);
}
