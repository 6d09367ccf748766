// @ts-check
import { Command } from "../components/command.js";
import { html, useEffect, useState } from "../html.js";
import { about } from "../state.js";
import { t } from "../texts.js";

const SERVE = "likeness serve --host 0.0.0.0 --certificate chain.pem --key key.pem";
const LOCAL = /^(localhost|127\.|\[::1\])/;

/** The address of this server as a QR code. */
export function Page() {
  const [code, setCode] = useState(/** @type {{path: string, size: number} | null} */ (null));
  const words = t.phone;
  const url = `${location.origin}/`;
  const isLocal = LOCAL.test(location.hostname);
  useEffect(() => {
    import("../vendor/lean-qr.js").then((/** @type {any} */ { generate }) => {
      const found = generate(url);
      let path = "";
      for (let y = 0; y < found.size; y += 1)
        for (let x = 0; x < found.size; x += 1) if (found.get(x, y)) path += `M${x} ${y}h1v1h-1z`;
      setCode({ path, size: found.size });
    });
  }, [url]);
  return html`
    <div class="narrow stack wide">
      <h1 tabindex="-1">${words.title}</h1>
      ${!isLocal && html`<p class="soft">${words.lead}</p>`}
      ${
        isLocal
          ? html`
        <div class="card stack">
          <p>${words.local}</p>
          <${Command} text="likeness keys new --tenant NAME" />
          <${Command} text=${SERVE} />
        </div>
      `
          : html`
        <svg class="qr" viewBox=${`0 0 ${code?.size || 1} ${code?.size || 1}`} role="img" aria-label=${words.alt} shape-rendering="crispEdges"><path d=${code?.path || ""} /></svg>
        <p><code>${url}</code></p>
      `
      }
      ${
        !isLocal &&
        location.protocol !== "https:" &&
        html`
        <div class="card stack">
          <p>${words.insecure}</p>
          <${Command} text=${SERVE} />
        </div>
      `
      }
      ${
        !isLocal &&
        about.value.needs_keys &&
        html`
        <div class="card stack">
          <p>${words.keys}</p>
          <${Command} text=${`likeness keys new --tenant ${about.value.tenant}`} />
        </div>
      `
      }
    </div>
  `;
}
