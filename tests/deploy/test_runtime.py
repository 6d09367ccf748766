"""SageMaker's protocol: the reference solution's own client code, boto3, with nothing changed but `endpoint_url`."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from likeness.service import Likeness

boto3 = pytest.importorskip("boto3", reason="these tests speak through boto3")
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402

ENDPOINT = "avatars"


@pytest.fixture(scope="module")
def runtime(address: str) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield boto3.client(
            "sagemaker-runtime", endpoint_url=address, region_name="us-west-2", aws_access_key_id="AKIATEST",
            aws_secret_access_key="test", config=Config(retries={"total_max_attempts": 1}),
        )  # fmt: skip


def decode_image(img: str) -> Image.Image:
    """As the reference solution's notebook does it."""
    return Image.open(io.BytesIO(base64.b64decode(img.encode("utf8"))))


def payload(**inputs: str) -> str:
    return json.dumps(
        {
            "inputs": [
                {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [data]} for name, data in inputs.items()
            ]
        }
    )


def portrait(**changes: object) -> str:
    arguments = {"num_inference_steps": 2, "guidance_scale": 7, "seed": 42, **changes}
    return payload(prompt="<<TOK>> epic portrait,\noctane", negative_prompt="\nbeard", gen_args=json.dumps(arguments))


def invoke(runtime: Any, body: str | bytes, target: str | None = "anna.tar.gz", **changes: str) -> Any:
    asked = {"EndpointName": ENDPOINT, "ContentType": "application/octet-stream", "Body": body, **changes}
    return runtime.invoke_endpoint(**asked, **({} if target is None else {"TargetModel": target}))


def refused(runtime: Any, body: str | bytes, target: str | None = "anna.tar.gz", **changes: str) -> Any:
    with pytest.raises(ClientError) as caught:
        invoke(runtime, body, target, **changes)
    return caught.value


def test_the_reference_solutions_client_works_unchanged(runtime: Any) -> None:
    response = invoke(runtime, payload(input_args="hello"), "model_setup.tar.gz")
    assert json.loads(response["Body"].read().decode("utf8"))["outputs"]
    pictures = []
    for target in ("anna.tar.gz", "bert.tar.gz", "base.tar.gz"):
        response = invoke(runtime, portrait(), target)
        output = json.loads(response["Body"].read().decode("utf8"))["outputs"]
        assert output[0]["name"] == "generated_image"
        image = decode_image(output[0]["data"][0])
        assert (image.format, image.size) == ("JPEG", (128, 128))
        pictures.append(image.tobytes())
    assert len(set(pictures)) == 3
    assert response["ContentType"] == "application/json"
    assert response["InvokedProductionVariant"] == "AllTraffic"
    assert response["ResponseMetadata"]["RequestId"]


def test_gen_args_can_add_adapters(runtime: Any) -> None:
    alone, both = (
        json.loads(invoke(runtime, portrait(**changes))["Body"].read())["outputs"][0]["data"][0]
        for changes in ({}, {"also": "bert@0.6"})
    )
    assert alone != both
    assert "adapters" in str(refused(runtime, portrait(also="a+b+c+d")))
    assert "no adapter" in str(refused(runtime, portrait(also="zoe")))


def test_the_same_seed_gives_the_same_picture(runtime: Any) -> None:
    one, other, third = (
        json.loads(invoke(runtime, portrait(seed=seed))["Body"].read())["outputs"][0]["data"] for seed in (7, 7, 8)
    )
    assert one == other != third


def test_sliders_send_floats_and_diffusers_takes_0_for_not_guided(runtime: Any) -> None:
    whole = invoke(runtime, portrait(num_inference_steps=2.0, guidance_scale=0, seed=3.0))["Body"].read()
    assert whole == invoke(runtime, portrait(guidance_scale=1, seed=3))["Body"].read()


def test_negative_prompt_and_arguments_may_be_left_out(runtime: Any) -> None:
    assert invoke(runtime, payload(prompt="x", gen_args='{"num_inference_steps": 1}'))["Body"].read()


def test_steps_and_guidance_are_the_bases_own_by_default(runtime: Any, likeness: Likeness) -> None:
    family = likeness.family
    told = json.dumps({"num_inference_steps": family.steps, "guidance_scale": family.guidance_scale})
    made, same = (invoke(runtime, payload(prompt="x", gen_args=args))["Body"].read() for args in ("", told))
    assert made == same


def test_batches_of_a_column(runtime: Any) -> None:
    arguments = [json.dumps({"num_inference_steps": 1, "seed": seed}) for seed in (1, 2)]
    body = {
        "inputs": [
            {"name": "prompt", "shape": [2, 1], "datatype": "BYTES", "data": [["a"], ["b"]]},
            {"name": "gen_args", "shape": [2, 1], "datatype": "BYTES", "data": arguments},
        ]
    }
    output, _ = json.loads(invoke(runtime, json.dumps(body))["Body"].read())["outputs"]
    assert output["shape"] == [2, 1] and len({*output["data"]}) == 2


def test_words_that_are_not_read_are_told_for_each_row(runtime: Any) -> None:
    long = "a hat" + " photo" * 100
    columns = {"prompt": ["a hat", long, "a hat"], "negative_prompt": ["", "", long],
               "gen_args": ['{"num_inference_steps": 1}'] * 3}  # fmt: skip
    inputs = [{"name": name, "shape": [3, 1], "datatype": "BYTES", "data": data} for name, data in columns.items()]
    outputs = json.loads(invoke(runtime, json.dumps({"inputs": inputs}))["Body"].read())["outputs"]
    assert [output["name"] for output in outputs] == ["generated_image", "warnings"]
    whole, prompt, negative = outputs[1]["data"]
    assert whole == ""
    assert "of the prompt" in prompt and "negative" not in prompt and "of the negative prompt" in negative
    assert "photo" not in prompt + negative


def test_tritons_binary_form(runtime: Any) -> None:
    http = pytest.importorskip("tritonclient.http", reason="the binary form is tritonclient's")
    import numpy as np

    inputs = []
    for name, text in (("prompt", "x"), ("gen_args", '{"num_inference_steps": 1, "seed": 5}')):
        tensor = http.InferInput(name, [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()]], dtype=np.object_), binary_data=True)
        inputs.append(tensor)
    asked = [http.InferRequestedOutput("generated_image", binary_data=True)]
    body, size = http.InferenceServerClient.generate_request_body(inputs, outputs=asked)
    kind = "application/vnd.sagemaker-triton.binary+json;json-header-size="
    response = invoke(runtime, body, ContentType=f"{kind}{size}")
    assert response["ContentType"].startswith(kind)
    header_size = int(response["ContentType"].removeprefix(kind))
    result = http.InferenceServerClient.parse_response_body(response["Body"].read(), header_length=header_size)
    (element,) = result.as_numpy("generated_image").flatten()
    assert decode_image(element.decode()).format == "JPEG"


@pytest.mark.parametrize(
    ("target", "changes", "code"),
    [
        ("zoe.tar.gz", {}, "ValidationError"),
        ("../anna.tar.gz", {}, "ValidationError"),
        ("anna", {}, "ValidationError"),
        ("Anna.tar.gz", {}, "ValidationError"),
        ("x" * 1025, {}, "ValidationError"),
        (None, {}, "ValidationError"),
        ("anna.tar.gz", {"EndpointName": "nobodys"}, "ValidationError"),
        ("anna.tar.gz", {"EndpointName": "fine-tuning"}, "ValidationError"),
        ("anna.tar.gz", {"CustomAttributes": "x" * 1025}, "ValidationError"),
        ("anna.tar.gz", {"InferenceId": "x" * 65}, "ValidationError"),
        ("anna.tar.gz", {"SessionId": "-"}, "ValidationError"),
    ],
)
def test_what_sagemaker_itself_refuses(runtime: Any, target: str | None, changes: dict[str, str], code: str) -> None:
    error = refused(runtime, portrait(), target, **changes)
    assert error.response["Error"]["Code"] == code
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert isinstance(error, runtime.exceptions.ValidationError)
    assert "zoe" not in str(error) and "nobodys" not in str(error)


def test_a_body_above_the_limit_is_refused(runtime: Any) -> None:
    error = refused(runtime, payload(prompt="x" * (6 << 20)))
    assert isinstance(error, runtime.exceptions.ValidationError)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400), ("[]", 400), ("{", 400), ("[" * 100_000, 400), ('{"a":' * 100_000, 400), ("\xff", 400),
        ('{"inputs": []}', 400), ('{"inputs": {}}', 400), ('{"inputs": [1]}', 400),
        ('{"inputs": [{"name": "prompt", "shape": [1,1], "datatype": "FP32", "data": [1]}]}', 400),
        ('{"inputs": [{"name": "prompt", "shape": [9,1], "datatype": "BYTES", "data": ["a"]}]}', 400),
        ('{"inputs": [{"name": "prompt", "shape": [2,1], "datatype": "BYTES", "data": ["a"]}]}', 400),
        (payload(prompt="x", other="y"), 400), (payload(other="y"), 400), (payload(prompt="secret" * 400), 400),
        (payload(prompt="x", gen_args="[]"), 400), (payload(prompt="x", gen_args="[" * 100_000), 400),
        (payload(prompt="x\0"), 400), (payload(prompt="x", gen_args='{"height": 100}'), 400),
        (portrait(num_inference_steps=-1), 400), (portrait(num_inference_steps=10**12), 400),
        (portrait(num_inference_steps=True), 400), (portrait(seed=1.5), 400), (portrait(seed="1"), 400),
        (portrait(guidance_scale=-1), 400), (portrait(guidance_scale=float("nan")), 400),
        (portrait(guidance_scale=float("inf")), 400), (portrait(seed=10**300), 400),
    ],
)  # fmt: skip
def test_what_the_model_refuses_is_a_model_error_with_its_three_fields(runtime: Any, body: str, status: int) -> None:
    error = refused(runtime, body.encode("latin-1") if body == "\xff" else body)
    assert isinstance(error, runtime.exceptions.ModelError)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error.response["OriginalStatusCode"] == status
    assert json.loads(error.response["OriginalMessage"])["error"]
    assert error.response["LogStreamArn"] == ""
    assert "secret" not in str(error.response)


@pytest.mark.parametrize(("target", "status"), [("stranger.tar.gz", 409), ("broken.tar.gz", 422)])
def test_an_adapter_that_cannot_be_served_fails_its_own_request(runtime: Any, target: str, status: int) -> None:
    error = refused(runtime, portrait(), target)
    assert isinstance(error, runtime.exceptions.ModelError)
    assert error.response["OriginalStatusCode"] == status
    assert invoke(runtime, portrait())["Body"].read()


def test_a_full_queue_is_service_unavailable(client: TestClient, likeness: Likeness, monkeypatch: Any) -> None:
    from likeness.errors import EngineBusy, StorageUnavailable

    for raised, status, name in (
        (EngineBusy("full", retry_after_s=2.5), 503, "ServiceUnavailable"),
        (StorageUnavailable("away"), 429, "ModelNotReadyException"),
        (EngineBusy("late", code="DeadlinePassed"), 424, "ModelError"),
    ):

        def failing(*given: object, raised: Exception = raised, **more: object) -> None:
            raise raised

        monkeypatch.setattr(Likeness, "submit", failing)
        answer = client.post(
            f"/endpoints/{ENDPOINT}/invocations", content=portrait(),
            headers={"X-Amzn-SageMaker-Target-Model": "anna.tar.gz"},
        )  # fmt: skip
        assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (status, name)
        assert answer.headers.get("retry-after") == ("3" if status == 503 else None)
