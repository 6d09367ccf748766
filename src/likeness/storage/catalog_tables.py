"""The catalog's tables. All rows of a tenant are keyed by the tenant.

The definitions are the same for SQLite and PostgreSQL. No secrets are stored; of an API key, only the hash. A change
needs a revision in `migrations/catalog`.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)

from .database import Schema

CATALOG = Schema("catalog", "0003", "the catalog's database")

metadata = MetaData()
_NAME, _SHA256, _TIME = String(63), String(64), String(40)  # times are ISO 8601 in UTC, so they sort as text

tenants = Table(
    "tenants", metadata, Column("tenant", _NAME, primary_key=True), Column("created", _TIME, nullable=False)
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),  # the public part of a key
    Column("tenant", _NAME, nullable=False),
    Column("secret_sha256", _SHA256, nullable=False),
    Column("label", String(100), nullable=False),
    Column("created", _TIME, nullable=False),
    Column("revoked", _TIME),
    ForeignKeyConstraint(["tenant"], ["tenants.tenant"]),
)

subjects = Table(
    "subjects",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("name", _NAME, primary_key=True),
    Column("class_noun", String(100), nullable=False),
    Column("identifier", String(100), nullable=False),
    Column("consent", Text, nullable=False),  # the consent as given by the caller
    Column("consented", _TIME, nullable=False),
    Column("created", _TIME, nullable=False),
)

photos = Table(
    "photos",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("subject", _NAME, primary_key=True),
    Column("sha256", _SHA256, primary_key=True),
    Column("file", String(200), nullable=False),  # file name, for messages only
    Column("bytes", BigInteger, nullable=False),
    Column("report", Text, nullable=False),  # JSON: verdict, reasons, hint
    Column("key", String(900), nullable=False),
    Column("created", _TIME, nullable=False),
    ForeignKeyConstraint(["tenant", "subject"], ["subjects.tenant", "subjects.name"], ondelete="CASCADE"),
)

adapters = Table(
    "adapters",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("name", _NAME, primary_key=True),
    Column("content_sha256", _SHA256, nullable=False),
    Column("base_sha256", _SHA256, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("key", String(900), nullable=False),
    Column("card", Text, nullable=False),  # card.json
    Column("created", _TIME, nullable=False),
)

outputs = Table(
    "outputs",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("subject", _NAME, nullable=False),  # the adapter's name, or `base`
    Column("media_type", String(40), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("key", String(900), nullable=False),
    Column("created", _TIME, nullable=False),
    Column("facts", Text, nullable=False, server_default=text("'{}'")),  # JSON: prompt, seed, ... of the image
    Column("is_favourite", Boolean, nullable=False, server_default=false()),
    Index("outputs_of_subject", "tenant", "subject", "created"),
)

further_adapters = Table(  # of images that combine several: all but the first, which is the image's subject
    "further_adapters",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("id", String(64), primary_key=True),  # of the image
    Column("adapter", _NAME, primary_key=True),
    ForeignKeyConstraint(["tenant", "id"], ["outputs.tenant", "outputs.id"], ondelete="CASCADE"),
    Index("images_of_further_adapter", "tenant", "adapter"),
)

sessions = Table(  # of the web app, signed in with an API key
    "sessions",
    metadata,
    Column("token_sha256", _SHA256, primary_key=True),
    Column("key_id", String(32), nullable=False),
    Column("created", _TIME, nullable=False),
    Column("expires", _TIME, nullable=False),
    ForeignKeyConstraint(["key_id"], ["api_keys.id"]),
)

receipts = Table(
    "receipts",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("name", _NAME, primary_key=True),
    Column("at", _TIME, primary_key=True),
    Column("items", Text, nullable=False),  # JSON: kinds, counts, bytes; no content
)

forgettings = Table(  # deletions in progress
    "forgettings",
    metadata,
    Column("tenant", _NAME, primary_key=True),
    Column("name", _NAME, primary_key=True),
    Column("begun", _TIME, nullable=False),
    Column("deleted", Text, nullable=False),  # JSON, as a receipt's items: deleted so far
)
