// @ts-check
import { html } from "../html.js";
import { address } from "../state.js";
import { day, t } from "../texts.js";

/** The trainings of a person, the newest first. @param {{jobs: any[]}} props */
export function Trainings({ jobs }) {
  const states = t.training.states;
  return html`
    <section class="card stack tight" aria-labelledby="trainings">
      <h2 id="trainings">${t.person.trainings}</h2>
      <ul class="trainings">
        ${jobs.map(
          (job) => html`
          <li key=${job.id}>
            <a class="name" href=${address("training", job.id)}>${day(job.submitted_s)}</a>
            <span class=${`chip ${job.state}`}>${states[/** @type {keyof typeof states} */ (job.state)]}</span>
            <span class="soft small">${t.person.recipeOf(job.recipe)}</span>
          </li>
        `,
        )}
      </ul>
    </section>
  `;
}
