"""Objects in a folder and in S3 keep the same laws; S3 is moto's server on this machine, spoken to over HTTP."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likeness.errors import NotFound, SettingsError, StorageUnavailable, UsageError
from likeness.storage.objects import FileObjects, Objects, S3Objects, checked_key, objects_at

BUCKET = "likeness-tests"


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """A bucket on moto's server."""
    boto3 = pytest.importorskip("boto3", reason="S3 needs boto3")
    server_module = pytest.importorskip("moto.server", reason="the S3 of these tests is moto's")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}", "AWS_EC2_METADATA_DISABLED": "true",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return objects_at(str(tmp_path / "objects"))
    return objects_at(f"{request.getfixturevalue('s3_url')}/{tmp_path.name}")


def keys(objects: Objects, prefix: str = "") -> list[str]:
    return [found.key for found in objects.list(prefix)]


@pytest.mark.services
def test_what_was_put_is_there_until_it_is_deleted(objects: Objects) -> None:
    assert keys(objects) == []
    objects.put("anna/adapters/a/1.safetensors", b"first")
    objects.put("anna/adapters/a/1.safetensors", b"second")
    objects.put("anna/photos/a/2", b"")
    objects.put("bert/photos/a/2", b"other")
    assert objects.get("anna/adapters/a/1.safetensors") == b"second"
    assert objects.has("anna/photos/a/2") and not objects.has("anna/photos/a") and not objects.has("anna/photos/a/3")
    assert keys(objects) == ["anna/adapters/a/1.safetensors", "anna/photos/a/2", "bert/photos/a/2"]
    assert keys(objects, "anna/p") == ["anna/photos/a/2"]
    (found,) = objects.list("bert/")
    assert found.bytes == 5 and found.modified.utcoffset() is not None
    objects.delete("anna/photos/a/2")
    objects.delete("anna/photos/a/2")  # no error
    with pytest.raises(NotFound):
        objects.get("anna/photos/a/2")
    assert keys(objects, "anna/") == ["anna/adapters/a/1.safetensors"]


@pytest.mark.services
def test_a_neighbours_name_is_not_a_folder(objects: Objects) -> None:
    for name in ("anna", "anna-2"):
        objects.put(f"t/photos/{name}/1", b"x")
    assert keys(objects, "t/photos/anna/") == ["t/photos/anna/1"]
    assert keys(objects, "t/photos/anna") == ["t/photos/anna-2/1", "t/photos/anna/1"]


def test_a_folder_may_be_deleted_during_a_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, scandir = FileObjects(tmp_path), os.scandir
    store.put("local/a/photo", b"1")
    store.put("local/b/photo", b"2")

    def deleted_before(folder: Any) -> Any:
        if Path(folder).name == "b":
            store.delete("local/b/photo")  # and the folder with it
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", deleted_before)
    assert [facts.key for facts in store.list("local/")] == ["local/a/photo"]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileObjects(tmp_path)
    store.put("local/a/photo", b"1")

    def refused(folder: Any) -> Any:
        raise PermissionError(errno.EACCES, "refused")

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(StorageUnavailable, match="EACCES"):
        list(store.list("local/"))


@pytest.mark.services
def test_listing_goes_beyond_one_page(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3 = pytest.importorskip("boto3", reason="S3 needs boto3")
    real = boto3.client

    def with_short_pages(*named: Any, **options: Any) -> Any:
        client = real(*named, **options)
        monkeypatch.setattr(client, "list_objects_v2", partial(client.list_objects_v2, MaxKeys=2))
        return client

    monkeypatch.setattr(boto3, "client", with_short_pages)
    objects = S3Objects(BUCKET, "pages")
    for k in range(5):
        objects.put(f"a/{k}", b"x")
    assert keys(objects, "a/") == [f"a/{k}" for k in range(5)]


@pytest.mark.services
def test_a_bucket_that_is_not_there_is_named_as_a_cause(s3_url: str) -> None:
    with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
        S3Objects("nobodys-bucket").get("a")
    with pytest.raises(StorageUnavailable, match="expected a response from S3"):
        S3Objects(BUCKET, endpoint_url="http://127.0.0.1:9").get("a")


@pytest.mark.services
def test_an_answer_that_breaks_off_is_the_stores_fault(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import IncompleteReadError
    from botocore.response import StreamingBody

    objects = S3Objects(BUCKET)
    objects.put("broken/off", b"x" * 100)

    def half(self: object, amt: int | None = None) -> bytes:
        raise IncompleteReadError(actual_bytes=50, expected_bytes=100)

    monkeypatch.setattr(StreamingBody, "read", half)
    with pytest.raises(StorageUnavailable, match="IncompleteReadError"):
        objects.get("broken/off")


def test_a_folder_that_cannot_be_read_is_no_missing_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = FileObjects(tmp_path)
    objects.put("a/b", b"x")

    def full(*arguments: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(StorageUnavailable, match="EMFILE"):
        objects.get("a/b")


@pytest.mark.parametrize(
    "key",
    [
        "", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "../a", ".incoming/x", "a/.b", "a\\b", "a\0b", "a b", "ä",
        "a\n", "a/" * 10 + "a", "x" * 201, "~/a", "C:/a", "a?b", "a#b", "%2e%2e/a",
    ],
)  # fmt: skip
def test_keys_that_are_paths_are_refused_by_every_verb(key: str, tmp_path: Path) -> None:
    objects = FileObjects(tmp_path / "root")
    for verb in (objects.get, objects.has, objects.delete, lambda key: objects.put(key, b"x")):
        with pytest.raises(UsageError):
            verb(key)
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=40))
def test_whatever_is_a_key_stays_inside(text: str) -> None:
    try:
        key = checked_key(text)
    except UsageError:
        return
    assert os.path.normpath(f"/place/{key}") == f"/place/{key}"


def test_links_are_not_followed_and_pipes_not_waited_for(tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(b"secret")
    objects = FileObjects(tmp_path / "root")
    objects.put("a/b", b"x")
    (tmp_path / "root" / "a" / "link").symlink_to(outside)
    os.mkfifo(tmp_path / "root" / "a" / "pipe")
    for key in ("a/link", "a/pipe"):
        with pytest.raises(NotFound):
            objects.get(key)
        assert not objects.has(key)
    assert keys(objects) == ["a/b"]


def test_a_key_cannot_be_another_keys_folder(tmp_path: Path) -> None:
    objects = FileObjects(tmp_path)
    objects.put("a/b", b"x")
    with pytest.raises(UsageError):
        objects.put("a/b/c", b"y")
    with pytest.raises(UsageError):
        objects.put("a", b"y")
    assert objects.get("a/b") == b"x"


def test_a_failed_write_leaves_the_old_object_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = FileObjects(tmp_path)
    objects.put("a/b", b"old")

    def failing(handle: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageUnavailable, match="ENOSPC"):
        objects.put("a/b", b"new")
    monkeypatch.undo()
    assert objects.get("a/b") == b"old"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["b"]


def test_writers_readers_and_deleters_do_not_disturb_each_other(tmp_path: Path) -> None:
    objects, contents, errors = FileObjects(tmp_path), {bytes([k]) * 3000 for k in range(4)}, []

    def work(content: bytes) -> None:
        try:
            for _ in range(30):
                objects.put("t/a/b", content)
                with suppress(NotFound):
                    assert objects.get("t/a/b") in contents
                objects.delete("t/a/b")  # takes the folders with it, under the others' hands
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_folders_are_for_nobody_else(tmp_path: Path) -> None:
    FileObjects(tmp_path / "root").put("a/b", b"x")
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "root" / "a", tmp_path / "root" / "a" / "b")} == {0}


def test_places_by_url(tmp_path: Path) -> None:
    assert objects_at(f"file://{tmp_path}/x%20y") == FileObjects(tmp_path / "x y")
    assert objects_at(str(tmp_path)) == FileObjects(tmp_path)
    for url in (
        "",
        "http://host/x",
        "s3://",
        "s3:///x",
        "file://host/x",
        "s3://bucket/x?y=1",
        "s3://[/x",
        "file://[x]/",
        "s3://user@bucket/x",
        "s3://bucket:80/x",
        "s3://Bucket\\x/y",
        "s3://bucket/x#y",
        "s3://bucket/x\ny",
        "file:///x#y",
        "file:///x?y",
        "file:///x%00y",
        "x\0y",
    ):
        with pytest.raises(SettingsError):
            objects_at(url)


@pytest.mark.services
def test_who_writes_is_known_or_what_is_young_is_spared(objects: Objects) -> None:
    objects.put("anna/x/1", b"")
    with objects.writing(), objects.writing():  # many may
        objects.put("anna/x/2", b"")
        with objects.alone(0.05) as is_alone:
            assert is_alone == (objects.grace_s > 0)
    with objects.alone() as is_alone:
        assert is_alone
        objects.delete("anna/x/1")
    objects.put("anna/x/1", b"")  # writers are admitted again
    assert keys(objects) == ["anna/x/1", "anna/x/2"]
    objects.prune("anna/")
    objects.prune("")
    assert keys(objects) == ["anna/x/1", "anna/x/2"]


def test_folders_that_hold_nothing_are_pruned(tmp_path: Path) -> None:
    objects = FileObjects(tmp_path)
    (tmp_path / "anna/photos/rex/deep").mkdir(parents=True)
    (tmp_path / "anna/photos/max").mkdir()
    (tmp_path / "async/.incoming").mkdir(parents=True)  # of another store, which may be about to write there
    objects.prune("anna/photos/rex/")
    assert sorted(path.name for path in (tmp_path / "anna/photos").iterdir()) == ["max"]
    objects.prune("")
    assert [path.name for path in tmp_path.iterdir()] == ["async"]


def test_a_folder_without_locks_spares_what_is_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = FileObjects(tmp_path)
    assert objects.grace_s == 0.0

    def unsupported(*arguments: object) -> None:
        raise OSError(errno.EBADF, "no locks here")

    monkeypatch.setattr("fcntl.flock", unsupported)
    objects.put("a/1", b"whole")
    (tmp_path / ".incoming/young").write_bytes(b"half")
    with objects.alone() as is_alone:
        assert is_alone and objects.grace_s > 0
    assert (tmp_path / ".incoming/young").exists()
    assert keys(objects) == ["a/1"]
