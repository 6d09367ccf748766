"""The operations of one installation: `Likeness` has them, `build(settings)` creates it.

Independent of terminal and HTTP: the command line and the server translate to this object.
"""

from ..storage.prepared_photos import matte_path, save_prepared
from ..types import BARE_BASE
from .exchange import AUTO
from .fine_tuned import FineTuned
from .installation import Likeness, build

__all__ = ["AUTO", "BARE_BASE", "FineTuned", "Likeness", "build", "matte_path", "save_prepared"]
