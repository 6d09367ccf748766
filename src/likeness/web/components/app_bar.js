// @ts-check
import { call } from "../api.js";
import { html } from "../html.js";
import { about, address, needsSignIn } from "../state.js";
import { t } from "../texts.js";

/** @param {{page: string}} props */
export function AppBar({ page }) {
  const current = { person: "people", photos: "new", training: "people" }[page] || page;
  const tabs = [
    ["people", t.nav.people],
    ["new", t.nav.add],
    ["studio", t.nav.studio],
    ["phone", t.nav.phone],
  ];
  if (about.value?.is_operator) tabs.push(["operator", t.nav.operator]);
  const signOut = async () => {
    await call("DELETE", "/session").catch(() => null);
    about.value = null;
    needsSignIn.value = true;
  };
  return html`
    <header class="top">
      <div class="top-inner">
        <a class="brand" href=${address("")}><img src="/web/icon.svg" alt="" width="30" height="30" />${t.app}</a>
        ${
          about.value && // who asks decides which tabs there are
          html`
          <nav class="tabs" aria-label=${t.nav.label}>
            ${tabs.map(
              ([key, text]) => html`
              <a key=${key} class=${key === "phone" ? "tab wide-only" : "tab"} href=${address(key)} aria-current=${current === key ? "page" : undefined}>${text}</a>
            `,
            )}
          </nav>
        `
        }
        ${about.value?.has_session && html`<button class="tab" type="button" onClick=${signOut}>${t.nav.out}</button>`}
      </div>
    </header>
  `;
}
