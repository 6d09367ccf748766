"""The operations of one installation: `Likeness` has them, `build(settings)` creates it.

Independent of terminal and HTTP: the command line and the server translate to this object.
"""

from ..types import BARE_BASE
from .exchange import AUTO
from .installation import Likeness, build
from .prepared import FineTuned, matte_path, save_prepared

__all__ = ["AUTO", "BARE_BASE", "FineTuned", "Likeness", "build", "matte_path", "save_prepared"]
