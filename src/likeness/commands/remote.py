"""Client of a Likeness server: uploads photographs and shows the progress of the training.

An API key is sent only over TLS or to this machine. If the connection breaks, the event stream resumes.
"""

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from ..errors import LikenessError, StorageUnavailable, UsageError
from ..net.urls import web_url
from ..types import Advance, ShouldStop, Watch

TIMEOUT_S = 60.0
RECONNECT_S = 2.0
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
        return self._post(
            "/v1/jobs/photos", data={"order": json.dumps(order)},
            files={"archive": ("photos.tar", archive, "application/x-tar")},
            headers={"Idempotency-Key": secrets.token_hex(16)},
        )  # fmt: skip

    def cancel(self, job: str) -> dict[str, Any]:
        """Returns the job. Raises RemoteRefusal, StorageUnavailable."""
        return self._post(f"/v1/jobs/{job}/cancel")

    def events(self, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Kind and data of each event of a job; the last is 'end' with the final job. Raises RemoteRefusal."""
        seen: dict[str, str] = {}
        while True:
            headers = {"Accept": "text/event-stream", **seen}
            try:
                with (
                    self._client() as client,
                    client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer,
                ):
                    _raise_refusal(answer)
                    for event in _events(answer.iter_lines()):
                        yield event["event"], json.loads(event["data"])
                        if event["event"] == "end":
                            return
                        if "id" in event:
                            seen = {"Last-Event-ID": event["id"]}
            except httpx2.HTTPError:
                pass
            time.sleep(RECONNECT_S)

    def _client(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=TIMEOUT_S)

    def _post(self, path: str, **content: Any) -> dict[str, Any]:
        try:
            with self._client() as client:
                answer = client.post(path, **content)
        except httpx2.HTTPError as error:
            raise StorageUnavailable(
                "expected a response from the server, got none", hint="check the URL and the network"
            ) from error
        _raise_refusal(answer)
        found: dict[str, Any] = answer.json()
        return found


def follow(remote: Remote, job: str, *, watch: Watch, should_stop: ShouldStop) -> dict[str, Any]:
    """Show a job's progress until it ends; when interrupted, cancel it. Returns the final job."""
    is_cancelled, facts = False, dict[str, Any]()
    for kind, facts in remote.events(job):
        if should_stop() and not is_cancelled:
            remote.cancel(job)
            is_cancelled = True
        if kind == "progress":
            watch(Advance.from_json(facts))
    return facts


def _events(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """The fields of each event that arrives whole."""
    event: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
            continue
        if "data" in event:
            yield event
        event = {}


def _raise_refusal(answer: httpx2.Response) -> None:
    """Raises RemoteRefusal with the server's message if it answers with an error."""
    if answer.is_success:
        return
    try:
        said = json.loads(answer.read())["error"]
        refusal = RemoteRefusal(str(said["message"])[:500], hint=str(said.get("hint", ""))[:500])
    except (ValueError, KeyError, TypeError):
        refusal = RemoteRefusal(
            f"expected a response from Likeness, got status {answer.status_code}", hint="check the URL"
        )
    raise refusal
