// @ts-check
/**
 * Templates: `html` tags with htm, rendered by Preact; no eval, so the Content-Security-Policy stays strict. The types are
 * those that the app needs of its third-party modules.
 */
import * as hooks from "./vendor/hooks.js";
import htm from "./vendor/htm.js";
import * as preact from "./vendor/preact.js";
import * as signals from "./vendor/signals.js";

/**
 * @template T
 * @typedef {{value: T, peek: () => T}} Signal
 */

/** @type {(strings: TemplateStringsArray, ...values: any[]) => any} */
export const html = /** @type {any} */ (htm).bind(preact.h);
/** @type {(what: any, where: Element) => void} */
export const render = preact.render;
/** @type {<T>(initial: T | (() => T)) => [T, (next: T | ((before: T) => T)) => void]} */
export const useState = hooks.useState;
/** @type {<T>(initial: T) => {current: T}} */
export const useRef = hooks.useRef;
/** @type {(work: () => void | (() => void), causes?: unknown[]) => void} */
export const useEffect = hooks.useEffect;
/** As `useEffect`, before the browser paints. @type {(work: () => void | (() => void), causes?: unknown[]) => void} */
export const useLayoutEffect = hooks.useLayoutEffect;
/** @type {<T>(initial: T) => Signal<T>} */
export const signal = signals.signal;
/** @type {(work: () => void | (() => void)) => () => void} */
export const effect = signals.effect;
