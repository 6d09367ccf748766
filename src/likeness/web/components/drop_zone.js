// @ts-check
import { html, useEffect, useRef, useState } from "../html.js";
import { t } from "../texts.js";

/**
 * Every file below a dropped item, folders included.
 * @param {any} entry
 * @returns {Promise<File[]>}
 */
async function filesBelow(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = /** @type {any[]} */ (await new Promise((resolve, reject) => reader.readEntries(resolve, reject)));
    if (!some.length) return found;
    for (const one of some) found.push(...(await filesBelow(one)));
  }
}

/** @param {DataTransfer} data @returns {Promise<File[]>} */
async function filesOf(data) {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry);
  const nested = await Promise.all(entries.map(filesBelow));
  return entries.length ? nested.flat() : [...data.files];
}

/**
 * Photographs by file dialog, folder, phone camera, drag and drop, or paste.
 * @param {{onFiles: (files: File[]) => void, onCamera: () => void}} props
 */
export function DropZone({ onFiles, onCamera }) {
  const [isOver, setOver] = useState(false);
  const files = useRef(null);
  const folder = useRef(null);
  const selfie = useRef(null);
  const give = useRef(onFiles);
  give.current = onFiles;
  useEffect(() => {
    /** @param {ClipboardEvent} event */
    const pasted = (event) => {
      const found = [...(event.clipboardData?.files || [])];
      if (found.length) give.current(found);
    };
    addEventListener("paste", pasted);
    return () => removeEventListener("paste", pasted);
  }, []);
  /** @param {any} event */
  const chosen = (event) => {
    onFiles([...event.currentTarget.files]);
    event.currentTarget.value = "";
  };
  /** @param {any} input */
  const open = (input) => () => input.current?.click();
  const isTouch = matchMedia("(pointer: coarse)").matches;
  return html`
    <div class=${`drop stack ${isOver ? "over" : ""}`}
      onDragOver=${(/** @type {DragEvent} */ event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave=${() => setOver(false)}
      onDrop=${async (/** @type {DragEvent} */ event) => {
        event.preventDefault();
        setOver(false);
        if (event.dataTransfer) onFiles(await filesOf(event.dataTransfer));
      }}>
      ${!isTouch && html`<p>${t.photos.drop}</p>`}
      <div class="row">
        <button class="button main-button" type="button" onClick=${open(files)}>${t.photos.choose}</button>
        ${!isTouch && html`<button class="button" type="button" onClick=${open(folder)}>${t.photos.folder}</button>`}
        ${isTouch && html`<button class="button" type="button" onClick=${open(selfie)}>${t.photos.selfie}</button>`}
        <button class="button" type="button" onClick=${onCamera}>${t.photos.camera}</button>
      </div>
      <p class="soft small">${t.photos.zip}</p>
      <input ref=${files} type="file" accept="image/*,.heic,.heif,.zip,.tar,.tgz" multiple hidden aria-label=${t.photos.choose} onChange=${chosen} />
      <input ref=${folder} type="file" webkitdirectory multiple hidden aria-label=${t.photos.folder} onChange=${chosen} />
      <input ref=${selfie} type="file" accept="image/*" capture="user" multiple hidden aria-label=${t.photos.selfie} onChange=${chosen} />
    </div>
  `;
}
