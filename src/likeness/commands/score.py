"""`likeness score`: does an adapter show its subject, follow prompts, and keep photographs to itself?"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..command_group import Call
from ..errors import PhotosRefused, UsageError
from ..photos import read_photos
from ..progress import Watch
from ..storage.prepared_photos import load_prepared
from ..types import GeneratedImage, PreparedPhoto
from .options import Base, Name, Revision

if TYPE_CHECKING:
    from ..scoring.card import ScoreCard
    from ..scoring.likeness import Reference
    from ..service.likeness import Likeness

MAX_REPEATS = 16


def score(
    ctx: typer.Context,
    name: Name,
    photos: Annotated[list[Path] | None, typer.Option(help="Photographs, instead of those kept by training.")] = None,
    held_out: Annotated[list[Path] | None, typer.Option(help="Photographs that it was not trained on.")] = None,
    repeats: Annotated[int, typer.Option("-n", "--repeats", help="Portraits of each of eight prompts, 1 to 16.")] = 1,
    seed: Annotated[int, typer.Option(help="0 to 2**62; the same seed gives the same card.")] = 0,
    base: Base = None,
    revision: Revision = None,
) -> None:
    """The score card of an adapter: likeness, prompt following, signs of over-fitting."""
    from ..scoring.score import score_adapter

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
    """Photographs as training would prepare them. Raises PhotosRefused when none can be used."""
    checked = likeness.check(read_photos(paths), class_noun, watch=watch)
    checked.raise_if_refused(few_are_enough=True)
    return likeness.prepare(checked, watch=watch)


def kept_photos(folder: Path) -> tuple[PreparedPhoto, ...]:
    """The prepared photographs that training left in the home (`save_prepared`).

    Raises:
        PhotosRefused: there are none.
    """
    found = load_prepared(folder)
    if not found:
        raise PhotosRefused("the photographs of this adapter are not in this home", hint="name them with --photos")
    return found


def lines_of(card: "ScoreCard") -> list[str]:
    """The card in words."""
    out = []
    if (like := card.likeness) is not None:
        out.append(f"faces        {like.faces} of {like.portraits} portraits have one")
        out.append(
            f"distance     {_number(like.distance)} from the photographs; without the adapter "
            f"{_number(like.base_distance)}, the photographs themselves {like.photo_distance:.2f}"
        )
        out.append(f"alike        {like.alike:.0%} of the portraits are within {like.threshold:.2f}")
    prompt, signs = card.prompt, card.overfitting
    out.append(
        f"prompts      {prompt.recognised:.0%} recognised by the base, {prompt.base_recognised:.0%} without the "
        f"adapter, {1 / prompt.prompts:.0%} by chance"
    )
    out.append(f"copies       {signs.copies} portraits, {signs.copied_backgrounds} backgrounds")
    if signs.loss_gap is not None:
        out.append(f"loss gap     {signs.loss_gap:.3f} between its own photographs and those held out")
    return out


def kept_reference(folder: Path) -> "Reference":
    """Who the subject of the kept photographs is. Raises PhotosRefused."""
    from ..scoring.likeness import Reference

    return Reference.of(kept_photos(folder))


def most_alike(images: Sequence[GeneratedImage], reference: "Reference", count: int) -> list[GeneratedImage]:
    """The `count` pictures that are the most alike, in that order."""
    from ..scoring.likeness import ranked

    return [images[place] for place in ranked([image.image for image in images], reference)[:count]]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
