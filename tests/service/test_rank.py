"""The installation limits the rank of changed recipes and imports; all else is served, whatever the engine holds."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.people import person
from likeness.config import Settings
from likeness.engine.engine import Engine
from likeness.errors import Mismatch
from likeness.jobs.job import JobOrder
from likeness.service import Likeness, build
from likeness.training.recipe import LARGEST_PRESET_RANK, PRESETS, FineTuneOrder, recipe_named
from likeness.types import Adapter, ImageRequest, Subject, blend_of

MOST = Settings().rank


@pytest.fixture(scope="module")
def likeness(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Path) -> Iterator[Likeness]:
    """With an engine that was started before any adapter was published."""
    made = build(Settings(home=tmp_path_factory.mktemp("home"), base=str(tiny_base_folder)))
    made.open()
    yield made
    made.close()


def with_rank(likeness: Likeness, rank: int) -> Likeness:
    """The same with another policy."""
    settings = replace(likeness.settings, rank=rank)
    return Likeness(settings, likeness.home, likeness.library, likeness.subjects, likeness.sign)


def published(likeness: Likeness, name: str, rank: int) -> Adapter:
    adapter = person(likeness.base, name, 1, rank=rank)
    likeness.library.publish(adapter, "local", replace=True)
    return adapter


@pytest.mark.parametrize("rank", sorted({1, MOST, *(one.rank for one in PRESETS.values())}))
def test_what_may_be_trained_is_served_without_a_restart(likeness: Likeness, rank: int) -> None:
    published(likeness, "anna", rank)
    (image,) = likeness.generate([ImageRequest("photo of {me}", blend_of("anna"), steps=1)])
    assert image.adapter_sha256 == likeness.catalog.content_sha256("local", "anna")


@pytest.mark.parametrize("recipe", PRESETS)
def test_every_recipe_is_taken_as_it_is(likeness: Likeness, recipe: str) -> None:
    asked = JobOrder("local", f"as-{recipe}", "somewhere", class_noun="dog", recipe=recipe)
    job = likeness.training.submit(asked, archive=b"x")
    likeness.training.queue.cancel(job.id, "local")


@pytest.mark.parametrize(
    "order",
    [
        {"changes": {"rank": MOST + 1, "alpha": 1}},
        {"recipe": "origin-2023", "changes": {"rank": PRESETS["origin-2023"].rank + 1}},
    ],
)
def test_a_larger_rank_is_refused_before_any_work(likeness: Likeness, order: dict[str, Any]) -> None:
    name = order.get("recipe", "changed")
    asked = JobOrder("local", name, "somewhere", class_noun="dog", **order)
    recipe = recipe_named(asked.recipe, **asked.changes)
    with pytest.raises(Mismatch, match=f"rank {recipe.rank - 1} at most, got {recipe.rank}") as refused:
        likeness.training.submit(asked, archive=b"x")
    assert "LIKENESS_RANK" in refused.value.hint and refused.value.http_status == 409
    assert likeness.training.queue.ids_of("local", asked.name) == []
    assert list(likeness.library.objects.list(f"local/uploads/{asked.name}/")) == []
    with pytest.raises(Mismatch):
        likeness.train([], FineTuneOrder(Subject(asked.name, "dog"), recipe))
    roomy = with_rank(likeness, recipe.rank)
    job = roomy.training.submit(asked, archive=b"x")
    roomy.training.queue.cancel(job.id, "local")
    roomy.training.close()


def test_a_larger_rank_is_refused_at_import(likeness: Likeness, tmp_path: Path) -> None:
    published(likeness, "large", MOST + 1)
    file = likeness.export("large", "diffusers", tmp_path / "large.safetensors")
    for source in (file, file.read_bytes()):
        with pytest.raises(Mismatch, match=f"rank {MOST} at most") as refused:
            likeness.import_adapter(source, "imported", "diffusers")
        assert "--extract" in refused.value.hint and "LIKENESS_RANK" in refused.value.hint
    assert not likeness.catalog.has_adapter("local", "imported")
    roomy = with_rank(likeness, MOST + 1)
    roomy.__dict__["base"] = likeness.base
    assert roomy.import_adapter(file, "imported", "diffusers").rank == MOST + 1
    card = likeness.import_adapter(file, "extracted", "diffusers", extract=MOST)
    assert card.rank == MOST and 0 < card.extraction["error"] < 1


def test_one_large_adapter_sizes_nobodys_slots(likeness: Likeness) -> None:
    """It has a slot of its own, beside those of the settings' rank; what no slot holds is refused."""
    published(likeness, "large", LARGEST_PRESET_RANK)
    published(likeness, "larger", LARGEST_PRESET_RANK + 1)
    published(likeness, "small", 2)
    again = with_rank(likeness, 4)
    again.__dict__["base"] = likeness.base
    try:
        pictures = again.generate(
            [ImageRequest("photo of {me}", blend_of(name), steps=1) for name in ("large", "small")]
        )
        assert isinstance(again.engine, Engine)
        assert len(pictures) == 2 and again.engine.banks.usual.rank == 4
        with pytest.raises(Mismatch):
            again.generate([ImageRequest("photo of {me}", blend_of("larger"), steps=1)])
        assert len(again.generate([ImageRequest("photo of {me}", blend_of("small"), steps=1)])) == 1
    finally:
        again.engine.close()
