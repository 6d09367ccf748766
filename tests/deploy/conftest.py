"""The installation and the server of tests/http, for the protocols of this room."""

from tests.http.conftest import address, app, client, likeness

__all__ = ["address", "app", "client", "likeness"]
