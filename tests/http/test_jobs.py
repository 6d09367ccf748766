"""/v1/jobs and InvokeEndpointAsync without a worker: what is taken, what is refused, what is streamed."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import sqlalchemy as sa
from botocore.config import Config
from botocore.exceptions import ClientError
from starlette.datastructures import UploadFile
from starlette.testclient import TestClient

from fixtures.installation import PHOTOS, archive, picture
from fixtures.waiting import HANG_S
from likeness.http.app import create_app
from likeness.jobs.job import Claim, Failure
from likeness.jobs.store import JobStore
from likeness.jobs.tables import jobs as jobs_table
from likeness.service import Likeness
from likeness.service.training import Training
from tests.worker import claims


@pytest.fixture(autouse=True)
def clean(likeness: Likeness) -> Iterator[None]:
    """Every test finds an empty queue."""
    yield
    for job in likeness.training.queue.jobs_of("local", limit=1000):
        likeness.training.queue.cancel(job.id, "local")


def submitted(client: TestClient, name: str, **changes: object) -> dict[str, object]:
    order = {"name": name, "class_noun": "dog", **changes}
    answer = client.post("/v1/jobs/photos", files={"archive": ("a.tar", PHOTOS)}, data={"order": json.dumps(order)})
    assert answer.status_code == 202, answer.text
    found: dict[str, object] = answer.json()
    return found


def claimed(likeness: Likeness, job: dict[str, object]) -> Claim:
    return claims.claimed(likeness.training.database, job=str(job["id"]))


def test_an_archive_becomes_a_job_that_can_be_seen_and_cancelled(client: TestClient) -> None:
    job = submitted(client, "rex", recipe="fast", recipe_changes={"steps": 3})
    assert (job["state"], job["name"], job["place_in_queue"]) == ("queued", "rex", 1)
    assert (job["recipe"], job["recipe_changes"]) == ("fast", {"steps": 3})
    assert client.get(f"/v1/jobs/{job['id']}").json() == job
    assert [one["id"] for one in client.get("/v1/jobs", params={"name": "rex"}).json()["jobs"]] == [job["id"]]
    cancelled = client.post(f"/v1/jobs/{job['id']}/cancel").json()
    assert (cancelled["state"], cancelled["failure"]["code"]) == ("cancelled", "Cancelled")
    assert client.get("/v1/jobs/none").json()["error"]["code"] == "JobNotFound"
    for path in ("", "/events", "/messages", "/previews/5"):
        assert client.get(f"/v1/jobs/none{path}").status_code == 404


def test_a_job_of_a_style(client: TestClient, likeness: Likeness) -> None:
    job = submitted(client, "oil", kind="style", class_noun=None)
    found = likeness.training.queue.status(str(job["id"]), "local").order
    assert found.fine_tune().subject.words == "<<STY>> style"
    client.post("/v1/subjects", json={"name": "ink", "kind": "style"})
    again = submitted(client, "ink", class_noun=None)  # of the subject's kind
    assert likeness.training.queue.status(str(again["id"]), "local").order.class_noun == ""
    data = {"order": json.dumps({"name": "pen", "kind": "style", "class_noun": "pen"})}
    assert client.post("/v1/jobs/photos", files={"archive": ("a.tar", PHOTOS)}, data=data).status_code == 400


def test_an_idempotency_key_makes_one_job(client: TestClient) -> None:
    def send(**order: object):
        data = {"order": json.dumps({"name": "ida", "class_noun": "dog", **order})}
        headers = {"Idempotency-Key": "once"}
        return client.post("/v1/jobs/photos", files={"archive": ("a.tar", PHOTOS)}, data=data, headers=headers)

    first = send().json()
    assert send().json()["id"] == first["id"]
    conflict = send(seed=1)
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "IdempotencyConflict")


@pytest.mark.parametrize(
    ("order", "code", "status"),
    [
        ({"name": "x", "recipe": "none"}, "UsageError", 400),
        ({"name": "x", "recipe_changes": {"steps": 10**9}}, "UsageError", 400),
        ({"name": "x", "notices": [{"kind": "webhook", "target": "http://169.254.169.254/"}]}, "UsageError", 400),
        ({"name": "x", "notices": [{"kind": "sns", "target": "arn:aws:sns:a:b:c"}]}, "UsageError", 400),
        ({"name": "x", "photos": "s3://somebody/elses"}, "InputRefused", 422),
        ({"name": "x", "photos": "file:///etc/passwd"}, "InputRefused", 422),
        ({"name": "x", "photos": "other/uploads/anna/x"}, "InputRefused", 422),
        ({"name": "x", "photos": "local/../other/x"}, "InputRefused", 422),
        ({"name": "x", "unknown": 1}, "UsageError", 400),
        ({"name": "anna"}, "AdapterExists", 409),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused_at_the_door(
    client: TestClient, order: dict[str, object], code: str, status: int
) -> None:
    answer = client.post("/v1/jobs", json={"class_noun": "dog", **order})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ('{"name": "x", "speed": 1}', "expected known fields only, got speed"),
        ('{"name": "x", "recipe_changes": []}', "expected recipe_changes to be an object"),
        ('{"name": "x", "notices": [{"kind": "pigeon", "target": "x"}]}', "expected notices.kind to be 'webhook', "),
        ("{", "expected JSON, got something else"),
    ],
)
def test_an_order_beside_an_archive_is_refused_by_field(client: TestClient, order: str, said: str) -> None:
    answer = client.post("/v1/jobs/photos", files={"archive": ("a.tar", PHOTOS)}, data={"order": order})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "UsageError")
    assert answer.json()["error"]["message"].startswith(said)


def test_a_person_needs_a_word_that_they_agree(client: TestClient, likeness: Likeness) -> None:
    order = {"name": "petra", "class_noun": "woman"}
    send = {"archive": ("a.tar", PHOTOS)}
    refused = client.post("/v1/jobs/photos", files=send, data={"order": json.dumps(order)})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "ConsentMissing")
    order["consent"] = "Petra agreed on 2026-03-01"
    assert client.post("/v1/jobs/photos", files=send, data={"order": json.dumps(order)}).status_code == 202
    assert likeness.subjects.find("local", "petra").consent == "Petra agreed on 2026-03-01"


def test_a_job_without_a_class_noun_has_that_of_its_subject(client: TestClient) -> None:
    client.post("/v1/subjects", json={"name": "fido", "class_noun": "dog"})
    answer = client.post("/v1/jobs", json={"name": "fido", "class_noun": "woman"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "ConsentMissing")
    assert client.post("/v1/jobs", json={"name": "fido"}).status_code == 202


def test_progress_is_streamed_until_the_job_is_over(
    client: TestClient, likeness: Likeness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(client, "stream")
    store = likeness.training.queue.store
    looked, events = threading.Semaphore(0), JobStore.events

    def watched(*given: Any) -> Any:
        found = events(*given)
        looked.release()
        return found

    monkeypatch.setattr(JobStore, "events", watched)

    def work() -> None:
        for _ in range(2):  # the stream has begun when it looks again
            assert looked.acquire(timeout=HANG_S)
        claim = claimed(likeness, job)
        store.tell(claim, "progress", {"stage": "train", "done": 3, "total": 9, "loss": 0.5})
        failure = Failure("PhotosRefused", "too few photos", "send more")
        store.finish(claim, "failed", failure=failure, keep_photos_s=HANG_S)  # else a purge would be told too

    worker = threading.Thread(target=work)
    worker.start()
    with client.stream("GET", f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["x-accel-buffering"] == "no"
        text = "".join(stream.iter_text())
    worker.join()
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    assert blocks[-1]["event"] == "end"
    assert json.loads(blocks[-1]["data"])["failure"]["hint"] == "send more"
    states = [json.loads(block["data"])["state"] for block in blocks if block["event"] == "state"]
    assert states == ["queued", "running", "failed"]
    numbers = [int(block["id"]) for block in blocks[:-1]]
    assert numbers == sorted(set(numbers))
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(numbers[-2])}
    with client.stream("GET", f"/v1/jobs/{job['id']}/events", headers=headers) as stream:
        again = "".join(stream.iter_text())
    assert [line for line in again.splitlines() if line.startswith("id: ")] == [f"id: {numbers[-1]}"]
    listed = client.get(f"/v1/jobs/{job['id']}/events").json()["events"]
    assert [event["kind"] for event in listed] == ["state", "state", "losses", "state"]
    assert listed[2]["facts"] == {"losses": [0.5]}


def test_forgetting_reaches_the_queue(client: TestClient, likeness: Likeness) -> None:
    job = submitted(client, "gone", notices=[{"kind": "webhook", "target": "https://example.com/"}])
    claim = claimed(likeness, job)
    likeness.library.objects.put(f"local/jobs/{job['id']}/checkpoints/000001.safetensors", b"x")
    likeness.library.objects.put(f"local/jobs/{job['id']}/previews/00005.png", b"x")
    receipt = client.delete("/v1/adapters/gone").json()
    kinds = {item["kind"]: item["count"] for item in receipt["items"]}
    assert kinds.items() >= {"jobs": 1, "checkpoints": 1, "previews": 1, "uploads": 1, "job messages": 1}.items()
    assert client.get(f"/v1/jobs/{job['id']}").status_code == 404
    assert not likeness.training.queue.store.holds(claim)
    for prefix in (f"local/jobs/{job['id']}/", "local/uploads/gone/"):
        assert list(likeness.library.objects.list(prefix)) == []
    for path in likeness.home.root.glob("jobs.sqlite*"):
        assert str(job["id"]).encode() not in path.read_bytes()


@pytest.fixture
def strict(likeness: Likeness) -> Iterator[None]:
    """Databases that take a NUL for an error, as PostgreSQL does."""

    def refuse(connection: Any, cursor: Any, statement: str, parameters: Any, *more: object) -> None:
        assert "\\x00" not in repr(parameters)

    engines = (likeness.catalog.engine, likeness.training.database.engine)
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", refuse)
    yield
    for engine in engines:
        sa.event.remove(engine, "before_cursor_execute", refuse)


@pytest.mark.usefixtures("strict")
def test_what_cannot_be_an_id_is_answered_as_any_unknown_one(client: TestClient) -> None:
    for nothing in ("none", "%00", "a%00b", "x" * 65, "%C3%A9"):
        for path in ("", "/events", "/messages", "/previews/5"):
            answer = client.get(f"/v1/jobs/{nothing}{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "JobNotFound"), path
        for path in ("cancel", "messages/replay"):
            assert client.post(f"/v1/jobs/{nothing}/{path}").json()["error"]["code"] == "JobNotFound"
        assert client.get(f"/v1/images/{nothing}").json()["error"]["code"] == "ObjectNotFound"
        assert client.get(f"/v1/jobs?name={nothing}").json() == {"jobs": []}
    client.post("/v1/subjects", json={"name": "nul", "class_noun": "dog"})
    assert client.delete("/v1/subjects/nul/photos/%00").json()["error"]["code"] == "ObjectNotFound"


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    "path",
    [
        "/v1/subjects?after=%00", "/v1/adapters?after=%00", "/v1/subjects/%00", "/v1/subjects/%00/photos",
        "/v1/adapters/%00", "/v1/adapters/%00/download", "/openai/v1/models/%00",
    ],
)  # fmt: skip
def test_names_are_checked_before_anything_is_looked_up(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 400


def test_only_numbers_that_events_can_have_are_taken(client: TestClient) -> None:
    events = f"/v1/jobs/{submitted(client, 'number')['id']}/events"
    assert len(client.get(events, params={"after": 0}).json()["events"]) == 1
    assert client.get(events, params={"after": 2**31 - 1}).json() == {"events": []}
    for number in (-1, 2**31, 2**63 - 1, 2**63, 10**30):
        answer = client.get(events, params={"after": number})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "UsageError"), number
    for said in (str(2**31), "9" * 20, "9" * 21):
        for accept in ("text/event-stream", "application/json"):
            answer = client.get(events, headers={"Last-Event-ID": said, "Accept": accept})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "UsageError"), said


def test_an_archive_waits_in_a_file_while_another_is_in_memory(
    likeness: Likeness, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, reads, read = create_app(likeness), threading.Event(), UploadFile.read

    async def watched(upload: UploadFile, size: int = -1) -> bytes:
        reads.set()
        return await read(upload, size)

    monkeypatch.setattr(UploadFile, "read", watched)
    with TestClient(app, base_url="http://localhost") as client:
        assert client.portal is not None
        uploads = app.state.uploads
        acquire, asked = uploads.acquire, threading.Event()
        client.portal.call(acquire)

        async def asking() -> bool:
            asked.set()
            return bool(await acquire())

        monkeypatch.setattr(uploads, "acquire", asking)
        waits = threading.Thread(target=submitted, args=(client, "waits"))
        waits.start()
        assert asked.wait(HANG_S)
        is_read = reads.is_set()
        client.portal.call(uploads.release)
        waits.join()
    assert (is_read, reads.is_set()) == (False, True)


def test_the_event_loop_never_waits_for_the_queue_to_open(
    client: TestClient, likeness: Likeness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first use it connects and migrates."""
    opened, seen = Training.__dict__["queue"], []
    assert isinstance(opened, property)

    def watched(training: Training) -> object:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            seen.append("thread")
        else:
            seen.append("loop")
        return opened.__get__(training)

    job = submitted(client, "loop")["id"]
    monkeypatch.setattr(Training, "queue", property(watched))
    paths = ["", f"/{job}", f"/{job}/events", f"/{job}/messages", f"/{job}/previews/5"]
    calls = [("GET", f"/v1/jobs{path}") for path in paths] + [("GET", "/metrics")]
    calls += [("POST", f"/v1/jobs/{job}/{verb}") for verb in ("messages/replay", "cancel")]
    for method, path in calls:
        seen.clear()
        assert client.request(method, path).status_code < 500
        assert set(seen) == {"thread"}, path
    seen.clear()
    with client.stream("GET", f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as stream:
        assert "event: end" in "".join(stream.iter_text())
    assert set(seen) == {"thread"}


def test_whoever_asks_first_there_is_one_queue(likeness: Likeness) -> None:
    training = Training(likeness.settings, likeness.library)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: training.queue, range(8)))
    assert len({id(queue) for queue in found}) == 1
    training.close()


def test_metrics_have_sagemakers_names(client: TestClient) -> None:
    submitted(client, "metric")
    page = client.get("/metrics").text
    for name in ("ApproximateBacklogSize", "ApproximateBacklogSizePerInstance", "HasBacklogWithoutCapacity"):
        assert f'{name}{{EndpointName="fine-tuning"}} 1.0' in page
    assert 'ApproximateAgeOfOldestRequest{EndpointName="fine-tuning"}' in page


def test_a_tenant_has_a_webhook_secret_of_its_own(client: TestClient) -> None:
    first = client.get("/v1/jobs/webhook-secret").json()["secret"]
    assert first.startswith("whsec_")
    assert client.get("/v1/jobs/webhook-secret").json()["secret"] == first


@pytest.fixture(scope="module")
def runtime(address: str):
    """boto3's own client, with nothing changed but where it sends."""
    made = boto3.client(
        "sagemaker-runtime", endpoint_url=address, region_name="eu-west-1", aws_access_key_id="x",
        aws_secret_access_key="y", config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip
    yield made
    made.close()


def test_an_asynchronous_invocation_with_a_body_is_a_job(runtime, likeness: Likeness) -> None:
    answer = runtime.invoke_endpoint_async(
        EndpointName="fine-tuning", Body=PHOTOS[: 64 << 10], CustomAttributes="jingswu", InferenceId="mine",
        RequestTTLSeconds=600, InvocationTimeoutSeconds=1200,
    )  # fmt: skip
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "mine"
    (job,) = [job for job in likeness.training.queue.jobs_of("local") if job.state == "queued"]
    call = job.order.invocation
    assert call is not None
    assert (call.output_location, call.failure_location) == (answer["OutputLocation"], answer["FailureLocation"])
    assert (job.order.time_limit_s, job.queue_until_s - job.submitted_s) == (1200, 600)
    assert call.custom_attributes == "jingswu"
    assert "/local/" in answer["OutputLocation"]


def test_an_asynchronous_invocation_trains_nobody_without_their_word(runtime, likeness: Likeness) -> None:
    def invoke(**config: object) -> None:
        body = archive({"1.jpg": picture(1, side_px=64), "config.json": json.dumps(config).encode()})
        runtime.invoke_endpoint_async(EndpointName="fine-tuning", Body=body, Filename="olga.out")

    for config in ({}, {"class_noun": "man"}, {"name": "igor", "consent": ""}):
        with pytest.raises(ClientError, match="consent"):
            invoke(**config)
    assert likeness.training.queue.backlog().open_jobs == 0
    invoke(consent="Olga agreed on 2026-03-01")
    assert likeness.subjects.find("local", "olga").consent == "Olga agreed on 2026-03-01"
    assert likeness.training.queue.backlog().open_jobs == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"EndpointName": "avatars"}, {"EndpointName": "none"}, {"InputLocation": "s3://not/allowed.tar"},
        {"InputLocation": "https://example.com/a.tar"}, {"InputLocation": "/etc/passwd"},
        {"RequestTTLSeconds": 99_999}, {"InvocationTimeoutSeconds": 9_999}, {"InferenceId": "x" * 65},
        {"S3OutputPathExtension": "../../other"}, {"Filename": "a.b.c"}, {"InputLocation": "s3://a/b", "Body": b"x"},
        {},
    ],
    ids=str,
)  # fmt: skip
def test_sagemakers_own_limits_are_kept(runtime, likeness: Likeness, changes: dict[str, object]) -> None:
    asked = {"EndpointName": "fine-tuning", **changes}
    if changes and not changes.keys() & {"InputLocation", "Body"}:
        asked["Body"] = b"x"
    before = likeness.training.queue.backlog().open_jobs
    with pytest.raises(ClientError) as refused:
        runtime.invoke_endpoint_async(**asked)
    assert refused.value.response["Error"]["Code"] == "ValidationError"
    assert likeness.training.queue.backlog().open_jobs == before


def test_one_damaged_job_hides_no_other_and_is_said_to_be_damaged(client: TestClient, likeness: Likeness) -> None:
    well, ill = submitted(client, "well"), submitted(client, "ill")
    database = likeness.training.database
    spoil = jobs_table.update().where(jobs_table.c.id == ill["id"]).values(order="{}")
    database.run(lambda connection: connection.execute(spoil))
    listed = [job["id"] for job in client.get("/v1/jobs").json()["jobs"]]
    assert well["id"] in listed and ill["id"] not in listed
    answer = client.get(f"/v1/jobs/{ill['id']}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "StorageDamaged")
    assert client.delete("/v1/subjects/ill").status_code == 200
    assert client.get(f"/v1/jobs/{ill['id']}").status_code == 404


def test_a_damaged_queue_is_said_to_be_damaged_and_pictures_are_made_all_the_same(
    likeness: Likeness, tmp_path: Path
) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"no database" * 1000)
    settings = replace(likeness.settings, jobs=f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    damaged = Likeness(settings, likeness.home, likeness.library, likeness.subjects, likeness.sign)
    damaged.__dict__["base"] = likeness.base
    with TestClient(create_app(damaged), base_url="http://localhost") as client:
        answer = client.get("/v1/jobs")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "StorageDamaged")
        assert client.get("/metrics").status_code == 200
        assert client.post("/v1/images", json={"prompt": "x", "steps": 1}).status_code == 200
    damaged.engine.close()
