"""Sessions of the web app: a browser signs in with an API key once and has a cookie from then on.

The cookie is a random token of 256 bits, stored as a hash like the keys. A session ends when it is signed out, when its
key is revoked, and a week after it began.
"""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select

from ..errors import KeyRefused
from .api_keys import ApiKey, key_of
from .catalog import Catalog, now
from .catalog_tables import api_keys, sessions

COOKIE = "likeness_session"
LIFE_S = 7 * 24 * 3600


def begin_session(catalog: Catalog, key: str) -> tuple[str, ApiKey]:
    """Sign in; returns the session's token. Ended sessions are deleted. Raises KeyRefused: see `api_keys.key_of`."""
    found = key_of(catalog, key)
    token, begun = secrets.token_urlsafe(32), now()
    expires = (datetime.now(UTC) + timedelta(seconds=LIFE_S)).isoformat(timespec="microseconds")
    with catalog.engine.begin() as connection:
        connection.execute(delete(sessions).where(sessions.c.expires <= begun))
        connection.execute(
            insert(sessions).values(token_sha256=_hash(token), key_id=found.id, created=begun, expires=expires)
        )
    return token, found


def key_of_session(catalog: Catalog, token: str) -> ApiKey:
    """The key that a session was begun with. Raises KeyRefused: no such session, or it has ended."""
    asked = (
        select(api_keys)
        .join(sessions, sessions.c.key_id == api_keys.c.id)
        .where(sessions.c.token_sha256 == _hash(token), sessions.c.expires > now(), api_keys.c.revoked.is_(None))
    )
    with catalog.engine.connect() as connection:
        row = connection.execute(asked).first()
    if row is None:
        raise KeyRefused("the session has ended", hint="sign in again with an API key")
    return ApiKey(row.id, row.tenant, row.label, row.created)


def end_session(catalog: Catalog, token: str) -> None:
    """Sign out. Nothing happens if the session has ended already."""
    with catalog.engine.begin() as connection:
        connection.execute(delete(sessions).where(sessions.c.token_sha256 == _hash(token)))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
