"""One object an adapter, then one row: readers see the old one, the new one or none, never half of one."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from likeness.artifacts import bundle, tensors
from likeness.errors import AlreadyExists, CorruptAdapter, NotFound, StorageUnavailable, UsageError
from likeness.storage.catalog import Catalog
from likeness.storage.library import AdapterLibrary, engine_key
from likeness.storage.objects import FileObjects
from likeness.storage.records import AdapterRecord


@pytest.fixture
def library(tmp_path: Path) -> Iterator[AdapterLibrary]:
    made = AdapterLibrary(FileObjects(tmp_path / "objects"), Catalog(f"sqlite:///{tmp_path}/catalog.sqlite"))
    yield made
    made.catalog.close()


def test_a_bundle_is_the_adapter_to_the_bit(tools) -> None:
    kept, content = bundle.encode(tools.adapter())
    tools.assert_same(bundle.decode(content), kept)
    tools.assert_same(bundle.reopen(content, kept.card.content_sha256), kept)
    assert bundle.encode(tools.adapter())[1] == content
    assert bundle.encode(kept)[1] == content


@pytest.mark.parametrize("cut", [0, 7, 8, 100, -1])
def test_a_truncated_bundle_is_refused(tools, cut: int) -> None:
    kept, content = bundle.encode(tools.adapter())
    for opened in (bundle.decode, lambda got: bundle.reopen(got, kept.card.content_sha256)):
        with pytest.raises(CorruptAdapter):
            opened(content[:cut])


def test_a_changed_bundle_is_refused(tools) -> None:
    kept, content = bundle.encode(tools.adapter())
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    arrays, metadata = tensors.decode(content)
    odd = tensors.encode(arrays | {"unet/x.lora_A.weight": np.ones((4, 4), np.float16)}, metadata)
    foreign = tensors.encode(arrays, {"format": "pt"})
    strange = tensors.encode(arrays | {"x": np.ones(1, np.float16)}, metadata)
    for bad in (flipped, odd, foreign, strange):
        with pytest.raises(CorruptAdapter):
            bundle.decode(bad)
        with pytest.raises(CorruptAdapter):
            bundle.reopen(bad, kept.card.content_sha256)
    with pytest.raises(CorruptAdapter):
        bundle.reopen(content, "0" * 64)  # a whole file, and not the one that was asked for


def test_publish_read_load(library: AdapterLibrary, tools) -> None:
    card = library.publish(tools.adapter(), "anna")
    record = library.catalog.find_adapter("anna", "anna-2")
    assert record.card == card
    assert record.bytes == len(library.objects.get(record.key))
    tools.assert_same(library.read("anna", "anna-2"), library.load(engine_key(record)))
    with pytest.raises(NotFound):
        library.read("bert", "anna-2")


def test_a_name_is_taken_once_and_replaced_on_demand(library: AdapterLibrary, tools) -> None:
    first = library.publish(tools.adapter(), "t")
    with pytest.raises(AlreadyExists):
        library.publish(tools.adapter(seed=1), "t")
    with pytest.raises(AlreadyExists):
        library.publish(tools.adapter(), "t")  # the same weights: what is there must survive the refusal
    assert library.read("t", "anna-2").card == first
    second = library.publish(tools.adapter(seed=1), "t", replace=True)
    assert library.read("t", "anna-2").card == second != first
    assert len(list(library.objects.list("t/"))) == 1
    assert library.publish(tools.adapter(seed=1), "t", replace=True) == second  # with itself
    assert library.read("t", "anna-2").card == second


def test_a_publication_that_is_cut_off_does_not_exist(
    library: AdapterLibrary, tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Catalog, record: AdapterRecord, *, replace: bool = False) -> None:
        raise StorageUnavailable("the database is away")

    monkeypatch.setattr(Catalog, "publish", failing)
    with pytest.raises(StorageUnavailable):
        library.publish(tools.adapter(), "t")
    monkeypatch.undo()
    with pytest.raises(NotFound):
        library.read("t", "anna-2")
    assert list(library.objects.list("t/")) == []


def test_deleted_and_damaged_objects_are_told_apart(library: AdapterLibrary, tools) -> None:
    library.publish(tools.adapter(), "t")
    record = library.catalog.find_adapter("t", "anna-2")
    library.objects.put(record.key, library.objects.get(record.key)[:-10])
    with pytest.raises(CorruptAdapter):
        library.read("t", "anna-2")
    library.objects.delete(record.key)
    with pytest.raises(NotFound, match="no longer exists"):
        library.load(engine_key(record))


@pytest.mark.parametrize("key", ["", "t/anna", "t/../x/" + "0" * 64, "t/anna/" + "0" * 63, "t/anna/" + "0" * 64 + "/x"])
def test_keys_that_are_none(library: AdapterLibrary, key: str) -> None:
    with pytest.raises(NotFound):
        library.load(key)


def test_everything_of_a_name_goes_and_nothing_of_its_neighbour(library: AdapterLibrary, tools) -> None:
    adapter = tools.adapter()
    for name in ("anna", "anna-2"):
        library.publish(replace(adapter, card=replace(adapter.card, name=name)), "t")
    library.objects.put(f"t/adapters/anna/{'0' * 64}.safetensors", b"of an interrupted publication")
    assert library.delete_all("t", "adapters", "anna") == 2
    assert library.read("t", "anna-2")
    with pytest.raises(UsageError):
        library.delete_all("t", "adapters", "")


def test_readers_during_replacements_get_a_whole_one_or_none(library: AdapterLibrary, tools) -> None:
    versions = [tools.adapter(seed=seed) for seed in range(3)]
    known = {library.publish(one, "t", replace=True).content_sha256 for one in versions}
    seen: list[str] = []
    errors: list[Exception] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                seen.append(library.read("t", "anna-2").card.content_sha256)
            except NotFound:
                continue  # replaced between the row and the object
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for k in range(20):
        library.publish(versions[k % 3], "t", replace=True)
    stop.set()
    thread.join()
    assert errors == []
    assert set(seen) <= known and seen
