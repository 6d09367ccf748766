"""safetensors bytes <-> numpy arrays, for untrusted input.

The format: https://github.com/huggingface/safetensors#format (8 bytes of header length, a JSON header, the
tensors' bytes). The writer is our own, because the library writes metadata in random order and equal adapters must
give equal bytes. The library reads, and checks that the offsets cover the file exactly. Independent of LoRA.
"""

import json
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from ..errors import CorruptAdapter, InputRefused
from .card import single_keys

MAX_FILE_BYTES = 1 << 30
MAX_HEADER_BYTES = 4 << 20  # about 10,000 tensors
_PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_ZIP_START = 4096  # torch writes data.pkl first
_NAMES = {"float16": "F16", "float32": "F32"}
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
# bits of the mantissa, and whether the largest exponent is infinity and NaN (Micikevicius et al. 2022, 'FP8 Formats')
_EIGHT_BITS = {"F8_E4M3": (3, False), "F8_E5M2": (2, True)}
_HINT = "use an intact copy, or save it again as safetensors"

Tensors = dict[str, NDArray[np.floating]]


def encode(tensors: Mapping[str, NDArray[np.floating]], metadata: Mapping[str, str]) -> bytes:
    """float16 and float32 arrays as safetensors bytes; equal input gives equal bytes.

    Raises:
        CorruptAdapter: an array has another type.
    """
    for array in tensors.values():
        if array.dtype.name not in _NAMES:
            raise CorruptAdapter(f"expected float16 or float32 weights, got {array.dtype.name}")
    # With wide types first, every tensor is aligned to its own size.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    chunks: list[bytes] = []
    end = 0
    for name in names:
        array = tensors[name]
        chunks.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        begin, end = end, end + len(chunks[-1])
        header[name] = {"dtype": _NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *chunks])


def decode(content: bytes) -> tuple[Tensors, dict[str, str]]:
    """Arrays and metadata of a safetensors file. bfloat16 and 8-bit floats become float32, which holds them exactly.

    Raises:
        CorruptAdapter: a pickle, truncated, too large, not safetensors, or a repeated tensor.
        InputRefused: a zip, or integer tensors.
    """
    if content.startswith(b"PK") and b"data.pkl" not in content[:_ZIP_START]:
        raise InputRefused(
            "expected safetensors, got a zip archive",
            hint="unpack it and use the .safetensors file",
            code="UnsupportedAdapter",
        )
    is_length = content[3:9] == bytes(5) + b"{"  # of a header of 640 bytes, for example; in a pickle no opcode is 0
    if content.startswith(_PICKLE_STARTS) and not is_length:
        raise CorruptAdapter("expected safetensors, got a pickle, which can run code when it is opened", hint=_HINT)
    header_bytes = int.from_bytes(content[:8], "little")
    if not 2 <= header_bytes <= min(MAX_HEADER_BYTES, len(content) - 8):
        raise CorruptAdapter(
            f"expected safetensors with a header of 2 to {MAX_HEADER_BYTES} bytes inside the file; "
            f"the header says {header_bytes} and the file has {len(content)} bytes",
            hint=_HINT,
        )
    try:
        entries = deserialize(content)
        header = json.loads(content[8 : 8 + header_bytes], object_pairs_hook=single_keys)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CorruptAdapter(f"expected safetensors, got {type(error).__name__}", hint=_HINT) from None
    arrays = {name: _array(entry["dtype"], entry["shape"], entry["data"]) for name, entry in entries}
    return arrays, header.get("__metadata__") or {}


def read_file(path: Path) -> tuple[Tensors, dict[str, str]]:
    """`decode` of a file.

    Raises:
        CorruptAdapter: as `decode`; or the suffix is that of a pickle; or the file is missing, a link or above 1 GiB.
    """
    refuse_pickle_name(path)
    return decode(read_bytes(path, limit=MAX_FILE_BYTES))


def refuse_pickle_name(path: Path) -> None:
    """Raises CorruptAdapter for file names of pickles."""
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise CorruptAdapter("expected a .safetensors file, got the file name of a pickle", hint=_HINT)


def read_bytes(path: Path, *, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        CorruptAdapter: missing, not a regular file (a link, a pipe), or longer.
    """
    try:
        status = path.lstat()
    except (OSError, ValueError) as error:
        raise CorruptAdapter(f"expected an adapter's file, got {type(error).__name__}", hint=_HINT) from None
    if not stat.S_ISREG(status.st_mode):
        raise CorruptAdapter("expected a regular file, got a link, a folder or a device", hint=_HINT)
    if status.st_size > limit:
        raise CorruptAdapter(f"expected at most {limit} bytes, got a file of {status.st_size}", hint=_HINT)
    return path.read_bytes()


def _array(dtype: str, shape: list[int], content: bytes) -> NDArray[np.floating]:
    if dtype == "BF16":  # the upper 16 bits of a float32: https://en.wikipedia.org/wiki/Bfloat16_floating-point_format
        halves = np.frombuffer(content, "<u2").astype(np.uint32)
        return (halves << 16).view(np.float32).reshape(shape)
    if dtype in _EIGHT_BITS:
        return _eight_bits(*_EIGHT_BITS[dtype])[np.frombuffer(content, np.uint8)].reshape(shape)
    if dtype not in _DTYPES:
        raise InputRefused(
            "expected tensors of 8, 16, 32 or 64-bit floats, got integers or another type",
            hint="save it again in float16",
            code="UnsupportedAdapter",
        )
    array: NDArray[np.floating] = np.frombuffer(content, _DTYPES[dtype]).reshape(shape)
    return array.astype(np.float32) if dtype == "F64" else array


@cache
def _eight_bits(mantissa_bits: int, has_infinity: bool) -> NDArray[np.float32]:
    """The 256 numbers of a type of 8 bits, by their bits."""
    bits = np.arange(256)
    steps = 1 << mantissa_bits
    exponent, mantissa = (bits & 0x7F) >> mantissa_bits, bits & (steps - 1)
    largest = 0x7F >> mantissa_bits
    bias = largest // 2
    fraction = np.where(exponent == 0, mantissa / steps, 1 + mantissa / steps)
    values = np.where(bits < 128, 1.0, -1.0) * fraction * 2.0 ** (np.maximum(exponent, 1) - bias)
    if has_infinity:
        values = np.where(exponent == largest, np.where(mantissa == 0, np.copysign(np.inf, values), np.nan), values)
    else:
        values = np.where((bits & 0x7F) == 0x7F, np.nan, values)
    return values.astype(np.float32)
