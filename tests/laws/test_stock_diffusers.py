"""Unmodified diffusers loads our base and our exported adapter and makes the same image."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from fixtures.tiny import PUBLISHED_SCHEDULERS, random_row, relative
from likeness.artifacts.exporting import FORMATS
from likeness.diffusion.base import BUILT_IN, BaseModel, load_base, locate
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.noise import row_noise
from likeness.diffusion.sampling import AdapterSlot, denoise_all
from likeness.types import Adapter, AdapterCard, ImageRequest

PROMPT, NEGATIVE, SEED, STEPS, GUIDANCE = "photo of <<TOK>> man in the snow", "woman", 5, 8, 3.0


def card(base: BaseModel, rank: int) -> AdapterCard:
    return AdapterCard(
        name="anna", class_noun="man", identifier="<<TOK>>", base_id=base.id, base_sha256=base.sha256,
        family=base.family.name, recipe={}, seed=0, photos=1, steps=1, seconds=1.0,
        created="2026-01-01T00:00:00+00:00", versions={}, rank=rank, alpha=float(rank),
    )  # fmt: skip


def base_named(which: str, tiny_base_folder: Path, tmp_path: Path) -> str:
    """The built-in base, the tiny one, or the tiny one with a published scheduler config of that name."""
    if which == "built-in":
        return BUILT_IN
    if which == "tiny":
        return str(tiny_base_folder)
    folder = shutil.copytree(tiny_base_folder, tmp_path / which)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(PUBLISHED_SCHEDULERS[which]))
    return str(folder)


@pytest.mark.parametrize("which", ["tiny", "built-in", *PUBLISHED_SCHEDULERS])
def test_same_picture_with_an_exported_adapter(which: str, tiny_base_folder: Path, tmp_path: Path) -> None:
    name = base_named(which, tiny_base_folder, tmp_path)
    base = load_base(name, device=torch.device("cpu"), dtype=torch.float32)
    bank = LoraBank(base.networks, base.family.targets, slots=2, rank=4)
    row = random_row(bank, seed=1) * 0.3
    weights = bank.pairs_of(row, rank=4)
    bank.write(1, row)
    request = ImageRequest(
        PROMPT, negative_prompt=NEGATIVE, seed=SEED, steps=STEPS, guidance_scale=GUIDANCE, negative_scale=1.0
    )
    ours = denoise_all(base, bank, [request], [[AdapterSlot(1)]])
    bare = denoise_all(base, bank, [request])
    bank.close()

    exported = tmp_path / "anna.safetensors"
    FORMATS["diffusers"].export(Adapter(card(base, rank=4), weights), exported)
    scheduler = DPMSolverMultistepScheduler.from_pretrained(locate(name) / "scheduler")
    pipeline = StableDiffusionPipeline.from_pretrained(locate(name), scheduler=scheduler, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(exported)
    options = {
        "negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE,
        "latents": row_noise([SEED], base.latent_shape),
    }  # fmt: skip
    theirs = pipeline(PROMPT, output_type="latent", **options).images
    assert relative(ours, theirs) < 1e-3
    assert relative(bare, theirs) > 1e-2  # the adapter does something, so the agreement says something
    picture = pipeline(PROMPT, output_type="np", **options).images
    mine = ((base.decode(ours) + 1) / 2).permute(0, 2, 3, 1).numpy()
    assert np.abs(mine - picture).mean() < 1 / 255
