"""Photographs in, prepared photographs out.

    paths -> read_photos -> check -> prepare -> vary_background, styled

This package does not import torch. Importing it loads no network: LiteRT and dlib are loaded at the first face.
"""

from .archive import Limits, read_archive, read_photos
from .backgrounds import vary_background
from .checks import check, refusal_of_file, refuse_too_many
from .clean import clean_copy, is_clean
from .decode import decode, looks_like_image
from .descriptor import SAME_PERSON, descriptor, distance
from .face import Face, FaceDetector, MediaPipeFaces
from .guide import guide
from .identity import choose
from .prepare import prepare, prepare_usable
from .report import CheckResult, PhotoReport, Reason, SetReport, Usable
from .styles import styled

__all__ = [
    "SAME_PERSON",
    "CheckResult",
    "Face",
    "FaceDetector",
    "Limits",
    "MediaPipeFaces",
    "PhotoReport",
    "Reason",
    "SetReport",
    "Usable",
    "check",
    "choose",
    "clean_copy",
    "decode",
    "descriptor",
    "distance",
    "guide",
    "is_clean",
    "looks_like_image",
    "prepare",
    "prepare_usable",
    "read_archive",
    "read_photos",
    "refusal_of_file",
    "refuse_too_many",
    "styled",
    "vary_background",
]
