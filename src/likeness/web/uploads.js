// @ts-check
/**
 * Photographs on their way to the server: one request each, one after the other, so that every verdict comes as soon as
 * it is there. The queue outlives the page that filled it.
 */
import { call, get } from "./api.js";
import { told } from "./failures.js";
import { signal } from "./html.js";

/**
 * @typedef {object} Entry a photograph that is not kept: on its way, refused, or not sent
 * @property {number} id
 * @property {File | null} file
 * @property {string} label
 * @property {string} url a preview of it; empty if the browser cannot show it
 * @property {"waiting" | "sending" | "refused" | "failed"} state
 * @property {Reason[]} reasons
 * @property {(reasons: Reason[]) => void} [onRefused]
 */
/** @typedef {{code: string, message: string, hint: string, verdict: string}} Reason */
/** @typedef {{entries: Entry[], photos: any[], set: any, isLoaded: boolean, changes: number}} PhotoSet */
// `changes`: how often photographs were added or removed; an answer to an earlier question is older than what is shown

/** @type {PhotoSet} */
const EMPTY = { entries: [], photos: [], set: null, isLoaded: false, changes: 0 };
/** @type {import("./html.js").Signal<Record<string, PhotoSet>>} */
const sets = signal({});
/** @type {Set<string>} */
const working = new Set();
let lastId = 0;

/** @param {string} name @returns {PhotoSet} */
const of = (name) => sets.value[name] || EMPTY;

/** @param {string} name @param {Partial<PhotoSet>} change */
function change(name, change) {
  sets.value = { ...sets.peek(), [name]: { ...(sets.peek()[name] || EMPTY), ...change } };
}

/** @param {string} name @param {number} id @param {Partial<Entry>} values */
function mark(name, id, values) {
  change(name, { entries: of(name).entries.map((one) => (one.id === id ? { ...one, ...values } : one)) });
}

/** @param {string} name @param {number} id */
function drop(name, id) {
  const gone = of(name).entries.find((one) => one.id === id);
  if (gone?.url) URL.revokeObjectURL(gone.url);
  change(name, { entries: of(name).entries.filter((one) => one.id !== id) });
}

/** @param {string} name @param {File[]} files @param {(reasons: Reason[]) => void} [onRefused] */
function add(name, files, onRefused) {
  /** @type {Entry[]} */
  const added = files
    .filter((file) => !file.name.startsWith("."))
    .map((file) => ({
      id: ++lastId,
      file,
      label: file.name,
      url: file.type.startsWith("image/") && !/hei[cf]/.test(file.type) ? URL.createObjectURL(file) : "",
      state: "waiting",
      reasons: [],
      onRefused,
    }));
  change(name, { entries: [...of(name).entries, ...added] });
  work(name);
}

/** @param {string} name */
async function work(name) {
  if (working.has(name)) return;
  working.add(name);
  try {
    for (;;) {
      const entry = of(name).entries.find((one) => one.state === "waiting");
      if (!entry) return;
      mark(name, entry.id, { state: "sending", reasons: [] });
      await send(name, entry, false);
    }
  } finally {
    working.delete(name);
  }
}

/** @param {string} name @param {Entry} entry @param {boolean} keepStrangers */
async function send(name, entry, keepStrangers) {
  const form = new FormData();
  form.append("photos", /** @type {File} */ (entry.file), entry.label);
  try {
    const path = `/subjects/${encodeURIComponent(name)}/photos${keepStrangers ? "?keep_strangers=true" : ""}`;
    took(name, entry, await call("POST", path, { body: form }));
  } catch (error) {
    const { text, hint } = told(error);
    mark(name, entry.id, { state: "failed", reasons: [{ code: "", message: text, hint, verdict: "refused" }] });
  }
}

/** @param {string} name @param {Entry} entry @param {any} checked */
function took(name, entry, checked) {
  const kept = checked.photos.filter((/** @type {any} */ one) => one.verdict !== "refused");
  const refused = checked.photos.filter((/** @type {any} */ one) => one.verdict === "refused");
  const known = new Set(kept.map((/** @type {any} */ one) => one.sha256));
  change(name, {
    changes: of(name).changes + 1,
    photos: [...of(name).photos.filter((one) => !known.has(one.sha256)), ...kept],
    set: checked.set,
    isLoaded: true,
  });
  const isArchive = checked.photos.length !== 1;
  if (refused.length && !isArchive) {
    mark(name, entry.id, { state: "refused", reasons: refused[0].reasons });
    entry.onRefused?.(refused[0].reasons);
    return;
  }
  drop(name, entry.id);
  const named = refused.map((/** @type {any} */ one) => ({
    id: ++lastId,
    file: null,
    label: one.file,
    url: "",
    state: /** @type {const} */ ("refused"),
    reasons: one.reasons,
  }));
  change(name, { entries: [...of(name).entries, ...named] });
}

/** @param {string} name */
async function load(name) {
  const path = `/subjects/${encodeURIComponent(name)}`;
  const before = of(name).changes;
  if (!of(name).isLoaded) {
    const { photos } = await get(`${path}/photos`); // at once; what they show together takes longer after a restart
    if (of(name).changes === before && !of(name).isLoaded) change(name, { photos });
  }
  const checked = await get(`${path}/check`);
  if (of(name).changes === before) change(name, { photos: checked.photos, set: checked.set, isLoaded: true });
}

/** @param {string} name @param {string} sha256 */
async function remove(name, sha256) {
  await call("DELETE", `/subjects/${encodeURIComponent(name)}/photos/${sha256}`);
  change(name, { changes: of(name).changes + 1, photos: of(name).photos.filter((one) => one.sha256 !== sha256) });
  await load(name);
}

/** @param {string} name @param {number} id @param {boolean} keepStrangers */
async function again(name, id, keepStrangers) {
  const entry = of(name).entries.find((one) => one.id === id);
  if (!entry) return;
  if (!keepStrangers) {
    mark(name, id, { state: "waiting" });
    work(name);
    return;
  }
  mark(name, id, { state: "sending", reasons: [] });
  await send(name, entry, true);
}

/** @param {string} name */
function forget(name) {
  for (const entry of of(name).entries) if (entry.url) URL.revokeObjectURL(entry.url);
  const { [name]: _, ...rest } = sets.peek();
  sets.value = rest;
}

export const uploads = { add, again, drop, forget, load, of, remove };
