"""A home keeps names apart, publishes whole folders, and forgets a person down to the last byte."""

import json
import multiprocessing
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from likeness.errors import (
    AdapterBusy,
    AdapterExists,
    AdapterNotFound,
    CorruptAdapter,
    UsageError,
)
from likeness.storage.card import read_card, write_card
from likeness.storage.home import Home
from likeness.types import AdapterCard

CARD = AdapterCard(
    name="anna",
    class_noun="woman",
    identifier="<<TOK>>",
    base_id="tiny",
    base_sha256="ab" * 32,
    family="sd-2.1-base",
    recipe={"rank": 4},
    seed=7,
    photos=10,
    steps=300,
    seconds=12.5,
    created="2026-01-02T03:04:05+00:00",
    versions={"torch": "2.13.0"},
    rank=4,
    alpha=4.0,
)
SECRET = b"a face nobody else shall see"


def staged(home: Home, name: str, weights: bytes = SECRET) -> Path:
    folder = home.new_staged_folder(name)
    (folder / "unet").mkdir(parents=True)
    (folder / "card.json").write_bytes(write_card(replace(CARD, name=name)))
    (folder / "unet" / "adapter_model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path / "home")


def test_card_round_trip():
    assert read_card(write_card(CARD)) == CARD
    with pytest.raises(CorruptAdapter):
        write_card(replace(CARD, recipe={"x": float("nan")}))
    with pytest.raises(CorruptAdapter):
        write_card(replace(CARD, recipe={"x": object()}))


def test_a_new_home_is_empty_and_only_looking_makes_nothing(home):
    assert home.list_adapters() == () and home.unreadable_adapters() == ()
    assert not home.root.exists()
    home.photos_folder("anna")
    assert home.root.stat().st_mode & 0o077 == 0  # nobody else may look at faces


def test_publish_find_list(home):
    for name in ("bert", "anna"):
        folder = home.publish(name, staged(home, name))
        assert folder == home.adapter_folder(name) == home.find(name)
        assert (folder / "unet" / "adapter_model.safetensors").read_bytes() == SECRET
    assert [card.name for card in home.list_adapters()] == ["anna", "bert"]
    assert list((home.root / "staging").iterdir()) == []


def test_publish_over_an_adapter(home):
    home.publish("anna", staged(home, "anna", b"first"))
    second = staged(home, "anna", b"second")
    weights = home.adapter_folder("anna") / "unet" / "adapter_model.safetensors"
    with pytest.raises(AdapterExists):
        home.publish("anna", second)
    assert weights.read_bytes() == b"first"
    home.publish("anna", second, replace=True)
    assert weights.read_bytes() == b"second"
    assert not any(b"first" in path.read_bytes() for path in home.root.rglob("*") if path.is_file())


def test_publish_refuses_half_a_folder_and_another_name(home):
    folder = staged(home, "anna")
    with pytest.raises(CorruptAdapter, match="name"):
        home.publish("bert", folder)
    (folder / "card.json").unlink()
    with pytest.raises(CorruptAdapter):
        home.publish("anna", folder)
    assert home.list_adapters() == ()


def test_a_failed_replacement_leaves_the_old_one(home, monkeypatch):
    home.publish("anna", staged(home, "anna", b"first"))
    folder, target = staged(home, "anna", b"second"), home.adapter_folder("anna")
    import os

    rename = os.rename

    def failing(source, destination):
        if Path(source) == folder:
            raise OSError("disk gone")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="disk gone"):
        home.publish("anna", folder, replace=True)
    assert (target / "unet" / "adapter_model.safetensors").read_bytes() == b"first"


def test_a_broken_card_hides_no_other_adapter(home):
    for name in ("anna", "bert"):
        home.publish(name, staged(home, name))
    (home.adapter_folder("anna") / "card.json").write_text("{}")
    assert [card.name for card in home.list_adapters()] == ["bert"]
    assert home.unreadable_adapters() == ("anna",)


def test_not_found_names_the_near_miss_and_never_the_question(home):
    home.publish("anna-2", staged(home, "anna-2"))
    with pytest.raises(AdapterNotFound) as near:
        home.find("anna-3")
    assert "anna-2" in near.value.hint and "anna-3" not in str(near.value)
    with pytest.raises(AdapterNotFound) as far:
        home.find("zoe")
    assert "zoe" not in str(far.value) and "anna" not in str(far.value)


@pytest.mark.parametrize("name", ["../anna", "", "a/b", "Anna", "<script>", "x" * 64, "."])
@pytest.mark.parametrize(
    "ask", ["adapter_folder", "photos_folder", "outputs_folder", "find", "forget", "new_staged_folder"]
)
def test_names_that_are_paths(home, name, ask):
    with pytest.raises(UsageError):
        getattr(home, ask)(name)
    assert not home.root.exists()


def fill(home: Home, name: str) -> None:
    home.publish(name, staged(home, name))
    for folder in (home.photos_folder(name), home.checkpoint_folder(name), home.job_folder(name)):
        (folder / "1.bin").write_bytes(SECRET)
    (home.outputs_folder(name) / "deep").mkdir()
    (home.outputs_folder(name) / "deep" / "1.png").write_bytes(SECRET)
    staged(home, name)
    with home.lock(name):
        pass


def test_forget_leaves_nothing_but_the_receipt(home, tmp_path):
    fill(home, "anna")
    (home.class_images_folder() / "1.png").write_bytes(b"nobody")
    outside = tmp_path / "outside"
    outside.write_bytes(b"keep")
    (home.outputs_folder("anna") / "link").symlink_to(outside)
    receipt = home.forget("anna")
    left = [path for path in home.root.rglob("*") if path.is_file()]
    assert {path.parent.name for path in left} == {"class-images", "receipts"}
    assert not any(SECRET in path.read_bytes() for path in left)
    assert [path.parent.name for path in home.root.rglob("*anna*")] == ["receipts"]
    assert outside.read_bytes() == b"keep"
    counts = {item.kind: (item.count, item.bytes) for item in receipt.items}
    assert counts["prepared photos"] == counts["checkpoints"] == counts["other job files"] == (1, len(SECRET))
    assert counts["adapter"][0] == counts["unfinished files"][0] == 2
    assert counts["outputs"][0] == 2
    (path,) = (home.root / "receipts").iterdir()
    written = json.loads(path.read_text())
    assert (written["name"], written["at"], len(written["items"])) == ("anna", receipt.at, len(receipt.items))


def test_forget_touches_no_neighbour(home):
    for name in ("anna", "anna-2"):
        fill(home, name)
    before = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file() and "anna-2" in str(path)}
    home.forget("anna")
    assert before == {path: path.read_bytes() for path in before}
    assert home.find("anna-2")


def test_forget_what_is_not_there(home):
    with pytest.raises(AdapterNotFound):
        home.forget("anna")
    fill(home, "anna")
    home.forget("anna")
    with pytest.raises(AdapterNotFound):
        home.forget("anna")


def test_forget_before_anything_was_published(home):
    (home.photos_folder("anna") / "1.bin").write_bytes(SECRET)
    assert [item.kind for item in home.forget("anna").items] == ["prepared photos", "other job files"]


def hold(root: Path, held, go) -> None:
    with Home(root).lock("anna"):
        held.set()
        go.wait(20)


def test_two_processes_never_hold_one_name(home):
    fill(home, "anna")
    spawn = multiprocessing.get_context("spawn")
    held, go = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(home.root, held, go))
    other.start()
    try:
        assert held.wait(20)
        with pytest.raises(AdapterBusy), home.lock("anna"):
            pass
        with pytest.raises(AdapterBusy):
            home.forget("anna")
        assert (home.photos_folder("anna") / "1.bin").exists()
        with home.lock("bert"):  # another name is free
            pass
    finally:
        go.set()
        other.join(20)
    with home.lock("anna", wait_s=5):
        pass


def test_two_threads_never_hold_one_name(home):
    inside = threading.Event()
    done = threading.Event()

    def other() -> None:
        with home.lock("anna"):
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    with pytest.raises(AdapterBusy), home.lock("anna"):
        pass
    done.set()
    thread.join()
    with home.lock("anna"), pytest.raises(AdapterBusy), home.lock("anna"):
        pass
