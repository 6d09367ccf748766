"""The CloudFormation template: valid, without rights that nobody needs, and as the documentation says."""

import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from fixtures.waiting import HANG_S

PATH = Path(str(resources.files("likeness.deploy.sagemaker") / "template.yaml"))


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    decode = pytest.importorskip("cfnlint.decode", reason="cfn-lint reads CloudFormation's YAML")
    read, problems = decode.decode(str(PATH))
    assert problems == []
    plain: dict[str, Any] = json.loads(json.dumps(read))
    return plain


def statements(template: dict[str, Any], resource: str) -> list[dict[str, Any]]:
    properties = template["Resources"][resource]["Properties"]
    documents = [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
    documents += [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
    return [statement for document in documents for statement in document["Statement"]]


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What one run of cfn-lint finds in the template, and in the same with a misspelt key; by file name."""
    command = shutil.which("cfn-lint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if command is None:
        pytest.skip("cfn-lint is not installed")
    wrong = tmp_path_factory.mktemp("cfn") / "wrong.yaml"
    wrong.write_text(PATH.read_text().replace("MaxConcurrentInvocationsPerInstance", "MaxConcurrentInvocations"))
    words = [command, "--format", "parseable", "--", str(PATH), str(wrong)]
    lines = subprocess.run(words, capture_output=True, text=True, timeout=HANG_S).stdout.splitlines()
    return {path.name: [line for line in lines if line.startswith(f"{path}:")] for path in (PATH, wrong)}


def test_cfn_lint_has_nothing_to_say_of_the_template_and_sees_a_misspelt_key(findings: dict[str, list[str]]) -> None:
    assert findings[PATH.name] == []
    assert any("MaxConcurrentInvocations" in line for line in findings["wrong.yaml"])


@pytest.mark.parametrize("resource", ["ContainerPolicy", "TuningRole", "HostingRole"])
def test_no_right_is_wider_than_its_purpose(template: dict[str, Any], resource: str) -> None:
    anywhere = {"cloudwatch:PutMetricData", "ecr:GetAuthorizationToken"}  # AWS knows no narrower resource for these
    for statement in statements(template, resource):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not [action for action in actions if "*" in action or action.startswith("iam:")]
        assert statement["Resource"] != "*" or set(actions) <= anywhere


def test_hosting_reads_adapters_only(template: dict[str, Any]) -> None:
    assert [(one["Action"], one["Resource"]) for one in statements(template, "HostingRole")] == [
        ("s3:GetObject", {"Fn::Sub": "${Bucket.Arn}/models/*"})
    ]


def test_fine_tuning_sleeps_at_zero_and_is_woken(template: dict[str, Any]) -> None:
    resources = template["Resources"]
    assert resources["TuningScale"]["Properties"]["MinCapacity"] == 0
    config = resources["TuningConfig"]["Properties"]["AsyncInferenceConfig"]
    assert config["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 2}
    alarm = resources["TuningIsAsleep"]["Properties"]
    assert (alarm["MetricName"], alarm["AlarmActions"]) == ("HasBacklogWithoutCapacity", [{"Ref": "TuningWakes"}])


def test_data_outlives_the_stack_and_photographs_do_not_stay(template: dict[str, Any]) -> None:
    bucket = template["Resources"]["Bucket"]
    assert (bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]) == ("Retain", "Retain")
    rules = bucket["Properties"]["LifecycleConfiguration"]["Rules"]
    assert {rule["Prefix"] for rule in rules if "ExpirationInDays" in rule} == {"inputs/", "outputs/"}
