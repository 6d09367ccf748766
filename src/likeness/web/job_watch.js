// @ts-check
/**
 * One job as its event stream tells it. The stream begins with the first event, so a reload shows everything again; the
 * browser reconnects by itself after the newest event it has seen.
 */
import { get } from "./api.js";
import { signal } from "./html.js";
import { serverGone } from "./state.js";

/** @typedef {{job: any, stage: string, progress: any, losses: number[], previews: number[], score: any, isWaiting: boolean}} Watched */

/**
 * @param {string} id
 * @param {(job: any) => void} onEnd
 * @returns {{state: import("./html.js").Signal<Watched>, begun: Promise<void>, refresh: () => Promise<any>, close: () => void}}
 */
export function watchJob(id, onEnd) {
  /** @type {import("./html.js").Signal<Watched>} */
  const state = signal({
    job: null,
    stage: "",
    progress: null,
    losses: [],
    previews: [],
    score: null,
    isWaiting: false,
  });
  /** @param {Partial<Watched>} values */
  const change = (values) => {
    state.value = { ...state.peek(), ...values };
  };
  const path = `/jobs/${encodeURIComponent(id)}`;
  /** @type {EventSource | null} */
  let source = null;
  let timer = 0;
  let isOpen = true;

  const refresh = async () => {
    const job = await get(path);
    change({ job });
    return job;
  };
  const opened = () => {
    change({ losses: [], previews: [] });
    source = new EventSource(`/v1${path}/events`);
    /** @param {string} kind @param {(facts: any) => void} heard */
    const on = (kind, heard) =>
      source?.addEventListener(kind, (event) => heard(JSON.parse(/** @type {MessageEvent} */ (event).data)));
    on("state", () => refresh().catch(() => null));
    on("stage", (facts) => change({ stage: facts.stage, progress: null, isWaiting: false }));
    on("progress", (facts) => {
      const losses = facts.loss === null ? state.peek().losses : [...state.peek().losses, facts.loss];
      change({ progress: facts, losses, isWaiting: false });
    });
    on("losses", (facts) => change({ losses: facts.losses })); // of a training that is over
    on("preview", (facts) => change({ previews: [...new Set([...state.peek().previews, facts.step])] }));
    on("score", (facts) => change({ score: facts.card })); // null if it could not be measured
    on("waiting", () => change({ isWaiting: true }));
    on("end", (job) => {
      change({ job });
      source?.close();
      onEnd(job);
    });
    source.onopen = () => {
      serverGone.value = false;
    };
    source.onerror = () => {
      if (!isOpen) return;
      // The browser tries again after a lost connection, but not after an answer that is an error.
      if (source?.readyState === EventSource.CLOSED) timer = setTimeout(() => start(), 3000);
      else refresh().catch(() => null); // shows that the server is away
    };
  };
  const start = async () => {
    try {
      await refresh();
      if (isOpen) opened();
    } catch (error) {
      if (isOpen && serverGone.peek()) timer = setTimeout(() => start(), 3000);
      else if (isOpen) throw error;
    }
  };
  const begun = start();
  return {
    state,
    begun,
    refresh,
    close: () => {
      isOpen = false;
      clearTimeout(timer);
      source?.close();
    },
  };
}
