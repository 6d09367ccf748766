"""The web app's sessions: a cookie in place of the key, from this origin only, until it is signed out."""

import pytest
from starlette.testclient import TestClient

from likeness.http.app import create_app
from likeness.service import Likeness
from likeness.storage.api_keys import new_key, revoke_key
from likeness.storage.sessions import COOKIE

ORIGIN = "https://likeness.example"
HERE = {"Origin": ORIGIN}


@pytest.fixture
def browser(likeness: Likeness) -> TestClient:
    """Without a key, on a server that asks for one; cookies are kept."""
    return TestClient(create_app(likeness, needs_keys=True), base_url=ORIGIN)


def sign_in(browser: TestClient, likeness: Likeness, tenant: str) -> str:
    """The id of the key."""
    key, made = new_key(likeness.catalog, tenant)
    answer = browser.post("/v1/session", json={"key": key}, headers=HERE)
    assert answer.status_code == 201
    assert answer.json() == {"tenant": tenant, "is_operator": tenant == "local"}
    said = answer.headers["set-cookie"]
    assert all(word in said for word in ("HttpOnly", "SameSite=strict", "Secure", "Path=/"))
    assert key not in said
    return made.id


def test_the_app_itself_needs_no_key(browser: TestClient) -> None:
    assert browser.get("/").status_code == browser.get("/web/main.js").status_code == 200
    assert browser.get("/v1/about").status_code == 401
    refused = browser.post("/v1/session", json={"key": "lk_0"}, headers=HERE)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "KeyRefused")


def test_a_tenant_sees_its_own_until_it_signs_out(browser: TestClient, likeness: Likeness) -> None:
    sign_in(browser, likeness, "other")
    assert [one["name"] for one in browser.get("/v1/adapters").json()["adapters"]] == ["anna"]
    said = browser.get("/v1/about").json()
    assert (said["tenant"], said["is_operator"], said["has_session"]) == ("other", False, True)
    assert browser.get("/v1/operator").status_code == 401
    token = browser.cookies[COOKIE]
    assert browser.delete("/v1/session", headers=HERE).status_code == 204
    browser.cookies.set(COOKIE, token)  # as somebody who has copied it
    assert browser.get("/v1/adapters").json()["error"]["message"] == "the session has ended"


def test_a_revoked_key_ends_its_sessions(likeness: Likeness) -> None:
    browser = TestClient(create_app(likeness, needs_keys=True), base_url=ORIGIN)
    id = sign_in(browser, likeness, "other")
    revoke_key(likeness.catalog, id)
    assert browser.get("/v1/adapters").status_code == 401


@pytest.mark.parametrize("origin", [None, "https://evil.example", "https://likeness.example:8443", "null"])
def test_a_page_of_another_origin_changes_nothing(browser: TestClient, likeness: Likeness, origin: str | None) -> None:
    sign_in(browser, likeness, "other")
    headers = {} if origin is None else {"Origin": origin}
    refused = browser.post("/v1/subjects", json={"name": "rex", "class_noun": "dog"}, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "OriginRefused")
    assert browser.delete("/v1/adapters/anna", headers=headers).status_code == 403
    assert browser.post("/v1/session", json={"key": "lk_0"}, headers=headers).status_code == 403
    assert browser.get("/v1/adapters/anna").status_code == 200


def test_an_operator_sees_the_installation(browser: TestClient, likeness: Likeness) -> None:
    sign_in(browser, likeness, "local")
    said = browser.get("/v1/operator").json()
    assert {one["tenant"] for one in said["keys"]} >= {"local"}
    assert all("secret" not in name for one in said["keys"] for name in one)
    assert said["disk_free_bytes"] > 0 and said["versions"]["likeness"]
