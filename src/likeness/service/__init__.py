"""The verbs over one installation: `build(settings)` wires it, `Likeness` has them.

Nothing here draws on a screen or speaks HTTP: the command line and the server are translations of this object.
"""

from ..storage.prepared_photos import matte_path, save_prepared
from ..types import BARE_BASE
from .exchange import AUTO
from .fine_tuned import FineTuned
from .likeness import Likeness, build

__all__ = ["AUTO", "BARE_BASE", "FineTuned", "Likeness", "build", "matte_path", "save_prepared"]
