// @ts-check
import { call } from "../api.js";
import { html, useEffect, useRef, useState } from "../html.js";
import { t } from "../texts.js";
import { Notes, useNotesInside } from "./notes.js";

const FRAME_PX = 480;
const HELD_FRAMES = 2; // verdicts in a row before the countdown
const COUNT_MS = 700;
const PAUSE_MS = 1500; // after a photograph, to move
const POSES = [
  "front",
  "three_quarter_left",
  "three_quarter_right",
  "profile_left",
  "profile_right",
  "up",
  "down",
  "smile",
  "neutral",
  "open_mouth",
];

/** @returns {string} the reason why there can be no camera; empty if there may be one */
function impossible() {
  if (/\b(FBAN|FBAV|Instagram|Line|WhatsApp|Snapchat|TikTok)\b/i.test(navigator.userAgent))
    return t.camera.errors.webview;
  if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) return t.camera.errors.insecure;
  return "";
}

/**
 * A picture of the video as it is, not mirrored.
 * @param {HTMLVideoElement} video
 * @param {number} side the most pixels of its longer side
 * @param {number} quality
 * @returns {Promise<Blob>}
 */
function grabbed(video, side, quality) {
  const scale = Math.min(1, side / Math.max(video.videoWidth, video.videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d")?.drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), "image/jpeg", quality),
  );
}

/**
 * The live camera. It sends a small frame, waits for the hint, and only then sends the next one: frames in between are
 * dropped. When the pose is held it counts down and takes the photograph.
 * @param {{next: string | null | undefined, plan: any[], count: number, onPhoto: (file: File) => void, onUndo: () => void, onClose: () => void}} props
 */
export function LiveCamera({ next, plan, count, onPhoto, onUndo, onClose }) {
  const words = t.camera;
  const [problem, setProblem] = useState(impossible());
  const [hint, setHint] = useState("");
  const [left, setLeft] = useState(0);
  const [shot, setShot] = useState(next && POSES.includes(next) ? next : "front");
  const dialog = useRef(null);
  const video = useRef(null);
  useNotesInside();
  const wanted = useRef(shot);
  wanted.current = shot;
  const take = useRef(async () => {});
  const missing = plan.filter((one) => POSES.includes(one.shot) && one.have < one.wanted).map((one) => one.shot);

  take.current = async () => {
    const picture = /** @type {HTMLVideoElement | null} */ (video.current);
    if (!picture?.videoWidth) return;
    const blob = await grabbed(picture, 4096, 0.95);
    setLeft(0);
    onPhoto(new File([blob], `camera-${Date.now()}.jpg`, { type: "image/jpeg" }));
    setHint(words.saved);
    const rest = missing.filter((one) => one !== wanted.current);
    setShot(rest[0] || POSES[(POSES.indexOf(wanted.current) + 1) % POSES.length]);
  };

  useEffect(() => {
    const box = /** @type {HTMLDialogElement | null} */ (dialog.current);
    if (box && !box.open) box.showModal();
  }, []);

  useEffect(() => {
    if (problem) return undefined;
    /** @type {MediaStream | null} */
    let stream = null;
    const stop = new AbortController();
    /** @param {number} ms */
    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const watch = async () => {
      let held = 0;
      let heldSince = 0;
      while (!stop.signal.aborted) {
        const picture = /** @type {HTMLVideoElement | null} */ (video.current);
        if (!picture?.videoWidth || document.hidden) {
          await pause(100);
          continue;
        }
        let said = null;
        try {
          const frame = await grabbed(picture, FRAME_PX, 0.8);
          said = await call("POST", `/coach?shot=${wanted.current}`, {
            body: frame,
            type: "image/jpeg",
            signal: stop.signal,
          });
        } catch {
          await pause(1000); // the notes say that the server is away
          continue;
        }
        if (stop.signal.aborted || said.hint === "late") continue;
        held = said.hint === "hold" ? held + 1 : 0;
        if (held <= HELD_FRAMES) heldSince = performance.now();
        setHint(words.hints[/** @type {keyof typeof words.hints} */ (said.hint)] || "");
        const number = held < HELD_FRAMES ? 0 : 3 - Math.floor((performance.now() - heldSince) / COUNT_MS);
        setLeft(Math.max(number, 0));
        if (held < HELD_FRAMES || number > 0) continue;
        held = 0;
        await take.current();
        await pause(PAUSE_MS);
      }
    };
    const start = async () => {
      try {
        stream = await navigator.mediaDevices.getUserMedia({
          audio: false,
          video: { facingMode: "user", width: { ideal: 1920 }, height: { ideal: 1080 } },
        });
        if (stop.signal.aborted) {
          stream.getTracks().forEach((track) => track.stop());
          return;
        }
        const picture = /** @type {HTMLVideoElement | null} */ (/** @type {unknown} */ (video.current));
        if (!picture) return;
        picture.srcObject = stream;
        await picture.play();
        watch();
      } catch (error) {
        if (stop.signal.aborted) return;
        const reasons = /** @type {Record<string, string>} */ (words.errors);
        setProblem(reasons[/** @type {any} */ (error)?.name] || reasons.other);
      }
    };
    start();
    return () => {
      stop.abort();
      stream?.getTracks().forEach((track) => track.stop());
    };
  }, [problem]);

  const names = t.plan.names;
  return html`
    <dialog class="camera" ref=${dialog} aria-label=${words.title} onClose=${onClose}>
      <div class="bar">
        <div>
          <strong>${words.wanted}: ${names[/** @type {keyof typeof names} */ (shot)]}</strong>
          <p class="small">${words.taken(count)}</p>
        </div>
        <button class="button round" type="button" aria-label=${words.stop} onClick=${onClose}>×</button>
      </div>
      <div class="stage">
        ${
          problem
            ? html`<p class="hint" role="alert">${problem}</p>`
            : html`
          <video ref=${video} playsinline muted aria-hidden="true"></video>
          <div class=${`oval ${left ? "good" : ""}`} aria-hidden="true"></div>
          ${left > 0 && html`<div class="count" aria-hidden="true">${left}</div>`}
          <p class="hint" role="status" aria-live="polite">${left ? words.countdown : hint || words.starting}</p>
        `
        }
      </div>
      <div class="bar controls">
        <button class="button" type="button" disabled=${count === 0} onClick=${onUndo}>${words.retake}</button>
        <button class="button shutter" type="button" aria-label=${words.shutter} disabled=${!!problem} onClick=${() => take.current()}></button>
        <button class="button" type="button" onClick=${() => setShot(POSES[(POSES.indexOf(shot) + 1) % POSES.length])}>${words.skip}</button>
      </div>
      <${Notes} />
    </dialog>
  `;
}
