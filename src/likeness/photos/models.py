"""The files of MediaPipe's networks, which `likeness.photos.fetch` places beside the installed packages.

They are those of mediapipe 0.10.21 (Apache-2.0), the last version whose wheels contain them. No other part of that
package is used.

Sources: Bazarevsky et al., 'BlazeFace', 2019; Grishchenko et al., 'Attention Mesh', 2020; model cards of MediaPipe's
face detection, face mesh and selfie segmentation.
"""

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from ..errors import MissingPart

HINT = "python -m likeness.photos.fetch"


@dataclass(frozen=True)
class ModelFile:
    """A file of the wheel, under `mediapipe/modules`."""

    path: str
    sha256: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


FACES_NEAR = ModelFile(
    "face_detection/face_detection_short_range.tflite",
    "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
)
FACES_FAR = ModelFile(
    "face_detection/face_detection_full_range_sparse.tflite",
    "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
)
FACE_MESH = ModelFile(
    "face_landmark/face_landmark_with_attention.tflite",
    "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4",
)
SELFIE = ModelFile(
    "selfie_segmentation/selfie_segmentation.tflite",
    "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
)
FILES = (FACES_NEAR, FACES_FAR, FACE_MESH, SELFIE)


def folder() -> Path:
    """Where the files are: in this Python environment, so that all checkouts which share it find them."""
    return Path(sysconfig.get_path("data"), "share", "likeness", "models")


def is_intact(file: ModelFile, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == file.sha256


def read(file: ModelFile) -> bytes:
    """The content of a file. Raises MissingPart: it is not there, or it is another one."""
    path = folder() / file.name
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingPart(f"expected the model file {file.name}, which is not installed", hint=HINT) from error
    if not is_intact(file, content):
        raise MissingPart(f"expected the model file {file.name} as released, got another one", hint=HINT)
    return content
