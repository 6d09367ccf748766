"""API keys: shown once, kept as a hash, refused when revoked, unknown or invented."""

import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest

from likeness.errors import KeyRefused, UsageError
from likeness.storage.api_keys import key_of, list_keys, new_key, revoke_key
from likeness.storage.catalog import Catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog(f"sqlite:///{tmp_path}/catalog.sqlite")
    yield opened
    opened.close()


def test_a_key_opens_its_own_tenant(catalog: Catalog) -> None:
    anna, _ = new_key(catalog, "anna", "laptop")
    bert, made = new_key(catalog, "bert")
    assert (key_of(catalog, anna).tenant, key_of(catalog, bert).tenant) == ("anna", "bert")
    assert key_of(catalog, bert) == made
    assert [key.label for key in list_keys(catalog)] == ["laptop", ""]


def test_the_secret_is_not_kept(catalog: Catalog, tmp_path: Path) -> None:
    text, _ = new_key(catalog, "anna")
    secret = text.split("_", 2)[2].encode()
    assert len(secret) == 43
    assert not any(secret in path.read_bytes() for path in tmp_path.iterdir())


def test_a_revoked_key_is_refused(catalog: Catalog) -> None:
    text, made = new_key(catalog, "anna")
    revoke_key(catalog, made.id)
    with pytest.raises(KeyRefused):
        key_of(catalog, text)
    with pytest.raises(UsageError):
        revoke_key(catalog, made.id)
    assert list_keys(catalog)[0].revoked is not None


def test_wrong_unknown_and_malformed_keys_get_one_answer_after_one_comparison(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, _ = new_key(catalog, "anna")
    compared = []
    real = hmac.compare_digest

    def counting(one: str, other: str) -> bool:
        compared.append(len(one) == len(other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    bad = [text[:-1] + ("A" if text[-1] != "A" else "B"), "lk_" + "0" * 16 + text[19:], "", "x" * 10_000, f" {text}"]
    said = set()
    for attempt in bad:
        with pytest.raises(KeyRefused) as refused:
            key_of(catalog, attempt)
        said.add(str(refused.value))
    assert len(said) == 1
    assert compared == [True] * len(bad)


@pytest.mark.parametrize(("tenant", "label"), [("Anna", ""), ("", ""), ("anna", "x" * 101), ("anna", "a\nb")])
def test_tenants_and_labels_are_checked(catalog: Catalog, tenant: str, label: str) -> None:
    with pytest.raises(UsageError):
        new_key(catalog, tenant, label)
