// @ts-check
import { html, signal, useEffect, useRef } from "../html.js";
import { about, coveringDialogs, needsSignIn, route, serverGone } from "../state.js";
import { t } from "../texts.js";
import { AppBar } from "./app_bar.js";
import { Notes } from "./notes.js";

/**
 * Page of an address -> its module, and all modules that it imports. They are asked for at once, when the page is opened
 * first: a browser finds the imports of a module only when it has come.
 * @type {Record<string, string[]>}
 */
const PAGES = {
  "": ["pages/welcome.js", "failures.js", "suggestions/samples.js", "uploads.js", "use_loaded.js"],
  new: ["pages/consent.js", "failures.js"],
  photos: [
    "pages/photographs.js",
    "components/drop_zone.js",
    "components/next_shot.js",
    "components/photo_card.js",
    "components/shot_plan.js",
    "components/train_form.js",
    "failures.js",
    "uploads.js",
    "use_loaded.js",
  ],
  training: [
    "pages/training.js",
    "components/confirm.js",
    "components/loss_curve.js",
    "components/score_card.js",
    "failures.js",
    "job_watch.js",
  ],
  studio: [
    "pages/studio.js",
    "components/confirm.js",
    "components/gallery.js",
    "components/ideas.js",
    "components/lightbox.js",
    "components/pending_tile.js",
    "components/run_tiles.js",
    "components/shape_choice.js",
    "failures.js",
    "gallery_store.js",
    "studio_runs.js",
    "suggestions/samples.js",
    "use_loaded.js",
  ],
  people: ["pages/people.js", "components/backup.js", "failures.js", "use_loaded.js"],
  person: [
    "pages/person.js",
    "components/confirm.js",
    "components/score_card.js",
    "components/trainings.js",
    "failures.js",
    "uploads.js",
    "use_loaded.js",
  ],
  phone: ["pages/phone.js", "components/command.js"],
  operator: ["pages/operator.js", "components/confirm.js", "components/data_table.js", "failures.js", "use_loaded.js"],
  "sign-in": ["pages/sign_in.js", "components/command.js", "failures.js"],
};
/** @type {import("../html.js").Signal<Record<string, any>>} */
const loaded = signal({});

/** The page that is to be shown. */
export const current = () => (needsSignIn.value ? "sign-in" : route.value.page);

/** @param {string} page */
export async function load(page) {
  if (!Object.hasOwn(PAGES, page) || loaded.peek()[page]) return;
  try {
    const [{ Page }] = await Promise.all(PAGES[page].map((file) => import(`../${file}`)));
    loaded.value = { ...loaded.peek(), [page]: Page };
  } catch {
    serverGone.value = true; // the server is asked until it answers, and the page is loaded then
  }
}

/** The whole app: bar, page, messages. */
export function Frame() {
  const page = current();
  const name = route.value.name;
  const main = useRef(null);
  const first = useRef(true);
  const Page = loaded.value[page];
  useEffect(() => {
    if (!Page) return;
    const heading = /** @type {HTMLElement | null} */ (/** @type {any} */ (main.current)?.querySelector("h1"));
    document.title = heading ? `${heading.textContent} · ${t.app}` : t.app;
    if (!first.current) heading?.focus({ preventScroll: true });
    if (!first.current) scrollTo(0, 0);
    first.current = false;
  }, [Page, page, name]);
  const isKnown = Object.hasOwn(PAGES, page);
  return html`
    <a class="skip" href="#content" onClick=${(/** @type {Event} */ event) => {
      event.preventDefault();
      /** @type {any} */ (main.current)?.focus();
    }}>${t.skip}</a>
    ${!needsSignIn.value && html`<${AppBar} page=${page} />`}
    <main id="content" ref=${main} tabindex="-1">
      ${!isKnown && html`<h1 tabindex="-1">${t.notFound}</h1>`}
      ${isKnown && (!Page || (about.value === null && page !== "sign-in")) && html`<p class="soft">${t.loading}</p>`}
      ${Page && (about.value !== null || page === "sign-in") && html`<${Page} key=${`${page}/${name}`} name=${name} />`}
    </main>
    ${coveringDialogs.value === 0 && html`<${Notes} />`}
  `;
}
