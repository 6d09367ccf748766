"""Runs a network of TensorFlow Lite on one core, with LiteRT, and prepares its input. Independent of the network."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import MissingPart

Tensor = NDArray[np.float32]

_FIRST = threading.Lock()
CHATTER = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"


class Network:
    """A network with its buffers; calls from several threads run one after the other.

    Args:
        content: of a `.tflite` file.

    Raises:
        MissingPart: LiteRT is not installed.
    """

    def __init__(self, content: bytes) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingPart(
                "expected the package ai-edge-litert, which is not installed",
                hint="install likeness with all its requirements",
            ) from error
        with _FIRST, without_chatter():
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()
        self._inputs = [detail["index"] for detail in self._interpreter.get_input_details()]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]
        self._lock = threading.Lock()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """The outputs, in the order of the file; each input has the shape of the file."""
        with self._lock:
            for index, tensor in zip(self._inputs, inputs, strict=True):
                self._interpreter.set_tensor(index, tensor)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._outputs]


def part_of(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The operators of a model that lead from some of its tensors to others, as a `.tflite` file.

    Args:
        model: a `ModelT` of TensorFlow Lite's schema; its list of operators is left as it was.
        inputs, outputs: names of tensors.
    """
    import flatbuffers

    graph = model.subgraphs[0]
    number = {tensor.name.decode(): place for place, tensor in enumerate(graph.tensors)}
    given, wanted = [number[name] for name in inputs], [number[name] for name in outputs]
    needed, kept = set(wanted), []
    for operator in reversed(graph.operators):
        if needed & set(operator.outputs) - set(given):
            kept.append(operator)
            needed.update(operator.inputs)
    whole = graph.inputs, graph.outputs, graph.operators
    graph.inputs, graph.outputs, graph.operators = given, wanted, kept[::-1]
    builder = flatbuffers.Builder(1 << 22)
    builder.Finish(model.Pack(builder), b"TFL3")
    graph.inputs, graph.outputs, graph.operators = whole
    return bytes(builder.Output())


def sampled(
    image: NDArray[np.uint8], centre_px: tuple[float, float], size_px: tuple[float, float], *,
    side_px: int, angle_rad: float = 0.0, span: tuple[float, float] = (0.0, 1.0), border: int = cv2.BORDER_REPLICATE,
) -> Tensor:  # fmt: skip
    """A rotated rectangle of an image as a network's input (1, side_px, side_px, 3), bilinear.

    Args:
        image: (H, W, 3) RGB, 0..255.
        size_px: width and height of the rectangle in the image.
        angle_rad: of the rectangle, clockwise in the image.
        span: what 0 and 255 become.
        border: how OpenCV continues the image beyond its edges.

    Source: MediaPipe's ImageToTensorCalculator.
    """
    corners = cv2.boxPoints((centre_px, size_px, float(np.degrees(angle_rad))))  # from bottom left, clockwise
    side = float(side_px)
    to = np.array([[0, side], [0, 0], [side, 0], [side, side]], np.float32)
    pixels = cv2.warpPerspective(
        image, cv2.getPerspectiveTransform(corners, to), (side_px, side_px), flags=cv2.INTER_LINEAR, borderMode=border
    )
    low, high = span
    return (pixels.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low))[None]


@contextmanager
def without_chatter() -> Iterator[None]:
    """Remove one line from standard error, which LiteRT writes once per process; all others are written afterwards.

    LiteRT has no setting for it and writes to the file descriptor, so replacing `sys.stderr` has no effect.
    """
    try:
        kept = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            os.write(2, caught.read().replace(CHATTER, b""))
