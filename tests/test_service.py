"""The service with a tiny random base: resume, failure, refusal, and the files in the home folder."""

import errno
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from torch import Tensor

from fixtures.contrast import build_contrasted_folder
from likeness import photos as package
from likeness.config import Settings
from likeness.errors import (
    AdapterBusy,
    AlreadyExists,
    InputRefused,
    Interrupted,
    Mismatch,
    NotFound,
    StorageError,
    StorageUnavailable,
    TrainingError,
    UsageError,
)
from likeness.photos import CheckResult, read_photos
from likeness.service import Likeness, build, save_prepared
from likeness.service.image_files import AI_GENERATED, file_name, save_png
from likeness.storage.catalog import LOCAL
from likeness.storage.objects import FileObjects
from likeness.training.loss import row_losses
from likeness.training.pipeline import adapter_bytes
from likeness.training.recipe import FineTuneOrder, FineTuneRecipe, recipe_named
from likeness.types import Advance, GeneratedImage, ImageRequest, Photo, Subject, blend_of

STEPS = 4


def pattern(seed: int) -> Photo:
    """A sharp picture of nothing, which a check of things accepts."""
    pixels = np.random.default_rng(seed).integers(0, 255, (300, 280, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return Photo(f"{seed}.jpg", buffer.getvalue())


def recipe(steps: int = STEPS) -> FineTuneRecipe:
    small = recipe_named("fast", steps=steps, class_images=2, variants=1, rank=2, alpha=4)
    return replace(small, instance_rows=2, prior_rows=1, checkpoint_every=3)


def order(name: str = "rex", **changes: object) -> FineTuneOrder:
    return replace(FineTuneOrder(Subject(name, "dog"), recipe(), seed=5), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    return [pattern(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def likeness(contrasted_base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Likeness]:
    """One installation for the whole file; every test uses names of its own."""
    installation = build(Settings(home=tmp_path_factory.mktemp("home"), base=str(contrasted_base_folder)))
    yield installation
    installation.close()


@pytest.fixture(scope="module")
def trained(likeness: Likeness, photos: list[Photo]) -> str:
    """An adapter, and the hash of its weights."""
    return likeness.train(photos, order()).card.content_sha256


def stop_after(steps: int) -> tuple[Callable[[Advance], None], Callable[[], bool]]:
    seen: list[Advance] = []
    return seen.append, lambda: sum(advance.stage == "train" for advance in seen) >= steps


def test_importing_the_front_does_not_import_torch() -> None:
    program = "import likeness.cli, likeness.service, sys; print(*({'torch', 'ai_edge_litert'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=_path())
    assert done.stdout.split() == []


def _path() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}


def test_training_publishes_what_the_card_says(likeness: Likeness, trained: str) -> None:
    adapter = likeness.adapter("rex")
    assert adapter.card.content_sha256 == trained
    assert (adapter.card.photos, adapter.card.steps, adapter.card.class_noun) == (4, STEPS, "dog")
    assert (adapter.card.rank, adapter.card.alpha, adapter.card.base_sha256) == (2, 4.0, likeness.base.sha256)
    assert {record.name for record in likeness.catalog.list_adapters(LOCAL)} >= {"rex"}
    kept = sorted(path.name for path in likeness.home.photos_folder("rex").iterdir())
    assert kept[:3] == ["01-whole-face.png", "01-whole-matte.png", "01-whole.png"]
    assert len(kept) == 13  # three files of each photograph, and their index
    assert not any(likeness.home.checkpoint_folder("rex").iterdir())


def test_another_seed_gives_another_adapter(likeness: Likeness, photos: list[Photo], trained: str) -> None:
    assert likeness.train(photos, order("otto", seed=6)).card.content_sha256 != trained


@pytest.mark.parametrize("steps", [1, 3])
def test_stopped_and_resumed_equals_never_stopped(
    likeness: Likeness, photos: list[Photo], trained: str, steps: int
) -> None:
    name = f"stopped-{steps}"
    watch, should_stop = stop_after(steps)
    with pytest.raises(Interrupted, match=f"step {steps} of {STEPS}") as caught:
        likeness.train(photos, order(name), watch=watch, should_stop=should_stop)
    assert caught.value.exit_code == 130
    with pytest.raises(NotFound):
        likeness.adapter(name)
    with pytest.raises(Mismatch):
        likeness.train(photos, order(name, seed=7))
    seen: list[Advance] = []
    result = likeness.train(photos, order(name), watch=seen.append)
    assert [advance.done for advance in seen if advance.stage == "train"] == list(range(steps + 1, STEPS + 1))
    assert result.card.content_sha256 == trained
    assert len(result.losses) == STEPS


def test_restart_forgets_the_checkpoint(likeness: Likeness, photos: list[Photo]) -> None:
    watch, should_stop = stop_after(2)
    with pytest.raises(Interrupted):
        likeness.train(photos, order("again"), watch=watch, should_stop=should_stop)
    seen: list[Advance] = []
    likeness.train(photos, order("again", seed=8, restart=True), watch=seen.append)
    assert sum(advance.stage == "train" for advance in seen) == STEPS


def test_stopped_before_the_first_step(likeness: Likeness, photos: list[Photo]) -> None:
    with pytest.raises(Interrupted, match="before the first step"):
        likeness.train(photos, order("early"), should_stop=lambda: True)


def test_a_failed_training_publishes_nothing(
    likeness: Likeness, photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[Tensor] = []

    def poisoned(output: Tensor, target: Tensor, **weights: Tensor) -> Tensor:
        losses.append(row_losses(output, target, **weights))
        return losses[-1] * float("nan") if len(losses) == 3 else losses[-1]

    monkeypatch.setattr("likeness.training.loop.row_losses", poisoned)
    with pytest.raises(TrainingError):
        likeness.train(photos, order("nan"))
    assert not likeness.catalog.has_adapter(LOCAL, "nan")
    assert list(likeness.library.objects.list("local/adapters/nan")) == []
    assert not any(likeness.home.checkpoint_folder("nan").iterdir())


@contextmanager
def full_disk(likeness: Likeness, is_refused: Callable[[str], bool]) -> Iterator[list[str]]:
    """Within the block no object is written whose key is refused; tells their keys."""
    refused: list[str] = []
    real = FileObjects.put

    def put(self: FileObjects, key: str, content: bytes) -> None:
        if is_refused(key):
            refused.append(key)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, key, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileObjects, "put", put)
        yield refused


def test_what_is_trained_and_cannot_be_published_is_published_by_the_same_command(
    likeness: Likeness, photos: list[Photo], trained: str
) -> None:
    with full_disk(likeness, lambda key: "adapters/" in key), pytest.raises(StorageError) as caught:
        likeness.train(photos, order("full"))
    assert "No space left on device" in caught.value.message and "the same command" in caught.value.hint
    taken: list[Advance] = []
    assert likeness.train(photos, order("full"), watch=taken.append).card.content_sha256 == trained
    assert [advance.done for advance in taken if advance.stage == "train"] == [STEPS]  # told, not trained again
    assert not any(likeness.home.checkpoint_folder("full").iterdir())


def test_a_checkpoint_that_cannot_be_written_is_a_warning(
    likeness: Likeness, photos: list[Photo], trained: str
) -> None:
    told: list[Advance] = []
    with full_disk(likeness, lambda key: key.startswith("state")) as refused:
        made = likeness.train(photos, order("warned"), watch=told.append)
    assert made.card.content_sha256 == trained
    warnings = [advance.warning for advance in told if advance.warning]
    assert len(refused) == len(warnings) == 2  # of step 3, and of the last
    assert warnings[0] == "the state of step 3 was not saved (No space left on device); the training continues"


def test_an_interrupt_says_whether_the_state_was_saved(likeness: Likeness, photos: list[Photo]) -> None:
    watch, should_stop = stop_after(2)
    with full_disk(likeness, lambda key: key.startswith("state")), pytest.raises(Interrupted) as caught:
        likeness.train(photos, order("unsaved"), watch=watch, should_stop=should_stop)
    assert caught.value.message == f"stopped after step 2 of {STEPS}; it was not saved (No space left on device)"


def test_a_disk_without_room_for_the_adapter_is_told_before_the_training(
    likeness: Likeness, photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Advance] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match="MB of free space"):
        likeness.train(photos, order("no-room"), watch=told.append)
    assert "train" not in {advance.stage for advance in told}


def test_the_size_of_an_adapter_is_known_before_it_is_trained(likeness: Likeness, trained: str) -> None:
    found = likeness.catalog.find_adapter(LOCAL, "rex")
    expected = adapter_bytes(likeness.base, recipe())
    assert 0.9 * expected < found.bytes < 1.1 * expected + 32_000  # names and the card


def test_an_adapter_is_replaced_only_on_demand(likeness: Likeness, photos: list[Photo], trained: str) -> None:
    with pytest.raises(AlreadyExists):
        likeness.train(photos, order(seed=9))
    assert likeness.adapter("rex").card.content_sha256 == trained
    first = likeness.train(photos, order("twice")).card
    second = likeness.train(photos, order("twice", seed=9, replace=True)).card
    assert likeness.adapter("twice").card.content_sha256 == second.content_sha256 != first.content_sha256


def test_a_replacement_that_is_stopped_leaves_the_photographs_of_the_adapter(
    likeness: Likeness, photos: list[Photo]
) -> None:
    likeness.train(photos, order("kept"))
    before = {path.name: path.read_bytes() for path in likeness.home.photos_folder("kept").iterdir()}
    watch, should_stop = stop_after(2)
    with pytest.raises(Interrupted):
        likeness.train([*photos, pattern(9)], order("kept", replace=True), watch=watch, should_stop=should_stop)
    assert {path.name: path.read_bytes() for path in likeness.home.photos_folder("kept").iterdir()} == before
    seen: list[Advance] = []
    likeness.train([*photos, pattern(9)], order("kept", replace=True), watch=seen.append)
    assert sum(advance.stage == "train" for advance in seen) == STEPS - 2
    assert len(list(likeness.home.photos_folder("kept").iterdir())) == len(before) + 3
    assert len(list(likeness.home.photos_folder("kept").parent.glob("photos*"))) == 1


def test_a_name_in_training_is_busy(likeness: Likeness, photos: list[Photo]) -> None:
    with likeness.home.lock("held"), pytest.raises(AdapterBusy):
        likeness.train(photos, order("held"))


@pytest.mark.parametrize("name", ["base", "../x", "Anna", ""])
def test_bad_names_are_refused(likeness: Likeness, photos: list[Photo], name: str) -> None:
    with pytest.raises(UsageError):
        likeness.train(photos, order(name))


@pytest.mark.parametrize(
    "bad",
    [{"seed": -1}, {"seed": 2**63}, *({"subject": Subject("x", noun)} for noun in (" ", "x" * 101, "a\0"))],
)
def test_an_order_that_cannot_become_an_adapter_is_refused_at_its_construction(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        order(**bad)  # type: ignore[arg-type]


def test_checking_tells_how_far_it_is(likeness: Likeness, photos: list[Photo]) -> None:
    seen: list[Advance] = []
    likeness.check(photos, "dog", watch=seen.append)
    assert seen == [Advance("check", done, 4) for done in range(5)]


def test_too_few_photos_of_a_person(likeness: Likeness, photos: list[Photo], demo_photos: Path) -> None:
    sent = [*read_photos([demo_photos])[:2], photos[0]]
    told: list[CheckResult] = []
    with pytest.raises(InputRefused, match="at least 4 usable photographs, got 2"):
        likeness.train(sent, order("few", subject=Subject("few")), on_checked=told.append)
    assert [report.verdict for report in told[0].reports][2] == "refused"
    assert not likeness.catalog.has_adapter(LOCAL, "few")


def test_prepared_files_hold_no_metadata(likeness: Likeness, photos: list[Photo], tmp_path: Path) -> None:
    checked = likeness.check(photos, "dog")
    prepared = likeness.prepare(checked)
    for path in save_prepared(prepared, tmp_path):
        with Image.open(path) as picture:
            assert picture.size == (512, 512)
            assert picture.info == {}


def test_generating_names_the_subject_and_is_repeatable(likeness: Likeness, trained: str, tmp_path: Path) -> None:
    asked = [ImageRequest("{me} in the snow", blend_of("rex"), seed=3, steps=2), ImageRequest("{me}", seed=4, steps=2)]
    seen: list[Advance] = []
    mine, bare = likeness.generate(asked, watch=seen.append)
    assert (mine.request.prompt, bare.request.prompt) == ("<<TOK>> dog in the snow", "a person")
    assert (mine.adapter_sha256, bare.adapter_sha256) == (trained, None)
    assert [advance.done for advance in seen][-1] == 2
    assert int(np.abs(bare.image.astype(int) - mine.image.astype(int)).max()) > 10
    (again,) = likeness.generate(asked[:1])
    assert int(np.abs(again.image.astype(int) - mine.image.astype(int)).max()) <= 1
    with Image.open(save_png(mine, tmp_path / file_name(mine), likeness.encode)) as picture:
        assert isinstance(picture, PngImagePlugin.PngImageFile)
        facts = dict(picture.text)
    expected = {
        "prompt": "<<TOK>> dog in the snow", "seed": "3", "steps": "2", "adapter": "rex", "adapter_sha256": trained,
        "base_sha256": likeness.base.sha256, "guidance_scale": "2.0", "sampler": "dpmpp_2m",
        "DigitalSourceType": AI_GENERATED, "Comment": "AI-generated",
    }  # fmt: skip
    assert expected.items() <= facts.items()
    assert AI_GENERATED in facts["XML:com.adobe.xmp"]


def test_another_base_is_refused(likeness: Likeness, trained: str, tmp_path: Path) -> None:
    other = build_contrasted_folder(tmp_path / "other", block_out_channels=(16, 32, 16))
    likeness.export("rex", "diffusers", tmp_path / "rex.safetensors")
    with closing(build(replace(likeness.settings, base=str(other)))) as elsewhere:
        with pytest.raises(Mismatch):
            elsewhere.generate([ImageRequest("x", blend_of("rex"), steps=1)])
        with pytest.raises(Mismatch):
            elsewhere.import_adapter(
                tmp_path / "rex.safetensors", "moved", "diffusers", class_noun="dog", identifier="<<TOK>>"
            )


@pytest.mark.parametrize("format", ["peft", "diffusers", "kohya"])
def test_export_and_import_give_the_same_pictures(
    likeness: Likeness, trained: str, tmp_path: Path, format: str
) -> None:
    path = likeness.export("rex", format, tmp_path / "exported")
    name = f"from-{format}"
    card = likeness.import_adapter(path, name, format, class_noun="cat", identifier="<<cat>>")
    assert (card.name, card.class_noun) == (name, "dog")  # the card in the file goes before what was said
    one, other = likeness.generate([ImageRequest("{me}", blend_of(who), seed=1, steps=2) for who in ("rex", name)])
    assert int(np.abs(one.image.astype(int) - other.image.astype(int)).max()) <= 1
    with pytest.raises(AlreadyExists):
        likeness.import_adapter(path, name, format, class_noun="dog", identifier="<<TOK>>")
    with pytest.raises(AlreadyExists):
        likeness.export("rex", format, path)


def test_forgetting_leaves_nothing_of_the_name(likeness: Likeness, photos: list[Photo]) -> None:
    likeness.train(photos, order("gone"))
    receipt = likeness.forget("gone")
    assert {item.kind for item in receipt.items} >= {"adapter", "prepared photographs"}
    assert list(likeness.home.root.rglob("gone*")) == []
    assert [path for path in likeness.home.root.rglob("*") if path.is_file() and b"/gone/" in path.read_bytes()] == []
    assert likeness.catalog.list_receipts(LOCAL)[-1] == receipt


def test_forgetting_can_be_repeated_when_the_store_failed_in_the_middle(
    likeness: Likeness, photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    likeness.train(photos, order("stuck"))

    def away(self: FileObjects, key: str) -> None:
        raise StorageUnavailable("expected S3 to delete object, got 503")

    with monkeypatch.context() as patch:
        patch.setattr(FileObjects, "delete", away)
        with pytest.raises(StorageUnavailable):
            likeness.forget("stuck")
    assert "adapter" in {item.kind for item in likeness.forget("stuck").items}
    assert list(likeness.home.root.rglob("stuck*")) == []


def test_a_picture_of_somebody_forgotten_meanwhile_is_not_kept(likeness: Likeness, photos: list[Photo]) -> None:
    likeness.train(photos, order("left"))
    (image,) = likeness.generate([ImageRequest("a photo", steps=1, adapters=blend_of("left"))])
    likeness.forget("left")
    with pytest.raises(NotFound):
        likeness.keep(image, b"a portrait", "image/png")
    assert list(likeness.library.objects.list("local/outputs/left/")) == []
    assert likeness.catalog.forget(LOCAL, "left") == ()


def test_a_photograph_of_somebody_forgotten_meanwhile_is_not_kept(
    likeness: Likeness, photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    likeness.subjects.create(LOCAL, Subject("away", "dog"), consent="")
    examine = package.check

    def slow(*arguments: Any, **options: Any) -> CheckResult:
        found = examine(*arguments, **options)
        likeness.forget("away")
        return found

    monkeypatch.setattr(package, "check", slow)
    with pytest.raises(NotFound):
        likeness.subjects.add_photos(LOCAL, "away", photos)
    assert list(likeness.library.objects.list("local/photos/away/")) == []


def test_file_names_tell_requests_apart() -> None:
    image = GeneratedImage(ImageRequest("x", seed=7), np.zeros((8, 8, 3), np.uint8), "a" * 64, None, 1.0)
    assert file_name(image) == file_name(replace(image, seconds=2.0))
    assert file_name(image).startswith("7-")
    assert file_name(image) != file_name(replace(image, request=ImageRequest("y", seed=7)))
