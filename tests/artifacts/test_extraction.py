"""Files that are not exactly a LoRA of a rank that is served, as the nearest one: its stated error is the true one."""

import copy
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from likeness.artifacts import adapter as adapters
from likeness.artifacts import exporting, extraction, lycoris, tensors
from likeness.artifacts.extraction import Extraction, nearest
from likeness.artifacts.foreign import foreign_card
from likeness.artifacts.importing import read_foreign
from likeness.diffusion.family import KLEIN_BASE_4B, SD_21_BASE, BaseOutline
from likeness.diffusion.layer_weights import LayerWeights
from likeness.errors import CorruptAdapter, CorruptBase, InputRefused, LikenessError, Mismatch
from likeness.types import Adapter, AdapterCard, Network
from tests.artifacts.peer_libraries import diffusers, peft, torch, transformers

pytestmark = pytest.mark.filterwarnings("ignore")

SHA256 = "ab" * 32
TARGETS = {
    "unet": ["to_q", "to_k", "to_out.0", "ff.net.0.proj", "conv1", "conv_shortcut", "conv_in"],
    "text_encoder": ["q_proj", "fc1"],
}
FULL = 256
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"  # (8, 16)
CONV = "down_blocks.1.resnets.0.conv1"  # (16, 8, 3, 3)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, cross_attention_dim=16, layers_per_block=1,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=8, bos_token_id=0, eos_token_id=1,
        )
    )  # fmt: skip
    return {"unet": unet.eval(), "text_encoder": text.eval()}


def adaptable(network):
    return {
        name: layer for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    }


@pytest.fixture(scope="module")
def base(networks) -> BaseOutline:
    shapes = {
        network: {name: tuple(layer.weight.shape) for name, layer in adaptable(module).items()}
        for network, module in networks.items()
    }
    return BaseOutline("tiny", SHA256, SD_21_BASE, shapes)


@pytest.fixture(scope="module")
def folder(networks, tmp_path_factory) -> Path:
    """The base in diffusers' layout, the U-Net in bfloat16, so that only its own numbers are right."""
    folder = tmp_path_factory.mktemp("base")
    with torch.no_grad():
        for weight in networks["unet"].parameters():
            weight.copy_(weight.bfloat16())
    for name, network in networks.items():
        network.save_pretrained(folder / name)
    halves = tensors.read_file(folder / "unet" / "diffusion_pytorch_model.safetensors")[0]
    save_file(
        {key: torch.from_numpy(array.copy()).bfloat16() for key, array in halves.items()},
        folder / "unet" / "diffusion_pytorch_model.safetensors",
    )
    return folder


@pytest.fixture
def card() -> AdapterCard:
    return foreign_card("anna", "woman", "<<TOK>>", base_id="tiny", base_sha256=SHA256, family="sd-2.1-base")


def deltas(adapter: Adapter, dtype: type = np.float64) -> dict[tuple[Network, str], np.ndarray]:
    """Of every layer, as a matrix."""
    out = {}
    for network, pairs in adapter.weights.items():
        for module, pair in pairs.items():
            A, B = (factor.astype(dtype).astype(np.float64) for factor in (pair.A, pair.B))
            product = B.reshape(len(B), -1) @ A.reshape(len(A), -1)
            out[network, module] = adapter.card.alpha / adapter.card.rank * product
    return out


def true_errors(found: Adapter, expected: dict[tuple[Network, str], np.ndarray]) -> dict[str, float]:
    """Of the adapter as it will be stored."""
    got = deltas(found, np.float16)
    assert got.keys() == expected.keys()
    lost = {layer: np.linalg.norm(got[layer] - expected[layer]) for layer in expected}
    norms = {layer: np.linalg.norm(expected[layer]) for layer in expected}
    return {
        "error": math.hypot(*lost.values()) / math.hypot(*norms.values()),
        "largest_error": max(float(lost[layer] / norms[layer]) for layer in expected),
    }


@torch.no_grad()
def run(name, network):
    generator = torch.Generator().manual_seed(2)
    if name == "text_encoder":
        return network(torch.tensor([[0, 5, 9, 1], [0, 7, 1, 1]])).last_hidden_state
    noise, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 16, generator=generator)
    return network(noise, torch.tensor([3, 500]), text).sample


@pytest.fixture(scope="module")
def dora(networks, folder, tmp_path_factory):
    """DoRA adapters by PEFT with random factors and magnitudes: the folder, PEFT's outputs, PEFT's deltas."""
    out, images, expected = tmp_path_factory.mktemp("dora"), {}, {}
    for name, network in networks.items():
        config = peft.LoraConfig(
            r=3, lora_alpha=5, target_modules=TARGETS[name], use_dora=True, alpha_pattern={"to_q": 2}
        )
        torch.manual_seed(1)
        model = peft.get_peft_model(copy.deepcopy(network), config).eval()
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if "lora_B" in key or "magnitude" in key:
                    weight += 0.1 * torch.randn(weight.shape) * (weight.abs().mean() + 0.5)
        model.save_pretrained(out / name)
        images[name] = run(name, model)
        merged = adaptable(model.merge_and_unload())
        for module, layer in adaptable(network).items():
            change = (merged[module].weight - layer.weight).detach().double().numpy()
            if np.abs(change).max() > 1e-5:
                expected[name, module] = change.reshape(len(change), -1)
    return out, images, expected


def test_dora_at_full_rank_is_what_peft_computes(networks, base, folder, card, dora):
    path, images, expected = dora
    found = read_foreign(path, base, card, extraction=Extraction(FULL, LayerWeights(str(folder))))
    assert found.card.extraction["error"] < 1e-3  # of float16
    for name, network in networks.items():
        changed = copy.deepcopy(network)
        layers = adaptable(changed)
        with torch.no_grad():
            for (which, module), change in deltas(found).items():
                if which == name:
                    layers[module].weight += torch.from_numpy(change).float().reshape(layers[module].weight.shape)
        torch.testing.assert_close(run(name, changed), images[name], rtol=1e-4, atol=1e-4)
        assert (run(name, network) - images[name]).abs().max() > 1e-2
    assert deltas(found).keys() == expected.keys()


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_error_that_is_stated_is_the_true_one(base, folder, card, dora, rank):
    path, _, expected = dora
    found = read_foreign(path, base, card, extraction=Extraction(rank, LayerWeights(str(folder))))
    assert found.card.rank == rank
    true = true_errors(found, expected)
    assert found.card.extraction == pytest.approx(true, rel=1e-3)
    best = {layer: np.linalg.svd(change, compute_uv=False)[rank:] for layer, change in expected.items()}
    least = math.hypot(*(value for values in best.values() for value in values)) / math.hypot(
        *(np.linalg.norm(change) for change in expected.values())
    )
    assert true["error"] == pytest.approx(least, rel=1e-3)


def written(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    path.write_bytes(tensors.encode(arrays, {}))
    return path


def factors(rank: int, shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A and B of a layer, of the size of its weight."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(rank, *shape[1:])) / math.sqrt(math.prod(shape[1:]))
    return A.astype(np.float32), (rng.normal(size=(shape[0], rank)) / math.sqrt(rank)).astype(np.float32)


def weight_of(networks, network: Network, module: str) -> np.ndarray:
    return adaptable(networks[network])[module].weight.detach().double().numpy()


@pytest.mark.parametrize("module", [LINEAR, CONV])
@pytest.mark.parametrize(("spelling", "axis"), [("kohya", "outputs"), ("kohya", "inputs"), ("diffusers", "outputs")])
def test_magnitudes_of_other_programs(networks, base, folder, card, tmp_path, spelling, module, axis):
    """sd-scripts' key names as LyCORIS and OneTrainer write them, with either axis; diffusers' with the outputs."""
    shape = base.layers["unet"][module]
    A, B = factors(2, shape)
    weight, ones = weight_of(networks, "unet", module), [1] * (len(shape) - 2)
    changed = weight + 7 / 2 * (B @ A.reshape(2, -1)).reshape(shape)
    expected, rng = np.empty(shape), np.random.default_rng(3)
    if axis == "outputs":
        m = rng.uniform(0.5, 2, shape[0])
        for k in range(shape[0]):
            expected[k] = m[k] * changed[k] / np.sqrt((changed[k] ** 2).sum()) - weight[k]
        m = m.reshape(-1, 1, *ones)
    else:
        m = rng.uniform(0.5, 2, shape[1])
        for k in range(shape[1]):
            expected[:, k] = m[k] * changed[:, k] / np.sqrt((changed[:, k] ** 2).sum()) - weight[:, k]
        m = m.reshape(1, -1, *ones)
    if spelling == "kohya":
        start = f"lora_unet_{module.replace('.', '_')}"
        arrays = {f"{start}.lora_down.weight": A, f"{start}.lora_up.weight": B.reshape(*B.shape, *ones),
                  f"{start}.alpha": np.array(7, np.float32), f"{start}.dora_scale": m.astype(np.float32)}  # fmt: skip
    else:
        start = f"unet.{module}"
        arrays = {f"{start}.lora_A.weight": A, f"{start}.lora_B.weight": B.reshape(*B.shape, *ones) * 7 / 2,
                  f"{start}.lora_magnitude_vector": m.reshape(1, -1, *ones).astype(np.float32) if ones else
                  m.ravel().astype(np.float32)}  # fmt: skip
        arrays = {key: array.astype(np.float32) for key, array in arrays.items()}
    asked = Extraction(FULL, LayerWeights(str(folder)))
    found = read_foreign(written(tmp_path / "x", arrays), base, card, extraction=asked)
    np.testing.assert_allclose(deltas(found)["unet", module].reshape(shape), expected, rtol=1e-4, atol=1e-5)


def no_weights(network: Network, module: str) -> np.ndarray:
    raise AssertionError("a weight of the base was read")


START = f"lora_unet_{LINEAR.replace('.', '_')}"
LOHA = {f"hada_w{k}_{side}": (8, 17) if side == "a" else (17, 16) for k in (1, 2) for side in "ab"}


def test_lycoris_of_too_large_a_rank(base, card, tmp_path):
    rng = np.random.default_rng(0)
    parts = {part: rng.normal(size=shape).astype(np.float32) / 4 for part, shape in LOHA.items()}
    arrays = {f"{START}.{part}": array for part, array in parts.items()} | {f"{START}.alpha": np.array(5, np.float32)}
    path = written(tmp_path / "x", arrays)
    with pytest.raises(InputRefused, match="rank 256 at most, got a layer of rank 289") as refused:
        read_foreign(path, base, card)
    assert "--extract" in refused.value.hint
    expected = 5 / 17 * (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    found = read_foreign(path, base, card, extraction=Extraction(8, no_weights))
    np.testing.assert_allclose(deltas(found)["unet", LINEAR], expected, rtol=1e-4, atol=1e-5)
    found = read_foreign(path, base, card, extraction=Extraction(3, no_weights))
    assert found.card.extraction == pytest.approx(true_errors(found, {("unet", LINEAR): expected}), rel=1e-3)


def lora(start: str, rank: int, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    A, B = factors(rank, shape)
    return {f"{start}.lora_down.weight": A, f"{start}.lora_up.weight": B}


def test_a_lora_of_larger_rank_than_any_adapter(base, card, tmp_path):
    """Its other layers stay as they are, and count in the error."""
    path = written(tmp_path / "x", lora(START, 300, (8, 16)) | lora("lora_unet_conv_in", 2, (8, 4, 3, 3)))
    with pytest.raises(InputRefused, match="rank 256 at most, got a layer of rank 300") as refused:
        read_foreign(path, base, card)
    assert "--extract" in refused.value.hint
    found = read_foreign(path, base, card, extraction=Extraction(4, no_weights))
    expected = {
        ("unet", name): B @ A.reshape(len(A), -1)
        for name, (A, B) in {LINEAR: factors(300, (8, 16)), "conv_in": factors(2, (8, 4, 3, 3))}.items()
    }
    assert found.card.extraction == pytest.approx(true_errors(found, expected), rel=1e-2)
    alone = read_foreign(written(tmp_path / "y", lora(START, 4, (8, 16))), base, card)
    asked = read_foreign(tmp_path / "y", base, card, extraction=Extraction(4, no_weights))
    assert asked.card == alone.card and not asked.card.extraction
    np.testing.assert_array_equal(asked.weights["unet"][LINEAR].A, alone.weights["unet"][LINEAR].A)


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "peft"])
def test_an_adapter_of_ours_of_a_larger_rank(tools, tmp_path, layout):
    """Its card is compared with the file before; what is changed afterwards says so."""
    of_tools = BaseOutline(
        "tiny", tools.base_sha256, SD_21_BASE,
        {
            network: {name: (len(pair.B), *pair.A.shape[1:]) for name, pair in pairs.items()}
            for network, pairs in tools.adapter().weights.items()
        },
    )  # fmt: skip
    adapter = tools.adapter(rank=6, alpha=9.0)
    exporting.FORMATS[layout].export(adapter, tmp_path / "x")
    found = read_foreign(tmp_path / "x", of_tools, extraction=Extraction(4, no_weights))
    assert (found.card.rank, found.card.steps) == (4, adapter.card.steps)
    assert found.card.extraction == pytest.approx(true_errors(found, deltas(adapter)), rel=1e-2)
    whole = read_foreign(tmp_path / "x", of_tools, extraction=Extraction(6, no_weights))
    assert whole.card.rank == 6 and not whole.card.extraction
    exporting.export_diffusers(found, tmp_path / "again")
    assert read_foreign(tmp_path / "again", of_tools).card.extraction == found.card.extraction
    if layout == "diffusers":
        arrays, metadata = tensors.read_file(tmp_path / "x")
        key = next(iter(arrays))
        (tmp_path / "x").write_bytes(tensors.encode(arrays | {key: arrays[key] * 2}, metadata))
        with pytest.raises(CorruptAdapter, match="SHA-256"):
            read_foreign(tmp_path / "x", of_tools, extraction=Extraction(4, no_weights))


def test_a_fused_layer_is_normalised_as_a_whole(tmp_path):
    """Magnitudes of the inputs of queries, keys and values as one layer, in the names of FLUX.2's own code."""
    names = [f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v")]
    outline = BaseOutline("tiny", SHA256, KLEIN_BASE_4B, {"transformer": dict.fromkeys(names, (4, 5))})
    rng = np.random.default_rng(0)
    weight, m = rng.normal(size=(12, 5)).astype(np.float32), rng.uniform(1, 2, (1, 5)).astype(np.float32)
    A, B = factors(2, (12, 5))
    start = "diffusion_model.double_blocks.0.img_attn.qkv"
    arrays = {f"{start}.lora_A.weight": A, f"{start}.lora_B.weight": B, f"{start}.dora_scale": m}
    changed = weight + B @ A
    expected = m * changed / np.linalg.norm(changed, axis=0) - weight
    card = foreign_card("anna", "woman", "<<TOK>>", base_id="tiny", base_sha256=SHA256, family="flux2-klein-base-4b")
    asked = Extraction(FULL, lambda network, module: weight[4 * names.index(module) :][:4])
    found = deltas(read_foreign(written(tmp_path / "x", arrays), outline, card, extraction=asked))
    for k, name in enumerate(names):
        np.testing.assert_allclose(found["transformer", name], expected[4 * k : 4 * k + 4], rtol=1e-4, atol=1e-5)


DORA = {**lora(START, 2, (8, 16)), f"{START}.dora_scale": np.ones((8, 1), np.float32)}


@pytest.mark.parametrize(
    ("arrays", "error"),
    {
        "magnitudes of another layer": (DORA | {f"{START}.dora_scale": np.ones((7, 1), np.float32)}, CorruptAdapter),
        "NaN": (DORA | {f"{START}.dora_scale": np.full((8, 1), np.nan, np.float32)}, CorruptAdapter),
        "magnitudes alone": ({f"{START}.dora_scale": np.ones((8, 1), np.float32)}, CorruptAdapter),
        "two magnitudes": (DORA | {f"{START}.lora_magnitude_vector": np.ones(8, np.float32)}, CorruptAdapter),
        "other sides": ({**lora(START, 2, (8, 15)), f"{START}.dora_scale": np.ones((8, 1), np.float32)}, Mismatch),
        "other layer": (lora("lora_unet_x", 2, (8, 16)) | {"lora_unet_x.dora_scale": np.ones(8, np.float32)}, Mismatch),
        "other base": (DORA | lora("lora_te2_text_model_encoder_layers_0_mlp_fc1", 2, (8, 8)), Mismatch),
        "LoRA and LoHa": (
            DORA | {f"{START}.{part}": np.ones(shape, np.float32) for part, shape in LOHA.items()}, CorruptAdapter,
        ),
        "half a LoHa": ({f"{START}.{part}": np.ones(LOHA[part], np.float16) for part in [*LOHA][:3]}, CorruptAdapter),
        "a large product": (
            {f"{START}.lokr_w1": np.ones((2**11, 2), np.float16), f"{START}.lokr_w2": np.ones((2**11, 2), np.float16)},
            Mismatch,
        ),
        "OFT": (DORA | {f"{START}.oft_blocks": np.ones((2, 4, 4), np.float32)}, InputRefused),
        "a scalar for a factor": (DORA | {f"{START}.lora_down.weight": np.ones((), np.float32)}, CorruptAdapter),
        "one layer under two names": (lora(START, 6, (8, 16)) | lora(f"unet.{LINEAR}", 6, (8, 16)), CorruptAdapter),
        "numbers too large": (DORA | {f"{START}.dora_scale": np.full((8, 1), 1e37, np.float32)}, CorruptAdapter),
        "something else": (DORA | {f"{START}.thing": np.ones(1, np.float32)}, InputRefused),
    }.values(),
)  # fmt: skip
def test_what_cannot_be_extracted(base, folder, card, tmp_path, monkeypatch, arrays, error: type[LikenessError]):
    monkeypatch.setattr(extraction, "_EXACT_SIDE", 0)
    monkeypatch.setattr(extraction, "_OVERSAMPLING", -3)  # so that these layers are large ones
    asked = Extraction(4, LayerWeights(str(folder)))
    with pytest.raises(error):
        read_foreign(written(tmp_path / "x", arrays), base, card, extraction=asked)


def test_what_float16_does_not_hold_is_refused_when_it_is_stored(base, card, tmp_path):
    large = {key: array * 1e6 for key, array in lora(START, 6, (8, 16)).items()}
    with warnings.catch_warnings(action="error"):
        found = read_foreign(written(tmp_path / "x", large), base, card, extraction=Extraction(4, no_weights))
    with pytest.raises(CorruptAdapter, match="finite"):
        adapters.write(found, tmp_path / "stored")


def test_a_dora_is_refused_with_the_option_that_takes_it(base, card, tmp_path, dora):
    for path in (written(tmp_path / "x", DORA), dora[0]):
        with pytest.raises(InputRefused, match="got DoRA") as refused:
            read_foreign(path, base, card)
        assert "--extract" in refused.value.hint


def test_large_matrices_are_reduced_almost_as_well_as_by_svd(monkeypatch):
    """A slowly decaying spectrum, for which random vectors are least good."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(size, 120)))[0] for size in (120, 160))
    sizes = np.arange(1, 121) ** -0.5
    update = (left * sizes @ right.T).astype(np.float32)
    monkeypatch.setattr(extraction, "_EXACT_SIDE", 0)
    monkeypatch.setattr(extraction, "_OVERSAMPLING", 4)
    pair, (error, norm) = nearest(update, 8)
    assert norm == pytest.approx(np.linalg.norm(update))
    assert error == pytest.approx(np.linalg.norm(update - pair.B @ pair.A), rel=1e-3)
    best = np.linalg.norm(sizes[8:])
    assert best * 0.9999 <= error <= best * 1.01


def test_a_weight_that_the_files_lack_is_the_bases_fault(folder):
    weights = LayerWeights(str(folder))
    assert weights("text_encoder", "text_model.encoder.layers.0.mlp.fc1").shape == (32, 16)
    assert weights("text_encoder", "encoder.layers.0.mlp.fc1").dtype == np.float32
    for network, module in (("unet", "no.such.layer"), ("text_encoder_2", "fc1")):
        with pytest.raises(CorruptBase):
            weights(network, module)


def test_cores_that_would_fill_the_memory_are_refused(base, card, tmp_path, monkeypatch):
    monkeypatch.setattr(lycoris, "MOST_NUMBERS", 2**10)
    parts = {"lokr_w1": (1, 1), "lokr_w2_a": (1, 16), "lokr_w2_b": (1, 2**11), "lokr_t2": (1, 1, 1, 1)}
    start = f"lora_unet_{CONV.replace('.', '_')}"
    arrays = {f"{start}.{part}": np.ones(shape, np.float32) for part, shape in parts.items()}
    with pytest.raises(CorruptAdapter):
        read_foreign(written(tmp_path / "x", arrays), base, card, extraction=Extraction(4, no_weights))
