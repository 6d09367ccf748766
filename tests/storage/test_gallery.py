"""The gallery's rows: images of before it are in it too, and a session is one of its key."""

import pytest
import sqlalchemy as sa

from likeness.errors import KeyRefused
from likeness.storage.api_keys import new_key, revoke_key
from likeness.storage.catalog import Catalog
from likeness.storage.catalog_tables import CATALOG
from likeness.storage.database import migrate, sqlite_url
from likeness.storage.gallery import list_outputs, mark_favourite
from likeness.storage.sessions import begin_session, end_session, key_of_session


def test_images_of_an_older_catalog_are_listed(tmp_path) -> None:
    url = sqlite_url(tmp_path / "catalog.sqlite")
    engine = sa.create_engine(url)
    migrate(engine, CATALOG, target="0001")
    row = "('local', 'x1', 'anna', 'image/png', 3, 'local/outputs/anna/x1', '2026-01-01')"
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO outputs (tenant, id, subject, media_type, bytes, key, created) VALUES {row}"
        )
    engine.dispose()
    catalog = Catalog(url)
    (found,) = list_outputs(catalog, "local")
    assert (found.id, found.facts, found.is_favourite) == ("x1", "{}", False)
    assert mark_favourite(catalog, "local", "x1", True) and not mark_favourite(catalog, "other", "x1", True)
    assert list_outputs(catalog, "local", favourites=True)[0].is_favourite is True
    assert list_outputs(catalog, "other") == list_outputs(catalog, "other", before="x1") == ()
    catalog.close()


def test_a_session_is_of_its_key_until_it_ends(tmp_path) -> None:
    catalog = Catalog(sqlite_url(tmp_path / "catalog.sqlite"))
    key, made = new_key(catalog, "anna")
    token, found = begin_session(catalog, key)
    other, _ = begin_session(catalog, key)
    assert (found.id, key_of_session(catalog, token).tenant) == (made.id, "anna")
    end_session(catalog, token)
    with pytest.raises(KeyRefused):
        key_of_session(catalog, token)
    assert key_of_session(catalog, other).id == made.id
    revoke_key(catalog, made.id)
    with pytest.raises(KeyRefused):
        key_of_session(catalog, other)
    with pytest.raises(KeyRefused):
        begin_session(catalog, key)
    assert token.encode() not in (tmp_path / "catalog.sqlite").read_bytes()
    catalog.close()
