// @ts-check
import { Refusal, call, get } from "../api.js";
import { Confirm, ask } from "../components/confirm.js";
import { ScoreCard } from "../components/score_card.js";
import { Trainings } from "../components/trainings.js";
import { complain } from "../failures.js";
import { html, useState } from "../html.js";
import { about, address } from "../state.js";
import { day, size, t } from "../texts.js";
import { uploads } from "../uploads.js";
import { useLoaded } from "../use_loaded.js";

const DAY_S = 86400;

/** @param {Promise<any>} asked null where there is no such thing */
const orNull = (asked) =>
  asked.catch((error) => {
    if (error instanceof Refusal && error.status === 404) return null;
    throw error;
  });

/** @param {string} name */
async function loadPerson(name) {
  const path = encodeURIComponent(name);
  const [subject, { jobs }] = await Promise.all([orNull(get(`/subjects/${path}`)), get(`/jobs?name=${path}&limit=20`)]);
  const adapter = subject && !subject.has_adapter ? null : await orNull(get(`/adapters/${path}`));
  const photos = subject ? (await get(`/subjects/${path}/photos`)).photos : [];
  const job = jobs.find((/** @type {any} */ one) => one.state === "succeeded") || null;
  const events = job ? (await get(`/jobs/${job.id}/events`)).events : [];
  const scored = events.find((/** @type {any} */ one) => one.kind === "score");
  const purgedAt = job && photos.length ? job.finished_s + about.value.keep_photos_days * DAY_S : null;
  return { subject, adapter, photos, purgedAt, jobs, score: scored ? scored.facts.card : null };
}

/** @param {any} receipt */
function savedAs(receipt) {
  return URL.createObjectURL(new Blob([JSON.stringify(receipt, null, 2)], { type: "application/json" }));
}

/** One person: adapter, score card, photographs, export, the end. @param {{name: string}} props */
export function Page({ name }) {
  const [found] = useLoaded(() => loadPerson(name), [name]);
  const [receipt, setReceipt] = useState(/** @type {any} */ (null));
  const words = t.person;
  const path = encodeURIComponent(name);
  const remove = async () => {
    if (!(await ask(words.deleteAsk(name)))) return;
    try {
      setReceipt(await call("DELETE", `/subjects/${path}`));
      uploads.forget(name);
    } catch (error) {
      complain(error);
    }
  };
  if (receipt) {
    return html`
      <div class="narrow stack wide">
        <h1 tabindex="-1" class="break">${words.deleted(name)}</h1>
        <section class="card stack" aria-labelledby="receipt">
          <h2 id="receipt">${words.receipt}</h2>
          ${
            receipt.items
              ? html`
            <p class="soft">${day(receipt.at)}</p>
            <ul>${receipt.items.map((/** @type {any} */ item) => html`<li key=${item.kind}>${words.item(item)}</li>`)}</ul>
            <div class="row"><a class="button" href=${savedAs(receipt)} download=${`receipt-${name}.json`}>${words.saveReceipt}</a></div>
          `
              : html`<p>${words.unfinished}</p>`
          }
        </section>
        <div class="row"><a class="button main-button" href=${address("people")}>${t.people.title}</a></div>
      </div>
    `;
  }
  if (found === null) return html`<h1 tabindex="-1" class="break">${name}</h1><p class="soft">${t.loading}</p>`;
  const { subject, adapter, photos, purgedAt, jobs, score } = found;
  if (!subject && !adapter) return html`<h1 tabindex="-1" class="break">${name}</h1><p>${words.gone}</p>`;
  return html`
    <div class="stack wide">
      <div class="row spread">
        <h1 tabindex="-1" class="break">${name}</h1>
        <div class="row">
          ${adapter && html`<a class="button main-button" href=${address("studio", name)}>${t.people.studio}</a>`}
          ${subject && html`<a class="button" href=${address("photos", name)}>${t.people.photographs}</a>`}
        </div>
      </div>
      <div class="columns">
        <div class="stack wide">
          ${score ? html`<${ScoreCard} card=${score} />` : html`<p class="soft">${adapter ? t.score.none : words.noAdapter}</p>`}
          ${
            photos.length > 0 &&
            html`
            <section class="stack" aria-labelledby="photographs">
              <h2 id="photographs">${words.photos}</h2>
              ${purgedAt !== null && html`<p class="soft small">${words.retention(day(purgedAt))}</p>`}
              <ul class="grid">
                ${photos.map(
                  (/** @type {any} */ one) => html`
                  <li key=${one.sha256} class="tile"><img src=${`/v1/subjects/${path}/photos/${one.sha256}?view=thumbnail`} alt=${one.file} loading="lazy" width="160" height="160" /></li>
                `,
                )}
              </ul>
            </section>
          `
          }
        </div>
        <div class="stack">
          ${jobs.length > 0 && html`<${Trainings} jobs=${jobs} />`}
          ${
            adapter &&
            html`
            <dl class="card facts">
              <dt>${words.made}</dt><dd>${day(adapter.created)}</dd>
              <dt>${words.photos}</dt><dd>${adapter.photos}</dd>
              <dt>${words.recipe}</dt><dd>${adapter.recipe.name}</dd>
              <dt>${words.steps}</dt><dd>${adapter.steps}</dd>
              <dt>${words.rank}</dt><dd>${adapter.rank}</dd>
              <dt>${words.size}</dt><dd>${size(adapter.bytes)}</dd>
            </dl>
            <section class="card stack" aria-labelledby="export">
              <h2 id="export">${words.export}</h2>
              <a class="button full" href=${`/v1/adapters/${path}/archive`} download>${words.archive}</a>
              ${Object.entries(words.formats).map(
                ([format, text]) => html`
                <a key=${format} class="button full" href=${`/v1/adapters/${path}/download?format=${format}`} download>${text}</a>
              `,
              )}
            </section>
          `
          }
          ${
            subject &&
            html`
            <dl class="card facts small">
              <dt>${words.consent}</dt><dd>${subject.consent || "–"}</dd>
              <dt>${words.consented}</dt><dd>${day(subject.consented)}</dd>
            </dl>
          `
          }
          <button class="button bad-button" type="button" onClick=${remove}>${words.delete}</button>
        </div>
      </div>
      <${Confirm} />
    </div>
  `;
}
