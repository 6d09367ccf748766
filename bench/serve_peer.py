"""The baseline of bench.serve: stock diffusers behind the same kind of HTTP server, one adapter at a time.

python -m bench.serve_peer PORT BASE_FOLDER ADAPTER.safetensors...

All adapters are loaded at start. A request selects its adapter with `set_adapters` and runs the pipeline; others wait.
"""

import asyncio
import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import torch
import uvicorn
from diffusers import StableDiffusionPipeline


class Peer:
    """An ASGI application over one pipeline."""

    def __init__(self, base: str, adapters: list[Path]) -> None:
        self._pipeline: Any = StableDiffusionPipeline.from_pretrained(
            base, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        )
        self._pipeline.to("cuda" if torch.cuda.is_available() else "cpu").set_progress_bar_config(disable=True)
        for path in adapters:
            self._pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=path.stem)
        self._device = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        answer = b"{}"
        if body:
            async with self._device:
                answer = await asyncio.to_thread(self._make, json.loads(body))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _make(self, asked: dict[str, Any]) -> bytes:
        self._pipeline.set_adapters(asked["adapter"])
        image = self._pipeline(
            asked["prompt"], num_inference_steps=asked["steps"], guidance_scale=asked["guidance_scale"],
            generator=torch.Generator().manual_seed(asked["seed"]),
        ).images[0]  # fmt: skip
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return json.dumps({"images": [{"data": base64.b64encode(buffer.getvalue()).decode()}]}).encode()


def main() -> None:
    port, base, *adapters = sys.argv[1:]
    app = Peer(base, [Path(path) for path in adapters])
    uvicorn.run(app, host="127.0.0.1", port=int(port), lifespan="off", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
