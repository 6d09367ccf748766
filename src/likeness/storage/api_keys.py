"""API keys: shown once, stored as a hash, each for one tenant.

    lk_<id, 16 characters>_<secret, 43 characters>

A secret has 256 random bits, so one round of SHA-256 is as safe as a slow hash (OWASP, 'Password Storage', is about
passwords chosen by people). The alphabet is base64url, so a key can be used as an AWS access key id.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from ..errors import KeyRefused, UsageError
from ..types import checked_tenant
from .catalog import Catalog, now
from .catalog_tables import api_keys, tenants

PREFIX = "lk_"
_KEY = re.compile(r"lk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NO_KEY = hashlib.sha256(b"no key").hexdigest()


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret."""

    id: str
    tenant: str
    label: str
    created: str
    revoked: str | None = None


def new_key(catalog: Catalog, tenant: str, label: str = "") -> tuple[str, ApiKey]:
    """Create a key for a tenant, and the tenant if it is new. The text of the key is returned only here.

    Raises:
        UsageError: not a valid tenant name, or a label above 100 characters.
    """
    if len(label) > 100 or not label.isprintable():
        raise UsageError("expected a label of at most 100 printable characters")
    made = ApiKey(secrets.token_hex(8), checked_tenant(tenant), label, now())
    secret = secrets.token_urlsafe(32)
    try:
        with catalog.engine.begin() as connection:
            connection.execute(insert(tenants).values(tenant=tenant, created=made.created))
    except IntegrityError:
        pass  # the tenant has keys already
    with catalog.engine.begin() as connection:
        connection.execute(
            insert(api_keys).values(
                id=made.id, tenant=tenant, secret_sha256=_hash(secret), label=label, created=made.created
            )
        )
    return f"{PREFIX}{made.id}_{secret}", made


def key_of(catalog: Catalog, text: str) -> ApiKey:
    """The tenant of a key.

    An unknown id takes the same time as a known one.

    Raises:
        KeyRefused: unknown or revoked (the message does not say which), or of a reserved tenant name.
    """
    parts = _KEY.fullmatch(text)
    id, secret = (parts[1], parts[2]) if parts else ("", "")
    with catalog.engine.connect() as connection:
        row = connection.execute(select(api_keys).where(api_keys.c.id == id)).first()
    is_right = hmac.compare_digest(_hash(secret), row.secret_sha256 if row else _NO_KEY)
    if row is None or not is_right or row.revoked is not None:
        raise KeyRefused("expected an API key of this installation", hint="`likeness keys new` creates one")
    try:
        checked_tenant(row.tenant)  # created before the name was reserved
    except UsageError as error:
        raise KeyRefused(
            "expected a key of a valid tenant, got one of a reserved name",
            hint="create a key for another tenant: `likeness keys new --tenant NAME`",
        ) from error
    return ApiKey(row.id, row.tenant, row.label, row.created)


def list_keys(catalog: Catalog) -> tuple[ApiKey, ...]:
    """All keys, sorted by creation time."""
    with catalog.engine.connect() as connection:
        rows = connection.execute(select(api_keys).order_by(api_keys.c.created, api_keys.c.id))
        return tuple(ApiKey(row.id, row.tenant, row.label, row.created, row.revoked) for row in rows)


def revoke_key(catalog: Catalog, id: str) -> None:
    """Revoke a key. Raises UsageError: no such key."""
    asked = update(api_keys).where(api_keys.c.id == id, api_keys.c.revoked.is_(None)).values(revoked=now())
    with catalog.engine.begin() as connection:
        if connection.execute(asked).rowcount == 0:
            raise UsageError("there is no active key of this id", hint="`likeness keys list` shows all keys")


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
