"""Arguments and options of several commands. Choices come from the tables that define them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..storage.catalog import LOCAL
from ..training.recipe import PRESETS
from ..types import HOUSE_ADAPTERS, SAMPLER_NAMES, Subject


def one_of(names: Iterable[str], what: str = "") -> Any:
    *most, last = names
    return typer.Option(help=f"{what}{', '.join(most)} or {last}.")  # the help text wraps; a metavar would be truncated


Photos = Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Files, folders, zip or tar archives.")]
Name = Annotated[str, typer.Argument(metavar="NAME")]
NewName = Annotated[str, typer.Option(help="Name of the adapter: a-z, 0-9, _ and -.")]
ClassNoun = Annotated[
    str | None, typer.Option(help="Class of the subject: man, woman, dog, ...; person if not given. A style has none.")
]
SubjectKind = Annotated[
    str | None, typer.Option("--kind", help="`style` for a style; `person` and `thing` follow from the class noun.")
]
Consent = Annotated[
    str,
    typer.Option(
        help="Who agreed, and when; required for a person without recorded consent, and for pictures of a style that "
        "show faces."
    ),
]
Base = Annotated[
    str | None, typer.Option(help="`built-in`, a folder in diffusers' layout, or a Hugging Face model id.")
]
Revision = Annotated[str | None, typer.Option(help="Commit of the model id, 40 digits.")]
KeepStrangers = Annotated[
    bool, typer.Option("--keep-strangers", help="Also use photographs that probably show another person.")
]
House = Annotated[bool, typer.Option("--house", help="A house adapter, which all tenants can use.")]
Seed = Annotated[int, typer.Option(help="0 to 2**63 - 1; the same seed gives the same result.")]
Recipe = Annotated[str, one_of(PRESETS)]
Steps = Annotated[int | None, typer.Option(help="Training steps, instead of the recipe's.")]
Sampler = Annotated[str | None, one_of(SAMPLER_NAMES)]
ImportFormat = Annotated[str, typer.Option(help="Usually not needed: the format is detected.")]


def owner(house: bool) -> str:
    """The tenant of an adapter: the owner of the house adapters, or the command line's tenant."""
    return HOUSE_ADAPTERS if house else LOCAL


def said_of(subject: Subject) -> dict[str, str]:
    """How a subject is stated in requests and in config.json."""
    return {"kind": "style"} if subject.kind == "style" else {"class_noun": subject.class_noun}
