"""The reference solution's notebook, cell by cell: only endpoint URLs differ. S3, SNS and SQS are moto's server."""

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fixtures.installation import PHOTOS, SMALL, Installation, archive, picture
from fixtures.waiting import HANG_S, until
from likeness.deploy.extension import protocols
from likeness.http.app import create_app
from likeness.service import build
from tests.http.conftest import running

boto3 = pytest.importorskip("boto3", reason="these tests speak through boto3")
moto_server = pytest.importorskip("moto.server", reason="S3, SNS and SQS come from moto")

from likeness.config import Settings  # noqa: E402

pytestmark = [pytest.mark.services, pytest.mark.slow]

BUCKET, PREFIX = "sagemaker-eu-west-1-123456789012", "stable-diffusion-dreambooth/code"
CONFIG = json.dumps({"class_noun": "dog", "recipe": "fast", "steps": 6, **SMALL}).encode()


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """moto's server on a free port; the environment sends boto3 there, in this process and in those it starts."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    url = f"http://127.0.0.1:{port}"
    said = {
        "AWS_ENDPOINT_URL_S3": url, "AWS_ENDPOINT_URL_SNS": url, "AWS_ENDPOINT_URL_SQS": url,
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in said.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield url
    server.stop()


@pytest.fixture(scope="module")
def queue_url(aws: str) -> str:
    return str(boto3.client("sqs").create_queue(QueueName="told")["QueueUrl"])


@pytest.fixture(scope="module")
def topics(aws: str, queue_url: str) -> dict[str, str]:
    """Success and error topic, with a queue that hears both."""
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    made = {}
    for name in ("success", "error"):
        made[name] = sns.create_topic(Name=name)["TopicArn"]
        sns.subscribe(TopicArn=made[name], Protocol="sqs", Endpoint=arn)
    return made


@pytest.fixture(scope="module")
def installation(
    aws: str, topics: dict[str, str], contrasted_base_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    settings = Settings(
        home=tmp_path_factory.mktemp("home"), base=str(contrasted_base_folder), heartbeat_s=1,
        job_inputs=f"s3://{BUCKET}/{PREFIX}", job_outputs=f"s3://{BUCKET}/{PREFIX}/async_inference/output",
        objects=f"s3://{BUCKET}/likeness", sns_success_topic=topics["success"], sns_error_topic=topics["error"],
    )  # fmt: skip
    likeness = build(settings)
    one = Installation(settings, likeness.training)
    try:
        one.start("w-0")
        yield one
    finally:
        one.stop()
        likeness.close()


@pytest.fixture(scope="module")
def runtime(installation: Installation) -> Iterator[Any]:
    likeness = build(installation.settings)
    with running(create_app(likeness, protocols=protocols())) as address:
        made = boto3.client("sagemaker-runtime", endpoint_url=address)
        yield made
        made.close()
    likeness.close()


def upload_data(file: Path) -> str:
    """`sess.upload_data(path, bucket, prefix)`."""
    boto3.client("s3").upload_file(str(file), BUCKET, f"{PREFIX}/{file.name}")
    return f"s3://{BUCKET}/{PREFIX}/{file.name}"


def split(location: str) -> dict[str, str]:
    bucket, _, key = location.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def exists(location: str) -> bool:
    """`check_s3_file_exists` of the notebook."""
    try:
        boto3.client("s3").head_object(**split(location))
    except Exception:
        return False
    return True


def told(queue_url: str, inference_id: str) -> dict[str, Any]:
    """The message about one invocation, as SNS wraps it for a queue."""
    sqs = boto3.client("sqs")
    end_s = time.monotonic() + HANG_S
    while time.monotonic() < end_s:
        for message in sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=1).get("Messages", []):
            said: dict[str, Any] = json.loads(json.loads(message["Body"])["Message"])
            if said.get("inferenceId") == inference_id:
                return said
    raise AssertionError("no notification")


def test_upload_train_poll_generate_and_forget(
    installation: Installation, runtime: Any, tmp_path: Path, queue_url: str
) -> None:
    (tmp_path / "jw.tar.gz").write_bytes(
        archive({**{f"jw{seed}.jpg": picture(seed) for seed in range(1, 4)}, "config.json": CONFIG})
    )
    input_s3_loc = upload_data(tmp_path / "jw.tar.gz")
    response = runtime.invoke_endpoint_async(
        EndpointName="fine-tuning", CustomAttributes="jingswu", InputLocation=input_s3_loc
    )
    assert not exists(response["OutputLocation"])
    until(lambda: exists(response["OutputLocation"]))
    results = json.loads(boto3.client("s3").get_object(**split(response["OutputLocation"]))["Body"].read())
    assert results["status"] == "Training Completed!"
    content = boto3.client("s3").get_object(**split(results["output_location"]))["Body"].read()
    assert content.startswith(b"\x1f\x8b")
    target_model = results["output_location"].split("/")[-1]
    assert not exists(response["FailureLocation"])
    said = told(queue_url, response["InferenceId"])
    assert said["invocationStatus"] == "Completed"
    assert said["awsRegion"] == "eu-west-1"
    assert said["requestParameters"] == {
        "contentType": "application/x-tar", "endpointName": "fine-tuning", "inputLocation": input_s3_loc,
        "customAttributes": "jingswu",
    }  # fmt: skip
    assert said["responseParameters"]["outputLocation"] == response["OutputLocation"]
    gen_args = json.dumps({"num_inference_steps": 2, "guidance_scale": 7, "seed": 1343})
    inputs = {"prompt": "<<TOK>> dog in the snow", "negative_prompt": "beard", "gen_args": gen_args}
    payload = {"inputs": [{"name": k, "shape": [1, 1], "datatype": "BYTES", "data": [v]} for k, v in inputs.items()]}
    answer = runtime.invoke_endpoint(
        EndpointName="avatars", ContentType="application/octet-stream", Body=json.dumps(payload),
        TargetModel=target_model,
    )  # fmt: skip
    output = json.loads(answer["Body"].read().decode("utf8"))["outputs"]
    image = Image.open(io.BytesIO(base64.b64decode(output[0]["data"][0])))
    assert image.size[0] == image.size[1] > 0
    forgotten = build(installation.settings)
    receipt = forgotten.forget(target_model.removesuffix(".tar.gz"))
    forgotten.close()
    kinds = {item.kind for item in receipt.items}
    assert {"jobs", "results", "adapter"} <= kinds
    assert "job photographs" not in kinds  # they went when the job was over
    assert not exists(response["OutputLocation"])
    assert not exists(results["output_location"])


def test_a_failure_lies_where_failures_lie_and_the_error_topic_says_why(
    runtime: Any, tmp_path: Path, queue_url: str
) -> None:
    (tmp_path / "bad.tar").write_bytes(archive({"read.me": b"no photographs at all"}))
    response = runtime.invoke_endpoint_async(
        EndpointName="fine-tuning", InputLocation=upload_data(tmp_path / "bad.tar"), InferenceId="mine-1"
    )
    until(lambda: exists(response["FailureLocation"]))
    failure = json.loads(boto3.client("s3").get_object(**split(response["FailureLocation"]))["Body"].read())
    assert (failure["status"], failure["error"]) == ("failed", "PhotosRefused")
    assert not exists(response["OutputLocation"])
    said = told(queue_url, "mine-1")
    assert said["invocationStatus"] == "Failed"
    assert said["failureReason"].startswith("ClientError: ")
    assert "responseParameters" not in said
    absent = runtime.invoke_endpoint_async(
        EndpointName="fine-tuning", InputLocation=f"s3://{BUCKET}/{PREFIX}/absent.tar"
    )
    until(lambda: exists(absent["FailureLocation"]))


def test_photographs_may_come_in_the_body(runtime: Any) -> None:
    small = archive({**{f"{seed}.jpg": picture(seed, side_px=260) for seed in range(1)}, "config.json": CONFIG})
    assert len(small) < 128_000
    assert len(PHOTOS) > len(small)
    response = runtime.invoke_endpoint_async(EndpointName="fine-tuning", Body=small, Filename="inline.out")
    assert response["OutputLocation"].endswith("/inline.out")
    until(lambda: exists(response["OutputLocation"]))
    result = json.loads(boto3.client("s3").get_object(**split(response["OutputLocation"]))["Body"].read())
    assert result["name"] == "inline"
