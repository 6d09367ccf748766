"""Client of a Likeness server: uploads photographs and shows the progress of the training. Standard library only.

An API key is sent only over TLS or to this machine. If the connection breaks, the event stream resumes.
"""

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import LikenessError, StorageUnavailable, UsageError
from ..net.urls import web_url
from ..types import Advance, ShouldStop, Watch

TIMEOUT_S = 60.0
RECONNECT_S = 2.0
MOST_LINE_BYTES = 1 << 20
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RemoteRefusal(LikenessError):
    """The server refused the request; the message is the server's."""


@dataclass(frozen=True)
class Remote:
    """A server's address, and the API key for it."""

    url: str
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        url = web_url(self.url, schemes=("http", "https"), what="--remote")
        if url.user is not None or "?" in url.target:
            raise UsageError("expected the URL of a Likeness server, without credentials and query")
        if self.key and url.scheme == "http" and url.host not in _LOOPBACK:
            raise UsageError(
                "expected https for a server that needs an API key",
                hint="without TLS, the API key could be read on the network",
            )

    def submit(self, archive: bytes, order: Mapping[str, object]) -> dict[str, Any]:
        """Upload the photographs; returns the server's job. Raises RemoteRefusal, StorageUnavailable."""
        boundary = secrets.token_hex(16)
        parts = [
            ('name="order"', json.dumps(order).encode()),
            ('name="archive"; filename="photos.tar"\r\nContent-Type: application/x-tar', archive),
        ]
        body = b"".join(
            f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
            for head, content in parts
        )
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}", "Idempotency-Key": secrets.token_hex(16)
        }  # fmt: skip
        return self._ask("POST", "/v1/jobs/photos", body + f"--{boundary}--\r\n".encode(), headers)

    def cancel(self, job: str) -> dict[str, Any]:
        return self._ask("POST", f"/v1/jobs/{job}/cancel", b"")

    def events(self, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Kind and data of each event of a job; the last is 'end' with the final job."""
        seen = ""
        while True:
            try:
                with self._open("GET", f"/v1/jobs/{job}/events", None, _stream_headers(seen)) as answer:
                    kind = ""
                    for raw in iter(lambda: answer.readline(MOST_LINE_BYTES), b""):
                        word, _, value = raw.decode().rstrip("\n").partition(": ")
                        if word == "id":
                            seen = value
                        elif word == "event":
                            kind = value
                        elif word == "data":
                            yield kind, json.loads(value)
                            if kind == "end":
                                return
            except (OSError, StorageUnavailable):
                time.sleep(RECONNECT_S)

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        with self._open(method, path, body, headers or {}) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def _open(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        said = {**headers, **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        request = urllib.request.Request(self.url.rstrip("/") + path, body, said, method=method)
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except OSError as error:
            raise StorageUnavailable(
                "expected a response from the server, got none", hint="check the URL and the network"
            ) from error


def follow(remote: Remote, job: str, *, watch: Watch, should_stop: ShouldStop) -> dict[str, Any]:
    """Show a job's progress until it ends; when interrupted, cancel it. Returns the final job."""
    asked = False
    for kind, facts in remote.events(job):
        if should_stop() and not asked:
            remote.cancel(job)
            asked = True
        if kind == "progress":
            watch(Advance.from_json(facts))
        elif kind == "end":
            return facts
    raise StorageUnavailable("the server closed the event stream before the job ended")


def _stream_headers(seen: str) -> dict[str, str]:
    return {"Accept": "text/event-stream", **({"Last-Event-ID": seen} if seen else {})}


def _refusal(error: urllib.error.HTTPError) -> LikenessError:
    """The server's error, if the response is a Likeness error."""
    try:
        with error:
            said = json.loads(error.read(MOST_LINE_BYTES))["error"]
        refusal = RemoteRefusal(str(said["message"])[:500], hint=str(said.get("hint", ""))[:500])
    except (ValueError, KeyError, TypeError):
        refusal = RemoteRefusal(f"expected a response from Likeness, got status {error.code}", hint="check the URL")
    return refusal
