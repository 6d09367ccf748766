"""What is sent to AWS: by a rehearsal, and to moto, which checks names and shapes but runs no endpoint."""

import io
import json
import sys
import tarfile
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from likeness.artifacts.package import unpack
from likeness.cli import app
from likeness.deploy.sagemaker import client
from likeness.deploy.sagemaker.aws import Aws, HostUnavailable, ModelFailed, Refused
from likeness.deploy.sagemaker.stack import Stack, parameters_of, tuning_package
from likeness.errors import UsageError
from likeness.types import Photo

moto = pytest.importorskip("moto", reason="moto answers in place of AWS")
BUCKET = "likeness-test"


class Account(Aws):
    """Calls to one account that has nothing but a stack, if any; keeps what was asked."""

    def __init__(self, *, parameters: Mapping[str, str] | None = None, refuse: Mapping[str, Refused] | None = None):
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.waited: list[str] = []
        self._parameters, self._refuse = parameters, refuse or {}

    def call(self, service: str, operation: str, **arguments: Any) -> Mapping[str, Any]:
        if operation in self._refuse:
            raise self._refuse[operation]
        if operation == "create_stack":
            self._parameters = {}
        if operation == "describe_stacks":
            if self._parameters is None:
                raise Refused("Stack with id likeness does not exist", reason="ValidationError")
            kept = [{"ParameterKey": key, "ParameterValue": value} for key, value in self._parameters.items()]
            return {"Stacks": [{"Parameters": kept, "Outputs": [{"OutputKey": "Bucket", "OutputValue": BUCKET}]}]}
        self.asked.append((operation, arguments))
        return {}

    def wait(self, service: str, waiter: str, **arguments: Any) -> None:
        self.waited.append(waiter)

    def last(self, operation: str) -> Mapping[str, Any]:
        return [arguments for name, arguments in self.asked if name == operation][-1]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    with moto.mock_aws():
        made = Aws()
        place = {"LocationConstraint": "us-west-2"}
        made.call("s3", "create_bucket", Bucket=BUCKET, CreateBucketConfiguration=place)
        yield made


def test_a_new_stack_comes_before_its_package_and_its_endpoints() -> None:
    account = Account()
    assert Stack(account, "likeness", {"TuningInstance": "ml.g4dn.xlarge"}).deploy() == {"Bucket": BUCKET}
    assert [name for name, _ in account.asked] == ["create_stack", "put_object", "update_stack"]
    assert account.waited == ["stack_create_complete", "stack_update_complete"]
    put = account.last("put_object")
    assert put["Bucket"] == BUCKET
    assert account.last("update_stack")["Parameters"] == [
        {"ParameterKey": "PackageKey", "ParameterValue": put["Key"]},
        {"ParameterKey": "TuningInstance", "ParameterValue": "ml.g4dn.xlarge"},
    ]


def test_what_was_set_once_stays_set() -> None:
    account = Account(parameters={"PackageKey": "code/old.tar.gz", "NotificationEmail": "a@example.org"})
    Stack(account, "likeness").deploy()
    said = {one["ParameterKey"]: one for one in account.last("update_stack")["Parameters"]}
    assert said["NotificationEmail"] == {"ParameterKey": "NotificationEmail", "UsePreviousValue": True}
    assert said["PackageKey"]["ParameterValue"] == account.last("put_object")["Key"]


def test_nothing_to_change_is_no_failure_and_anything_else_is() -> None:
    nothing = Refused("cloudformation: No updates are to be performed.", reason="ValidationError")
    account = Account(parameters={}, refuse={"update_stack": nothing})
    assert Stack(account, "likeness").deploy() == {"Bucket": BUCKET} and account.waited == []
    with pytest.raises(Refused, match="permissions"):
        Stack(
            Account(parameters={}, refuse={"update_stack": Refused("no", reason="AccessDenied")}), "likeness"
        ).deploy()


def test_an_endpoint_that_is_not_there_is_said_so() -> None:
    with pytest.raises(HostUnavailable, match="expected a stack with this endpoint"):
        Stack(Account(parameters={}), "likeness").endpoint("HostingEndpoint")
    with pytest.raises(HostUnavailable, match="no such stack"):
        Stack(Account(), "likeness").status()


def test_data_is_deleted_only_when_asked_for(aws: Aws) -> None:
    with_objects = Account(parameters={})
    assert Stack(with_objects, "likeness").teardown() == BUCKET
    assert [name for name, _ in with_objects.asked] == ["delete_stack"]

    class Both(Account):
        def call(self, service: str, operation: str, **arguments: Any) -> Mapping[str, Any]:
            if service == "s3":
                return aws.call(service, operation, **arguments)
            return super().call(service, operation, **arguments)

    aws.call("s3", "put_object", Bucket=BUCKET, Key="models/anna.tar.gz", Body=b"x")
    Stack(Both(parameters={}), "likeness").teardown(with_data=True)
    with pytest.raises(Refused) as gone:
        aws.call("s3", "head_bucket", Bucket=BUCKET)
    assert gone.value.reason == "404"


def test_the_package_is_the_same_every_time_and_holds_djls_two_files(tmp_path: Path) -> None:
    assert tuning_package() == tuning_package()
    unpacked = unpack(tuning_package(), tmp_path / "package")
    assert {path.name for path in unpacked.iterdir()} >= {"model.py", "serving.properties"}


def test_photographs_travel_as_one_archive_to_the_asynchronous_endpoint(aws: Aws) -> None:
    """The runtime's answer is moto's own; what counts are the object and that boto3 takes the arguments."""

    class Tuned(Stack):
        def outputs(self) -> dict[str, str]:
            return {"Bucket": BUCKET, "TuningEndpoint": "tuning"}

    queued = client.fine_tune(Tuned(aws, "likeness"), [Photo("me.jpg", b"\xff\xd8 no more")], {"name": "anna"})
    assert queued["output_location"].startswith("s3://")
    objects = aws.call("s3", "list_objects_v2", Bucket=BUCKET)["Contents"]
    body = aws.call("s3", "get_object", Bucket=BUCKET, Key=objects[0]["Key"])["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert archive.getnames() == ["000-me.jpg", "config.json"]
        config = archive.extractfile("config.json")
        assert config is not None and json.load(config) == {"name": "anna"}


def test_waiting_ends_with_the_result_the_failure_or_the_time(aws: Aws) -> None:
    places = {name: f"s3://{BUCKET}/outputs/{name}" for name in ("output_location", "failure_location")}
    with pytest.raises(HostUnavailable, match="in time"):
        client.wait_for(aws, places, limit_s=0, poll_s=0)
    aws.call("s3", "put_object", Bucket=BUCKET, Key="outputs/failure_location", Body=b"NonFiniteLoss")
    with pytest.raises(ModelFailed, match="NonFiniteLoss"):
        client.wait_for(aws, places, limit_s=1, poll_s=0)
    aws.call("s3", "put_object", Bucket=BUCKET, Key="outputs/output_location", Body=b'{"status": "Completed"}')
    assert client.wait_for(aws, places, limit_s=1, poll_s=0) == {"status": "Completed"}


def test_aws_that_refuses_or_is_away_is_an_error_of_ours(aws: Aws) -> None:
    with pytest.raises(Refused) as refused:
        aws.call("s3", "get_object", Bucket=BUCKET, Key="nothing")
    assert refused.value.reason == "NoSuchKey"
    with pytest.raises(HostUnavailable, match="ParamValidationError"):
        aws.call("cloudformation", "describe_stacks", StackName=3)


@pytest.mark.parametrize(
    ("words", "calls"),
    [
        (["deploy"], ["cloudformation.create_stack", "s3.put_object", "cloudformation.update_stack"]),
        (["teardown", "--with-data"], ["cloudformation.delete_stack", "s3.list_objects_v2", "s3.delete_bucket"]),
        (["invoke", "anna-1.tar.gz", "a knight", "--out", "knight.jpg"], ["sagemaker-runtime.invoke_endpoint"]),
    ],
)
def test_a_rehearsal_shows_every_call(
    words: list[str], calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(app, ["deploy", "sagemaker", *words, "--dry-run"])
    assert ran.exit_code == 0, ran.output
    places = [ran.output.find(f"{call}(") for call in calls]
    assert places == sorted(places) and places[0] >= 0
    assert list(tmp_path.iterdir()) == []
    if words == ["deploy"]:
        template = resources.files("likeness.deploy.sagemaker") / "template.yaml"
        assert template.read_text() in ran.output
    assert "num_inference_steps" not in ran.output  # the base's own, unless given


def test_a_package_is_everything_that_an_account_needs(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["--json", "deploy", "sagemaker", "package", "--out", str(tmp_path / "package")])
    assert ran.exit_code == 0, ran.output
    files = json.loads(ran.stdout)["files"]
    assert files == sorted(path.name for path in (tmp_path / "package").iterdir())
    assert files == ["Dockerfile", "fine-tuning.tar.gz", "template.yaml"]


def test_parameters_are_pairs() -> None:
    assert parameters_of(["A=b=c", "B="]) == {"A": "b=c", "B": ""}
    with pytest.raises(UsageError, match="NAME=VALUE"):
        parameters_of(["A"])


def test_without_boto3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    ran = CliRunner().invoke(app, ["--json", "deploy", "sagemaker", "status"])
    error = json.loads(ran.stdout)["error"]
    assert (ran.exit_code, error["code"], error["hint"]) == (1, "MissingPart", "pip install 'likeness[deploy]'")
