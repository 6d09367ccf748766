// @ts-check
import { Refusal, call } from "../api.js";
import { complain } from "../failures.js";
import { gallery } from "../gallery_store.js";
import { html, useEffect, useRef, useState } from "../html.js";
import { say } from "../state.js";
import { day, plain, t } from "../texts.js";
import { ask } from "./confirm.js";
import { Notes, useNotesInside } from "./notes.js";

const SWIPE_PX = 50;
const REST_MS = 300; // an image that is only passed by is not compared
/** What /v1 said of images, by id. @type {Map<string, any>} */
const compared = new Map();
const FACTS = /** @type {const} */ ([
  "prompt",
  "negative_prompt",
  "size",
  "seed",
  "steps",
  "guidance_scale",
  "adapter_scale",
  "created",
]);

/**
 * One image in full, with arrows, keys and swipes to its neighbours.
 * @param {{images: any[], place: number, onPlace: (place: number) => void, onClose: () => void, onLike: (image: any) => void}} props
 */
export function Lightbox({ images, place, onPlace, onClose, onLike }) {
  const dialog = useRef(null);
  const began = useRef(0);
  const image = images[place];
  const words = t.gallery;
  useNotesInside();
  useEffect(() => {
    const box = /** @type {HTMLDialogElement | null} */ (dialog.current);
    if (box && !box.open) box.showModal();
  }, []);
  const [likeness, setLikeness] = useState(compared.get(image.id) || null);
  useEffect(() => {
    setLikeness(compared.get(image.id) || null);
    if (!image.adapter || compared.has(image.id)) return undefined;
    const stop = new AbortController();
    const compare = async () => {
      try {
        const found = await call("GET", `/images/${image.id}/likeness`, { signal: stop.signal });
        compared.set(image.id, found);
        setLikeness(found);
      } catch (error) {
        const isDeleted = error instanceof Refusal && error.status === 404;
        if (!stop.signal.aborted && !isDeleted) complain(error);
      }
    };
    const timer = setTimeout(compare, REST_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [image.id]);
  /** @param {number} step */
  const move = (step) => {
    if (images[place + step]) onPlace(place + step);
  };
  const remove = async () => {
    if (!(await ask(words.deleteAsk(1)))) return;
    try {
      const neighbour = images[place + 1] ? place + 1 : place - 1;
      if (neighbour >= 0) onPlace(neighbour);
      await gallery.remove([image.id]);
      say(words.deleted(1));
    } catch (error) {
      complain(error);
    }
  };
  /** @type {Record<string, any>} */
  const shown = {
    ...image,
    created: day(image.created),
    prompt: plain(image.prompt),
    size: image.width ? `${image.width} × ${image.height} px` : null,
  };
  // The notes are over the picture: at the bottom of a phone's screen they would cover buttons.
  // The facts are below the buttons: their length differs, and a button that moves under a finger is not clicked.
  // The arrows stay enabled at the ends: a button that is disabled loses the focus, and the keys would go nowhere.
  return html`
    <dialog class="sheet" ref=${dialog} aria-label=${words.alt(plain(image.prompt), image.seed)} onClose=${onClose}
      onKeyDown=${(/** @type {KeyboardEvent} */ event) => (event.key === "ArrowLeft" ? move(-1) : event.key === "ArrowRight" && move(1))}>
      <div class="viewer">
        <div class="picture" onPointerDown=${(/** @type {PointerEvent} */ event) => {
          began.current = event.clientX;
        }}
          onPointerUp=${(/** @type {PointerEvent} */ event) => {
            const moved = event.clientX - began.current;
            if (Math.abs(moved) > SWIPE_PX) move(moved < 0 ? 1 : -1);
          }}>
          <img src=${`/v1/images/${image.id}`} alt=${words.alt(plain(image.prompt), image.seed)} draggable=${false} />
          <${Notes} />
        </div>
        <div class="stack">
          <div class="row spread">
            <div class="row">
              <button class="button round" type="button" aria-label=${words.previous} aria-disabled=${place === 0} onClick=${() => move(-1)}>‹</button>
              <button class="button round" type="button" aria-label=${words.next} aria-disabled=${place === images.length - 1} onClick=${() => move(1)}>›</button>
            </div>
            <button class="button" type="button" autofocus onClick=${() => /** @type {any} */ (dialog.current)?.close()}>${t.actions.close}</button>
          </div>
          <div class="row">
            <button class="button main-button" type="button" onClick=${() => {
              onLike(image);
              /** @type {any} */ (dialog.current)?.close();
            }}>${words.likeThis}</button>
            <button class="button" type="button" aria-pressed=${image.is_favourite} onClick=${() => gallery.favour(image, !image.is_favourite).catch(complain)}>
              <span aria-hidden="true">${image.is_favourite ? "♥" : "♡"}</span>${words.favourite}
            </button>
            <a class="button" href=${`/v1/images/${image.id}`} download=${`portrait-${image.id.slice(0, 8)}.${image.media_type.split("/")[1]}`}>${t.actions.download}</a>
            <button class="button bad-button" type="button" onClick=${remove}>${t.actions.delete}</button>
          </div>
          <dl class="facts small">
            ${FACTS.filter((name) => shown[name] !== null && shown[name] !== "").map((name) => html`<dt key=${name}>${words.facts[name]}</dt><dd>${shown[name]}</dd>`)}
            ${likeness && likeness.distance !== null && html`<dt>${words.likeness}</dt><dd>${words.likenessOf(likeness)}</dd>`}
          </dl>
        </div>
      </div>
    </dialog>
  `;
}
