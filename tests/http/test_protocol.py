"""A protocol that is given to the application: its routes, its shape of errors, its limit; without it, none of them."""

from fastapi import APIRouter, Request
from starlette.testclient import TestClient

from likeness.errors import LikenessError, UsageError
from likeness.http.app import create_app
from likeness.http.failures import Failure
from likeness.http.wire_protocol import WireProtocol
from likeness.service import Likeness

router = APIRouter()


@router.post("/toy/length")
async def length(request: Request) -> int:
    """The length of a body that is not empty."""
    body = await request.body()
    if not body:
        raise UsageError("expected a body, got none")
    return len(body)


def toy_failure(error: LikenessError, request_id: str) -> Failure:
    return Failure(418, {"toy": error.code, "id": request_id}, {})


TOY = WireProtocol("/toy/", (router,), toy_failure, body_bytes=8)


def test_a_protocol_has_its_own_routes_errors_and_limit(likeness: Likeness) -> None:
    client = TestClient(create_app(likeness, protocols=[TOY]), base_url="http://localhost")
    assert client.post("/toy/length", content=b"four").json() == 4
    for content, code in ((b"", "UsageError"), (b"x" * 9, "RequestTooLarge")):
        refused = client.post("/toy/length", content=content)
        assert (refused.status_code, refused.json()["toy"]) == (418, code)
        assert refused.json()["id"] == refused.headers["X-Request-Id"]
    assert client.post("/toy/nothing").json()["toy"] == "NoSuchRoute"
    assert client.get("/v1/nothing").json()["error"]["code"] == "NoSuchRoute"


def test_an_application_serves_no_protocol_that_it_was_not_given(likeness: Likeness) -> None:
    client = TestClient(create_app(likeness), base_url="http://localhost")
    for path in ("/toy/length", "/endpoints/avatars/invocations"):
        answer = client.post(path, content=b"four")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NoSuchRoute")
