"""Messages have SageMaker's fields, and no others."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likeness.jobs.job import Failure, Invocation, Job, JobOrder, Notice, State, read_order
from likeness.jobs.messages import COMPLETED, inference_message, messages_about, result_document

CALL = Invocation(
    "fine-tuning", "id-1", "s3://in/anna.tar", "s3://out/anna/x.out", "s3://out/anna/failures/x-error.out",
    custom_attributes="anna",
)  # fmt: skip
NOTICES = (
    Notice("sns", "arn:aws:sns:eu-west-1:123456789012:good", "success"),
    Notice("sns", "arn:aws:sns:eu-west-1:123456789012:bad", "failure"),
    Notice("webhook", "https://example.com/", "always"),
)


def job(state: State, *, call: Invocation | None = CALL) -> Job:
    failure = (
        None
        if state == "succeeded"
        else Failure("PhotosRefused", "2 of 4 photographs show somebody else", "send others")
    )
    order = JobOrder("anna", "rex", "s3://in/anna.tar", notices=NOTICES, invocation=call)
    return Job(
        id="ab12", order=order, state=state, submitted_s=1_643_150_000.5, started_s=1.0, finished_s=1_643_150_760.608,
        queue_until_s=2.0, failure=failure, place_in_queue=None, worker="w", attempt=1, progress={},
        adapter_sha256="c" * 64 if state == "succeeded" else None,
    )  # fmt: skip


def test_success_says_what_sagemaker_says() -> None:
    assert inference_message(job("succeeded"), "eu-west-1") == {
        "awsRegion": "eu-west-1",
        "eventTime": "2022-01-25T22:46:00.608Z",
        "receivedTime": "2022-01-25T22:33:20.500Z",
        "invocationStatus": "Completed",
        "requestParameters": {
            "contentType": "application/x-tar", "endpointName": "fine-tuning", "inputLocation": "s3://in/anna.tar",
            "customAttributes": "anna",
        },
        "responseParameters": {"contentType": "application/json", "outputLocation": "s3://out/anna/x.out"},
        "inferenceId": "id-1",
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }  # fmt: skip


@pytest.mark.parametrize("state", ["failed", "cancelled", "expired"])
def test_failure_has_a_reason_and_no_result(state: State) -> None:
    said = inference_message(job(state), "eu-west-1")
    assert said["invocationStatus"] == "Failed"
    assert said["failureReason"] == "ClientError: 2 of 4 photographs show somebody else (send others)"
    assert "responseParameters" not in said


def test_the_result_is_what_the_reference_notebook_reads() -> None:
    result = result_document(job("succeeded"))
    assert result["status"] == COMPLETED == "Training Completed!"
    assert str(result["output_location"]).split("/")[-1] == "rex.tar.gz"
    assert str(result["output_location"]).startswith("s3://out/anna/")
    failure = result_document(job("failed"))
    assert (failure["status"], failure["error"]) == ("failed", "PhotosRefused")


def test_the_object_comes_first_and_topics_hear_what_concerns_them() -> None:
    good, bad = list(messages_about(job("succeeded"))), list(messages_about(job("failed")))
    assert [(m.kind, m.target.rsplit(":", 1)[-1]) for m in good] == [
        ("object", "//out/anna/x.out"), ("sns", "good"), ("webhook", "//example.com/"),
    ]  # fmt: skip
    assert [m.target.rsplit(":", 1)[-1] for m in bad] == [
        "//out/anna/failures/x-error.out", "bad", "//example.com/",
    ]  # fmt: skip
    assert [m.place for m in good] == [0, 1, 2]
    assert json.loads(good[1].body)["awsRegion"] == "eu-west-1"


def test_a_message_is_known_by_its_id() -> None:
    first, again = list(messages_about(job("succeeded"))), list(messages_about(job("succeeded")))
    assert [m.id for m in first] == [m.id for m in again]
    other = list(messages_about(replace(job("succeeded"), id="cd34")))
    assert len({m.id for m in first + other}) == len(first) + len(other)


def test_without_an_invocation_the_message_names_our_own_places() -> None:
    said = inference_message(job("succeeded", call=None), "local")
    assert said["inferenceId"] == "ab12"
    assert said["responseParameters"] == {"contentType": "application/json", "outputLocation": "/v1/adapters/rex"}


@given(
    seed=st.integers(0, 2**63 - 1), name=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True),
    changes=st.dictionaries(st.sampled_from(["steps", "rank"]), st.integers(1, 9)), replaced=st.booleans(),
    call=st.none() | st.just(CALL), notices=st.sampled_from([(), NOTICES]),
)  # fmt: skip
def test_an_order_survives_the_database(seed, name, changes, replaced, call, notices) -> None:
    order = JobOrder(
        "anna", name, "anna/x", changes={**changes, "unet_targets": ("to_q", "to_v")}, seed=seed, replace=replaced,
        notices=notices, invocation=call,
    )  # fmt: skip
    assert read_order(order.document()) == order
    assert read_order(order.document()).sha256 == order.sha256
    assert replace(order, seed=seed ^ 1).sha256 != order.sha256
