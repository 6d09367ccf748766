"""Every format is imported with the same delta W, from any program, and only LoRA files are accepted."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likeness.artifacts import adapter as folders
from likeness.artifacts import exporting, kohya, tensors
from likeness.artifacts.foreign import CARD_KEY, foreign_card
from likeness.artifacts.importing import read_foreign
from likeness.deploy.extension import EXTENSION
from likeness.errors import AlreadyExists, CorruptAdapter, InputRefused, LikenessError, Mismatch, NotFound
from likeness.types import LoraPair, Subject

FILES = ("diffusers", "kohya")
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def card(tools):
    return foreign_card(
        "bert", "man", "sks", base_id="tiny", base_sha256=tools.base_sha256, family="sd-1.5"
    )  # a person's word for a file from elsewhere


def assert_same_deltas(tools, one, other, *, atol=0.0):
    assert {n: set(w) for n, w in one.weights.items()} == {n: set(w) for n, w in other.weights.items()}
    for network, found in one.weights.items():
        for module in found:
            np.testing.assert_allclose(
                tools.delta(one, network, module), tools.delta(other, network, module), rtol=1e-6, atol=atol
            )


def test_a_file_that_somebody_wrote_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    path, write = tmp_path / "x.safetensors", Path.write_bytes

    def slowly(staged, content):
        write(path, b"another's")
        return write(staged, content)

    monkeypatch.setattr(Path, "write_bytes", slowly)
    with pytest.raises(AlreadyExists):
        exporting.write_new(path, b"mine")
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [(path.name, b"another's")]


def without_card(path, **metadata):
    """The same file as another program would have written it: no card of ours."""
    arrays, _ = tensors.read_file(path)
    path.write_bytes(tensors.encode(arrays, metadata))
    return path


@pytest.mark.parametrize("name", sorted(EXTENSION.formats))
@pytest.mark.parametrize("alpha", [4.0, 6.0, 0.1])
def test_round_trip(tools, base, tmp_path, name, alpha):
    adapter = tools.adapter(alpha=alpha)
    EXTENSION.formats[name].export(adapter, tmp_path / "out" / "x")
    back = read_foreign(tmp_path / "out" / "x", base, None)
    assert_same_deltas(tools, adapter, back, atol=1e-9)
    assert back.card.identifier == "<<TOK>>" and back.card.base_sha256 == tools.base_sha256
    expected = exporting.folded(adapter) if name == "diffusers" else exporting.stored(adapter)
    tools.assert_same(back, expected)


@pytest.mark.parametrize("name", FILES)
def test_export_is_deterministic_and_never_overwrites(tools, tmp_path, name):
    export = EXTENSION.formats[name].export
    export(tools.adapter(), tmp_path / "a")
    export(tools.adapter(), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(AlreadyExists):
        export(tools.adapter(seed=1), tmp_path / "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_small_scale_survives_folding(tools, base, tmp_path):
    """Rank 128 with alpha 1: in float16, B / 128 would lose most of its digits."""
    adapter = tools.adapter(rank=128, alpha=1.0)
    exporting.export_diffusers(adapter, tmp_path / "x")
    back = read_foreign(tmp_path / "x", base)
    assert_same_deltas(tools, adapter, back)


@pytest.mark.parametrize("name", FILES)
def test_both_spellings_of_clip(tools, base, tmp_path, name):
    """A base whose text encoder sits in `text_model` gets the same adapter under its own names."""
    EXTENSION.formats[name].export(tools.adapter(), tmp_path / "x")
    text = {f"text_model.{module}": shape for module, shape in base.layers["text_encoder"].items()}
    wrapped = replace(base, layers={**base.layers, "text_encoder": text})
    old = read_foreign(tmp_path / "x", wrapped, None)
    new = read_foreign(tmp_path / "x", base, None)
    assert {f"text_model.{module}" for module in new.weights["text_encoder"]} == set(old.weights["text_encoder"])
    assert old.card.content_sha256 == new.card.content_sha256


@pytest.mark.parametrize("name", FILES)
def test_foreign_file_needs_a_card(tools, base, tmp_path, name, card):
    EXTENSION.formats[name].export(tools.adapter(), tmp_path / "x")
    without_card(tmp_path / "x")
    with pytest.raises(CorruptAdapter, match="card"):
        read_foreign(tmp_path / "x", base, None)
    back = read_foreign(tmp_path / "x", base, card)
    assert (back.card.name, back.card.identifier, back.card.rank) == ("bert", "sks", 4)
    assert_same_deltas(tools, tools.adapter(), back, atol=1e-9)
    folders.write(back, tmp_path / "published")


def test_foreign_kohya_with_a_rank_per_layer(tools, base, tmp_path, card):
    """Mixed ranks and alphas become one rank, every delta unchanged."""
    small, large = tools.adapter(rank=2, alpha=1.0), tools.adapter(rank=8, alpha=8.0, seed=1)
    arrays = kohya.tensors_of(large) | {k: v for k, v in kohya.tensors_of(small).items() if "conv1" in k}
    (tmp_path / "x").write_bytes(tensors.encode(arrays, {}))
    back = read_foreign(tmp_path / "x", base, card)
    assert (back.card.rank, back.card.alpha) == (8, 8.0)
    for module in back.weights["unet"]:
        source = small if "conv1" in module else large
        np.testing.assert_allclose(
            tools.delta(back, "unet", module), tools.delta(source, "unet", module), rtol=1e-5, atol=1e-7
        )


def test_kohya_header_and_keys(tools, tmp_path):
    exporting.export_kohya(tools.adapter(), tmp_path / "x")
    arrays, metadata = tensors.read_file(tmp_path / "x")
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight" in arrays
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha" in arrays
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "6.0")
    assert (metadata["ss_base_model_version"], metadata["ss_v2"]) == ("sd_v2", "True")
    assert metadata["modelspec.trigger_phrase"] == "<<TOK>> woman"


def test_kohya_names_that_fit_two_layers(tools, base, tmp_path):
    exporting.export_kohya(tools.adapter(), tmp_path / "x")
    twin = {"down_blocks_0.resnets.0.conv1": (8, 8, 3, 3)}
    twins = replace(base, layers={**base.layers, "unet": {**base.layers["unet"], **twin}})
    with pytest.raises(CorruptAdapter, match="matches 2 layers"):
        read_foreign(tmp_path / "x", twins)


@pytest.mark.parametrize("name", sorted(EXTENSION.formats))
def test_layers_that_the_base_lacks(tools, base, tmp_path, name):
    EXTENSION.formats[name].export(tools.adapter(), tmp_path / "x")
    with pytest.raises(Mismatch):
        read_foreign(tmp_path / "x", replace(base, layers={"unet": {"conv_in": (8, 4, 3, 3)}}), None)


def test_changed_weights_under_our_card(tools, base, tmp_path):
    exporting.export_kohya(tools.adapter(), tmp_path / "x")
    arrays, metadata = tensors.read_file(tmp_path / "x")
    key = next(key for key in arrays if key.endswith("lora_up.weight"))
    (tmp_path / "y").write_bytes(tensors.encode(arrays | {key: arrays[key] * 2}, metadata))
    with pytest.raises(CorruptAdapter, match="SHA-256"):
        read_foreign(tmp_path / "y", base)
    card = metadata[CARD_KEY].replace('"alpha": 6.0', '"alpha": 7.0')
    (tmp_path / "z").write_bytes(tensors.encode(arrays, metadata | {CARD_KEY: card}))
    with pytest.raises(CorruptAdapter, match="rank and alpha"):
        read_foreign(tmp_path / "z", base)


def test_diffusers_own_metadata_sets_alpha(tools, base, tmp_path, card):
    """A file by save_lora_weights with metadata: alpha as it says, per network; other arithmetic is refused."""
    plain = tools.adapter(alpha=4.0)
    exporting.export_diffusers(plain, tmp_path / "x")
    says = {"unet.r": 4, "unet.lora_alpha": 8, "unet.bias": "none", "unet.use_dora": False}
    without_card(tmp_path / "x", lora_adapter_metadata=json.dumps(says))
    back = read_foreign(tmp_path / "x", base, card)
    for network, times in (("unet", 2), ("text_encoder", 1)):
        for module in back.weights[network]:
            np.testing.assert_allclose(
                tools.delta(back, network, module), times * tools.delta(plain, network, module), rtol=1e-6
            )
    refused = {"use_dora": InputRefused, "alpha_pattern": InputRefused, "lora_alpha": CorruptAdapter}
    for field, error in refused.items():
        without_card(tmp_path / "x", lora_adapter_metadata=json.dumps(says | {f"unet.{field}": {"(a+)+": 1}}))
        with pytest.raises(error):
            read_foreign(tmp_path / "x", base, card)


def test_foreign_peft_folder(tools, base, tmp_path, card):
    exporting.export_peft(tools.adapter(), tmp_path / "x")
    (tmp_path / "x" / "card.json").unlink()
    with pytest.raises(CorruptAdapter, match="card"):
        read_foreign(tmp_path / "x", base)
    back = read_foreign(tmp_path / "x", base, card)
    assert back.card.alpha == 6.0
    assert_same_deltas(tools, tools.adapter(), back)
    path = tmp_path / "x" / "unet" / "adapter_config.json"
    config = json.loads(path.read_text())
    changes = (
        {"peft_type": "LOHA"},
        {"alpha_pattern": {"(.*)*to_q": 3}},
        {"init_lora_weights": "pissa"},
        {"modules_to_save": ["conv_out"]},
    )
    for change in changes:
        path.write_text(json.dumps(config | change))
        with pytest.raises(InputRefused):
            read_foreign(tmp_path / "x", base, card)


def test_pickles_and_what_is_not_there(base, tmp_path, card):
    for file, content in (("x.safetensors", pickle.dumps({})), ("x.ckpt", b""), ("empty", b"")):
        (tmp_path / file).write_bytes(content)
        with pytest.raises(CorruptAdapter):
            read_foreign(tmp_path / file, base, card)
    with pytest.raises(NotFound):
        read_foreign(tmp_path / "nothing", base, card)


def test_one_layer_under_two_names(tools, base, tmp_path, card):
    adapter = tools.adapter()
    twice = {f"text_model.{m}": p for m, p in adapter.weights["text_encoder"].items()} | adapter.weights["text_encoder"]
    arrays = {
        f"text_encoder.{module}.lora_{part}.weight": array
        for module, pair in twice.items()
        for part, array in (("A", pair.A), ("B", pair.B))
    }
    (tmp_path / "x").write_bytes(tensors.encode(arrays, {}))
    with pytest.raises(CorruptAdapter, match="two"):
        read_foreign(tmp_path / "x", base, card)


def test_wide_numbers_are_not_written_silently(tools, tmp_path):
    adapter = tools.adapter()
    for found in adapter.weights.values():
        for module, pair in found.items():
            found[module] = LoraPair(pair.A.astype(np.float64), pair.B)
    with pytest.raises(CorruptAdapter, match="float64"):
        exporting.export_kohya(adapter, tmp_path / "x")


@FUZZ
@given(data=st.data(), name=st.sampled_from(FILES))
def test_damaged_files_are_refused_by_name(tools, base, tmp_path, data, name):
    """Truncated: always refused. A flipped bit: refused, or it hit free text or the last digits of alpha."""
    path = tmp_path / name
    if not path.exists():
        EXTENSION.formats[name].export(tools.adapter(), path)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 4000))
    flipped = bytearray(whole)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "cut").write_bytes(whole[:place])
    (tmp_path / "flipped").write_bytes(bytes(flipped))
    with pytest.raises(LikenessError):
        read_foreign(tmp_path / "cut", base, None)
    try:
        back = read_foreign(tmp_path / "flipped", base, None)
    except LikenessError:
        return
    assert_same_deltas(tools, tools.adapter(), back, atol=1e-5)


def test_the_card_of_a_style_has_no_class_noun(tools, base, tmp_path):
    made = tools.adapter()
    made = replace(made, card=replace(made.card, class_noun="", identifier="<<STY>>"))
    exporting.export_kohya(made, tmp_path / "x")
    assert tensors.read_file(tmp_path / "x")[1]["modelspec.trigger_phrase"] == "<<STY>> style"
    card = read_foreign(tmp_path / "x", base, None).card
    assert card.subject == Subject("anna-2", "", "<<STY>>") and card.subject.kind == "style"
