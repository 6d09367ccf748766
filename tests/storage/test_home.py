"""A home keeps names and tenants apart, one process at a time holds a name, and deleting leaves nothing."""

import multiprocessing
import threading
from pathlib import Path

import pytest

from fixtures.waiting import HANG_S
from likeness.errors import AdapterBusy, UsageError
from likeness.storage.home import Home

SECRET = b"a face nobody else shall see"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_only_looking_makes_nothing(home: Home) -> None:
    assert not home.holds("anna")
    assert not home.photos_folder("anna").exists()
    assert not home.root.exists()
    home.checkpoint_folder("anna")
    assert home.root.stat().st_mode & 0o077 == 0  # private to the owner


@pytest.mark.parametrize("name", ["../anna", "", "a/b", "Anna", "<script>", "x" * 64, "."])
@pytest.mark.parametrize("ask", ["photos_folder", "checkpoint_folder", "outputs_folder", "holds", "delete", "of"])
def test_names_that_are_paths(home: Home, name: str, ask: str) -> None:
    with pytest.raises(UsageError):
        getattr(home, ask)(name)
    assert not home.root.exists()


def fill(home: Home, name: str) -> None:
    checkpoints = home.checkpoint_folder(name)
    home.photos_folder(name).mkdir()
    for folder in (home.photos_folder(name), checkpoints, checkpoints.parent):
        (folder / "1.bin").write_bytes(SECRET)
    (home.outputs_folder(name) / "deep").mkdir()
    (home.outputs_folder(name) / "deep" / "1.png").write_bytes(SECRET)


def test_deleting_leaves_nothing(home: Home, tmp_path: Path) -> None:
    fill(home, "anna")
    home.outputs_folder("ben").joinpath("1.png").write_bytes(b"nobody")
    outside = tmp_path / "outside"
    outside.write_bytes(b"keep")
    (home.outputs_folder("anna") / "link").symlink_to(outside)
    with home.lock("anna"):
        items = home.delete("anna")
    left = [path for path in home.root.rglob("*") if path.is_file()]
    assert {path.parent.name for path in left} == {"ben"}
    assert list(home.root.rglob("*anna*")) == []
    assert outside.read_bytes() == b"keep"
    counts = {item.kind: (item.count, item.bytes) for item in items}
    assert counts["prepared photographs"] == counts["checkpoints"] == counts["other job files"] == (1, len(SECRET))
    assert counts["outputs"][0] == 2
    assert not home.holds("anna")


def write(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(content)


def test_new_photographs_take_the_place_of_the_old_ones_or_go(home: Home) -> None:
    write(home.photos_folder("anna"), b"old")
    with home.new_photos("anna") as folder:
        write(folder, SECRET)
    assert [path.read_bytes() for path in home.root.rglob("*.png")] == [b"old"]
    with home.new_photos("anna") as folder:
        write(folder, b"new")
        home.keep_photos("anna")
    assert [path.read_bytes() for path in home.root.rglob("*.png")] == [b"new"]


def test_photographs_that_a_killed_training_left_are_forgotten_and_not_taken_up(home: Home) -> None:
    left = home.photos_folder("anna").with_name("photos-new")
    write(left, SECRET)
    assert ("new photographs", 1) in {(item.kind, item.count) for item in home.delete("anna")}
    write(left, SECRET)
    with home.new_photos("anna") as folder:
        assert folder == left and not folder.exists()


def test_deleting_touches_no_neighbour(home: Home) -> None:
    for one in (home, home.of("other")):
        for name in ("anna", "anna-2"):
            fill(one, name)
    kept = [path for path in home.root.rglob("*") if path.is_file() and ("anna-2" in str(path) or "other" in str(path))]
    assert len(kept) == 12
    home.delete("anna")
    assert all(path.read_bytes() == SECRET for path in kept)
    assert home.of("other").holds("anna") and not home.holds("anna")


def test_tenants_have_folders_and_locks_of_their_own(home: Home) -> None:
    other = home.of("other")
    assert other.photos_folder("anna") != home.photos_folder("anna")
    assert home.of("local") == home
    with home.lock("anna"), other.lock("anna"):
        pass


def hold(root: Path, held, go) -> None:
    with Home(root).lock("anna"):
        held.set()
        go.wait(HANG_S)


def test_two_processes_never_hold_one_name(home: Home) -> None:
    spawn = multiprocessing.get_context("spawn")
    held, go = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(home.root, held, go))
    other.start()
    try:
        assert held.wait(HANG_S)
        with pytest.raises(AdapterBusy), home.lock("anna"):
            pass
        with home.lock("bert"):  # another name is free
            pass
    finally:
        go.set()
        other.join()
    with home.lock("anna", wait_s=HANG_S):
        pass


def test_two_threads_never_hold_one_name(home: Home) -> None:
    inside = threading.Event()
    done = threading.Event()

    def other() -> None:
        with home.lock("anna"):
            inside.set()
            done.wait(HANG_S)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(HANG_S)
    with pytest.raises(AdapterBusy), home.lock("anna"):
        pass
    done.set()
    thread.join()
    with home.lock("anna"), pytest.raises(AdapterBusy), home.lock("anna"):
        pass


def test_a_lock_leaves_no_name_behind_not_even_of_a_process_that_was_killed(home: Home) -> None:
    with home.lock("anna"), home.of("other").lock("bert"):
        home.drop_locks()  # those that are held stay
        assert {path.stem for path in home.root.rglob("*.lock")} == {"anna", "bert"}
    assert list(home.root.rglob("*.lock")) == []
    for folder in (home.root / "locks", home.root / "tenants/other/locks"):
        (folder / "zoe.lock").touch()
    home.drop_locks()
    assert list(home.root.rglob("*.lock")) == []


def test_images_of_several_adapters_are_deleted_with_any_of_them(home: Home) -> None:
    for names in (("anna", "oil"), ("bert", "anna"), ("bert", "annabel")):
        (home.outputs_folder(*names) / "x.png").write_bytes(b"x")
    assert home.holds("anna") and home.holds("oil")
    assert [(item.kind, item.count) for item in home.delete("anna")] == [("outputs", 1), ("outputs", 1)]
    assert not home.holds("anna") and not home.holds("oil") and home.holds("annabel")
