"""Write docs/http.md from the server's own description: python docs/write_http.py"""

import tempfile
from pathlib import Path
from typing import Any

from likeness.config import Settings
from likeness.deploy.extension import protocols
from likeness.http.app import create_app
from likeness.service import build

PAGE = Path(__file__).parent / "http.md"

HEAD = """# HTTP

Written by `python docs/write_http.py`; a test compares it with the server. `GET /openapi.json` is for programs. Run
the commands after `. .venv/bin/activate`; `make test` installs the clients used below.

    likeness serve                                  # http://127.0.0.1:8000, no keys, this machine only
    likeness keys new --tenant anna                 # prints a new key, once
    likeness serve --host 0.0.0.0 --certificate chain.pem --key key.pem

An address that other machines can reach requires API keys. Send the key as `Authorization: Bearer KEY` (as OpenAI's
clients do), as `X-Api-Key`, or as the access key id of an AWS client. A key belongs to a tenant; a tenant cannot see
another tenant's data.

Behind a proxy on the same machine, start the server with `--require-keys`. Requests are then authorised by their key,
with any `Host` header. A server without keys answers only to this machine's own host names and those of
`LIKENESS_HOST_NAMES`. Web pages of other origins may call the server only if `LIKENESS_CORS_ORIGINS` lists them.
`GET` and `HEAD /healthz` need no key.

The web app at `/` and its files below `/web/` need no key. A browser signs in at `POST /v1/session` and sends a cookie
(http-only, same-site) in place of the key. Requests with the cookie that change something must have the server's own
`Origin`. A session ends after a week, at `DELETE /v1/session`, and when its key is revoked. Keys of the tenant `local`
may use `/v1/operator`.

An error response is `{"error": {"code", "message", "hint"}}`; under `/endpoints` and `/openai` it has the form of
SageMaker and OpenAI. `Retry-After` is set with 429 when a key exceeds its rate, and with 503 when the engine's queue
is full or an image would miss its deadline. Other refusals (a full training queue, an unavailable store) do not set
it. Every response has an `X-Request-Id`, which is in the log too. Closing the connection cancels the request's
images.

    import boto3, openai
    boto3.client("sagemaker-runtime", endpoint_url="http://127.0.0.1:8000", region_name="us-west-2",
                 aws_access_key_id="any", aws_secret_access_key="any")
    openai.OpenAI(base_url="http://127.0.0.1:8000/openai/v1", api_key="any")

SageMaker protocol: `invoke_endpoint(EndpointName="avatars", TargetModel="NAME.tar.gz", ...)` makes an image,
`invoke_endpoint_async(EndpointName="fine-tuning", ...)` starts a training.

`POST /v1/images` answers by the `Accept` header: `application/json` (base64, several images), `image/png` or
`image/jpeg` (one image), or `text/event-stream`: `step` events with previews, then `image`, then `done` or `error`.
"""


def page() -> str:
    """The whole page. tests/test_docs.py compares it with the file."""
    with tempfile.TemporaryDirectory() as home:
        document = create_app(build(Settings(home=Path(home))), protocols=protocols()).openapi()
    parts = [HEAD]
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            parts.append(f"## {method.upper()} {path}\n\n{' '.join(said['description'].split())}\n")
            fields = _fields(document, said)
            if fields:
                parts.append("| field | type | meaning |\n| --- | --- | --- |\n" + "\n".join(fields) + "\n")
    return "\n".join(parts)


def _fields(document: dict[str, Any], said: dict[str, Any]) -> list[str]:
    """A row for each query parameter and each field of the body."""
    rows = [
        _row(one["name"], one["schema"] | {"description": one.get("description", "")}, one["required"])
        for one in said.get("parameters", ())
        if one["in"] == "query"
    ]
    for content in said.get("requestBody", {}).get("content", {}).values():
        schema = _resolved(document, content["schema"])
        needed = schema.get("required", ())
        rows += [_row(name, one, name in needed) for name, one in schema.get("properties", {}).items()]
    return rows


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


def _row(name: str, schema: dict[str, Any], is_needed: bool) -> str:
    kinds = [one.get("type", "") for one in schema.get("anyOf", [schema])]
    kind = " or ".join(kind for kind in kinds if kind and kind != "null") or "any"
    notes = [schema.get("description", ""), "required" if is_needed else ""]
    default = schema.get("default")
    if default not in (None, ""):
        notes.append(f"default `{default}`")
    return f"| `{name}` | {kind} | {', '.join(note for note in notes if note).replace('|', '/')} |"


if __name__ == "__main__":
    PAGE.write_text(page())
