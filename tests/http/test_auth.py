"""Keys and tenants: no access to another tenant's data, by name or timing; rate limits hold."""

from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from likeness.config import Settings
from likeness.deploy.extension import protocols
from likeness.errors import SettingsError
from likeness.http.app import create_app
from likeness.http.auth import Access, KeyLimits, presented
from likeness.http.failures import OriginRefused, TooManyRequests
from likeness.http.origins import Origins
from likeness.service import Likeness
from likeness.storage.api_keys import new_key, revoke_key


@pytest.fixture(scope="module")
def guarded(likeness: Likeness) -> FastAPI:
    """The application as it stands on an address that others reach."""
    return create_app(likeness, needs_keys=True, protocols=protocols())


@pytest.fixture(scope="module")
def keys(likeness: Likeness) -> dict[str, str]:
    return {tenant: new_key(likeness.catalog, tenant)[0] for tenant in ("local", "other", "third")}


@pytest.fixture(scope="module")
def asking(guarded: FastAPI, keys: dict[str, str]) -> dict[str, TestClient]:
    """A client for each tenant, and one without a key."""
    made = {
        tenant: TestClient(guarded, base_url="http://likeness.example", headers={"Authorization": f"Bearer {key}"})
        for tenant, key in keys.items()
    }
    return made | {"nobody": TestClient(guarded, base_url="http://likeness.example")}


def test_without_a_key_there_is_nothing_in_any_protocols_shape(asking: dict[str, TestClient]) -> None:
    nobody = asking["nobody"]
    assert nobody.get("/healthz").status_code == 200
    ours = nobody.get("/v1/adapters")
    assert (ours.status_code, ours.json()["error"]["code"]) == (401, "KeyRefused")
    assert ours.headers["www-authenticate"] == "Bearer"
    theirs = nobody.get("/openai/v1/models")
    assert (theirs.status_code, theirs.json()["error"]["code"]) == (401, "invalid_api_key")
    aws = nobody.post("/endpoints/avatars/invocations")
    assert (aws.status_code, aws.headers["x-amzn-errortype"]) == (403, "UnrecognizedClientException")
    for path in ("/metrics", "/v1/images", "/nowhere"):
        assert nobody.get(path).status_code == 401


def test_a_wrong_key_is_no_key(guarded: FastAPI, keys: dict[str, str]) -> None:
    wrong = keys["local"][:-1] + ("A" if keys["local"][-1] != "A" else "B")
    for value in (f"Bearer {wrong}", "Bearer ", f"Basic {keys['local']}", "Bearer sk-anything", keys["local"]):
        answer = TestClient(guarded, base_url="http://localhost").get("/v1/adapters", headers={"Authorization": value})
        assert answer.status_code == 401
        assert "lk_" not in answer.text


def test_a_key_may_come_in_three_places(guarded: FastAPI, keys: dict[str, str]) -> None:
    key = keys["other"]
    signed = (
        f"AWS4-HMAC-SHA256 Credential={key}/20260101/us-west-2/sagemaker/aws4_request, SignedHeaders=host, Signature=0"
    )
    for headers in ({"Authorization": f"bearer {key}"}, {"X-Api-Key": key}, {"Authorization": signed}):
        assert presented(Headers(headers)) == key
        listed = (
            TestClient(guarded, base_url="http://localhost").get("/v1/adapters", headers=headers).json()["adapters"]
        )
        assert [one["name"] for one in listed] == ["anna"]


def test_tenants_are_alone(asking: dict[str, TestClient]) -> None:
    """Whatever is another's is as if it were not there: the same answer to the letter."""
    other, third = asking["other"], asking["third"]

    def answers(client: TestClient, name: str) -> list[tuple[int, Any]]:
        invoked = client.post(
            "/endpoints/avatars/invocations", headers={"X-Amzn-SageMaker-Target-Model": f"{name}.tar.gz"},
            json={"inputs": [{"name": "prompt", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}]},
        )  # fmt: skip
        said = [
            client.get(f"/v1/adapters/{name}"),
            client.delete(f"/v1/adapters/{name}"),
            client.get(f"/v1/adapters/{name}/download"),
            client.get(f"/v1/subjects/{name}"),
            client.get(f"/v1/subjects/{name}/photos"),
            client.post("/v1/images", json={"prompt": "x", "adapter": name}),
            client.get(f"/openai/v1/models/{name}"),
            client.post("/openai/v1/images/generations", json={"prompt": "x", "model": name}),
            invoked,
        ]
        return [(answer.status_code, answer.json()) for answer in said]

    assert answers(third, "bert") == answers(third, "nobody-at-all")  # bert is the tenant local's
    assert {status for status, _ in answers(third, "bert")} == {404, 400}  # 400 is SageMaker's way to say it
    assert third.get("/v1/adapters").json() == {"adapters": [], "next": None}
    assert [one["id"] for one in other.get("/openai/v1/models").json()["data"]] == ["base", "anna"]
    mine = other.get("/v1/adapters/anna").json()["content_sha256"]
    assert mine != asking["local"].get("/v1/adapters/anna").json()["content_sha256"]
    asked = {"prompt": "x", "adapter": "anna", "steps": 1, "keep": True}
    made = other.post("/v1/images", json=asked).json()["images"][0]
    assert made["adapter_sha256"] == mine
    assert third.get(f"/v1/images/{made['id']}").status_code == 404
    assert other.get(f"/v1/images/{made['id']}").status_code == 200


def test_metrics_are_the_operators(asking: dict[str, TestClient]) -> None:
    assert asking["local"].get("/metrics").status_code == 200
    assert asking["other"].get("/metrics").status_code == 401


def test_a_revoked_key_is_refused_when_it_is_looked_up_again(likeness: Likeness) -> None:
    now_s = [0.0]
    door = Access(likeness.catalog, needs_keys=True, limits=KeyLimits(), clock=lambda: now_s[0])
    text, made = new_key(likeness.catalog, "other")
    app = create_app(likeness, needs_keys=True, protocols=protocols())
    app.user_middleware[0].kwargs["access"] = door
    client = TestClient(app, base_url="http://localhost", headers={"Authorization": f"Bearer {text}"})
    assert client.get("/v1/adapters").status_code == 200
    revoke_key(likeness.catalog, made.id)
    now_s[0] = 11.0
    assert client.get("/v1/adapters").status_code == 401


def test_on_this_machine_alone_a_key_of_ours_chooses_the_tenant(client: TestClient, keys: dict[str, str]) -> None:
    names = [
        [one["name"] for one in client.get("/v1/adapters", headers=headers).json()["adapters"]]
        for headers in ({}, {"Authorization": "Bearer sk-anything"}, {"Authorization": f"Bearer {keys['other']}"})
    ]
    assert names[0] == names[1] != names[2] == ["anna"]
    assert client.get("/v1/adapters", headers={"Authorization": "Bearer lk_wrong"}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Host": ""}, {"Host": "[::1"},
        {"Host": "127.0.0.1.evil"}, {"Host": "evil.example\\@localhost"}, {"Host": "[::1]x"}, {"Host": "localhost:x"},
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:81"},
        {"Host": "testserver"}, {"Host": "testserver:80", "Origin": "http://testserver:80"},
        {"Origin": "http://["}, {"Origin": "http://[x]"}, {"Origin": "//"}, {"Origin": ""},
        {"Host": "localhost", "Origin": "http://127.0.0.1"}, {"Host": "[::1%25lo]"}, {"Host": "u@localhost"},
        {"Origin": "javascript://localhost"}, {"Origin": "http://localhost/x"}, {"Origin": "//localhost"},
        {"Origin": "http://u@localhost"}, {"Origin": "http://localhost?"}, {"Origin": "http://evil.example\\@localhost"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)  # fmt: skip
def test_on_this_machine_alone_pages_of_others_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post("/v1/subjects", json={"name": "x", "class_noun": "dog"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "OriginRefused")
    assert "evil" not in answer.text


@given(st.text("htps:/localevi.@\\[]1%?#0", max_size=30).map("http://localhost{}".format) | st.text(max_size=20))
def test_no_other_origin_is_taken_for_this_machines(origin: str) -> None:
    headers = Headers(raw=[(b"host", b"localhost"), (b"origin", origin.encode("utf-8", "replace"))])
    if origin == "http://localhost":
        Origins().refuse_strangers(headers)
    else:
        with pytest.raises(OriginRefused):
            Origins().refuse_strangers(headers)


def test_a_page_of_another_site_may_link_here_and_not_embed(client: TestClient) -> None:
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    linked = client.get("/v1/adapters", headers=elsewhere | {"Sec-Fetch-Mode": "navigate"})
    assert linked.status_code == 200
    assert linked.headers["cross-origin-resource-policy"] == "same-origin"
    assert client.get("/v1/adapters", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("host_names", "https://x.example"), ("host_names", "a..b"), ("host_names", "127.1"), ("host_names", "x:80"),
        ("cors_origins", "https://x.example/a"), ("cors_origins", "https://x.example:0"), ("cors_origins", "ftp://x"),
        ("cors_origins", "https://u@x.example"), ("cors_origins", "https://x\\@y"), ("cors_origins", "x.example"),
    ],
)  # fmt: skip
def test_what_is_no_host_name_or_origin_is_no_setting(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"expected {name}"):
        Origins.of(replace(Settings(), **{name: text}), needs_keys=True)  # type: ignore[arg-type]


def test_an_origin_is_compared_as_browsers_write_it() -> None:
    of = Origins.of(replace(Settings(), cors_origins="HTTPS://App.example.com:443, *"), needs_keys=True)
    assert of.pages == ("https://app.example.com", "*")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "LOCALHOST"])
def test_on_this_machine_alone_our_own_page_is_welcome(client: TestClient, host: str) -> None:
    assert client.get("/v1/adapters", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


ABROAD = {"Host": "portraits.example.com", "Origin": "https://app.example.com"}
PAGES = "https://app.example.com, http://localhost:3000"


def opened(
    likeness: Likeness, *, needs_keys: bool = False, host_names: str | None = None, cors_origins: str | None = None
) -> TestClient:
    """A client of the same installation with other settings."""
    settings = replace(likeness.settings, host_names=host_names, cors_origins=cors_origins)
    other = replace(likeness, settings=settings)
    return TestClient(create_app(other, needs_keys=needs_keys), base_url="http://localhost")


def test_with_keys_required_the_key_decides(likeness: Likeness, keys: dict[str, str]) -> None:
    client = opened(likeness, needs_keys=True)
    for headers in (ABROAD, {"Host": "127.0.0.1:8766", "X-Forwarded-Proto": "https"}, {"Origin": "null"}):
        assert client.get("/v1/base", headers=headers).status_code == 401
        answer = client.get("/v1/base", headers={**headers, "Authorization": f"Bearer {keys['other']}"})
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]  # no page may read it


def test_whether_the_server_is_up_may_be_asked_by_any_name_and_with_head(likeness: Likeness) -> None:
    for client in (opened(likeness), opened(likeness, needs_keys=True)):
        for method in ("GET", "HEAD"):
            answer = client.request(method, "/healthz", headers={"Host": "10.0.0.7:8000"})
            assert (answer.status_code, bool(answer.content)) == (200, method == "GET")


def test_a_host_name_of_a_proxy_is_a_setting(likeness: Likeness) -> None:
    client = opened(likeness, host_names="portraits.example.com, Other.example")
    for host in ("portraits.example.com", "PORTRAITS.example.com:443", "other.example", "localhost"):
        assert client.get("/v1/adapters", headers={"Host": host}).status_code == 200
    page = {"Host": "127.0.0.1:8000", "Origin": "https://portraits.example.com"}  # the proxy names itself
    assert client.get("/v1/adapters", headers=page).status_code == 200
    for headers in ({"Host": "evil.example"}, {"Host": "portraits.example.com", "Origin": "https://evil.example"}):
        refused = client.get("/v1/adapters", headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "OriginRefused")
        assert "LIKENESS_" in refused.json()["error"]["hint"]


@pytest.mark.parametrize("needs_keys", [False, True])
def test_pages_of_configured_origins_may_call_and_read(
    likeness: Likeness, keys: dict[str, str], needs_keys: bool
) -> None:
    client, origin = opened(likeness, needs_keys=needs_keys, cors_origins=PAGES), "https://app.example.com"
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = client.options("/v1/images", headers={**asked, "Access-Control-Request-Headers": "authorization"})
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, origin)
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    key = {"Authorization": f"Bearer {keys['local']}"}
    read = client.get("/v1/adapters", headers={"Origin": origin, **key})
    assert (read.status_code, read.headers["access-control-allow-origin"]) == (200, origin)
    assert "X-Request-Id" in read.headers["access-control-expose-headers"]
    other = client.get("/v1/adapters", headers={"Origin": "https://evil.example", **key})
    assert other.status_code == (200 if needs_keys else 403)
    assert "access-control-allow-origin" not in other.headers
    refused = client.options("/v1/images", headers={**asked, "Origin": "https://evil.example"})
    assert refused.status_code == 400


def test_without_the_setting_no_page_is_told_anything(client: TestClient) -> None:
    asked = {"Origin": "http://localhost", "Access-Control-Request-Method": "POST"}
    answer = client.options("/v1/images", headers=asked)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "settings",
    [
        {"host_names": "https://portraits.example.com"}, {"host_names": "a.example:80"}, {"host_names": "*"},
        {"cors_origins": "app.example.com"}, {"cors_origins": "https://app.example.com/"}, {"cors_origins": "null"},
        {"cors_origins": "*"},  # every page, without keys
    ],
)  # fmt: skip
def test_names_and_origins_that_cannot_be_used_are_refused_at_the_start(
    likeness: Likeness, settings: dict[str, str]
) -> None:
    with pytest.raises(SettingsError):
        opened(likeness, **settings)  # type: ignore[arg-type]


def test_every_page_may_be_allowed_where_keys_are_required(likeness: Likeness) -> None:
    answer = opened(likeness, needs_keys=True, cors_origins="*").get("/healthz", headers=ABROAD)
    assert answer.headers["access-control-allow-origin"] == "*"


def test_the_rate_of_a_key_is_limited_and_says_when_to_come_again(likeness: Likeness) -> None:
    text, _ = new_key(likeness.catalog, "other")
    app = create_app(likeness, needs_keys=True, protocols=protocols())
    limits = KeyLimits(requests_per_minute=3)
    app.user_middleware[0].kwargs["access"] = Access(likeness.catalog, needs_keys=True, limits=limits)
    client = TestClient(app, base_url="http://localhost", headers={"Authorization": f"Bearer {text}"})
    answers = [client.get("/v1/adapters") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert client.get("/openai/v1/models").json()["error"]["code"] == "rate_limit_exceeded"
    throttled = client.post("/endpoints/avatars/invocations")
    assert (throttled.status_code, throttled.headers["x-amzn-errortype"]) == (429, "ThrottlingException")
    fresh, _ = new_key(likeness.catalog, "other")  # limits are of the key
    assert client.get("/v1/adapters", headers={"Authorization": f"Bearer {fresh}"}).status_code == 200


def test_tokens_come_back_with_time_and_places_when_requests_end(likeness: Likeness) -> None:
    import asyncio

    now_s = [0.0]
    text, _ = new_key(likeness.catalog, "other")
    limits = KeyLimits(requests_per_minute=60, concurrent=2)
    door = Access(likeness.catalog, needs_keys=True, limits=limits, clock=lambda: now_s[0])
    headers = Headers({"Authorization": f"Bearer {text}"})

    async def visit() -> None:
        async with door.admitted("/v1/x", headers), door.admitted("/v1/x", headers):
            with pytest.raises(TooManyRequests, match="at once"):
                async with door.admitted("/v1/x", headers):
                    pass
        for _ in range(58):
            async with door.admitted("/v1/x", headers):
                pass
        with pytest.raises(TooManyRequests, match="per minute"):
            async with door.admitted("/v1/x", headers):
                pass
        now_s[0] += 1.0
        async with door.admitted("/v1/x", headers) as caller:
            assert caller is not None and caller.tenant == "other"

    asyncio.run(visit())
