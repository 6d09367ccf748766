"""One LoRA in every spelling that programs have: the same layers and numbers. What is none is called by its name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from likeness.artifacts import tensors
from likeness.artifacts.foreign import foreign_card
from likeness.artifacts.importing import read_foreign
from likeness.artifacts.layer_names import compvis_names
from likeness.diffusion.family import SD_15, BaseOutline
from likeness.errors import CorruptAdapter, InputRefused, Mismatch
from likeness.types import Adapter, AdapterCard, Network

BLOCKS = "down_blocks.0", "down_blocks.1"
R = 2
ATTENTION = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k")
Parts = dict[tuple[Network, str], dict[str, np.ndarray]]


def shapes() -> dict[Network, dict[str, tuple[int, ...]]]:
    """A small U-Net with two levels and a text encoder of one layer."""
    unet: dict[str, tuple[int, ...]] = {
        "conv_in": (8, 4, 3, 3), "conv_out": (4, 8, 3, 3),
        "time_embedding.linear_1": (12, 8), "time_embedding.linear_2": (12, 12),
        "down_blocks.0.downsamplers.0.conv": (8, 8, 3, 3), "up_blocks.0.upsamplers.0.conv": (8, 8, 3, 3),
    }  # fmt: skip
    for block, count in {
        "down_blocks.0": 2,
        "down_blocks.1": 2,
        "mid_block": 2,
        "up_blocks.0": 3,
        "up_blocks.1": 3,
    }.items():
        for j in range(count):
            unet |= {f"{block}.resnets.{j}.conv1": (8, 8, 3, 3), f"{block}.resnets.{j}.conv2": (8, 8, 3, 3),
                     f"{block}.resnets.{j}.time_emb_proj": (8, 12),
                     f"{block}.resnets.{j}.conv_shortcut": (8, 8, 1, 1)}  # fmt: skip
    for block, count in {"down_blocks.0": 2, "mid_block": 1, "up_blocks.1": 3}.items():
        for j in range(count):
            start = f"{block}.attentions.{j}"
            unet |= {f"{start}.proj_in": (8, 8, 1, 1), f"{start}.proj_out": (8, 8, 1, 1)}
            unet |= {
                f"{start}.transformer_blocks.0.{name}": (8, 16 if name == "attn2.to_k" else 8) for name in ATTENTION
            }
    text: dict[str, tuple[int, ...]] = {
        f"encoder.layers.0.{name}": (16, 16)
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1")
    }
    return {"unet": unet, "text_encoder": text}


@pytest.fixture(scope="module")
def base() -> BaseOutline:
    return BaseOutline("small", "ab" * 32, SD_15, shapes())


@pytest.fixture(scope="module")
def card() -> AdapterCard:
    return foreign_card("x", "man", "sks", base_id="small", base_sha256="ab" * 32, family="sd-1.5")


def factors(base: BaseOutline, only: Callable[[Network, str], bool] = lambda network, module: True) -> Parts:
    """Random factors of all layers, as the layers have them."""
    rng = np.random.default_rng(0)
    out: Parts = {}
    for network, layers in base.layers.items():
        for module, shape in layers.items():
            if only(network, module):
                A = rng.normal(size=(R, *shape[1:])).astype(np.float32)
                B = rng.normal(size=(shape[0], R, *(1 for _ in shape[2:]))).astype(np.float32)
                out[network, module] = {"A": A, "B": B}
    return out


def written(path: Path, arrays: Mapping[str, np.ndarray], **metadata: str) -> Path:
    path.write_bytes(tensors.encode(arrays, metadata))
    return path


def assert_adapter_of(adapter: Adapter, parts: Parts, *, scale: float = 1.0) -> None:
    found = {(network, module): pair for network, pairs in adapter.weights.items() for module, pair in pairs.items()}
    assert found.keys() == parts.keys()
    for layer, pair in found.items():
        assert pair.A.shape == parts[layer]["A"].shape and pair.B.shape == parts[layer]["B"].shape, layer
        mine = adapter.card.alpha / adapter.card.rank * pair.B.reshape(-1, R) @ pair.A.reshape(R, -1)
        its = scale * parts[layer]["B"].reshape(-1, R) @ parts[layer]["A"].reshape(R, -1)
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-6)


def is_attention(network: Network, module: str) -> bool:
    return "attn" in module


def old(network: Network, module: str) -> str:
    """As LoRA attention processors were named, in both networks."""
    start, name = module.rsplit(".attn" if network == "unet" else ".self_attn", 1)
    if network == "unet":
        number, name = name.split(".", 1)
        return f"{start}.attn{number}.processor.{name.removesuffix('.0')}_lora"
    words = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
    return f"text_model.{start}.self_attn.{words[name.lstrip('.')]}_lora"


def text(module: str) -> str:
    return f"text_model.{module}"


COMPVIS = compvis_names(list(shapes()["unet"]))
AB, DOWN_UP = (".lora_A.weight", ".lora_B.weight"), (".lora_down.weight", ".lora_up.weight")


def flat(unet: Mapping[str, str] | None = None, te: str = "lora_te_") -> Callable[[Network, str], str]:
    """sd-scripts' names, with the U-Net's layers called as `unet` says."""
    return lambda n, m: (f"lora_unet_{(unet or {}).get(m, m)}" if n == "unet" else te + text(m)).replace(".", "_")


def wrapped(unet: str, te: str) -> Callable[[Network, str], str]:
    """CompVis' names of blocks behind a prefix."""
    return lambda n, m: f"{unet}{COMPVIS[m]}" if n == "unet" else f"{te}{text(m)}"


# name -> the two suffixes; how a layer is called; whether the spelling is of attention layers alone
SPELLINGS: dict[str, tuple[tuple[str, str], Callable[[Network, str], str], bool]] = {
    "diffusers": (AB, lambda n, m: f"{n}.{m}", False),
    "diffusers-text": (AB, lambda n, m: f"{n}.{m if n == 'unet' else text(m)}", False),
    "named": ((".lora_A.anna.weight", ".lora_B.anna.weight"), lambda n, m: f"{n}.{m}", False),
    "2023": ((".lora.down.weight", ".lora.up.weight"), lambda n, m: f"{n}.{m}", False),
    "linear-layer": (
        (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
        lambda n, m: f"{n}.{m}",
        False,
    ),
    "processors": ((".down.weight", ".up.weight"), lambda n, m: f"{n}.{old(n, m)}", True),
    "processors-bare": ((".down.weight", ".up.weight"), old, True),
    "bare": (AB, lambda n, m: m, False),
    "peft": (AB, lambda n, m: f"base_model.model.{m}", False),
    "peft-prefixed": (AB, lambda n, m: f"{n}.base_model.model.{m}", False),
    "kohya": (DOWN_UP, flat(), False),
    "kohya-te1": (DOWN_UP, flat(te="lora_te1_"), False),
    "kohya-compvis": (DOWN_UP, flat(COMPVIS), False),
    "comfyui": (DOWN_UP, wrapped("diffusion_model.", "text_encoders.clip_l.transformer."), False),
    "comfyui-peft": (AB, wrapped("model.diffusion_model.", "clip_l."), False),
    "lycoris": (DOWN_UP, lambda n, m: "lycoris_" + m.replace(".", "_"), False),
}


@pytest.mark.parametrize("alpha", [None, 1.0])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_read(
    base: BaseOutline, card: AdapterCard, tmp_path: Path, spelling: str, alpha: float | None
) -> None:
    """LoCon's layers too: every linear layer and convolution."""
    (down, up), named, is_old = SPELLINGS[spelling]
    parts = factors(base, is_attention if is_old else lambda network, module: True)
    arrays: dict[str, np.ndarray] = {}
    for (network, module), pair in parts.items():
        name = named(network, module)
        arrays |= {f"{name}{down}": pair["A"], f"{name}{up}": pair["B"]}
        if alpha is not None:
            arrays[f"{name}.alpha"] = np.array(alpha, np.float32)
    adapter = read_foreign(written(tmp_path / "x.safetensors", arrays), base, card)
    assert_adapter_of(adapter, parts, scale=1.0 if alpha is None else alpha / R)


def test_names_of_blocks_are_those_of_compvis() -> None:
    """As diffusers converts a whole checkpoint of Stable Diffusion's."""
    torch = pytest.importorskip("torch")
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    with torch.device("meta"):
        unet = UNet2DConditionModel(block_out_channels=(32, 32, 32, 32), attention_head_dim=8, cross_attention_dim=32)
    layers = [name for name, module in unet.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    theirs = compvis_names(layers)
    assert set(theirs) == set(layers)
    assert len(set(theirs.values())) == len(layers)
    kinds = ("weight", "bias")
    checkpoint = {f"model.diffusion_model.{theirs[name]}.{kind}": name + kind for name in layers for kind in kinds}
    converted = convert_ldm_unet_checkpoint(checkpoint, dict(unet.config))
    assert converted == {f"{name}.{kind}": name + kind for name in layers for kind in kinds}


@pytest.mark.parametrize("axes", [2, 4])
def test_factors_of_one_cell_are_read_with_two_axes_and_with_four(
    base: BaseOutline, card: AdapterCard, tmp_path: Path, axes: int
) -> None:
    parts = factors(base, lambda network, module: "proj_in" in module or "to_q" in module)
    arrays = {}
    for (network, module), pair in parts.items():
        for part, array in pair.items():
            arrays[f"{network}.{module}.lora_{part}.weight"] = array.reshape(
                *array.shape[:2], *(1 for _ in range(axes - 2))
            )
    assert_adapter_of(read_foreign(written(tmp_path / "x", arrays), base, card), parts)


def test_a_convolution_in_three_factors_is_multiplied_out(base: BaseOutline, card: AdapterCard, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    down, mid, up = (rng.normal(size=size).astype(np.float32) for size in ((R, 8, 1, 1), (R, R, 3, 3), (8, R, 1, 1)))
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    arrays = {f"{name}.lora_down.weight": down, f"{name}.lora_mid.weight": mid, f"{name}.lora_up.weight": up}
    A = read_foreign(written(tmp_path / "x", arrays), base, card).weights["unet"]["down_blocks.0.resnets.0.conv1"].A
    for row, column in ((0, 0), (2, 1)):
        np.testing.assert_allclose(
            A[:, :, row, column], mid[:, :, row, column] @ down[:, :, 0, 0], rtol=1e-5, atol=1e-6
        )


CONV = "down_blocks.0.resnets.0.conv1"
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
# tensors of a layer of 8 x 8 (x 3 x 3) -> its delta without the scale, as LyCORIS computes it
LYCORIS: dict[str, tuple[dict[str, tuple[int, ...]], Callable[[Mapping[str, np.ndarray]], np.ndarray], int | None]] = {
    "LoHa": (
        {"hada_w1_a": (8, 3), "hada_w1_b": (3, 8), "hada_w2_a": (8, 3), "hada_w2_b": (3, 8)},
        lambda p: (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"]), 3,
    ),
    "LoHa of a convolution": (
        {"hada_w1_a": (8, 2), "hada_w1_b": (2, 72), "hada_w2_a": (8, 2), "hada_w2_b": (2, 72)},
        lambda p: ((p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])).reshape(8, 8, 3, 3), 2,
    ),
    "LoKr": (
        {"lokr_w1": (2, 4), "lokr_w2_a": (4, 3), "lokr_w2_b": (3, 2)},
        lambda p: np.kron(p["lokr_w1"], p["lokr_w2_a"] @ p["lokr_w2_b"]), 3,
    ),
    "LoKr of four factors": (
        {"lokr_w1_a": (4, 1), "lokr_w1_b": (1, 2), "lokr_w2_a": (2, 1), "lokr_w2_b": (1, 4)},
        lambda p: np.kron(p["lokr_w1_a"] @ p["lokr_w1_b"], p["lokr_w2_a"] @ p["lokr_w2_b"]), 1,
    ),
    "LoKr of whole matrices": (
        {"lokr_w1": (4, 2), "lokr_w2": (2, 4)}, lambda p: np.kron(p["lokr_w1"], p["lokr_w2"]), None,
    ),
    "LoHa of a convolution with Tucker cores": (
        {"hada_t1": (3, 3, 3, 3), "hada_t2": (3, 3, 3, 3), "hada_w1_a": (3, 8), "hada_w1_b": (3, 8),
         "hada_w2_a": (3, 8), "hada_w2_b": (3, 8)},
        lambda p: math.prod(
            np.einsum("ijkl,io,jc->ockl", p[f"hada_t{k}"], p[f"hada_w{k}_a"], p[f"hada_w{k}_b"]) for k in (1, 2)
        ), 3,
    ),
    "LoKr of a convolution with a Tucker core": (
        {"lokr_w1": (2, 2), "lokr_w2_a": (3, 4), "lokr_w2_b": (3, 4), "lokr_t2": (3, 3, 3, 3)},
        lambda p: np.kron(
            p["lokr_w1"][:, :, None, None], np.einsum("ijkl,io,jc->ockl", p["lokr_t2"], p["lokr_w2_a"], p["lokr_w2_b"])
        ), 3,
    ),
    "LoKr of a convolution": (
        {"lokr_w1": (2, 2), "lokr_w2": (4, 4, 3, 3)},
        lambda p: np.einsum("ab,cdkl->acbdkl", p["lokr_w1"], p["lokr_w2"]).reshape(8, 8, 3, 3), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LYCORIS)
def test_loha_and_lokr_are_exactly_a_plain_lora(
    base: BaseOutline, card: AdapterCard, tmp_path: Path, kind: str
) -> None:
    shapes_of, delta_of, rank = LYCORIS[kind]
    rng, module = np.random.default_rng(2), CONV if "convolution" in kind else LINEAR
    parts = {part: rng.normal(size=shape).astype(np.float32) for part, shape in shapes_of.items()}
    name = f"lora_unet_{module.replace('.', '_')}"
    arrays = {f"{name}.{part}": array for part, array in parts.items()}
    arrays |= {f"{name}.alpha": np.array(5, np.float32), **pair_of("lora_unet_mid_block_attentions_0_proj_in", 8)}
    found = read_foreign(written(tmp_path / "x", arrays), base, card)
    pair = found.weights["unet"][module]
    factor = found.card.alpha / found.card.rank
    delta = factor * np.einsum("orij,rckl->ockl", pair.B[..., None, None][:, :, :1, :1].reshape(8, -1, 1, 1),
                               pair.A.reshape(*pair.A.shape[:2], *(pair.A.shape[2:] or (1, 1))))  # fmt: skip
    expected = delta_of(parts) * (1 if rank is None else 5 / rank)
    np.testing.assert_allclose(delta.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shapes_of", "error"),
    [
        ({"hada_w1_a": (8, 2), "hada_w1_b": (2, 8), "hada_w2_a": (8, 2)}, CorruptAdapter),
        ({"hada_w1_a": (8, 2), "hada_w1_b": (3, 8), "hada_w2_a": (8, 2), "hada_w2_b": (2, 8)}, CorruptAdapter),
        ({"hada_w1_a": (8, 2), "hada_w1_b": (2, 8), "hada_w2_a": (4, 2), "hada_w2_b": (2, 8)}, CorruptAdapter),
        ({"lokr_w1": (2, 2)}, CorruptAdapter),
        ({"lokr_w1": (2,), "lokr_w2": (4, 4)}, CorruptAdapter),
        ({"hada_w1_a": (8, 17), "hada_w1_b": (17, 8), "hada_w2_a": (8, 17), "hada_w2_b": (17, 8)}, InputRefused),
        ({"lokr_w1": (1, 1), "lokr_w2_a": (2**20, 256), "lokr_w2_b": (256, 1)}, InputRefused),
        ({"lokr_w1": (2, 3), "lokr_w2": (4, 4)}, Mismatch),
    ],
)
def test_loha_and_lokr_that_cannot_be_used(
    base: BaseOutline, card: AdapterCard, tmp_path: Path, shapes_of: dict[str, tuple[int, ...]], error: type[Exception]
) -> None:
    name = f"lora_unet_{LINEAR.replace('.', '_')}"
    arrays = {f"{name}.{part}": np.ones(shape, np.float16) for part, shape in shapes_of.items()}
    with pytest.raises(error):
        read_foreign(written(tmp_path / "x", arrays), base, card)


TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
FLAT = f"lora_unet_{TO_Q.replace('.', '_')}"
OTHER_KINDS: dict[str, dict[str, tuple[int, ...]]] = {
    "DoRA": {f"{FLAT}.dora_scale": (8, 1)},
    "DoRA, PEFT": {f"unet.{TO_Q}.lora_magnitude_vector": (8,)},
    "DoRA, PEFT folder": {f"base_model.model.{TO_Q}.lora_magnitude_vector.weight": (8,)},
    "DoRA, LoHa": {
        f"{FLAT}.dora_scale": (8, 1),
        **{f"{FLAT}.hada_w{k}_a": (8, R) for k in (1, 2)},
        **{f"{FLAT}.hada_w{k}_b": (R, 8) for k in (1, 2)},
    },
    "OFT": {f"{FLAT}.oft_blocks": (2, 4, 4)},
    "OFT, PEFT": {f"base_model.model.{TO_Q}.oft_R.weight": (2, 6)},
    "BOFT": {f"base_model.model.{TO_Q}.boft_R": (1, 2, 4, 4)},
    "IA3": {f"{FLAT}.on_input": (1,), f"{FLAT}.weight": (8,)},
    "GLoRA": {f"{FLAT}.a1.weight": (R, 8), f"{FLAT}.b1.weight": (R, 8)},
    "weight differences": {f"{FLAT}.diff": (8, 8)},
    "biases": {f"base_model.model.{TO_Q}.lora_B.bias": (8,)},
    "cloneofsimo": {"unet:0:up": (8, R), "unet:0:down": (R, 8)},
    "textual inversion": {"emb_params": (2, 16)},
    "ControlNet": {"control_model.input_blocks.0.0.weight": (8, 4, 3, 3)},
    "other tensors": {"model.diffusion_model.input_blocks.0.0.weight": (8, 4, 3, 3)},
    "only the factors": {f"{FLAT}.something": (1,)},
}


@pytest.mark.parametrize("is_mixed", [False, True])
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_kinds_are_called_by_their_names(
    base: BaseOutline, card: AdapterCard, tmp_path: Path, kind: str, is_mixed: bool
) -> None:
    """Alone, and beside factors as a plain LoRA has them."""
    arrays = {key: np.ones(shape, np.float32) for key, shape in OTHER_KINDS[kind].items()}
    if is_mixed or kind == "only the factors":
        arrays |= {f"{FLAT}.lora_down.weight": np.ones((R, 8), np.float32), f"{FLAT}.alpha": np.array(1, np.float32)}
        arrays |= {f"{FLAT}.lora_up.weight": np.ones((8, R), np.float32)}
    expected = "only the factors" if is_mixed and kind == "other tensors" else kind.split(",")[0]
    with pytest.raises(InputRefused, match=expected) as caught:
        read_foreign(written(tmp_path / "x", arrays), base, card)
    assert "copy" not in caught.value.hint


def pair_of(name: str, d_in: int, d_out: int = 8) -> dict[str, np.ndarray]:
    return {f"{name}.lora_down.weight": np.ones((R, d_in), np.float32),
            f"{name}.lora_up.weight": np.ones((d_out, R), np.float32)}  # fmt: skip


CROSS = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
OTHER_BASES = {
    "SDXL": pair_of("lora_te2_text_model_encoder_layers_0_mlp_fc1", 8),
    "SDXL, diffusers": pair_of("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", 8),
    "SDXL, U-Net": pair_of("lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q", 8),
    "SDXL, width": pair_of(CROSS, 2048),
    "Flux": pair_of("lora_unet_double_blocks_0_img_attn_qkv", 8),
    "Flux, diffusers": pair_of("transformer.single_transformer_blocks.0.attn.to_q", 8),
    "Stable Diffusion 3": pair_of("lora_unet_joint_blocks_0_x_block_attn_qkv", 8),
    "diffusion transformer": pair_of("diffusion_model.layers.0.attention.to_q", 8),
}


@pytest.mark.parametrize("origin", OTHER_BASES)
def test_adapters_of_other_families_are_called_by_their_names(
    base: BaseOutline, card: AdapterCard, tmp_path: Path, origin: str
) -> None:
    """Also beside layers that would fit, of the encoder that SDXL shares with Stable Diffusion 1."""
    arrays = OTHER_BASES[origin] | pair_of("lora_te1_text_model_encoder_layers_0_mlp_fc1", 16, 16)
    with pytest.raises(Mismatch, match=f"sd-1.5, got one of .*{origin.split(',')[0]}"):
        read_foreign(written(tmp_path / "x", arrays), base, card)


@pytest.mark.parametrize("said", [{"ss_base_model_version": "sdxl_base_v1-0"},
                                  {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}])  # fmt: skip
def test_a_header_that_says_sdxl_is_believed(
    base: BaseOutline, card: AdapterCard, tmp_path: Path, said: dict[str, str]
) -> None:
    arrays = pair_of("lora_te1_text_model_encoder_layers_0_mlp_fc1", 16, 16)
    read_foreign(written(tmp_path / "x", arrays), base, card)
    with pytest.raises(Mismatch, match="got one of SDXL"):
        read_foreign(written(tmp_path / "x", arrays, **said), base, card)


@pytest.mark.parametrize(("d_in", "d_out"), [(7, 9), (8, 9), (7, 8), (16, 4)])
def test_dimensions_are_those_of_the_layer(
    base: BaseOutline, card: AdapterCard, tmp_path: Path, d_in: int, d_out: int
) -> None:
    with pytest.raises(Mismatch, match=f"A \\({R}, 8\\) and B \\(8, {R}\\) for {TO_Q} of sd-1.5, got"):
        read_foreign(written(tmp_path / "x", pair_of(FLAT, d_in, d_out)), base, card)


def test_an_adapter_of_the_other_stable_diffusion_says_so(base: BaseOutline, card: AdapterCard, tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match=r"attn2\.to_k of sd-1\.5") as caught:
        read_foreign(written(tmp_path / "x", pair_of(CROSS, 1024)), base, card)
    assert "Stable Diffusion 2" in caught.value.hint


def test_the_layer_that_is_named_does_not_depend_on_the_order_of_the_file(
    base: BaseOutline, card: AdapterCard, tmp_path: Path
) -> None:
    names = [f"lora_unet_nothing_{letter}" for letter in "cab"]
    said = set()
    for first, second in pairwise([*names, *names]):
        with pytest.raises(Mismatch) as caught:
            read_foreign(written(tmp_path / "x", pair_of(second, 8) | pair_of(first, 8)), base, card)
        said.add((caught.value.message[-1], min(first[-1], second[-1])))
    assert all(named == smallest for named, smallest in said)


def test_a_tensor_that_is_there_twice_is_refused(base: BaseOutline, card: AdapterCard, tmp_path: Path) -> None:
    content = tensors.encode(pair_of(FLAT, 8), {})
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip()
    entry = f'"{FLAT}.lora_up.weight":'.encode()
    again = header[header.index(entry) :].split(b"}")[0] + b"}"
    doubled = header[:-1] + b"," + again + b"}"
    (tmp_path / "x").write_bytes(len(doubled).to_bytes(8, "little") + doubled + content[8 + length :])
    with pytest.raises(CorruptAdapter):
        read_foreign(tmp_path / "x", base, card)


def test_a_card_of_ours_on_another_base_is_of_the_wrong_base(tools, base: BaseOutline, tmp_path: Path) -> None:
    from likeness.artifacts.exporting import export_kohya

    export_kohya(tools.adapter(), tmp_path / "x")
    with pytest.raises(Mismatch, match="expected an adapter of base cdcdcd"):
        read_foreign(tmp_path / "x", replace(base, sha256="cd" * 32))
