"""`likeness score`: the score card of an adapter."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputRefused, UsageError
from ..photos import read_photos
from ..storage.prepared_photos import load_prepared
from ..types import GeneratedImage, PreparedPhoto, Watch
from .group import Call
from .options import Base, Name, Revision

if TYPE_CHECKING:
    from ..scoring.likeness import Reference
    from ..scoring.score_card import ScoreCard
    from ..service import Likeness

MAX_REPEATS = 16


def score(
    ctx: typer.Context,
    name: Name,
    photos: Annotated[
        list[Path] | None, typer.Option(help="Photographs to compare with; those of the training by default.")
    ] = None,
    held_out: Annotated[
        list[Path] | None, typer.Option(help="Photographs that were not trained on, to measure memorisation.")
    ] = None,
    repeats: Annotated[
        int, typer.Option("-n", "--repeats", help="Portraits per prompt, 1 to 16; there are eight prompts.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="0 to 2**62; the same seed gives the same score card.")] = 0,
    base: Base = None,
    revision: Revision = None,
) -> None:
    """Measure an adapter: similarity, prompt following, memorisation."""
    from ..scoring.measure import score_adapter

    call: Call = ctx.obj
    if not 1 <= repeats <= MAX_REPEATS or not 0 <= seed <= 2**62:
        raise UsageError(f"expected 1 to {MAX_REPEATS} repeats and a seed from 0 to 2**62")
    with closing(call.likeness(base, revision)) as likeness, call.terminal.progress() as watch:
        adapter = likeness.adapter(name)
        noun = adapter.card.class_noun
        own = prepared_from(likeness, photos, noun, watch) if photos else kept_photos(likeness.home.photos_folder(name))
        unseen = prepared_from(likeness, held_out, noun, watch) if held_out else ()
        card = score_adapter(likeness.base, adapter, own, seed=seed, repeats=repeats, held_out=unseen, watch=watch)
    call.terminal.document(card.to_json())
    for line in lines_of(card):
        call.terminal.say(line)


def prepared_from(likeness: "Likeness", paths: list[Path], class_noun: str, watch: Watch) -> tuple[PreparedPhoto, ...]:
    """Photographs, prepared as for training. Raises InputRefused: none can be used."""
    checked = likeness.check(read_photos(paths), class_noun, watch=watch)
    checked.raise_if_refused(few_are_enough=True)
    return likeness.prepare(checked, watch=watch)


def kept_photos(folder: Path) -> tuple[PreparedPhoto, ...]:
    """The prepared photographs of the training in the home folder (`save_prepared`).

    Raises:
        InputRefused: there are none.
    """
    found = load_prepared(folder)
    if not found:
        raise InputRefused(
            "the photographs of this adapter are not in the home folder",
            hint="give them with --photos",
            code="PhotosRefused",
        )
    return found


def lines_of(card: "ScoreCard") -> list[str]:
    """The card as text."""
    out = []
    if (like := card.likeness) is not None:
        out.append(f"faces        found in {like.faces} of {like.portraits} portraits")
        out.append(
            f"distance     {_number(like.distance)} to the photographs; without the adapter "
            f"{_number(like.base_distance)}, between the photographs {like.photo_distance:.2f}"
        )
        out.append(f"similar      {like.alike:.0%} of the portraits have a distance of at most {like.threshold:.2f}")
    prompt, signs = card.prompt, card.overfitting
    out.append(
        f"prompts      {prompt.recognised:.0%} recognised by the base, {prompt.base_recognised:.0%} without the "
        f"adapter, {1 / prompt.prompts:.0%} by chance"
    )
    out.append(f"copies       {signs.copies} portraits, {signs.copied_backgrounds} backgrounds")
    if signs.loss_gap is not None:
        out.append(f"loss gap     {signs.loss_gap:.3f} between training and held-out photographs")
    return out


def kept_reference(folder: Path) -> "Reference":
    """The subject's identity by the stored photographs. Raises InputRefused."""
    from ..scoring.likeness import Reference

    return Reference.of(kept_photos(folder))


def most_alike(images: Sequence[GeneratedImage], reference: "Reference", count: int) -> list[GeneratedImage]:
    """The `count` most similar images, the best first."""
    from ..scoring.likeness import ranked

    return [images[place] for place in ranked([image.image for image in images], reference)[:count]]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
