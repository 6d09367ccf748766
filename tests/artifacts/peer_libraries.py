"""Libraries that read our files and write files that are read, imported without their own deprecation warnings."""

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
