// @ts-check
import { all, call, get } from "../api.js";
import { complain } from "../failures.js";
import { html, useState } from "../html.js";
import { address, go } from "../state.js";
import { t } from "../texts.js";
import { uploads } from "../uploads.js";
import { useLoaded } from "../use_loaded.js";
import { SAMPLES } from "../suggestions/samples.js";

/** Make a subject of the example person and send its photographs. */
async function tryExample() {
  const example = await get("/example");
  const taken = new Set(
    [...(await all("/subjects", "subjects")), ...(await all("/adapters", "adapters"))].map((one) => one.name),
  );
  let name = "example";
  for (let number = 2; taken.has(name); number += 1) name = `example-${number}`;
  await call("POST", "/subjects", { json: { name, class_noun: example.class_noun, consent: t.consent.exampleWords } });
  const files = await Promise.all(
    example.photos.map(async (/** @type {string} */ file) => {
      const response = await fetch(`/v1/example/photos/${file}`);
      return new File([await response.blob()], file, { type: "image/jpeg" });
    }),
  );
  uploads.add(name, files);
  go("photos", name);
}

/** The first page. */
export function Page() {
  const [isBusy, setBusy] = useState(false);
  const [adapters, , failed] = useLoaded(() => all("/adapters", "adapters"));
  const start = async () => {
    setBusy(true);
    try {
      await tryExample();
    } catch (error) {
      setBusy(false);
      complain(error);
    }
  };
  return html`
    <div class="stack wide">
      <section class="hero">
        <div class="stack wide">
          <h1 tabindex="-1">${t.welcome.title}</h1>
          <p class="lead">${t.welcome.lead}</p>
          <div class="stack tight">
            <div class="row">
              <a class="button main-button big" href=${address("new")}>${t.welcome.start}</a>
              <button class="button big" type="button" disabled=${isBusy} onClick=${start}>${t.welcome.example}</button>
            </div>
            <p class="soft small">${t.welcome.exampleNote}</p>
          </div>
        </div>
        <div class="mosaic">
          ${SAMPLES.slice(0, 12).map(
            (one) => html`
            <figure key=${one.file}>
              <img src=${`/web/suggestions/${one.file}`} width="128" height="128" alt=${t.welcome.alt(one.label)} />
            </figure>
          `,
          )}
        </div>
      </section>
      ${
        adapters !== null &&
        adapters.length > 0 &&
        html`
        <section class="stack" aria-label=${t.welcome.people}>
          <h2>${t.welcome.people}</h2>
          <div class="row">
            ${adapters.slice(0, 8).map((one) => html`<a key=${one.name} class="button" href=${address("studio", one.name)}>${one.name}</a>`)}
          </div>
        </section>
      `
      }
      ${
        (adapters !== null || failed) && // nothing that is shown moves down for the people
        html`
        <ol class="steps">
          ${t.welcome.steps.map(
            ([title, text], place) => html`
            <li class="card stack tight" key=${title}>
              <span class="number" aria-hidden="true">${place + 1}</span>
              <h2>${title}</h2>
              <p class="soft">${text}</p>
            </li>
          `,
          )}
        </ol>
        <p class="soft">${t.welcome.private}</p>
      `
      }
    </div>
  `;
}
