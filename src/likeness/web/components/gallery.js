// @ts-check
import { complain } from "../failures.js";
import { gallery } from "../gallery_store.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { revision, say } from "../state.js";
import { plain, t } from "../texts.js";
import { ask } from "./confirm.js";
import { Lightbox } from "./lightbox.js";
import { PendingTile } from "./pending_tile.js";

/**
 * Kept images: open, select one, many or a range, favourites, download, delete.
 * @param {{adapter: string | null, pending: {key: string, tile: import("../studio_runs.js").Tile}[],
 *   onLike: (image: any) => void}} props `adapter`: only of this one, or `base`; null: all. `pending`: images that are made
 */
export function Gallery({ adapter, pending, onLike }) {
  const [favourites, setFavourites] = useState(false);
  const [isSelecting, setSelecting] = useState(false);
  const [isRange, setRange] = useState(false); // where there is no Shift key
  const [chosen, setChosen] = useState(/** @type {Set<string>} */ (new Set()));
  const [open, setOpen] = useState(/** @type {string | null} */ (null));
  const last = useRef(-1);
  const heading = useRef(/** @type {HTMLElement | null} */ (null));
  const select = useRef(/** @type {HTMLElement | null} */ (null));
  const end = useRef(null);
  const click = useRef(/** @type {(event: any, image: any) => void} */ (() => {}));
  const tiles = useRef(
    /** @type {WeakMap<any, {isSelecting: boolean, isChosen: boolean, tile: any}>} */ (new WeakMap()),
  );
  const { images, next, isLoaded } = gallery.state.value;
  const words = t.gallery;
  // before the pictures of the page are asked for: a browser has few connections to a server
  useLayoutEffect(() => {
    gallery.load({ adapter, favourites }).catch(complain);
  }, [adapter, favourites, revision.value]);
  useEffect(() => {
    if (!end.current) return undefined;
    const watcher = new IntersectionObserver(
      (seen) => {
        if (seen.some((one) => one.isIntersecting)) gallery.more().catch(complain);
      },
      { rootMargin: "600px" },
    );
    watcher.observe(end.current);
    return () => watcher.disconnect();
  }, [next]);

  /** @param {any} event @param {any} image */
  const clicked = (event, image) => {
    const place = images.indexOf(image);
    if (!isSelecting && !event.shiftKey) {
      setOpen(image.id);
      return;
    }
    setSelecting(true);
    const changed = new Set(chosen);
    if ((event.shiftKey || isRange) && last.current >= 0) {
      const [from, to] = [Math.min(last.current, place), Math.max(last.current, place)];
      images.slice(from, to + 1).forEach((one) => changed.add(one.id));
    } else if (!changed.delete(image.id)) changed.add(image.id);
    last.current = place;
    setRange(false);
    setChosen(changed);
  };
  click.current = clicked;
  /**
   * The tile of an image. The same one is returned until the image or its state change, so that Preact compares nothing
   * of the other tiles when a page is added to thousands.
   * @param {any} image @param {boolean} isSelecting @param {boolean} isChosen
   */
  const tileOf = (image, isSelecting, isChosen) => {
    const known = tiles.current.get(image);
    if (known?.isSelecting === isSelecting && known.isChosen === isChosen) return known.tile;
    const label = words.alt(plain(image.prompt), image.seed);
    const tile = html`
      <li key=${image.id} class=${`tile whole ${isChosen ? "chosen" : ""}`}>
        <button
          type="button"
          aria-pressed=${isSelecting ? isChosen : undefined}
          aria-label=${isSelecting ? words.selectOne(label) : words.open(label)}
          onClick=${(/** @type {any} */ event) => click.current(event, image)}
        >
          <img src=${`/v1/images/${image.id}/thumbnail`} alt="" loading="lazy" decoding="async" width="160" height="160" />
        </button>
        ${(image.is_favourite || isChosen) && html`<span class="mark" aria-hidden="true">${isChosen ? "✓" : "♥"}</span>`}
      </li>
    `;
    tiles.current.set(image, { isSelecting, isChosen, tile });
    return tile;
  };
  /** @param {any} event */
  const moved = (event) => {
    const steps = /** @type {Record<string, number>} */ ({ ArrowLeft: -1, ArrowRight: 1, ArrowUp: 0, ArrowDown: 0 });
    if (!(event.key in steps)) return;
    const buttons = /** @type {HTMLElement[]} */ ([...event.currentTarget.querySelectorAll(".tile > button")]);
    const place = buttons.indexOf(event.target);
    if (place < 0) return;
    event.preventDefault();
    const columns = Math.max(
      1,
      buttons.findIndex(
        (one) => one.offsetParent && one.getBoundingClientRect().top > buttons[0].getBoundingClientRect().top,
      ),
    );
    const step = steps[event.key] || (event.key === "ArrowUp" ? -columns : columns);
    buttons[place + step]?.focus();
  };
  const stopSelecting = () => {
    setSelecting(false);
    setRange(false);
    setChosen(new Set());
    last.current = -1;
  };
  const remove = async () => {
    if (!(await ask(words.deleteAsk(chosen.size)))) return;
    try {
      await gallery.remove([...chosen]);
      say(words.deleted(chosen.size));
      stopSelecting();
      (gallery.state.peek().images.length ? select : heading).current?.focus(); // the button of the deletion has gone
    } catch (error) {
      complain(error);
    }
  };
  const closed = () => {
    setOpen(null);
    gallery.tidy();
  };
  const query = [...chosen].map((id) => `id=${id}`).join("&");
  const shown = images.findIndex((one) => one.id === open);
  const isGone = open !== null && shown < 0; // the last one was deleted in the viewer, and the viewer has gone with it
  useEffect(() => {
    if (!isGone) return;
    setOpen(null);
    heading.current?.focus();
  }, [isGone]);
  return html`
    <section class="stack" aria-labelledby="gallery">
      <div class="row spread">
        <h2 id="gallery" tabindex="-1" ref=${heading}>${words.title}</h2>
        <div class="row">
          <div class="segments" role="group" aria-label=${words.show}>
            <button type="button" aria-pressed=${!favourites} onClick=${() => setFavourites(false)}>${words.all}</button>
            <button type="button" aria-pressed=${favourites} onClick=${() => setFavourites(true)}>${words.favourites}</button>
          </div>
          <button class="button plain-button" type="button" ref=${select} disabled=${images.length === 0} onClick=${() => (isSelecting ? stopSelecting() : setSelecting(true))}>${isSelecting ? words.done : words.select}</button>
        </div>
      </div>
      ${isLoaded && images.length + pending.length === 0 && html`<p class="soft">${words.empty}</p>`}
      <ul class="grid" onKeyDown=${moved}>
        ${pending.map(({ key, tile }) => html`<${PendingTile} key=${key} tile=${tile} />`)}
        ${images.map((image) => tileOf(image, isSelecting, chosen.has(image.id)))}
      </ul>
      ${next && html`<div class="row" ref=${end}><button class="button" type="button" onClick=${() => gallery.more().catch(complain)}>${words.more}</button></div>`}
      ${
        isSelecting &&
        html`
        <div class="selection" role="group" aria-label=${words.select}>
          <strong>${words.selected(chosen.size)}</strong>
          <button class="button plain-button" type="button" onClick=${() => setChosen(new Set(images.map((one) => one.id)))}>${words.selectAll}</button>
          ${
            chosen.size > 0 &&
            html`
            <button class="button plain-button" type="button" aria-pressed=${isRange} onClick=${() => setRange(!isRange)}>${words.range}</button>
            <a class="button plain-button" href=${`/v1/images/archive?${query}`} download>${t.actions.download}</a>
            <button class="button plain-button" type="button" onClick=${remove}>${t.actions.delete}</button>
          `
          }
        </div>
      `
      }
      ${shown >= 0 && html`<${Lightbox} images=${images} place=${shown} onPlace=${(/** @type {number} */ place) => setOpen(images[place].id)} onClose=${closed} onLike=${onLike} />`}
    </section>
  `;
}
