// @ts-check
import { Refusal, call } from "../api.js";
import { Confirm, ask } from "../components/confirm.js";
import { LossCurve } from "../components/loss_curve.js";
import { ScoreCard } from "../components/score_card.js";
import { complain, sentence } from "../failures.js";
import { html, useEffect, useRef, useState } from "../html.js";
import { watchJob } from "../job_watch.js";
import { address, repeat, say } from "../state.js";
import { t } from "../texts.js";

const STAGES = ["check", "prepare", "class images", "train", "score", "publish"];
const PLACE_EVERY_MS = 5000;

/** @param {any} job */
function notifyOfEnd(job) {
  if ("Notification" in window && Notification.permission === "granted" && document.hidden) {
    new Notification(t.training.notifyTitle(job.name), {
      body: t.training.states[/** @type {keyof typeof t.training.states} */ (job.state)],
    });
  }
}

/** @param {string} stage of the stream @param {any} progress */
function stageOf(stage, progress) {
  const found = progress?.stage || stage;
  return STAGES.includes(found) ? found : found === "encode" || found === "load base" ? "class images" : "check";
}

/** A job, from the queue to its end. @param {{name: string}} props `name`: the job's id */
export function Page({ name: id }) {
  const [watch, setWatch] = useState(/** @type {ReturnType<typeof watchJob> | null} */ (null));
  const [asked, setAsked] = useState("Notification" in window ? Notification.permission : "denied");
  const [isMissing, setMissing] = useState(false);
  const heading = useRef(null);
  const words = t.training;
  useEffect(() => {
    const watched = watchJob(id, notifyOfEnd);
    watched.begun.catch((error) =>
      error instanceof Refusal && error.status === 404 ? setMissing(true) : complain(error),
    );
    setWatch(watched);
    const timer = setInterval(() => {
      if (watched.state.peek().job?.state === "queued") watched.refresh().catch(() => null);
    }, PLACE_EVERY_MS);
    return () => {
      clearInterval(timer);
      watched.close();
    };
  }, [id]);
  const { job, stage, progress, losses, previews, score, isWaiting } = watch?.state.value || {
    job: null,
    losses: [],
    previews: [],
  };
  if (isMissing)
    return html`
      <div class="stack wide">
        <h1 tabindex="-1">${words.gone}</h1>
        <p><a class="button" href=${address("people")}>${t.people.title}</a></p>
      </div>
    `;
  if (!job) return html`<h1 tabindex="-1">${t.loading}</h1>`;
  const isOver = !["queued", "running"].includes(job.state);
  const current = STAGES.indexOf(stageOf(stage || "", progress));
  const cancel = async () => {
    if (!(await ask(words.cancelAsk, words.cancel))) return;
    try {
      await call("POST", `/jobs/${id}/cancel`);
      await watch?.refresh();
      /** @type {any} */ (heading.current)?.focus(); // its button is gone
    } catch (error) {
      complain(error);
    }
  };
  const notify = async () => {
    setAsked(await Notification.requestPermission());
    if (Notification.permission === "granted") say(words.notified);
  };
  const again = html`
    <a class="button" href=${address("photos", job.name)} onClick=${() => repeat(job)}>${words.again}</a>
  `;
  return html`
    <div class="stack wide">
      <div class="stack tight">
        <h1 tabindex="-1" class="break" ref=${heading}>${words.title(job.name)}</h1>
        <div class="row">
          <span class=${`chip ${job.state}`}>${words.states[/** @type {keyof typeof words.states} */ (job.state)]}</span>
          ${job.place_in_queue !== null && html`<span class="soft">${words.place(job.place_in_queue)}</span>`}
        </div>
      </div>
      ${
        job.state === "succeeded" &&
        html`
        <div class="card stack">
          <p><strong>${words.done}</strong></p>
          <div class="row">
            <a class="button main-button big" href=${address("studio", job.name)}>${words.studio}</a>
            <a class="button" href=${address("person", job.name)}>${t.score.title}</a>
            ${again}
          </div>
        </div>
      `
      }
      ${
        isOver &&
        job.state !== "succeeded" &&
        html`
        <div class="card stack" role="alert">
          ${
            job.state === "cancelled"
              ? html`<p>${words.cancelled}</p>`
              : html`<p class="break"><strong>${sentence(job.failure?.reason)}</strong> ${sentence(job.failure?.hint)}</p>`
          }
          <div class="row">
            <a class="button main-button" href=${address("photos", job.name)}>${words.photos}</a>
            ${again}
          </div>
        </div>
      `
      }
      <div class="columns">
        <div class="stack wide">
          ${
            !isOver &&
            html`
            <section class="card stack" aria-label=${words.states.running}>
              <ol class="stages">
                ${STAGES.map((one, place) => {
                  const isNow = job.state === "running" && place === current;
                  const isPast = job.state === "running" && place < current;
                  return html`
                    <li key=${one} class=${isNow ? "now" : isPast ? "past" : ""} aria-current=${isNow ? "step" : undefined}>
                      <span class="dot" aria-hidden="true"></span>
                      <span>${words.stages[/** @type {keyof typeof words.stages} */ (one)]}</span>
                      <span class="small soft">${isNow && progress ? words.step(progress.done, progress.total) : ""}</span>
                    </li>
                  `;
                })}
              </ol>
              <progress max=${Math.max(progress?.total || 0, 1)} value=${progress?.done || 0} aria-label=${words.title(job.name)}></progress>
              <p class="left small soft">${progress?.left_s ? words.left(progress.left_s) : job.state === "queued" ? words.noWorker : ""}</p>
              ${isWaiting && html`<p class="error" role="status">${words.waiting}</p>`}
            </section>
            <p class="soft">${words.close}</p>
            <div class="row">
              ${asked === "default" && html`<button class="button" type="button" onClick=${notify}>${words.notify}</button>`}
              <button class="button bad-button" type="button" onClick=${cancel}>${words.cancel}</button>
            </div>
          `
          }
          ${losses.length > 1 && html`<section class="card"><${LossCurve} losses=${losses} /></section>`}
          ${score && html`<${ScoreCard} card=${score} />`}
        </div>
        ${
          previews.length > 0 &&
          html`
          <section class="card stack" aria-labelledby="previews">
            <h2 id="previews">${words.previews}</h2>
            <div class="previews">
              ${[...previews].reverse().map(
                (step) => html`
                <figure key=${step} class="stack tight">
                  <img src=${`/v1/jobs/${id}/previews/${step}`} alt=${words.previewAlt(step)} loading="lazy" />
                  <figcaption class="soft small">${words.previewCaption(step)}</figcaption>
                </figure>
              `,
              )}
            </div>
          </section>
        `
        }
      </div>
      <${Confirm} />
    </div>
  `;
}
