// @ts-check
import { html, signal, useEffect, useRef } from "../html.js";
import { about, needsSignIn, revision, route, serverGone } from "../state.js";
import { t } from "../texts.js";
import { AppBar } from "./app_bar.js";
import { Notes } from "./notes.js";

/** Page of an address -> where its component is. A page is loaded when it is opened first. */
const PAGES = {
  "": () => import("../pages/welcome.js"),
  new: () => import("../pages/consent.js"),
  photos: () => import("../pages/photographs.js"),
  training: () => import("../pages/training.js"),
  studio: () => import("../pages/studio.js"),
  people: () => import("../pages/people.js"),
  person: () => import("../pages/person.js"),
  phone: () => import("../pages/phone.js"),
  operator: () => import("../pages/operator.js"),
  "sign-in": () => import("../pages/sign_in.js"),
};
/** @type {import("../html.js").Signal<Record<string, any>>} */
const loaded = signal({});

/** @param {string} page */
async function load(page) {
  const find = PAGES[/** @type {keyof typeof PAGES} */ (page)];
  if (!find || loaded.peek()[page]) return;
  try {
    const { Page } = await find();
    loaded.value = { ...loaded.peek(), [page]: Page };
  } catch {
    serverGone.value = true; // the server is asked until it answers, and the page is loaded then
  }
}

/** The whole app: bar, page, messages. */
export function Frame() {
  const page = needsSignIn.value ? "sign-in" : route.value.page;
  const name = route.value.name;
  const main = useRef(null);
  const first = useRef(true);
  useEffect(() => {
    load(page);
  }, [page, revision.value]);
  const Page = loaded.value[page];
  useEffect(() => {
    if (!Page) return;
    const heading = /** @type {HTMLElement | null} */ (/** @type {any} */ (main.current)?.querySelector("h1"));
    document.title = heading ? `${heading.textContent} · ${t.app}` : t.app;
    if (!first.current) heading?.focus({ preventScroll: true });
    if (!first.current) scrollTo(0, 0);
    first.current = false;
  }, [Page, page, name]);
  const isKnown = page in PAGES;
  return html`
    <a class="skip" href="#content" onClick=${(/** @type {Event} */ event) => {
      event.preventDefault();
      /** @type {any} */ (main.current)?.focus();
    }}>${t.skip}</a>
    ${!needsSignIn.value && html`<${AppBar} page=${page} />`}
    ${serverGone.value && html`<div class="banner" role="status">${t.gone}</div>`}
    <main id="content" ref=${main} tabindex="-1">
      ${!isKnown && html`<h1 tabindex="-1">${t.notFound}</h1>`}
      ${isKnown && (!Page || (about.value === null && page !== "sign-in")) && html`<p class="soft">${t.loading}</p>`}
      ${Page && (about.value !== null || page === "sign-in") && html`<${Page} key=${`${page}/${name}`} name=${name} />`}
    </main>
    <${Notes} />
  `;
}
