// @ts-check
/** A document of the server as a page's state: loaded when the page opens, and again when the server is back. */
import { complain } from "./failures.js";
import { useEffect, useRef, useState } from "./html.js";
import { revision } from "./state.js";

/**
 * @template T
 * @param {() => Promise<T>} load
 * @param {unknown[]} [causes] load again when one of them changes
 * @returns {[T | null, () => Promise<void>, unknown]} the document, a function that loads it again, the error
 */
export function useLoaded(load, causes = []) {
  const [found, setFound] = useState(/** @type {T | null} */ (null));
  const [error, setError] = useState(/** @type {unknown} */ (null));
  const isHere = useRef(true);
  const again = async () => {
    try {
      const document = await load();
      if (isHere.current) setFound(() => document);
      if (isHere.current) setError(null);
    } catch (failed) {
      if (isHere.current) setError(failed);
      if (isHere.current) complain(failed);
    }
  };
  useEffect(() => {
    isHere.current = true;
    again();
    return () => {
      isHere.current = false;
    };
  }, [revision.value, ...causes]);
  return [found, again, error];
}
