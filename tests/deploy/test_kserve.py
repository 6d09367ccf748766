"""KServe's protocol: every request is parsed or refused, and both forms of a response can be read back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likeness.deploy import kserve
from likeness.errors import UsageError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["inputs", "name", "shape", "datatype", "data", "parameters", "binary_data_size", "outputs", "binary_data"]
    ), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip
TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=kserve.MAX_BATCH)


def binary(texts: list[str], name: str = "prompt") -> tuple[dict[str, object], bytes]:
    raw = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in texts)
    size = {"binary_data_size": len(raw)}
    return {"name": name, "shape": [len(texts), 1], "datatype": "BYTES", "parameters": size}, raw


@given(TEXTS)
def test_both_forms_say_the_same(texts: list[str]) -> None:
    plain = {"inputs": [{"name": "prompt", "shape": [len(texts), 1], "datatype": "BYTES", "data": texts}]}
    assert kserve.read(json.dumps(plain).encode(), "application/json").inputs == {"prompt": texts}
    entry, raw = binary(texts)
    header = json.dumps({"inputs": [entry]}).encode()
    kind = f"{kserve.BINARY};json-header-size={len(header)}"
    assert kserve.read(header + raw, kind).inputs == {"prompt": texts}


@given(TEXTS, st.booleans())
def test_an_answer_can_be_read_again(texts: list[str], is_binary: bool) -> None:
    body, kind = kserve.write("anna", {"generated_image": texts, "warnings": texts[::-1]}, binary=is_binary)
    size = int(kind.rpartition("=")[2]) if is_binary else len(body)
    outputs = json.loads(body[:size])["outputs"]
    asked = json.dumps({"inputs": outputs}).encode()
    again = kserve.read(asked + body[size:], f"{kserve.BINARY};json-header-size={len(asked)}")
    assert again.inputs == {"generated_image": texts, "warnings": texts[::-1]}


@given(JSON)
def test_whatever_json_comes_is_read_or_refused(document: object) -> None:
    try:
        got = kserve.read(json.dumps(document).encode(), "application/json")
    except UsageError:
        return
    assert 1 <= got.rows <= kserve.MAX_BATCH


@given(st.binary(max_size=200), st.integers(0, 250))
def test_whatever_bytes_come_are_read_or_refused(body: bytes, size: int) -> None:
    for kind in ("application/octet-stream", f"{kserve.BINARY};json-header-size={size}", kserve.BINARY, ""):
        with pytest.raises(UsageError):
            kserve.read(body, kind)


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=3), st.integers(-2, 40))
def test_binary_sizes_that_lie_are_refused(elements: list[bytes], lie: int) -> None:
    entry, _ = binary(["x"] * len(elements))
    raw = b"".join(elements)
    header = json.dumps({"inputs": [entry | {"parameters": {"binary_data_size": lie}}]}).encode()
    try:
        got = kserve.read(header + raw, f"{kserve.BINARY};json-header-size={len(header)}")
    except UsageError:
        return
    assert sum(4 + len(text.encode()) for text in got.inputs["prompt"]) == lie == len(raw)


def test_a_binary_answer_is_given_to_whoever_asks() -> None:
    entry, raw = binary(["x"])
    for asked in ({"parameters": {"binary_data_output": True}}, {"outputs": [{"parameters": {"binary_data": True}}]}):
        header = json.dumps({"inputs": [entry], **asked}).encode()
        assert kserve.read(header + raw, f"{kserve.BINARY};json-header-size={len(header)}").binary_output
