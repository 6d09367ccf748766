"""The random adapter of tests/artifacts, for the library, which keeps whole adapters."""

from tests.artifacts.conftest import tools

__all__ = ["tools"]
