// @ts-check
import { get } from "../api.js";
import { DropZone } from "../components/drop_zone.js";
import { PhotoCard } from "../components/photo_card.js";
import { NextShot } from "../components/next_shot.js";
import { ShotPlan } from "../components/shot_plan.js";
import { TrainForm } from "../components/train_form.js";
import { complain, sentence } from "../failures.js";
import { html, useState } from "../html.js";
import { say } from "../state.js";
import { t } from "../texts.js";
import { uploads } from "../uploads.js";
import { useLoaded } from "../use_loaded.js";

/** @param {{name: string}} props */
export function Page({ name }) {
  const [Camera, setCamera] = useState(/** @type {any} */ (null));
  const path = `/subjects/${encodeURIComponent(name)}`;
  const [subject] = useLoaded(() => get(path), [name]);
  useLoaded(() => uploads.load(name), [name]);
  const { entries, photos, set, isLoaded } = uploads.of(name);
  const words = t.photos;
  const open = entries.filter((one) => one.state === "waiting" || one.state === "sending").length;
  /** @param {File[]} files */
  const add = (files) => uploads.add(name, files);
  /** The camera covers the list, so it says itself what became of a photograph. @param {File} file */
  const addTaken = (file) =>
    uploads.add(name, [file], ([first]) =>
      say(t.camera.notKept(sentence(first.message)), { hint: sentence(first.hint) }),
    );
  const openCamera = async () => {
    try {
      const { LiveCamera } = await import("../components/live_camera.js");
      setCamera(() => LiveCamera);
    } catch (error) {
      complain(error);
    }
  };
  /** @param {string} sha256 */
  const remove = async (sha256) => {
    try {
      await uploads.remove(name, sha256);
      say(words.removed);
    } catch (error) {
      complain(error);
    }
  };
  const removeLast = () => {
    const last = uploads.of(name).photos.at(-1);
    if (last) remove(last.sha256);
  };
  return html`
    <div class="stack wide">
      <div class="stack tight">
        <h1 tabindex="-1" class="break">${words.title(name)}</h1>
        <p class="soft">${words.lead}</p>
      </div>
      <div class="columns">
        <div class="stack wide">
          <${DropZone} onFiles=${add} onCamera=${openCamera} />
          <div class="row spread" role="status">
            <strong>${set ? words.usable(set.count) : isLoaded ? words.empty : t.loading}</strong>
            ${open > 0 && html`<span class="soft">${words.progress(entries.length + photos.length - open, entries.length + photos.length)}</span>`}
          </div>
          ${set ? set.count > 0 && set.plan.length > 0 && html`<${NextShot} shot=${set.next_shot} />` : photos.length > 0 && html`<p class="next">${t.loading}</p>`}
          <ul class="photos">
            ${[...entries].reverse().map(
              (one) => html`
              <${PhotoCard} key=${`entry ${one.id}`} label=${one.label} state=${one.state} url=${one.url} reasons=${one.reasons}
                onRemove=${one.state === "sending" ? undefined : () => uploads.drop(name, one.id)}
                onAgain=${one.file && (() => uploads.again(name, one.id, false))} onKeep=${one.file && (() => uploads.again(name, one.id, true))} />
            `,
            )}
            ${[...photos].reverse().map(
              (one) => html`
              <${PhotoCard} key=${one.sha256} label=${one.file} state=${one.verdict} reasons=${one.reasons} shows=${one.shows}
                url=${`/v1${path}/photos/${one.sha256}?view=thumbnail`} cropUrl=${`/v1${path}/photos/${one.sha256}?view=training`}
                onRemove=${() => remove(one.sha256)} />
            `,
            )}
          </ul>
        </div>
        <div class="stack">
          ${subject && isLoaded && html`<${TrainForm} subject=${subject} set=${set} isBusy=${open > 0} />`}
          ${set && html`<${ShotPlan} set=${set} />`}
        </div>
      </div>
      ${
        Camera &&
        html`<${Camera} next=${set?.next_shot} plan=${set?.plan || []} count=${photos.length} onPhoto=${addTaken}
        onUndo=${removeLast} onClose=${() => setCamera(null)} />`
      }
    </div>
  `;
}
