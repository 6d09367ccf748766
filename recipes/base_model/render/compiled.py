"""The decorator of all compiled kernels, so that they share their options.

Machine code is cached on disk only if NUMBA_CACHE_DIR is set, because numba fails to cache in read-only folders.
"""

import os
from collections.abc import Callable
from typing import Any

from numba import njit

compiled: Callable[..., Any] = njit(fastmath=True, cache="NUMBA_CACHE_DIR" in os.environ)
