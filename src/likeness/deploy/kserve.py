"""KServe's inference protocol, version 2, for texts: the JSON form and Triton's binary form.

Sources: Open Inference Protocol, 'Inference REST'; Triton's 'Binary Tensor Data Extension' (a BYTES element is its
length, 4 bytes little-endian, then its bytes).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import UsageError

BINARY = "application/vnd.sagemaker-triton.binary+json"
MAX_TENSORS = 16
MAX_BATCH = 8  # as the reference solution's config.pbtxt
_HEADER_SIZE = re.compile(rf"{re.escape(BINARY)}; ?json-header-size=([0-9]{{1,8}})")


@dataclass(frozen=True)
class Inference:
    """One request: named columns of texts, all of the same length."""

    inputs: Mapping[str, Sequence[str]]
    binary_output: bool

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))


def read(body: bytes, content_type: str) -> Inference:
    """Parse a request.

    Raises:
        UsageError: not a JSON object, tensors other than BYTES [B, 1] with B from 1 to 8, different lengths, duplicate
            names, binary sizes that do not fit.
    """
    header, rest = _split(body, content_type)
    try:
        document = json.loads(header)
    except (ValueError, RecursionError) as error:  # wrong UTF-8 and numbers of thousands of digits are ValueErrors
        raise UsageError(f"expected a JSON object, got {type(error).__name__}") from None
    if not isinstance(document, dict):
        raise UsageError(f"expected a JSON object, got {type(document).__name__}")
    entries = document.get("inputs")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_TENSORS:
        raise UsageError(f"expected `inputs`: a list of 1 to {MAX_TENSORS} tensors")
    inputs: dict[str, Sequence[str]] = {}
    for entry in entries:
        name, texts, rest = _tensor(entry, rest)
        if name in inputs:
            raise UsageError("expected each input once, got one twice")
        inputs[name] = texts
    if rest:
        raise UsageError("expected no bytes after the last tensor")
    if len({len(texts) for texts in inputs.values()}) != 1:
        raise UsageError("expected inputs of the same length")
    return Inference(inputs, _wants_binary(document))


def write(model: str, columns: Mapping[str, Sequence[str]], *, binary: bool) -> tuple[bytes, str]:
    """Output columns, BYTES [B, 1] each, in their order: body and content type."""
    outputs: list[dict[str, object]] = []
    raw = b""
    for name, texts in columns.items():
        output: dict[str, object] = {"name": name, "datatype": "BYTES", "shape": [len(texts), 1]}
        if binary:
            column = b"".join(len(text).to_bytes(4, "little") + text for text in (text.encode() for text in texts))
            output["parameters"] = {"binary_data_size": len(column)}
            raw += column
        else:
            output["data"] = list(texts)
        outputs.append(output)
    header = json.dumps({"model_name": model, "model_version": "1", "outputs": outputs}).encode()
    return (header + raw, f"{BINARY};json-header-size={len(header)}") if binary else (header, "application/json")


def _split(body: bytes, content_type: str) -> tuple[bytes, bytes]:
    """The JSON header and the bytes after it."""
    if not content_type.startswith(BINARY):
        return body, b""
    found = _HEADER_SIZE.fullmatch(content_type)
    if found is None or int(found[1]) > len(body):
        raise UsageError("expected json-header-size within the body")
    size = int(found[1])
    return body[:size], body[size:]


def _tensor(entry: object, rest: bytes) -> tuple[str, Sequence[str], bytes]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or entry.get("datatype") != "BYTES":
        raise UsageError("expected inputs with a name, of datatype BYTES")
    shape = entry.get("shape")
    count = shape[0] if isinstance(shape, list) and shape else None
    if type(count) is not int or not 1 <= count <= MAX_BATCH or shape not in ([count], [count, 1]):
        raise UsageError(f"expected inputs of shape [B, 1], B from 1 to {MAX_BATCH}")
    parameters = entry.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        texts = _flat(entry.get("data"))
    elif type(size) is int and 0 <= size <= len(rest):
        texts, rest = _elements(rest[:size], count), rest[size:]
    else:
        raise UsageError("expected binary_data_size within the body")
    if len(texts) != count:
        raise UsageError("expected as many elements as the shape says")
    return entry["name"], texts, rest


def _flat(data: object) -> Sequence[str]:
    """[x, ...] and [[x], ...] both."""
    if isinstance(data, list) and len(data) <= MAX_BATCH:
        flat = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in data]
        if all(isinstance(item, str) for item in flat):
            return flat
    raise UsageError(f"expected `data`: a list of at most {MAX_BATCH} texts")


def _elements(raw: bytes, count: int) -> Sequence[str]:
    texts, at = [], 0
    for _ in range(count):
        size = int.from_bytes(raw[at : at + 4], "little")
        element = raw[at + 4 : at + 4 + size]
        if at + 4 > len(raw) or len(element) != size:
            raise UsageError("expected each BYTES element after its length")
        try:
            texts.append(element.decode())
        except UnicodeDecodeError:
            raise UsageError("expected BYTES elements in UTF-8") from None
        at += 4 + size
    if at != len(raw):
        raise UsageError("expected as many BYTES elements as the shape says")
    return texts


def _wants_binary(document: Mapping[str, object]) -> bool:
    parameters = document.get("parameters")
    if isinstance(parameters, dict) and parameters.get("binary_data_output") is True:
        return True
    outputs = document.get("outputs")
    each = [one.get("parameters") for one in outputs if isinstance(one, dict)] if isinstance(outputs, list) else []
    return any(isinstance(one, dict) and one.get("binary_data") is True for one in each)
