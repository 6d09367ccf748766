// @ts-check
import { call, get } from "../api.js";
import { Command } from "../components/command.js";
import { complain } from "../failures.js";
import { html, useState } from "../html.js";
import { about, go, needsSignIn, revision, route } from "../state.js";
import { t } from "../texts.js";

/** An API key becomes the cookie of a session. */
export function Page() {
  const [key, setKey] = useState("");
  const [isMissing, setMissing] = useState(false);
  const words = t.signIn;
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    setMissing(!key.trim());
    if (!key.trim()) return;
    try {
      await call("POST", "/session", { json: { key: key.trim() } });
      about.value = await get("/about");
      needsSignIn.value = false;
      revision.value += 1;
      if (route.value.page === "sign-in") go("");
    } catch (error) {
      complain(error);
    }
  };
  return html`
    <form class="narrow stack wide" onSubmit=${submit} novalidate>
      <div class="stack tight">
        <h1 tabindex="-1">${words.title}</h1>
        <p class="soft">${words.lead}</p>
        <${Command} text="likeness keys new --tenant NAME" />
      </div>
      <div class="field">
        <label for="key">${words.key}</label>
        <input id="key" type="password" value=${key} autocomplete="current-password" required aria-describedby="key-hint" aria-invalid=${isMissing}
          onInput=${(/** @type {any} */ event) => setKey(event.currentTarget.value)} />
        <p id="key-hint" class=${isMissing ? "error small" : "soft small"}>${isMissing ? words.missing : words.cookie}</p>
      </div>
      <button class="button main-button big" type="submit">${words.submit}</button>
    </form>
  `;
}
