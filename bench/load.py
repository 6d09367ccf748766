"""Load on an HTTP server from threads of this process: closed (each client waits for its answer) and open (a clock).

Knows nothing of what is asked for. One connection a thread, kept alive.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

Body = Mapping[str, object]
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Answer:
    """One request's fate. `status` is 0 where there was no answer at all."""

    status: int
    sent_s: float  # on the monotonic clock
    seconds: float
    retry_after: str | None = None


class Line:
    """One kept-alive connection to a server."""

    def __init__(self, port: int, path: str) -> None:
        self._port, self._path = port, path
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: Body) -> Answer:
        """Send one request and read its whole answer."""
        started_s = time.monotonic()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
            self._connection.request("POST", self._path, json.dumps(body), {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            answer.read()
            return Answer(answer.status, started_s, time.monotonic() - started_s, answer.getheader("Retry-After"))
        except (OSError, http.client.HTTPException):
            self._connection = None
            return Answer(0, started_s, time.monotonic() - started_s)


def closed(port: int, path: str, bodies: Sequence[Body], clients: int) -> list[Answer]:
    """Every body once, from so many clients that each wait for their answer before they ask again."""
    lines = threading.local()

    def post(body: Body) -> Answer:
        if not hasattr(lines, "mine"):
            lines.mine = Line(port, path)
        answer: Answer = lines.mine.post(body)
        return answer

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(post, bodies))


def open_loop(
    port: int, path: str, body: Callable[[int], Body], *, per_s: float, seconds: float, most_at_once: int = 256
) -> list[Answer]:
    """Requests by the clock, whatever became of those before; `sent_s` is when it was their turn, not when sent."""
    answers: list[Answer] = []
    lines = threading.local()
    started_s = time.monotonic()

    def post(number: int, due_s: float) -> None:
        if not hasattr(lines, "mine"):
            lines.mine = Line(port, path)
        answer = lines.mine.post(body(number))
        late_s = answer.sent_s - due_s
        answers.append(Answer(answer.status, due_s, answer.seconds + late_s, answer.retry_after))

    with ThreadPoolExecutor(most_at_once) as pool:
        for number in range(int(per_s * seconds)):
            due_s = started_s + number / per_s
            time.sleep(max(due_s - time.monotonic(), 0.0))
            pool.submit(post, number, due_s)
    return answers
