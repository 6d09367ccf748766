"""Arguments and options that several commands share. What may be chosen comes from the tables that decide it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..training.recipe import PRESETS
from ..types import SAMPLER_NAMES


def one_of(names: Iterable[str], what: str = "") -> Any:
    *most, last = names
    return typer.Option(help=f"{what}{', '.join(most)} or {last}.")  # the help wraps; a metavar would be cut


Photos = Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Files, folders, zip or tar.")]
Name = Annotated[str, typer.Argument(metavar="NAME")]
NewName = Annotated[str, typer.Option(help="Name of the adapter: a-z, 0-9, _ and -.")]
ClassNoun = Annotated[str, typer.Option(help="What the subject is: person, man, woman, dog, ...")]
Consent = Annotated[str, typer.Option(help="Who agreed, and when; needed for a person whom the server does not know.")]
Base = Annotated[str | None, typer.Option(help="built-in, a folder in diffusers' layout, or a hub id.")]
Revision = Annotated[str | None, typer.Option(help="Commit of a hub id, 40 digits.")]
KeepStrangers = Annotated[
    bool, typer.Option("--keep-strangers", help="Use photographs that probably show another person too.")
]
Seed = Annotated[int, typer.Option(help="0 to 2**63 - 1; the same seed gives the same result.")]
Recipe = Annotated[str, one_of(PRESETS)]
Steps = Annotated[int | None, typer.Option(help="Instead of the recipe's.")]
Sampler = Annotated[str, one_of(SAMPLER_NAMES)]
ImportFormat = Annotated[str, typer.Option(help="Not needed: the layout is found by what is there.")]
