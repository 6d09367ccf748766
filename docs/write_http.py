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

Written by `python docs/write_http.py`; a test compares it with the server. `GET /openapi.json` is for programs.
Commands here are meant after `. .venv/bin/activate`; the clients below come with `make test`.

    likeness serve                                  # http://127.0.0.1:8000, no keys, this machine alone
    likeness keys new --tenant anna                 # a key, shown once
    likeness serve --host 0.0.0.0 --certificate chain.pem --key key.pem

Any address that other machines reach needs keys. A key comes as `Authorization: Bearer KEY` (OpenAI's clients send it
so), as `X-Api-Key`, or as the access key id of AWS's clients. It belongs to a tenant, and a tenant sees nothing of any
other.

Behind a proxy on the same machine, start the server with `--require-keys`: then the key decides, whatever `Host` the
proxy sends. A server without keys answers to this machine's own names and to those of `LIKENESS_HOST_NAMES`. Web pages
of other sites may call it only where `LIKENESS_CORS_ORIGINS` has them. `GET` and `HEAD /healthz` are open to all.

Every refusal is `{"error": {"code", "message", "hint"}}`; under `/endpoints` and `/openai` it has SageMaker's and
OpenAI's own shape. `Retry-After` says when to come again: with 429 for a key that asks too often, and with 503 for an
engine that is full or too late. Others (a full training queue, a store that is away) have none. Every answer has an
`X-Request-Id`, which the log has too. Whoever hangs up takes their pictures back.

    import boto3, openai
    boto3.client("sagemaker-runtime", endpoint_url="http://127.0.0.1:8000", region_name="us-west-2",
                 aws_access_key_id="any", aws_secret_access_key="any")
    openai.OpenAI(base_url="http://127.0.0.1:8000/openai/v1", api_key="any")

Pictures come from `invoke_endpoint(EndpointName="avatars", TargetModel="NAME.tar.gz", ...)`, trainings start with
`invoke_endpoint_async(EndpointName="fine-tuning", ...)`.

`POST /v1/images` answers by `Accept`: `application/json` (base64, several pictures), `image/png` or `image/jpeg` (one),
or `text/event-stream`: `step` events with previews, then `image`, then `done` or `error`.
"""


def page() -> str:
    """The whole page; tests/test_docs.py compares it with the file."""
    with tempfile.TemporaryDirectory() as home:
        document = create_app(build(Settings(home=Path(home))), protocols=protocols()).openapi()
    parts = [HEAD]
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            parts.append(f"## {method.upper()} {path}\n\n{' '.join(said['description'].split())}\n")
            fields = _fields(document, said)
            if fields:
                parts.append("| field | type | what |\n| --- | --- | --- |\n" + "\n".join(fields) + "\n")
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
    notes = [schema.get("description", ""), "needed" if is_needed else ""]
    default = schema.get("default")
    if default not in (None, ""):
        notes.append(f"default `{default}`")
    return f"| `{name}` | {kind} | {', '.join(note for note in notes if note).replace('|', '/')} |"


if __name__ == "__main__":
    PAGE.write_text(page())
