// @ts-check
/** The frame of the app: it loads a page by the address, and says when the server is away. */
import { get } from "./api.js";
import { Frame, current, load as loadPage } from "./components/frame.js";
import { effect, html, render } from "./html.js";
import { about, needsSignIn, revision, serverGone } from "./state.js";

const RETRY_MS = 2000;

async function load() {
  try {
    about.value = await get("/about");
    needsSignIn.value = false;
  } catch {
    // 401 shows the sign-in page; while the server is away, `serverGone` is set and it is asked again below
  }
}

let wasGone = false;
effect(() => {
  if (!serverGone.value) return;
  wasGone = true;
  const timer = setInterval(async () => {
    const response = await fetch("/healthz", { cache: "no-store" }).catch(() => null);
    if (response?.ok) serverGone.value = false;
  }, RETRY_MS);
  return () => clearInterval(timer);
});
effect(() => {
  if (serverGone.value || !wasGone) return;
  wasGone = false;
  load();
  revision.value = revision.peek() + 1;
});
effect(() => {
  if (!needsSignIn.value && about.peek() === null) load();
});

effect(() => {
  void revision.value; // again when the server is back
  loadPage(current());
});

render(html`<${Frame} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
