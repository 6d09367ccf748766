"""The demo has its own home, resumes or starts again, and can be stopped. On a tiny base, with images of noise."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from likeness.commands import demo
from likeness.config import Settings
from likeness.errors import Interrupted
from likeness.service import Likeness, build
from likeness.training.recipe import recipe_named
from likeness.types import Advance

RECIPE = replace(
    recipe_named("fast", steps=3, class_images=2, variants=1, rank=2, alpha=2), instance_rows=2, prior_rows=1
)


@pytest.fixture(scope="module")
def base(tiny_base_folder: Path) -> str:
    return str(tiny_base_folder)


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo, "CLASS_NOUN", "dog")  # noise without a face
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 255, (300, 280, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.jpg")
    return tmp_path


@pytest.fixture
def likeness(base: str, tmp_path: Path) -> Iterator[Likeness]:
    settings = Settings(home=tmp_path / "own", base=base, objects="s3://somewhere/else", catalog="postgresql://else")
    made = build(demo.demo_settings(settings, tmp_path / "out"))
    yield made
    made.close()


def stopping(stage: str) -> tuple[Callable[[Advance], None], Callable[[], bool]]:
    """Asks to stop as soon as something of this stage is done."""
    seen: list[Advance] = []
    return seen.append, lambda: any(advance.stage == stage and advance.done > 0 for advance in seen)


def test_another_demo_after_an_interrupted_one_begins_anew_in_a_home_of_its_own(
    likeness: Likeness, things: Path, tmp_path: Path
) -> None:
    watch, should_stop = stopping("train")
    with pytest.raises(Interrupted, match="step 1 of 3"):
        demo.run_demo(likeness, tmp_path / "out", recipe=RECIPE, photos=[things], watch=watch, should_stop=should_stop)
    signed = replace(likeness, sign=lambda content, media_type: content + b"signed")
    result = demo.run_demo(signed, tmp_path / "out", recipe=RECIPE, photos=[things], seed=1)
    assert (result.tuned.card.seed, len(result.tuned.losses)) == (1, 3)
    assert result.home == tmp_path / "out" / "home"
    assert not (tmp_path / "own").exists()
    assert all(path.read_bytes().endswith(b"signed") for path in result.images)


def test_it_stops_between_portraits(likeness: Likeness, things: Path, tmp_path: Path) -> None:
    watch, should_stop = stopping("generate")
    with pytest.raises(Interrupted, match="portraits") as caught:
        demo.run_demo(likeness, tmp_path / "out", recipe=RECIPE, photos=[things], watch=watch, should_stop=should_stop)
    assert caught.value.exit_code == 130
    assert not (tmp_path / "out" / "report.html").exists()
