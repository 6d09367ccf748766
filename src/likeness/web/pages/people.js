// @ts-check
import { all, get } from "../api.js";
import { Backup } from "../components/backup.js";
import { html } from "../html.js";
import { address } from "../state.js";
import { day, t } from "../texts.js";
import { useLoaded } from "../use_loaded.js";

async function loadPeople() {
  const [subjects, adapters, { jobs }, receipts] = await Promise.all([
    all("/subjects", "subjects"),
    all("/adapters", "adapters"),
    get("/jobs?limit=100"),
    get("/receipts"),
  ]);
  const names = [...new Set([...subjects, ...adapters].map((one) => one.name))].sort();
  const people = await Promise.all(
    names.map(async (name) => {
      const subject = subjects.find((one) => one.name === name) || null;
      const photos = subject ? (await get(`/subjects/${encodeURIComponent(name)}/photos`)).photos : [];
      const job =
        jobs.find((/** @type {any} */ one) => one.name === name && ["queued", "running"].includes(one.state)) || null;
      return { name, subject, adapter: adapters.find((one) => one.name === name) || null, job, photos };
    }),
  );
  return { people, receipts };
}

/** Everybody of this tenant. */
export function Page() {
  const [found, load] = useLoaded(loadPeople);
  const words = t.people;
  return html`
    <div class="stack wide">
      <div class="row spread">
        <h1 tabindex="-1">${words.title}</h1>
        <a class="button main-button" href=${address("new")}>${t.people.add}</a>
      </div>
      ${
        found === null
          ? html`<p class="soft">${t.loading}</p>`
          : html`
        ${found.people.length === 0 && html`<p class="soft">${words.empty}</p>`}
        <ul class="people">
          ${found.people.map(
            ({ name, subject, adapter, job, photos }) => html`
            <li key=${name} class="card person">
              ${
                photos.length
                  ? html`<img class="face" src=${`/v1/subjects/${encodeURIComponent(name)}/photos/${photos[0].sha256}?view=thumbnail`} alt="" width="88" height="88" />`
                  : html`<span class="face" aria-hidden="true">${name[0].toUpperCase()}</span>`
              }
              <div class="stack tight">
                <a class="name" href=${address("person", name)}>${name}</a>
                <span class="row">
                  <span class=${`chip ${job ? "running" : adapter ? "ready" : ""}`}>${job ? words.training : adapter ? words.ready : words.noAdapter}</span>
                </span>
                <span class="row">
                  ${job && html`<a class="button" href=${address("training", job.id)}>${words.follow}</a>`}
                  ${adapter && !job && html`<a class="button" href=${address("studio", name)}>${words.studio}</a>`}
                  ${subject && !adapter && !job && html`<a class="button" href=${address("photos", name)}>${words.photographs}</a>`}
                </span>
              </div>
            </li>
          `,
          )}
        </ul>
        ${found.receipts.unfinished.map((/** @type {any} */ one) => html`<p key=${one.name} role="status">${words.unfinished(one.name)}</p>`)}
        ${
          found.receipts.receipts.length > 0 &&
          html`
          <details>
            <summary>${words.receipts}</summary>
            <ul class="stack">
              ${[...found.receipts.receipts].reverse().map(
                (/** @type {any} */ one) => html`
                <li key=${one.name + one.at} class="card stack tight">
                  <strong class="break">${words.receipt(one.name, day(one.at))}</strong>
                  <ul class="small soft">${one.items.map((/** @type {any} */ item) => html`<li key=${item.kind}>${t.person.item(item)}</li>`)}</ul>
                </li>
              `,
              )}
            </ul>
          </details>
        `
        }
        <${Backup} onRestored=${load} />
      `
      }
    </div>
  `;
}
