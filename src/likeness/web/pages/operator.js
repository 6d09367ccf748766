// @ts-check
import { call, get } from "../api.js";
import { Confirm, ask } from "../components/confirm.js";
import { DataTable } from "../components/data_table.js";
import { complain } from "../failures.js";
import { html, useEffect } from "../html.js";
import { day, size, t } from "../texts.js";
import { useLoaded } from "../use_loaded.js";

const EVERY_MS = 5000;

/** The installation, over all tenants. */
export function Page() {
  const [found, load] = useLoaded(() => get("/operator"));
  const words = t.operator;
  useEffect(() => {
    const timer = setInterval(() => document.hidden || load(), EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  if (found === null) return html`<h1 tabindex="-1">${words.title}</h1><p class="soft">${t.loading}</p>`;
  /** @param {() => Promise<any>} work */
  const change = async (work) => {
    try {
      await work();
      await load();
    } catch (error) {
      complain(error);
    }
  };
  /** @param {any} job */
  const first = (job) =>
    change(() =>
      call("PUT", `/operator/jobs/${job.id}/priority`, {
        json: { priority: Math.min(0, ...found.jobs.map((/** @type {any} */ one) => one.priority - 1)) },
      }),
    );
  /** @param {any} job */
  const cancel = async (job) => {
    if (await ask(t.training.cancelAsk, t.training.cancel))
      change(() => call("POST", `/operator/jobs/${job.id}/cancel`));
  };
  /** @param {string} name @param {number | null} value */
  const fact = (name, value) =>
    value === null ? "–" : name === "host_bytes" ? size(value) : Math.round(value * 10) / 10;
  return html`
    <div class="stack wide">
      <h1 tabindex="-1">${words.title}</h1>
      <section class="card stack" aria-labelledby="queue">
        <h2 id="queue">${words.queue}</h2>
        <dl class="facts">
          <dt>${words.workers}</dt><dd>${found.workers}</dd>
          <dt>${words.oldest}</dt><dd>${Math.round(found.oldest_s)} s</dd>
          <dt>${words.state}</dt><dd>${words.jobs(found.counts)}</dd>
        </dl>
        <${DataTable} label=${words.queue} heads=${[words.tenant, words.name, words.state, words.priority, ""]} empty=${words.noJobs}
          rows=${found.jobs.map((/** @type {any} */ job) => [
            job.tenant,
            job.name,
            t.training.states[/** @type {keyof typeof t.training.states} */ (job.state)],
            job.priority,
            html`<span class="row">
              ${job.state === "queued" && html`<button class="button plain-button" type="button" aria-label=${words.firstOf(job.name)} onClick=${() => first(job)}>${words.first}</button>`}
              <button class="button plain-button" type="button" aria-label=${words.cancelOf(job.name)} onClick=${() => cancel(job)}>${words.cancel}</button>
            </span>`,
          ])} />
      </section>
      <div class="steps">
        <section class="card stack" aria-labelledby="engine">
          <h2 id="engine">${words.engine}</h2>
          <dl class="facts small">
            ${Object.entries(found.engine).map(
              ([name, value]) => html`
              <dt key=${name}>${words.facts[/** @type {keyof typeof words.facts} */ (name)] || name}</dt><dd>${fact(name, /** @type {any} */ (value))}</dd>
            `,
            )}
          </dl>
        </section>
        <section class="card stack" aria-labelledby="versions">
          <h2 id="versions">${words.versions}</h2>
          <dl class="facts small">${Object.entries(found.versions).map(([name, version]) => html`<dt key=${name}>${name}</dt><dd>${version}</dd>`)}</dl>
          <h2>${words.disk}</h2>
          <p>${words.free(found.disk_free_bytes, found.disk_total_bytes)}</p>
        </section>
      </div>
      <section class="card stack" aria-labelledby="keys">
        <h2 id="keys">${words.keys}</h2>
        <${DataTable} label=${words.keys} heads=${[words.tenant, words.id, words.label, words.created, words.revoked]} empty=${words.noKeys}
          rows=${found.keys.map((/** @type {any} */ one) => [one.tenant, one.id, one.label, day(one.created), one.revoked ? day(one.revoked) : ""])} />
      </section>
      <section class="card stack" aria-labelledby="failures">
        <h2 id="failures">${words.failures}</h2>
        <${DataTable} label=${words.failures} heads=${[words.at, words.route, words.status, words.request]} empty=${words.noFailures}
          rows=${found.failures.map((/** @type {any} */ one) => [day(one.at), `${one.method} ${one.route}`, one.status, one.request_id])} />
      </section>
      <${Confirm} />
    </div>
  `;
}
