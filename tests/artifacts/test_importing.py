"""What is imported is found by what is there: a file, any folder, a tar.gz of one. What is refused has a reason."""

import io
import json
import os
import pickle
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from likeness.artifacts import exporting, tensors
from likeness.artifacts.foreign import foreign_card
from likeness.artifacts.importing import read_foreign
from likeness.artifacts.package import pack
from likeness.errors import CorruptAdapter, InputRefused, LikenessError, NotFound


@pytest.fixture
def card(tools):
    return foreign_card("bert", "man", "sks", base_id="tiny", base_sha256=tools.base_sha256, family="sd-2.1-base")


@pytest.fixture
def peft(tools, tmp_path) -> Path:
    """As PEFT leaves it: two folders, a README in each, no card of ours."""
    exporting.export_peft(tools.adapter(), tmp_path / "peft")
    (tmp_path / "peft" / "card.json").unlink()
    for network in ("unet", "text_encoder"):
        (tmp_path / "peft" / network / "README.md").write_text("PEFT writes one")
    return tmp_path / "peft"


def tar_gz(folder: Path, *, root: str, tar_format: int = tarfile.GNU_FORMAT, hidden: bool = False) -> bytes:
    """As `tar czf x.tgz -C FOLDER ROOT` packs it, with the folders' own entries."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tar_format) as archive:
        archive.add(folder / root, root)
        if hidden:
            entry = tarfile.TarInfo(f"{root}/._unet".replace("./", ""))  # macOS
            entry.size = 3
            archive.addfile(entry, io.BytesIO(b"xyz"))
    return packed.getvalue()


def layers(adapter) -> dict[str, set[str]]:
    return {network: set(found) for network, found in adapter.weights.items()}


def test_two_networks_in_two_folders(tools, base, peft, card):
    adapter = read_foreign(peft, base, card)
    assert layers(adapter) == layers(tools.adapter())
    assert adapter.card.alpha == 6.0


@pytest.mark.parametrize("network", ["unet", "text_encoder"])
@pytest.mark.parametrize("place", ["folder", "file", "named", "around"])
def test_one_network_by_itself(tools, base, peft, card, tmp_path, network, place):
    """The folder may have any name: which network it is for is seen from its layers."""
    lone = Path(shutil.copytree(peft / network, tmp_path / "lone"))
    if place == "named":  # PEFT's folder of an adapter that is not called default
        lone = Path(shutil.move(lone, tmp_path / "around" / "anna")).parent
    path = {"file": lone / "adapter_model.safetensors", "around": tmp_path / "lone"}.get(place, lone)
    adapter = read_foreign(path, base, card)
    assert layers(adapter) == {network: set(tools.adapter().weights[network])}
    assert adapter.card.alpha == 6.0


def test_a_folder_with_one_file(tools, base, card, tmp_path):
    """As diffusers' scripts leave it."""
    exporting.export_diffusers(tools.adapter(), tmp_path / "out" / "pytorch_lora_weights.safetensors")
    (tmp_path / "out" / "logs").mkdir()
    (tmp_path / "out" / "README.md").write_text("a model card")
    assert layers(read_foreign(tmp_path / "out", base, card)) == layers(tools.adapter())


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("root", [".", "peft"])
def test_a_tar_that_tar_made(tools, base, peft, card, tmp_path, root, tar_format, hidden):
    os.utime(peft / "unet", (1.5, 1.5))  # fractions of a second need an extended header
    folder = peft if root == "." else peft.parent
    (tmp_path / "x").write_bytes(tar_gz(folder, root=root, tar_format=tar_format, hidden=hidden))
    assert layers(read_foreign(tmp_path / "x", base, card)) == layers(tools.adapter())


def test_a_tar_of_one_network_and_of_our_own(tools, base, peft, card, tmp_path):
    (tmp_path / "x").write_bytes(tar_gz(peft, root="unet"))
    assert layers(read_foreign(tmp_path / "x", base, card)) == {"unet": set(tools.adapter().weights["unet"])}
    exporting.export_peft(tools.adapter(), tmp_path / "ours")
    (tmp_path / "y").write_bytes(pack(tmp_path / "ours"))
    assert layers(read_foreign(tmp_path / "y", base)) == layers(tools.adapter())


@pytest.mark.parametrize("name", ["pytorch_lora_weights.safetensors", "adapter_model.safetensors"])
def test_the_hubs_cache_of_links_is_read(tools, base, peft, card, tmp_path, name):
    """A snapshot's files are links to blobs that are named by their hashes."""
    snapshot, blobs = tmp_path / "snapshots" / "0123", tmp_path / "blobs"
    exporting.export_diffusers(tools.adapter(), blobs / "pytorch_lora_weights.safetensors")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copy(peft / "unet" / file, blobs / file)
    snapshot.mkdir(parents=True)
    wanted = {name, "adapter_config.json"} if name == "adapter_model.safetensors" else {name}
    for number, file in enumerate(sorted(wanted)):
        (blobs / file).rename(blobs / f"{number:064x}")
        (snapshot / file).symlink_to(f"../../blobs/{number:064x}")
    for path in (snapshot, snapshot / name):
        assert layers(read_foreign(path, base, card))["unet"] == set(tools.adapter().weights["unet"])


def a_loop(folder: Path) -> None:
    (folder / "x.safetensors").symlink_to("x.safetensors")


def link_entry(kind: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("unet")
        entry.type, entry.linkname = kind, "/etc"
        archive.addfile(entry)
    return packed.getvalue()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_tar_with_links_or_devices_is_refused(base, card, tmp_path, kind):
    (tmp_path / "x").write_bytes(link_entry(kind))
    with pytest.raises(InputRefused, match="regular files only"):
        read_foreign(tmp_path / "x", base, card)


@pytest.mark.parametrize("name", ["../out", "/out", "unet/../../out", "unet//x", "unet/a b"])
def test_a_tar_with_odd_names_writes_nothing(base, card, tmp_path, name):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    (tmp_path / "x").write_bytes(packed.getvalue())
    with pytest.raises(InputRefused, match="file names"):
        read_foreign(tmp_path / "x", base, card)
    assert not (tmp_path.parent / "out").exists()


def test_a_damaged_tar_is_refused(base, peft, card, tmp_path):
    whole = tar_gz(peft, root=".")
    for content in (whole[: len(whole) // 2], whole[:20], b"\x1f\x8b" + bytes(50)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(InputRefused):
            read_foreign(tmp_path / "x", base, card)


def empty(folder: Path) -> None:
    pass


def empty_networks(folder: Path) -> None:
    (folder / "unet").mkdir()
    (folder / "text_encoder").mkdir()


def deep(folder: Path) -> None:
    (folder / "/".join("abcdefgh")).mkdir(parents=True)


def pickle_inside(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.bin").write_bytes(b"x")


def only_config(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def config_is_a_folder(folder: Path) -> None:
    (folder / "adapter_config.json").mkdir()
    (folder / "adapter_model.safetensors").mkdir()


def config_is_a_list(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("[]")
    (folder / "adapter_model.safetensors").write_bytes(b"x")


def card_alone(folder: Path) -> None:
    (folder / "card.json").write_text("{}")


def two_files(folder: Path) -> None:
    for name in "ab":
        (folder / f"{name}.safetensors").write_bytes(b"x")


def a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "x.safetensors")


def a_link(folder: Path) -> None:
    (folder / "x.safetensors").symlink_to("/etc/hostname")


def a_triton_model(folder: Path) -> None:
    (folder / "config.pbtxt").write_text("x")


FOLDERS = [empty, empty_networks, deep, pickle_inside, only_config, config_is_a_folder, config_is_a_list, card_alone,
           two_files, a_pipe, a_link, a_loop, a_triton_model]  # fmt: skip


@pytest.mark.parametrize("fill", FOLDERS)
@pytest.mark.parametrize("is_packed", [False, True])
def test_folders_without_an_adapter_are_refused(base, card, tmp_path, fill, is_packed):
    (tmp_path / "x").mkdir()
    fill(tmp_path / "x")
    path = tmp_path / "x"
    if is_packed:
        path = tmp_path / "y"
        path.write_bytes(tar_gz(tmp_path / "x", root="."))
    with pytest.raises((CorruptAdapter, InputRefused)):
        read_foreign(path, base, card)


def test_an_empty_folder_is_told_what_belongs_in_it(base, card, tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(CorruptAdapter) as caught:
        read_foreign(tmp_path / "x", base, card)
    assert "unet/ and text_encoder/" in caught.value.hint


@pytest.mark.parametrize("value", [None, [], 3, "8", True, -1, 0, 1e400, {}, {"to_q": 0}, {"to_q": "8"}])
@pytest.mark.parametrize(
    "field", ["lora_alpha", "peft_type", "use_dora", "alpha_pattern", "r", "init_lora_weights", "use_rslora"]
)
def test_odd_configs_are_read_or_refused(base, peft, card, field, value):
    path = peft / "unet" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with suppress(LikenessError):
        read_foreign(peft, base, card)


def test_the_kind_of_a_peft_folder_is_named(base, peft, card):
    path = peft / "unet" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"peft_type": "LOKR"}))
    with pytest.raises(InputRefused, match="LOKR"):
        read_foreign(peft, base, card)


def test_a_zip_is_called_one(base, card, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.safetensors").write_bytes(b"x")
    path = Path(shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "in"))
    with pytest.raises(InputRefused, match="zip"):
        read_foreign(path, base, card)


def test_nothing_there(base, card, tmp_path):
    with pytest.raises(NotFound):
        read_foreign(tmp_path / "x", base, card)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x10480])
def test_a_header_whose_length_begins_like_a_pickle_is_read(length: int) -> None:
    encoded = tensors.encode({"a": np.ones(2, np.float32)}, {"note": ""})
    missing = length - int.from_bytes(encoded[:8], "little")
    written = tensors.encode({"a": np.ones(2, np.float32)}, {"note": "x" * missing})
    assert int.from_bytes(written[:8], "little") == length and written[:1] == b"\x80"
    arrays, metadata = tensors.decode(written)
    assert len(metadata["note"]) == missing and arrays["a"].tolist() == [1, 1]
    with pytest.raises(CorruptAdapter, match="pickle"):
        tensors.decode(pickle.dumps({"a": 1}, protocol=4))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_all_numbers_of_eight_bits_are_read_as_torch_reads_them(dtype: torch.dtype) -> None:
    every = torch.arange(256, dtype=torch.uint8).view(dtype)
    arrays, _ = tensors.decode(save({"a": every.view(16, 16)}))
    assert arrays["a"].dtype == np.float32
    np.testing.assert_array_equal(arrays["a"].flatten(), every.float().numpy())
