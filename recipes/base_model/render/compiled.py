"""The one decorator for compiled kernels, so that all of them are compiled alike.

Machine code is kept on disk only where NUMBA_CACHE_DIR says so: numba refuses to cache in read-only places.
"""

import os
from collections.abc import Callable
from typing import Any

from numba import njit

compiled: Callable[..., Any] = njit(fastmath=True, cache="NUMBA_CACHE_DIR" in os.environ)
