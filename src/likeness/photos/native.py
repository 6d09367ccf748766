"""The graphs and networks of mediapipe and dlib: loaded once at first use, one caller at a time, without start-up logs.

Objects of both libraries have internal buffers, so all calls share one lock. This module does not interpret results.

Models: mediapipe 0.10.21 contains BlazeFace, Face Mesh with attention and the selfie segmenter (Apache-2.0);
`face_recognition_models` contains dlib's ResNet (public domain). The package is located, never imported: its code needs
`pkg_resources`, which newer installations do not have.
"""

import functools
import importlib
import importlib.util
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import MissingPart

LOCK = threading.RLock()

# Lines that TensorFlow Lite and Abseil write to file descriptor 2 when a graph starts.
_CHATTER = re.compile(rb"^(?:[IW]\d{4} \d\d:|INFO: Created TensorFlow|WARNING: All log messages before absl)")


@contextmanager
def quiet() -> Iterator[None]:
    """Remove the libraries' start-up lines from standard error; all other lines are written afterwards.

    The libraries write to the file descriptor directly, so replacing `sys.stderr` has no effect.
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
            lines = caught.read().splitlines(keepends=True)
            os.write(2, b"".join(line for line in lines if not _CHATTER.match(line)))


@functools.cache
def face_finder(model: int) -> Any:
    """BlazeFace: 0 for faces within 2 m of the camera, 1 within 5 m."""
    return _solution("face_detection").FaceDetection(model_selection=model, min_detection_confidence=0.5)


@functools.cache
def face_mesh() -> Any:
    """478 landmarks. A detector has found the face before, so the mesh's own threshold is low."""
    return _solution("face_mesh").FaceMesh(
        static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.2
    )


@functools.cache
def selfie_segmenter() -> Any:
    """The 256 x 256 person segmenter; run once on an empty image, because it logs its warnings then."""
    with quiet():
        segmenter = _solution("selfie_segmentation").SelfieSegmentation(model_selection=0)
        segmenter.process(np.zeros((16, 16, 3), dtype=np.uint8))
    return segmenter


@functools.cache
def face_recogniser() -> Any:
    """dlib's ResNet: a 150x150 face chip -> 128 numbers."""
    dlib = _module("dlib")
    return dlib.face_recognition_model_v1(str(_weights("dlib_face_recognition_resnet_model_v1.dat")))


def dlib_module() -> Any:
    return _module("dlib")


def _solution(name: str) -> Any:
    return _module(f"mediapipe.python.solutions.{name}")


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPart(
            f"expected the package {name.partition('.')[0]}, which is not installed",
            hint="install likeness with all its requirements",
        ) from error


def _weights(file_name: str) -> Path:
    spec = importlib.util.find_spec("face_recognition_models")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "models", file_name)
        if path.is_file():
            return path
    raise MissingPart(
        "expected the weights of face_recognition_models, which are not installed",
        hint="install face_recognition_models",
    )
