"""FLUX.2-klein and Z-Image: the same numbers as diffusers' own pipelines, losses and loaders, on tiny random bases."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, ZImagePipeline
from peft import PeftModel
from torch import Tensor
from torch.nn import functional as F

from fixtures.batches import made_together
from fixtures.peft_peer import flat, gradients, outputs, with_lora
from fixtures.tiny import (
    QWEN_WIDTH,
    build_tiny_klein,
    build_tiny_z_image,
    filled_bank,
    random_person,
    random_row,
    relative,
)
from likeness.artifacts import adapter as folders
from likeness.artifacts import bundle, tensors
from likeness.artifacts.exporting import FORMATS
from likeness.artifacts.foreign import foreign_card, with_strength
from likeness.artifacts.importing import read_foreign
from likeness.artifacts.native_names import native_name
from likeness.diffusion import family
from likeness.diffusion.base import BaseModel, load_base
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.noise import row_noise
from likeness.diffusion.sampling import AdapterSlot, denoise_all
from likeness.diffusion.schedule import FlowSchedule
from likeness.engine.packed import pack
from likeness.engine.slot_banks import SlotBanks
from likeness.errors import Mismatch, UsageError
from likeness.training.loop import Batch, StepMemory, TrainingLoop, draw_batches
from likeness.training.recipe import recipe_named
from likeness.types import Adapter, ImageRequest

pytestmark = pytest.mark.filterwarnings("ignore")  # the peers' own deprecations

CPU = torch.device("cpu")
SIDE_PX, RANK = 128, 3
PROMPT = "photo of <<TOK>> man in the snow"


@dataclass(frozen=True, eq=False)
class Kind:
    """One architecture: how a tiny base of it is made, and how diffusers computes with it."""

    build: Callable[[Path, bool], Path]  # whether it is distilled
    pipeline: Any
    guidance: Callable[[float], float]  # our scale -> diffusers'
    options: Mapping[str, Any]  # of the pipeline's call
    noise: Callable[[Tensor], Tensor]
    latents: Callable[[BaseModel, Tensor], Tensor]  # ours -> as the pipeline returns them
    predicted: Callable[[Any, Tensor, Tensor, Any], Tensor]  # transformer, x_t, sigma, prompts -> velocity


def _klein_latents(base: BaseModel, x: Tensor) -> Tensor:
    norm = base.parts["vae"].bn
    scale = (norm.running_var + 1e-4).sqrt().view(1, -1, 1, 1)
    return Flux2KleinPipeline._unpatchify_latents(x * scale + norm.running_mean.view(1, -1, 1, 1))


def _klein_predicted(transformer: Any, x_t: Tensor, sigma: Tensor, prompts: Any) -> Tensor:
    """As in train_dreambooth_lora_flux2_klein.py."""
    states, text_ids = prompts
    image_ids = Flux2KleinPipeline._prepare_latent_ids(x_t)
    output = transformer(
        hidden_states=Flux2KleinPipeline._pack_latents(x_t), timestep=sigma, guidance=None,
        encoder_hidden_states=states, txt_ids=text_ids, img_ids=image_ids, return_dict=False,
    )[0]  # fmt: skip
    return Flux2KleinPipeline._unpack_latents_with_ids(output, image_ids)


def _z_predicted(transformer: Any, x_t: Tensor, sigma: Tensor, prompts: Any) -> Tensor:
    """As in train_dreambooth_lora_z_image.py."""
    output = transformer(list(x_t.unsqueeze(2)), 1 - sigma, prompts[0], return_dict=False)[0]
    return -torch.stack(output).squeeze(2)


KINDS = {
    "klein": Kind(
        lambda folder, distilled: build_tiny_klein(folder, is_distilled=distilled), Flux2KleinPipeline,
        lambda scale: scale, {}, lambda noise: noise, _klein_latents, _klein_predicted,
    ),
    "z-image": Kind(
        lambda folder, distilled: build_tiny_z_image(folder, shift=3.0 if distilled else 6.0), ZImagePipeline,
        lambda scale: scale - 1, {}, lambda noise: noise, lambda base, x: x, _z_predicted,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _tiny_families() -> Iterator[None]:
    """Families of text states as narrow as the tiny bases', which the table has only here."""
    with pytest.MonkeyPatch.context() as patch:
        widths = {"Flux2Transformer2DModel": 3 * QWEN_WIDTH, "ZImageTransformer2DModel": QWEN_WIDTH}
        for (name, _, is_distilled), known in list(family._BY_CLASS.items()):
            small = replace(known, resolution_px=SIDE_PX)
            patch.setitem(family._BY_CLASS, (name, widths[str(name)], is_distilled), small)
        yield


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def folder(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kind.build(tmp_path_factory.mktemp("flow") / "tiny-flow", False)


@pytest.fixture(scope="module")
def base(folder: Path) -> BaseModel:
    return load_base(str(folder), device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def distilled(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    path = kind.build(tmp_path_factory.mktemp("flow") / "tiny-distilled", True)
    return replace(load_base(str(path), device=CPU, dtype=torch.float32), sha256="ab" * 32)


@pytest.fixture
def bank(base: BaseModel) -> Iterator[LoraBank]:
    with closing(filled_bank(base, rank=RANK, scale=2)) as bank:
        yield bank


def pipeline_of(kind: Kind, folder: Path) -> Any:
    pipeline = kind.pipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock(kind: Kind, pipeline: Any, request: ImageRequest, base: BaseModel, output_type: str = "latent") -> Any:
    assert request.guidance_scale is not None and request.steps is not None
    options: dict[str, Any] = (
        {} if kind.pipeline is Flux2KleinPipeline else {"negative_prompt": request.negative_prompt}
    )  # klein has no other than the empty one
    width, height = base.family.checked_size(request.width, request.height)
    return pipeline(
        prompt=request.prompt, num_inference_steps=request.steps, guidance_scale=kind.guidance(request.guidance_scale),
        latents=row_noise([request.seed], base.latent_shape_of(width, height)), height=height, width=width,
        output_type=output_type, **options,
    ).images  # fmt: skip


def asked(**changes: Any) -> ImageRequest:
    return replace(ImageRequest(PROMPT, seed=5, steps=4, guidance_scale=4.0), **changes)


def adapter_of(base: BaseModel, bank: LoraBank, slot: int) -> Adapter:
    card = foreign_card("anna", "man", "<<TOK>>", base_id=base.id, base_sha256=base.sha256, family=base.family.name)
    return Adapter(replace(card, rank=RANK, alpha=float(RANK)), bank.pairs_of(bank.flat[slot], RANK))


@pytest.mark.parametrize(("guidance", "size"), [(1.0, (None, None)), (4.0, (None, None)), (4.0, (208, 112))])
def test_same_picture_as_the_stock_pipeline(
    kind: Kind, folder: Path, base: BaseModel, guidance: float, size: tuple[int | None, int | None]
) -> None:
    """Of another size too, where klein's steps are shifted by the number of its tokens."""
    request = asked(guidance_scale=guidance, width=size[0], height=size[1])
    mine, pipeline = denoise_all(base, None, [request]), pipeline_of(kind, folder)
    assert relative(kind.latents(base, mine), stock(kind, pipeline, request, base)) < 1e-4
    other = denoise_all(base, None, [replace(request, prompt="snow")])
    assert relative(other, mine) > 1e-3  # the prompt matters
    picture = stock(kind, pipeline, request, base, "pt")
    assert (base.decode(mine) / 2 + 0.5 - picture).abs().max() < 1 / 255


def test_the_distilled_sibling_has_few_steps_and_no_guidance(kind: Kind, distilled: BaseModel) -> None:
    """A request that leaves them open, against the pipeline with the settings of the model card."""
    assert distilled.family.undistilled in {family.KLEIN_BASE_4B.name, family.Z_IMAGE.name}
    mine = denoise_all(distilled, None, [ImageRequest(PROMPT, seed=5)])
    card = asked(guidance_scale=1.0, steps={Flux2KleinPipeline: 4, ZImagePipeline: 8}[kind.pipeline])
    pipeline = kind.pipeline(
        **distilled.parts, tokenizer=distilled.tokenizers["tokenizer"], scheduler=_scheduler(distilled)
    )
    pipeline.set_progress_bar_config(disable=True)
    assert relative(kind.latents(distilled, mine), stock(kind, pipeline, card, distilled)) < 1e-4


def _scheduler(base: BaseModel) -> FlowMatchEulerDiscreteScheduler:
    assert isinstance(base.schedule, FlowSchedule)
    return FlowMatchEulerDiscreteScheduler.from_config(json.loads(base.schedule.config))


def test_a_distilled_base_does_not_train(distilled: BaseModel) -> None:
    loop = TrainingLoop(distilled, capacity=1, rank=RANK)
    try:
        with pytest.raises(UsageError, match="expected an undistilled base"):
            loop.join("anna", recipe_named("standard", rank=RANK), random_person(distilled, 1), seed=1)
    finally:
        loop.close()


def test_another_sampler_is_refused(base: BaseModel) -> None:
    with pytest.raises(UsageError, match="expected the sampler euler"):
        denoise_all(base, None, [asked(sampler="ddim")])


def test_encoding_inverts_decoding_as_the_pipeline_does(kind: Kind, folder: Path, base: BaseModel) -> None:
    """The autoencoder is random, so only the scaling of latents is compared."""
    pixels = torch.rand(1, 3, SIDE_PX, SIDE_PX) * 2 - 1
    pipeline, latents = pipeline_of(kind, folder), base.encode_photo(pixels)
    assert latents.shape[1:] == base.latent_shape
    with torch.no_grad():
        plain = pipeline.vae.encode(pixels).latent_dist.mode()
    if kind.pipeline is Flux2KleinPipeline:
        torch.testing.assert_close(latents, pipeline._encode_vae_image(pixels, None))
        back = kind.latents(base, latents)
    else:
        back = latents / pipeline.vae.config.scaling_factor + pipeline.vae.config.shift_factor
    torch.testing.assert_close(back, plain, rtol=1e-4, atol=1e-5)


def test_same_picture_with_an_exported_adapter(
    kind: Kind, folder: Path, base: BaseModel, bank: LoraBank, tmp_path: Path
) -> None:
    """In stock diffusers by its own loader, and in PEFT."""
    adapter, request = adapter_of(base, bank, 1), asked()
    pipeline = pipeline_of(kind, folder)
    FORMATS["diffusers"].export(adapter, tmp_path / "anna.safetensors")
    pipeline.load_lora_weights(tmp_path / "anna.safetensors")
    mine = denoise_all(base, bank, [request], [[AdapterSlot(1)]])
    theirs = stock(kind, pipeline, request, base)
    assert relative(kind.latents(base, mine), theirs) < 1e-4
    assert relative(kind.latents(base, denoise_all(base, bank, [request])), theirs) > 1e-2
    folders.write(adapter, tmp_path / "anna", dtype=np.float32)
    pipeline = pipeline_of(kind, folder)
    PeftModel.from_pretrained(pipeline.transformer, tmp_path / "anna" / "transformer")  # replaces layers in place
    assert relative(kind.latents(base, mine), stock(kind, pipeline, request, base)) < 1e-4
    with pytest.raises(UsageError, match="expected an adapter of Stable Diffusion"):
        FORMATS["kohya"].export(adapter, tmp_path / "kohya.safetensors")


def test_files_are_read_again(base: BaseModel, bank: LoraBank, tmp_path: Path) -> None:
    kept, content = bundle.encode(adapter_of(base, bank, 1))  # as stored, in float16
    expected = bank.row_of(kept.weights)
    assert torch.equal(bank.row_of(bundle.decode(content).weights), expected)
    for layout in ("diffusers", "peft"):
        FORMATS[layout].export(kept, tmp_path / layout)
        found = read_foreign(tmp_path / layout, base.outline)
        row = bank.row_of(found.weights, scale=found.card.alpha / found.card.rank)
        torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-6)
    for start in ("diffusion_model.", "transformer.", "base_model.model.", ""):
        arrays: tensors.Tensors = {}
        for module, pair in kept.weights["transformer"].items():
            arrays |= {f"{start}{module}.lora_A.weight": pair.A, f"{start}{module}.lora_B.weight": pair.B}
        path = tmp_path / f"{start}.safetensors"
        path.write_bytes(tensors.encode(arrays, {}))
        assert torch.equal(bank.row_of(read_foreign(path, base.outline, kept.card).weights), expected)


def _native(
    arrays: tensors.Tensors, fused: Mapping[str, tuple[str, ...]], renamed: Mapping[str, str]
) -> tensors.Tensors:
    """A file of ours with the names of the model's own code: thirds of equal A are one layer.

    fused: native layer -> its thirds. The A of the first third is taken for all.
    """
    out: tensors.Tensors = {}
    for native, parts in fused.items():
        B = np.concatenate([arrays[f"{part}.lora_B.weight"] for part in parts])
        out |= {f"{native}.lora_A.weight": arrays[f"{parts[0]}.lora_A.weight"], f"{native}.lora_B.weight": B}
    thirds = {part for parts in fused.values() for part in parts}
    for key, array in arrays.items():
        module, _, rest = key.partition(".lora_")
        if module not in thirds:
            out[f"{renamed.get(module, module)}.lora_{rest}"] = array
    return out


@pytest.mark.parametrize("start", ["diffusion_model.", "lora_unet_"])
def test_files_with_the_models_own_names_are_read(
    kind: Kind, base: BaseModel, bank: LoraBank, start: str, tmp_path: Path
) -> None:
    """As ComfyUI and kohya have them; diffusers' own converter reads the first to the same layers."""
    kept = adapter_of(base, bank, 1)
    arrays: tensors.Tensors = {}
    for module, pair in kept.weights["transformer"].items():
        arrays |= {f"{module}.lora_A.weight": pair.A, f"{module}.lora_B.weight": pair.B}
    if kind.pipeline is Flux2KleinPipeline:
        thirds = {"img_attn": ("to_q", "to_k", "to_v"), "txt_attn": ("add_q_proj", "add_k_proj", "add_v_proj")}
        fused = {f"double_blocks.0.{one}.qkv": tuple(f"transformer_blocks.0.attn.{end}" for end in ends)
                 for one, ends in thirds.items()}  # fmt: skip
    else:
        blocks = ("layers.0", "layers.1", "noise_refiner.0", "context_refiner.0")
        fused = {f"{block}.attention.qkv": tuple(f"{block}.attention.{end}" for end in ("to_q", "to_k", "to_v"))
                 for block in blocks}  # fmt: skip
    for parts in fused.values():  # one A for all thirds
        for part in parts:
            arrays[f"{part}.lora_A.weight"] = arrays[f"{parts[0]}.lora_A.weight"]
    modules = list(kept.weights["transformer"])
    native = {module: native_name(module) for module in modules}
    assert all(module in native.values() or native[module] != module for module in modules)
    file = _native(arrays, fused, native)
    dotted = {f"diffusion_model.{key}": array for key, array in file.items()}
    if start == "lora_unet_":
        dotted = {}
        for key, array in file.items():
            module, _, rest = key.partition(".lora_")
            part = "lora_down" if rest.startswith("A") else "lora_up"
            dotted[f"lora_unet_{module.replace('.', '_')}.{part}.weight"] = array
    (tmp_path / "native.safetensors").write_bytes(tensors.encode(dotted, {}))
    found = read_foreign(tmp_path / "native.safetensors", base.outline, kept.card).weights["transformer"]
    assert found.keys() == kept.weights["transformer"].keys()
    for module, pair in found.items():
        assert np.array_equal(pair.A, arrays[f"{module}.lora_A.weight"])
        assert np.array_equal(pair.B, arrays[f"{module}.lora_B.weight"])
    if kind.pipeline is Flux2KleinPipeline and start == "diffusion_model.":
        theirs = Flux2KleinPipeline.lora_state_dict({key: torch.from_numpy(one) for key, one in dotted.items()})
        assert {key.removeprefix("transformer.") for key in theirs} == set(arrays)
        assert all(np.array_equal(theirs[f"transformer.{key}"].numpy(), array) for key, array in arrays.items())


def test_an_image_in_a_mixed_batch_is_the_image_alone(base: BaseModel, bank: LoraBank) -> None:
    """Different adapters, prompts of very different lengths, guided or not, at different steps, in different sizes."""
    requests = [
        asked(),
        asked(prompt="a", seed=6, negative_prompt="woman, in a long sentence of many words", steps=3),
        asked(prompt="a photo of person in the snow " * 4, seed=7, guidance_scale=1.0),
        asked(seed=8, steps=2),
        asked(width=96, height=160),
        asked(seed=9, width=160, height=96),
        asked(prompt="a", seed=10, width=96, height=160),
    ]
    slots = [[AdapterSlot(1)], [AdapterSlot(2)], [AdapterSlot(3)], [], [AdapterSlot(1)], [], [AdapterSlot(2)]]
    together = made_together(base, bank, requests, slots)
    for k, (request, slot) in enumerate(zip(requests, slots, strict=True)):
        assert relative(together[k], denoise_all(base, bank, [request], [slot])[0]) < 1e-5


def _loop_with(base: BaseModel, **changes: Any) -> tuple[TrainingLoop, Batch]:
    """A person in a loop with factors away from zero, and the batch that the next step draws."""
    recipe = recipe_named(
        "standard", rank=RANK, alpha=RANK, instance_rows=2, prior_rows=2, prior_from_base=False, prior_weight=0.7,
        **changes,
    )  # fmt: skip
    data = random_person(base, 1)
    loop = TrainingLoop(base, capacity=2, rank=RANK)
    job = loop.join("anna", recipe, replace(data, emphasis=torch.ones_like(torch.stack([*data.emphasis]))), seed=3)
    row = loop.bank.flat[job.slot] + 0.2 * random_row(loop.bank, 5) * outputs(loop.bank, recipe)
    loop.bank.write(job.slot, row)
    start = job.generator.get_state()
    (batch,) = draw_batches(job, base.schedule)
    job.generator.set_state(start)
    return loop, batch


@pytest.mark.parametrize("memory", [StepMemory(), StepMemory(rows=1, recompute=True)])
def test_one_step_has_the_gradient_of_diffusers_own_loss(
    kind: Kind, folder: Path, base: BaseModel, memory: StepMemory
) -> None:
    """As in diffusers' DreamBooth scripts with prior preservation, by PEFT and autograd; whole and in parts."""
    loop, batch = _loop_with(base)
    try:
        job = next(iter(loop._jobs.values()))
        loop.memory, row = memory, loop.bank.flat[job.slot].clone()
        losses, gradient = loop.losses_and_gradient([job])
        factors, mine = (loop.bank.pairs_of(one, RANK)["transformer"] for one in (row, gradient[job.slot]))
    finally:
        loop.close()
    pipeline = pipeline_of(kind, folder)
    texts = ["photo of <<TOK>> person", "a photo of <<TOK>> person", "photo of person"]
    shown = {tuple(base.tokenize([text])[0].flatten().tolist()): text for text in texts}
    prompts = [shown[tuple(ids.flatten().tolist())] for ids in batch.ids[batch.caption]]
    with torch.no_grad():
        encoded = pipeline.encode_prompt(prompt=prompts, device=CPU)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
    sigma = batch.t / scheduler.config["num_train_timesteps"]
    columns = sigma.view(-1, 1, 1, 1)
    noisy = (1 - columns) * batch.x0 + columns * batch.noise
    model = with_lora(pipeline.transformer, factors)
    predicted = kind.predicted(model, noisy, sigma, encoded)
    instance, prior = (predicted - (batch.noise - batch.x0)).chunk(2)
    loss = F.mse_loss(instance, torch.zeros_like(instance)) + 0.7 * F.mse_loss(prior, torch.zeros_like(prior))
    assert losses["anna"] == pytest.approx(loss.item(), rel=1e-4)
    loss.backward()
    theirs = gradients(model)
    assert theirs.keys() == mine.keys()
    assert relative(flat(mine), flat(theirs)) < 1e-4


def test_a_person_trains_in_a_group_as_alone(base: BaseModel) -> None:
    recipe = recipe_named("standard", rank=RANK, alpha=RANK, instance_rows=2, prior_rows=1)
    alone = {}
    for names in (("anna",), ("ben",), ("anna", "ben")):
        loop = TrainingLoop(base, capacity=2, rank=RANK)
        try:
            for name in names:
                loop.join(name, recipe, random_person(base, len(name)), seed=len(name))
            losses, gradient = loop.losses_and_gradient(list(loop._jobs.values()))
            for name, job in loop._jobs.items():
                if len(names) == 1:
                    alone[name] = losses[name], gradient[job.slot].clone()
                else:
                    assert losses[name] == pytest.approx(alone[name][0], rel=1e-5)
                    assert relative(gradient[job.slot], alone[name][1]) < 1e-4
        finally:
            loop.close()


def test_an_adapter_of_the_undistilled_base_serves_on_its_distilled_sibling(
    base: BaseModel, distilled: BaseModel, bank: LoraBank, tmp_path: Path
) -> None:
    """The card names both hashes, with a strength of its own."""
    adapter = adapter_of(base, bank, 1)
    FORMATS["diffusers"].export(adapter, tmp_path / "anna.safetensors")
    with pytest.raises(Mismatch, match="got one of base"):
        read_foreign(tmp_path / "anna.safetensors", replace(base.outline, sha256="cd" * 32))
    found = read_foreign(tmp_path / "anna.safetensors", distilled.outline)
    assert (found.card.base_sha256, dict(found.card.serves)) == (base.sha256, {distilled.sha256: 1.0})
    strong = replace(found, card=with_strength(found.card, distilled.sha256, 1.5))
    kept, content = bundle.encode(strong)
    assert bundle.decode(content).card.serves == {distilled.sha256: 1.5}
    banks = SlotBanks(distilled, slots=2, rank=RANK, large_rank=RANK)
    try:
        packed = pack(kept, banks, distilled.sha256)
        assert packed.scale == pytest.approx(1.5 * kept.card.alpha / kept.card.rank)
        assert pack(kept, banks, base.sha256).scale == pytest.approx(kept.card.alpha / kept.card.rank)
    finally:
        banks.close()
    with pytest.raises(UsageError, match="expected a strength for a distilled base"):
        with_strength(adapter.card, base.sha256, 1.5)


@pytest.mark.parametrize(("trains", "parts"), [(False, ("text_encoder",)), (True, ("text_encoder", "vae"))])
def test_networks_in_host_memory_give_the_same_numbers(
    folder: Path, base: BaseModel, trains: bool, parts: tuple[str, ...]
) -> None:
    streamed = load_base(str(folder), device=CPU, dtype=torch.float32, trains=trains, streams=True)
    assert streamed.streaming == parts
    ids = base.tokenize([PROMPT, ""])
    assert torch.equal(base.encode_prompt(ids).states, streamed.encode_prompt(ids).states)
    latents = row_noise([1, 2], base.latent_shape)
    pixels = base.decode(latents)
    assert torch.equal(streamed.decode(latents), pixels)
    assert torch.equal(streamed.encode_photo(pixels), base.encode_photo(pixels))


def test_what_a_prompt_says_and_what_is_not_read(base: BaseModel) -> None:
    assert base.says("photo of <<TOK>> man", "<<TOK>>") and base.says("a man", "man")
    assert not base.says("a woman", "man")
    assert base.unread("photo") == ""
    long = "".join(f"{k} " for k in range(300))
    assert long.endswith(base.unread(long)) and 0 < len(base.unread(long)) < len(long)
    cut = long.removesuffix(base.unread(long))
    assert torch.equal(base.tokenize([long])[0, 0, :400], base.tokenize([cut])[0, 0, :400])
