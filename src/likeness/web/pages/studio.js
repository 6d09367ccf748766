// @ts-check
import { all, get } from "../api.js";
import { Confirm } from "../components/confirm.js";
import { Gallery } from "../components/gallery.js";
import { Ideas } from "../components/ideas.js";
import { RunTiles } from "../components/run_tiles.js";
import { ShapeChoice, sizeOf } from "../components/shape_choice.js";
import { html, signal, useLayoutEffect, useRef } from "../html.js";
import { about, address, say } from "../state.js";
import { clearFinished, make, runs } from "../studio_runs.js";
import { t } from "../texts.js";
import { useLoaded } from "../use_loaded.js";

const BASE = "base";
const MOST_AT_ONCE = 16;
const SEEDS = 2 ** 32;

/** The form survives a change of page. */
const form = signal({
  adapter: BASE,
  prompt: "",
  negative: "",
  n: 4,
  seed: 0,
  isLocked: false,
  steps: 25,
  guidance: 0,
  size: "",
  strength: 1,
  compare: /** @type {"" | "prompt" | "strength" | "adapter"} */ (""),
  second: "",
});

/** @param {Partial<typeof form.value>} values */
const change = (values) => {
  form.value = { ...form.peek(), ...values };
};

const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % (SEEDS - MOST_AT_ONCE);

/** @param {{name: string}} props */
export function Page({ name }) {
  const [loaded, , failed] = useLoaded(() => Promise.all([all("/adapters", "adapters"), get("/base")]));
  const [adapters, base] = loaded || [failed ? [] : null, null];
  const results = useRef(/** @type {HTMLElement | null} */ (null));
  const words = t.studio;
  const values = form.value;
  useLayoutEffect(() => {
    if (name) change({ adapter: name });
    if (!form.peek().guidance) change({ guidance: about.value.guidance_scale });
  }, [name]);
  useLayoutEffect(() => {
    if (!loaded || name) return;
    const names = loaded[0].map((one) => one.name);
    if (form.peek().adapter === BASE && names.length) change({ adapter: names[0] });
  }, [loaded]);
  const isBase = values.adapter === BASE;
  const isBusy = runs.value.some((one) => !one.isOver);
  const finished = runs.value.filter((one) => one.isOver);
  const compared = runs.value.filter((one) => one.isCompared);

  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    const now = form.peek();
    const seed = now.isLocked ? now.seed : randomSeed();
    change({ seed });
    clearFinished();
    const shape = base?.shapes.find((/** @type {any} */ one) => sizeOf(one) === now.size);
    const order = {
      prompt: now.prompt.trim() || (isBase ? words.placeholderBase : words.placeholder),
      adapter: now.adapter,
      negative_prompt: now.negative,
      n: now.n,
      seed,
      steps: now.steps,
      guidance_scale: now.guidance || null,
      adapter_scale: now.strength,
      ...(shape && { width: shape.width, height: shape.height }),
    };
    const second = { ...order };
    if (now.compare === "prompt") second.prompt = now.second.trim() || order.prompt;
    if (now.compare === "strength") second.adapter_scale = Number(now.second || 0.7);
    if (now.compare === "adapter") second.adapter = now.second || BASE;
    const isCompared = now.compare !== "";
    if (matchMedia("(max-width: 959px)").matches) results.current?.scrollIntoView(); // where they are below the form
    const made = await Promise.all([
      make(order, labelOf(order), { isCompared }),
      ...(isCompared ? [make(second, labelOf(second), { isCompared })] : []),
    ]);
    const count = made.flat().length;
    if (count) say(words.made(count));
  };
  /** @param {any} order */
  const labelOf = (order) =>
    `${order.adapter}${order.adapter_scale === 1 ? "" : ` × ${order.adapter_scale}`}: ${order.prompt}`;
  /** @param {any} image */
  const like = (image) => {
    const subject = adapters?.find((one) => one.name === image.adapter);
    const words = subject && subject.kind !== "style" && `${subject.identifier} ${subject.class_noun}`;
    const said = words ? image.prompt?.replace(words, "{me}") : image.prompt;
    change({
      adapter: image.adapter || BASE,
      prompt: said || "",
      negative: image.negative_prompt || "",
      steps: image.steps || 25,
      guidance: image.guidance_scale || form.peek().guidance,
      size: image.width ? sizeOf(image) : "",
      strength: image.adapter_scale ?? 1,
      isLocked: false,
    });
    document.getElementById("prompt")?.focus();
    scrollTo(0, 0);
  };
  /** @param {string} key @param {(text: string) => any} [read] */
  const set =
    (key, read = (text) => text) =>
    (/** @type {any} */ event) =>
      change({ [key]: read(event.currentTarget.value) });
  const sheet =
    finished.length === 2 && finished.every((one) => one.ids.length) ? pairs(finished[1].ids, finished[0].ids) : [];

  return html`
    <div class="stack wide">
      <h1 tabindex="-1">${words.title}</h1>
      ${
        adapters?.length === 0 &&
        html`
        <div class="card row spread"><p>${words.nobody}</p><a class="button" href=${address("")}>${t.people.add}</a></div>
      `
      }
      ${!adapters && html`<p class="soft">${t.loading}</p>`}
      <div class="columns left" hidden=${!adapters}>
        <form class="card stack" onSubmit=${submit}>
          <div class="field">
            <label for="adapter">${words.who}</label>
            <select id="adapter" value=${values.adapter} onChange=${set("adapter")}>
              ${(adapters || []).map((one) => html`<option key=${one.name} value=${one.name}>${one.name}</option>`)}
              ${name && !(adapters || []).some((one) => one.name === name) && name !== BASE && html`<option value=${name}>${name}</option>`}
              <option value=${BASE}>${words.base}</option>
            </select>
          </div>
          <div class="field">
            <label for="prompt">${words.prompt}</label>
            <textarea id="prompt" rows="3" maxlength="2000" value=${values.prompt} placeholder=${isBase ? words.placeholderBase : words.placeholder}
              aria-describedby="prompt-hint" onInput=${set("prompt")}></textarea>
            <p id="prompt-hint" class="soft small">${isBase ? about.value.base === "built-in" && words.builtIn : words.promptHint}</p>
          </div>
          <${Ideas} prompt=${values.prompt} isBase=${isBase} noun=${adapters?.find((one) => one.name === values.adapter)?.class_noun || "woman"}
            onPick=${(/** @type {string} */ prompt) => change({ prompt })} />
          <div class="pair">
            <div class="field">
              <label for="count">${words.count}</label>
              <input id="count" type="number" min="1" max=${MOST_AT_ONCE} required value=${values.n} onInput=${set("n", Number)} />
            </div>
            <div class="field">
              <label for="seed">${words.seed}</label>
              <input id="seed" type="number" min="0" max=${SEEDS} value=${values.isLocked ? values.seed : ""} placeholder=${values.isLocked ? "" : words.seedRandom}
                disabled=${!values.isLocked} onInput=${set("seed", Number)} />
            </div>
          </div>
          ${base && html`<${ShapeChoice} shapes=${base.shapes} size=${values.size} onPick=${(/** @type {string} */ size) => change({ size })} />`}
          <label class="tick"><input type="checkbox" checked=${values.isLocked} onChange=${(/** @type {any} */ event) => change({ isLocked: event.currentTarget.checked })} />${words.lock}</label>
          ${
            isBusy
              ? html`<button class="button big full" type="button" onClick=${() => runs.value.forEach((one) => one.stop())}>${words.stop}</button>`
              : html`<button class="button main-button big full" type="submit">${words.make}</button>`
          }
          <details>
            <summary>${t.actions.more}</summary>
            <div class="stack">
              <div class="field">
                <label for="negative">${words.negative}</label>
                <input id="negative" type="text" maxlength="2000" value=${values.negative} onInput=${set("negative")} />
              </div>
              <div class="field">
                <label for="strength">${words.strength}: ${values.strength}</label>
                <input id="strength" type="range" min="0" max="2" step="0.05" value=${values.strength} disabled=${isBase} onInput=${set("strength", Number)} />
              </div>
              <div class="field">
                <label for="guidance">${words.guidance}: ${values.guidance}</label>
                <input id="guidance" type="range" min="1" max="12" step="0.25" value=${values.guidance} aria-describedby="guidance-hint" onInput=${set("guidance", Number)} />
                <p id="guidance-hint" class="soft small">${words.guidanceHint}</p>
              </div>
              <div class="field">
                <label for="image-steps">${words.steps}</label>
                <input id="image-steps" type="number" min="1" max="200" required value=${values.steps} onInput=${set("steps", Number)} />
              </div>
              <div class="field">
                <label for="compare">${words.compare}</label>
                <select id="compare" value=${values.compare} onChange=${(/** @type {any} */ event) => change({ compare: event.currentTarget.value, second: "" })}>
                  <option value="">–</option>
                  ${Object.entries(words.compares).map(([key, text]) => html`<option key=${key} value=${key}>${text}</option>`)}
                </select>
              </div>
              ${
                values.compare &&
                html`
                <div class="field">
                  <label for="second">${words.second[values.compare]}</label>
                  ${values.compare === "prompt" && html`<textarea id="second" rows="3" maxlength="2000" value=${values.second} onInput=${set("second")}></textarea>`}
                  ${values.compare === "strength" && html`<input id="second" type="number" min="0" max="2" step="0.05" value=${values.second || 0.7} onInput=${set("second")} />`}
                  ${
                    values.compare === "adapter" &&
                    html`
                    <select id="second" value=${values.second || BASE} onChange=${set("second")}>
                      ${(adapters || []).map((one) => html`<option key=${one.name} value=${one.name}>${one.name}</option>`)}
                      <option value=${BASE}>${words.base}</option>
                    </select>
                  `
                  }
                </div>
              `
              }
            </div>
          </details>
        </form>
        <div class="stack wide" ref=${results}>
          ${
            compared.length > 0 &&
            html`
            <section class="stack" aria-label=${words.comparison}>
              <div class=${compared.length > 1 ? "pair" : ""}>
                ${[...compared].reverse().map((run) => html`<${RunTiles} key=${run.id} run=${run} />`)}
              </div>
              ${sheet.length > 0 && html`<div class="row"><a class="button" href=${`/v1/images/sheet?columns=2&${sheet.map((id) => `id=${id}`).join("&")}`} download="comparison.png">${words.sheet}</a></div>`}
            </section>
          `
          }
          <${Gallery} adapter=${name || null} pending=${pending()} onLike=${like} />
        </div>
      </div>
      <${Confirm} />
    </div>
  `;
}

/** Images on their way to the gallery, in its order: the newest first. The first to be there takes the last place. */
function pending() {
  return runs.value
    .filter((run) => !run.isCompared)
    .flatMap((run) =>
      run.tiles
        .filter((tile) => !tile.id)
        .map((tile) => ({ key: `${run.id} ${tile.place}`, tile }))
        .reverse(),
    );
}

/** Ids in turn, so that a row of the sheet has one seed. @param {string[]} first @param {string[]} second */
function pairs(first, second) {
  return first.slice(0, 8).flatMap((id, place) => (second[place] ? [id, second[place]] : []));
}
