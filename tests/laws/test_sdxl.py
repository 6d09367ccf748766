"""Stable Diffusion XL: the same numbers as diffusers' own pipeline, loss and loaders, on a tiny random base."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, StableDiffusionXLPipeline
from peft import PeftModel
from torch.nn import functional as F

from fixtures.batches import made_together
from fixtures.peft_peer import flat, gradients, outputs, with_lora
from fixtures.tiny import build_tiny_sdxl, filled_bank, random_person, random_row, relative
from likeness.artifacts import adapter as folders
from likeness.artifacts import bundle, tensors
from likeness.artifacts.exporting import FORMATS
from likeness.artifacts.foreign import foreign_card
from likeness.artifacts.importing import read_foreign
from likeness.artifacts.layer_names import compvis_names
from likeness.diffusion import family
from likeness.diffusion.base import BaseModel, load_base, outline_of
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.noise import row_noise
from likeness.diffusion.sampling import AdapterSlot, denoise_all
from likeness.errors import Mismatch
from likeness.training.loop import TrainingLoop, draw_batches
from likeness.training.recipe import recipe_named
from likeness.types import Adapter, ImageRequest, Network

pytestmark = pytest.mark.filterwarnings("ignore")  # the peers' own deprecations

CPU = torch.device("cpu")
CELLS, RANK = 16, 3
PROMPT = "photo of <<TOK>> man in the snow"
NETWORKS: tuple[Network, ...] = ("unet", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A base of 16 cells a side, which the table of families has only here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(family._BY_SHAPE, (2048, CELLS), replace(family.SDXL, resolution_px=8 * CELLS))
        yield build_tiny_sdxl(tmp_path_factory.mktemp("sdxl") / "tiny-sdxl", cells=CELLS)


@pytest.fixture(scope="module")
def base(folder: Path) -> BaseModel:
    return load_base(str(folder), device=CPU, dtype=torch.float32)


@pytest.fixture
def bank(base: BaseModel) -> Iterator[LoraBank]:
    with closing(filled_bank(base, rank=RANK, scale=0.3)) as bank:
        yield bank


def pipeline_of(folder: Path) -> Any:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock(pipeline: Any, request: ImageRequest, base: BaseModel, **options: Any) -> Any:
    width, height = base.family.checked_size(request.width, request.height)
    return pipeline(
        request.prompt, negative_prompt=request.negative_prompt or None, num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale, height=height, width=width,
        latents=row_noise([request.seed], base.latent_shape_of(width, height)), **options,
    ).images  # fmt: skip


def asked(**changes: Any) -> ImageRequest:
    return replace(ImageRequest(PROMPT, seed=5, steps=4, guidance_scale=4.0, negative_scale=1.0), **changes)


def adapter_of(base: BaseModel, bank: LoraBank, slot: int) -> Adapter:
    card = foreign_card("anna", "man", "<<TOK>>", base_id=base.id, base_sha256=base.sha256, family=base.family.name)
    return Adapter(replace(card, rank=RANK, alpha=float(RANK)), bank.pairs_of(bank.flat[slot], RANK))


@pytest.mark.parametrize("size", [(None, None), (192, 128)])
@pytest.mark.parametrize("negative", ["", "woman"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_same_picture_as_the_stock_pipeline(
    folder: Path, base: BaseModel, negative: str, guidance: float, size: tuple[int | None, int | None]
) -> None:
    """An empty negative prompt too, which is zeros here and not an encoding; and another size, which SDXL is told."""
    request = asked(negative_prompt=negative, guidance_scale=guidance, width=size[0], height=size[1])
    mine, pipeline = denoise_all(base, None, [request]), pipeline_of(folder)
    assert relative(mine, stock(pipeline, request, base, output_type="latent")) < 1e-4
    picture = stock(pipeline, request, base, output_type="pt")
    assert (base.decode(mine) / 2 + 0.5 - picture).abs().max() < 1 / 255


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_same_picture_with_an_exported_adapter(
    folder: Path, base: BaseModel, bank: LoraBank, layout: str, tmp_path: Path
) -> None:
    """Attention and feed-forward of all three networks."""
    adapter = adapter_of(base, bank, 1)
    weights = {
        network: {name: pair for name, pair in pairs.items() if (pair.A.ndim == 2 and "attn" in name) or "mlp" in name}
        for network, pairs in adapter.weights.items()
    }
    assert weights.keys() == set(NETWORKS)
    adapter = Adapter(adapter.card, weights)
    bank.write(1, bank.row_of(weights))
    FORMATS[layout].export(adapter, tmp_path / "anna.safetensors")
    pipeline, request = pipeline_of(folder), asked(negative_prompt="woman")
    pipeline.load_lora_weights(tmp_path / "anna.safetensors")
    theirs = stock(pipeline, request, base, output_type="latent")
    assert relative(denoise_all(base, bank, [request], [[AdapterSlot(1)]]), theirs) < 1e-4
    assert relative(denoise_all(base, bank, [request]), theirs) > 1e-2


def test_each_network_counts_and_peft_loads_them(folder: Path, base: BaseModel, bank: LoraBank, tmp_path: Path) -> None:
    adapter = adapter_of(base, bank, 2)
    folders.write(adapter, tmp_path / "anna", dtype=np.float32)
    pipeline, request = pipeline_of(folder), asked()
    bare = stock(pipeline, request, base, output_type="latent")
    for network in NETWORKS:
        bank.write(1, bank.row_of({network: adapter.weights[network]}))
        mine = denoise_all(base, bank, [request], [[AdapterSlot(1)]])
        assert relative(mine, bare) > 1e-3
        plain = getattr(pipeline, network)
        peft = PeftModel.from_pretrained(plain, tmp_path / "anna" / network)
        theirs = stock(pipeline, request, base, output_type="latent")  # PEFT replaced the layers in place
        assert relative(mine, theirs) < 1e-4
        peft.unload()


def test_files_of_ours_are_read_again(base: BaseModel, bank: LoraBank, tmp_path: Path) -> None:
    adapter = adapter_of(base, bank, 1)
    kept, content = bundle.encode(adapter)  # as stored, in float16
    expected = bank.row_of(kept.weights)
    assert torch.equal(bank.row_of(bundle.decode(content).weights), expected)
    for layout, made in FORMATS.items():
        made.export(kept, tmp_path / layout)
        found = read_foreign(tmp_path / layout, base.outline)
        row = bank.row_of(found.weights, scale=found.card.alpha / found.card.rank)
        torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-6)


def test_an_image_in_a_mixed_batch_is_the_image_alone(base: BaseModel, bank: LoraBank) -> None:
    """Different adapters, prompts of different lengths, guided or not, at different steps, in different sizes."""
    requests = [
        asked(),
        asked(prompt="a", seed=6, negative_prompt="woman", steps=3),
        asked(prompt="a photo of person in the snow", seed=7, guidance_scale=1.0),
        asked(seed=8, steps=2),
        asked(width=128, height=192),
        asked(seed=9, width=192, height=128),
        asked(prompt="a", seed=10, width=128, height=192),
    ]
    slots = [[AdapterSlot(1)], [AdapterSlot(2)], [AdapterSlot(3)], [], [AdapterSlot(1)], [], [AdapterSlot(2)]]
    together = made_together(base, bank, requests, slots)
    for k, (request, slot) in enumerate(zip(requests, slots, strict=True)):
        assert relative(together[k], denoise_all(base, bank, [request], [slot])[0]) < 1e-5


def test_one_step_has_the_gradient_of_diffusers_own_loss(folder: Path, base: BaseModel) -> None:
    """As in train_dreambooth_lora_sdxl.py with prior preservation and both text encoders, by PEFT and autograd."""
    recipe = recipe_named(
        "standard", rank=RANK, alpha=RANK, instance_rows=2, prior_rows=2, min_snr_gamma=None, prior_from_base=False,
        middle_timesteps=False, prior_weight=0.7, unet_targets=("to_q", "to_k", "to_v", "to_out.0"), down_blocks=True,
        text_targets=("q_proj", "k_proj", "v_proj", "out_proj"),
    )  # fmt: skip
    data = random_person(base, 1)
    data = replace(data, emphasis=torch.ones_like(torch.stack([*data.emphasis])))
    loop = TrainingLoop(base, capacity=2, rank=RANK)
    try:
        job = loop.join("anna", recipe, data, seed=3)
        row = loop.bank.flat[job.slot] + 0.05 * random_row(loop.bank, 4) * (loop.bank.flat[job.slot] != 0)
        row += 0.05 * random_row(loop.bank, 5) * outputs(loop.bank, recipe)  # B away from zero too
        loop.bank.write(job.slot, row)
        start = job.generator.get_state()
        (batch,) = draw_batches(job, base.schedule)
        job.generator.set_state(start)
        losses, gradient = loop.losses_and_gradient([job])
        factors, mine = (loop.bank.pairs_of(one, RANK) for one in (row, gradient[job.slot]))
    finally:
        loop.close()

    pipeline = pipeline_of(folder)
    models = {network: with_lora(getattr(pipeline, network), factors[network]) for network in NETWORKS}
    ids = batch.ids[batch.caption]
    one = models["text_encoder"](ids[:, 0], output_hidden_states=True)
    two = models["text_encoder_2"](ids[:, 1], output_hidden_states=True)
    prompt_embeds = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    noisy = scheduler.add_noise(batch.x0, batch.noise, batch.t)
    side = 8.0 * CELLS
    predicted = models["unet"](
        noisy, batch.t, prompt_embeds,
        added_cond_kwargs={"text_embeds": two[0], "time_ids": torch.tensor([[side, side, 0, 0, side, side]] * 4)},
    )[0]  # fmt: skip
    instance, prior = predicted.chunk(2)
    noise, prior_noise = batch.noise.chunk(2)
    loss = F.mse_loss(instance, noise) + recipe.prior_weight * F.mse_loss(prior, prior_noise)
    assert losses["anna"] == pytest.approx(loss.item(), rel=1e-4)
    loss.backward()
    for network in NETWORKS:
        theirs = gradients(models[network])
        trained = {name: theirs[name] for name in mine[network]}
        assert trained and relative(flat(mine[network]), flat(trained)) < 1e-4
        for name in theirs.keys() - trained.keys():  # a layer behind the states that the U-Net takes
            assert not theirs[name].A.any() and not theirs[name].B.any()


@pytest.mark.parametrize("names", ["diffusers", "sgm"])
def test_kohyas_files_are_read(base: BaseModel, bank: LoraBank, names: str, tmp_path: Path) -> None:
    """U-Net layers under diffusers' names of blocks and under those of SGM, which sd-scripts writes."""
    adapter = adapter_of(base, bank, 1)
    sgm = compvis_names(list(base.outline.layers["unet"]))
    assert sgm["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"].startswith("input_blocks.4.1.")
    arrays: tensors.Tensors = {}
    for network, start in zip(NETWORKS, ("lora_unet_", "lora_te1_", "lora_te2_"), strict=True):
        for module, pair in adapter.weights[network].items():
            name = sgm[module] if network == "unet" and names == "sgm" else module
            if network != "unet" and not name.startswith("text_model."):
                name = f"text_model.{name}"
            key = start + name.replace(".", "_")
            arrays |= {f"{key}.lora_down.weight": pair.A, f"{key}.lora_up.weight": pair.B}
            arrays[f"{key}.alpha"] = np.array(RANK / 2, np.float32)
    path = tmp_path / "anna.safetensors"
    path.write_bytes(tensors.encode(arrays, {"ss_base_model_version": "sdxl_base_v1-0"}))
    found = read_foreign(path, base.outline, adapter.card)
    assert found.card.alpha == RANK / 2
    assert torch.equal(bank.row_of(found.weights), bank.row_of(adapter.weights))


def test_adapters_of_other_families_are_refused_in_both_directions(
    base: BaseModel, bank: LoraBank, tmp_path: Path
) -> None:
    FORMATS["kohya"].export(adapter_of(base, bank, 1), tmp_path / "sdxl.safetensors")
    with pytest.raises(Mismatch, match="got one of base"):
        read_foreign(tmp_path / "sdxl.safetensors", outline_of())
    key = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    A, B = np.ones((2, 768), np.float32), np.ones((32, 2), np.float32)
    arrays: tensors.Tensors = {f"{key}.lora_down.weight": A, f"{key}.lora_up.weight": B}
    (tmp_path / "sd15.safetensors").write_bytes(tensors.encode(arrays, {}))
    with pytest.raises(Mismatch, match="expected an adapter of sdxl, got one of Stable Diffusion 1"):
        read_foreign(tmp_path / "sd15.safetensors", base.outline, adapter_of(base, bank, 1).card)


def test_the_autoencoder_stays_in_float32_where_its_config_says_so(folder: Path) -> None:
    half = load_base(str(folder), device=CPU, dtype=torch.bfloat16)
    assert half.dtype == half.parts["text_encoder_2"].dtype == torch.bfloat16
    assert half.parts["vae"].dtype == torch.float32
    latents = half.encode_photo(torch.zeros(1, 3, 8 * CELLS, 8 * CELLS))
    assert half.decode(latents.bfloat16()).dtype == torch.float32


def test_the_family_is_known_by_its_published_shape(tmp_path: Path) -> None:
    outline = outline_of(str(build_tiny_sdxl(tmp_path / "base")))
    assert (outline.family, outline.family.resolution_px) == (family.SDXL, 1024)
    assert outline.layers.keys() == set(NETWORKS)
