"""write and read of the folder: round trip, and refusal of anything incomplete or damaged."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likeness.artifacts import adapter as folders
from likeness.artifacts import tensors
from likeness.errors import AlreadyExists, CorruptAdapter, InputRefused, LikenessError, Mismatch, NotFound
from likeness.types import Adapter, LoraPair

UNET_FILE = "unet/adapter_model.safetensors"
QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rewrite(folder: Path, change) -> None:
    """Apply `change` to the U-Net's arrays and write them back."""
    arrays, metadata = tensors.read_file(folder / UNET_FILE)
    change(arrays)
    (folder / UNET_FILE).write_bytes(tensors.encode(arrays, metadata))


@pytest.fixture
def folder(tools, tmp_path) -> Path:
    folders.write(tools.adapter(), tmp_path / "anna-2")
    return tmp_path / "anna-2"


def test_what_is_written_is_read(tools, tmp_path):
    kept = folders.write(tools.adapter(), tmp_path / "a")
    tools.assert_same(folders.read(tmp_path / "a"), kept)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        "a/card.json",
        "a/text_encoder/adapter_config.json",
        "a/text_encoder/adapter_model.safetensors",
        "a/unet/adapter_config.json",
        "a/unet/adapter_model.safetensors",
    ]


def test_equal_adapters_are_equal_files(tools, tmp_path):
    one = tools.adapter()
    other = Adapter(one.card, {n: dict(reversed(w.items())) for n, w in reversed(list(one.weights.items()))})
    folders.write(one, tmp_path / "a")
    folders.write(other, tmp_path / "b")
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_one_network_alone_and_float32(tools, tmp_path):
    whole = tools.adapter()
    wide = {m: LoraPair(p.A.astype(np.float32) / 3, p.B.astype(np.float32)) for m, p in whole.weights["unet"].items()}
    kept = folders.write(Adapter(whole.card, {"unet": wide}), tmp_path / "a", dtype=np.float32)
    assert not (tmp_path / "a" / "text_encoder").exists()
    tools.assert_same(folders.read(tmp_path / "a"), kept)
    np.testing.assert_array_equal(kept.weights["unet"][QUERY].A, wide[QUERY].A)


def test_hash_is_of_the_weights_only(tools, tmp_path):
    one = folders.write(tools.adapter(), tmp_path / "a")
    renamed = replace(tools.adapter(), card=replace(tools.card(), name="bert", seconds=99.0))
    two = folders.write(renamed, tmp_path / "b")
    three = folders.write(tools.adapter(seed=1), tmp_path / "c")
    assert one.card.content_sha256 == two.card.content_sha256 != three.card.content_sha256


def test_existing_folder_is_left_alone(tools, folder):
    before = (folder / "card.json").read_bytes()
    with pytest.raises(AlreadyExists):
        folders.write(tools.adapter(seed=3), folder)
    assert (folder / "card.json").read_bytes() == before
    assert list(folder.parent.iterdir()) == [folder]


def test_missing_folder(tmp_path):
    with pytest.raises(NotFound):
        folders.read(tmp_path / "nobody")


def test_check_base(tools):
    assert folders.strength_on(tools.card(), tools.base_sha256) == 1
    with pytest.raises(Mismatch):
        folders.strength_on(tools.card(), "cd" * 32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e9])
def test_write_refuses_what_float16_cannot_hold(tools, tmp_path, bad):
    whole = tools.adapter()
    pair = whole.weights["unet"][QUERY]
    A = pair.A.astype(np.float32)
    A[0, 0] = bad
    weights = whole.weights | {"unet": whole.weights["unet"] | {QUERY: LoraPair(A, pair.B)}}
    with pytest.raises(CorruptAdapter):
        folders.write(Adapter(whole.card, weights), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def start(name: str) -> str:
    return f"base_model.model.{QUERY}.lora_{name}.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.update({start("A"): np.full_like(a[start("A")], np.nan)}), "finite"),
        (lambda a: a.pop(start("B")), "got only"),
        (lambda a: a.update({"evil; rm -rf": a.pop(start("A"))}), "unknown key"),
        (lambda a: a.update({start("A"): a[start("A")][:2]}), "do not match"),
        (lambda a: a.update({start("A"): a[start("A")][:2], start("B"): a[start("B")][:, :2]}), "rank"),
        (lambda a: a.update({start("A"): a[start("A")] * 2}), "SHA-256"),
        (lambda a: (a.pop(start("A")), a.pop(start("B"))), "SHA-256"),
        (lambda a: a.clear(), "at least one"),
    ],
)
def test_read_refuses_changed_tensors(folder, change, says):
    rewrite(folder, change)
    with pytest.raises(CorruptAdapter, match=says) as caught:
        folders.read(folder)
    assert "rm -rf" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pickle.dumps({"a": 1}), "pickle"),
        (b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + bytes(100), "pickle"),
        ((5 << 20).to_bytes(8, "little") + bytes(6 << 20), "header"),
        (b"", "header"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}junk", "SafetensorError"),
        (b"GIF89a" + bytes(100), "header"),
    ],
)
def test_read_refuses_other_files(folder, content, says):
    (folder / UNET_FILE).write_bytes(content)
    with pytest.raises(CorruptAdapter, match=says):
        folders.read(folder)


def test_pickles_are_refused_by_name(folder):
    (folder / UNET_FILE).rename(folder / "unet/adapter_model.bin")
    with pytest.raises(CorruptAdapter, match="pickle"):
        folders.read(folder)
    with pytest.raises(CorruptAdapter, match="pickle"):
        tensors.read_file(folder / "unet/adapter_model.bin")


def test_links_and_large_files_are_refused(folder, tmp_path, monkeypatch):
    (folder / UNET_FILE).rename(tmp_path / "elsewhere")
    (folder / UNET_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptAdapter, match="link"):
        folders.read(folder)
    monkeypatch.setattr(tensors, "MAX_FILE_BYTES", 100)
    with pytest.raises(CorruptAdapter, match="at most 100 bytes"):
        tensors.read_file(tmp_path / "elsewhere")


def test_bfloat16_is_converted_exactly():
    header = b'{"x":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}'
    bits = np.array([0x3F80, 0xC000, 0x3EAB, 0x0001], "<u2")  # 1, -2, 0.333984375, the smallest subnormal
    arrays, _ = tensors.decode(len(header).to_bytes(8, "little") + header + bits.tobytes())
    assert arrays["x"].dtype == np.float32
    np.testing.assert_array_equal(arrays["x"], np.array([[1, -2], [0.333984375, 2.0**-133]], np.float32))


def test_integers_are_refused():
    header = b'{"x":{"dtype":"I16","shape":[2],"data_offsets":[0,4]}}'
    with pytest.raises(InputRefused, match="integers"):
        tensors.decode(len(header).to_bytes(8, "little") + header + bytes(4))


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.pop("seed"),
        lambda c: c.update(extra=1),
        lambda c: c.update(rank="4"),
        lambda c: c.update(rank=True),
        lambda c: c.update(rank=0),
        lambda c: c.update(alpha=-1.0),
        lambda c: c.update(name="../x"),
        lambda c: c.update(identifier=""),
        lambda c: c.update(class_noun="x" * 2000),
        lambda c: c.update(base_sha256="short"),
        lambda c: c.update(content_sha256=""),
        lambda c: c.update(created="yesterday"),
        lambda c: c.update(recipe=[]),
    ],
)
def test_read_refuses_a_bad_card(folder, edit):
    card = json.loads((folder / "card.json").read_text())
    edit(card)
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(CorruptAdapter):
        folders.read(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"seed": NaN}', '{"a":1,"a":2}', "[" * 100_000, '"\ud800"'])
def test_read_refuses_what_is_no_card(folder, text):
    (folder / "card.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CorruptAdapter):
        folders.read(folder)


def test_config_must_agree(folder):
    path = folder / "unet/adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": 6.0', '"lora_alpha": 60.0'))
    with pytest.raises(CorruptAdapter, match="disagrees"):
        folders.read(folder)


@SHARED
@given(data=st.data())
def test_no_damage_is_accepted(folder, data):
    """Truncated anywhere or a bit flipped anywhere in weights or config: always a named error."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "card.json"]
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    content = whole[:place] if data.draw(st.booleans()) else bytes(damaged)
    harmless = outside_tensors(whole, content) if path.suffix == ".safetensors" else content == whole.rstrip()
    path.write_bytes(content)
    try:
        if harmless:  # metadata or padding: what counts is whole
            folders.read(folder)
        else:
            with pytest.raises(LikenessError):
                folders.read(folder)
    finally:
        path.write_bytes(whole)


def outside_tensors(whole: bytes, content: bytes) -> bool:
    try:
        before, after = tensors.decode(whole)[0], tensors.decode(content)[0]
    except LikenessError:
        return False
    return before.keys() == after.keys() and all(before[k].tobytes() == after[k].tobytes() for k in before)


@SHARED
@given(data=st.data())
def test_a_damaged_card_is_refused_or_still_a_card(tools, folder, data):
    """Free text in a card can change unseen; what comes out then is still a valid card over the same weights."""
    whole = (folder / "card.json").read_bytes()
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "card.json").write_bytes(bytes(damaged))
    try:
        adapter = folders.read(folder)
    except LikenessError:
        pass
    else:
        assert adapter.card.rank == tools.card().rank
    finally:
        (folder / "card.json").write_bytes(whole)


def test_a_renamed_file_is_missed(folder):
    for name in ("card.json", UNET_FILE, "unet/adapter_config.json"):
        (folder / name).rename(folder / "away")
        with pytest.raises(CorruptAdapter):
            folders.read(folder)
        (folder / "away").rename(folder / name)
    folders.read(folder)
