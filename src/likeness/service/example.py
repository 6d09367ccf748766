"""The shipped photographs of a virtual person, used by the demo and by the web app's example."""

from importlib import resources
from pathlib import Path

from ..errors import MissingPart

CLASS_NOUN = "man"


def example_photos() -> Path:
    """The folder of the shipped photographs. Raises MissingPart."""
    folder = Path(str(resources.files("likeness") / "assets" / "demo"))
    if not folder.is_dir():
        raise MissingPart("the demo's photographs are missing from this installation", hint="install Likeness again")
    return folder
