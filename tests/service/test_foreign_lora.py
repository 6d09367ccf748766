"""A LoRA as kohya's sd-scripts train one unless told otherwise, taken in on a base of Stable Diffusion's shape."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fixtures.tiny import build_tiny_stable_diffusion, relative
from likeness.artifacts.exporting import FORMATS
from likeness.config import Settings
from likeness.diffusion.base import BaseModel, load_base
from likeness.diffusion.lora import LoraBank
from likeness.errors import Mismatch
from likeness.service import build
from likeness.service.exchange import import_from
from likeness.types import Subject

RANK, ALPHA = 4, 2.0
# sd-scripts, networks/lora.py: every Linear and every 1x1 convolution within modules of these classes
WITHIN = {"lora_unet": ("Transformer2DModel",), "lora_te": ("CLIPAttention", "CLIPMLP")}
# LyCORIS, with its preset `full`: these too, with kernels of any size
LOCON = ("ResnetBlock2D", "Downsample2D", "Upsample2D", "TimestepEmbedding")
SAMPLE = {
    "lora_unet_down_blocks_1_attentions_0_proj_in",
    "lora_unet_mid_block_attentions_0_proj_out",
    "lora_unet_up_blocks_0_attentions_1_transformer_blocks_0_attn2_to_k",
    "lora_unet_up_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0",
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_ff_net_0_proj",
    "lora_te_text_model_encoder_layers_0_self_attn_out_proj",
    "lora_te_text_model_encoder_layers_0_mlp_fc1",
    "lora_te_text_model_encoder_layers_0_mlp_fc2",
}


LOCON_SAMPLE = {
    "lora_unet_conv_in", "lora_unet_time_embedding_linear_2", "lora_unet_down_blocks_0_downsamplers_0_conv",
    "lora_unet_up_blocks_0_upsamplers_0_conv", "lora_unet_up_blocks_0_resnets_0_conv_shortcut",
    "lora_unet_mid_block_resnets_1_time_emb_proj", "lora_unet_mid_block_resnets_1_conv2",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder = build_tiny_stable_diffusion(tmp_path_factory.mktemp("sd") / "tiny-sd")
    return load_base(str(folder), device=torch.device("cpu"), dtype=torch.float32)


def layers(base: BaseModel, *, is_locon: bool = False) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Each adapted layer under its name in the file."""
    if is_locon:
        yield from (
            ("lora_unet_conv_in", base.parts["unet"].conv_in),
            ("lora_unet_conv_out", base.parts["unet"].conv_out),
        )
    for prefix, network in (("lora_unet", base.parts["unet"]), ("lora_te", base.parts["text_encoder"])):
        for outer, module in network.named_modules():
            if type(module).__name__ not in WITHIN[prefix] + (LOCON if is_locon else ()):
                continue
            for inner, layer in module.named_modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    name = f"{outer}.{inner}"
                    if prefix == "lora_te" and not name.startswith("text_model."):
                        name = f"text_model.{name}"  # as in the transformers that sd-scripts use
                    yield f"{prefix}_{name.replace('.', '_')}", layer


def factors(layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    d_out, *ins = layer.weight.shape
    A, B = torch.randn(RANK, *ins, generator=generator), torch.randn(d_out, RANK, generator=generator)
    ones = (1, 1) if isinstance(layer, nn.Conv2d) else ()
    return A / math.prod(ins) ** 0.5, (B / RANK**0.5).reshape(d_out, RANK, *ones)


@torch.no_grad()
def run(base: BaseModel) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    states = base.encode_prompt(base.tokenize(["a photo of <<TOK>> person"]))
    return base.denoise(torch.randn(1, *base.latent_shape, generator=generator), torch.tensor([500]), states)


def write_lora(base: BaseModel, path: Path, *, extra: str = "", is_locon: bool = False) -> dict[str, Tensor]:
    """The file; what it adds to each layer's weight."""
    generator = torch.Generator().manual_seed(1)
    tensors: dict[str, Tensor] = {}
    deltas: dict[str, Tensor] = {}
    for name, layer in layers(base, is_locon=is_locon):
        A, B = factors(layer, generator)
        tensors |= {f"{name}.lora_down.weight": A, f"{name}.lora_up.weight": B, f"{name}.alpha": torch.tensor(ALPHA)}
        deltas[name] = ALPHA / RANK * (B.flatten(1) @ A.flatten(1)).reshape(layer.weight.shape)
    if extra:
        tensors |= {f"{extra}.lora_down.weight": torch.ones(1, 3), f"{extra}.lora_up.weight": torch.ones(3, 1)}
    save_file(tensors, path, metadata={"ss_network_module": "networks.lora", "ss_network_dim": str(RANK)})
    return deltas


@pytest.mark.parametrize("is_locon", [False, True])
def test_it_is_the_same_picture_as_with_the_weights_changed(base: BaseModel, tmp_path: Path, is_locon: bool) -> None:
    deltas = write_lora(base, tmp_path / "lora.safetensors", is_locon=is_locon)
    assert deltas.keys() >= SAMPLE | (LOCON_SAMPLE if is_locon else set())
    assert not is_locon or len(deltas) == sum(map(len, base.outline.layers.values()))
    adapter = import_from(tmp_path / "lora.safetensors", "kohya", Subject("anna"), base.outline, FORMATS)
    bare = run(base)
    bank = LoraBank(base.networks, base.family.targets, slots=2, rank=RANK)
    bank.write(1, bank.row_of(adapter.weights, scale=adapter.card.alpha / adapter.card.rank))
    with bank.route(torch.tensor([1])):
        mine = run(base)
    bank.close()
    with torch.no_grad():
        for name, layer in layers(base, is_locon=is_locon):
            layer.weight += deltas[name]
        changed = run(base)
        for name, layer in layers(base, is_locon=is_locon):
            layer.weight -= deltas[name]
    assert relative(mine, changed) < 1e-4
    assert relative(mine, bare) > 1e-2


@pytest.mark.parametrize("layer", ["down_blocks_9_resnets_0_conv1", "no_such_layer"])
def test_layers_that_the_base_lacks_are_named(base: BaseModel, tmp_path: Path, layer: str) -> None:
    write_lora(base, tmp_path / "lora.safetensors", extra=f"lora_unet_{layer}")
    with pytest.raises(Mismatch, match=f"expected layers of sd-1.5, got lora_unet_{layer}") as caught:
        import_from(tmp_path / "lora.safetensors", "kohya", Subject("anna"), base.outline, FORMATS)
    assert "Stable Diffusion 1" in caught.value.hint


def test_an_import_loads_no_weights(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it leave anything of a file whose layers have other dimensions, as another base's have."""

    def loaded(*options: object, **more: object) -> None:
        raise AssertionError("the base was loaded")

    monkeypatch.setattr("likeness.diffusion.base.load_base", loaded)
    folder = build_tiny_stable_diffusion(tmp_path / "tiny-sd")
    likeness = build(Settings(home=tmp_path / "home", base=str(folder)))
    write_lora(base, tmp_path / "lora.safetensors")
    assert likeness.import_adapter(tmp_path / "lora.safetensors", "anna").base_sha256 == base.sha256
    arrays = load_file(tmp_path / "lora.safetensors")
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"
    save_file(arrays | {name: torch.ones(RANK, 1024)}, tmp_path / "other.safetensors")
    with pytest.raises(Mismatch, match=r"attn2\.to_k of sd-1\.5"):
        likeness.import_adapter(tmp_path / "other.safetensors", "bert")
    assert [record.name for record in likeness.catalog.list_adapters("local")] == ["anna"]
    likeness.close()


def test_training_goes_on_as_it_was(base: BaseModel) -> None:
    """What recipes may name did not grow with what may be imported."""
    assert set(base.family.trained["unet"]) < set(base.family.targets["unet"])
    assert set(base.family.trained["text_encoder"]) < set(base.family.targets["text_encoder"])
