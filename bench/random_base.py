"""The base of a measurement: the built-in one, a folder, or random weights with the built-in base's shapes.

Time and memory depend on shapes only, so `--base random` gives the same results as the built-in base.
"""

import argparse
import os
import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from likeness.diffusion.base import BUILT_IN, BaseModel, load_base
from recipes.base_model.autoencoder import build_autoencoder
from recipes.base_model.latents import CHANNELS, PATCH_PX, PatchBasis
from recipes.base_model.networks import build_text_encoder, build_unet, load_tokenizer
from recipes.base_model.render.captions import vocabulary
from recipes.base_model.tokenizer import write_tokenizer
from recipes.base_model.train_unet import noise_schedule

RANDOM = "random"


def build_random_base(folder: Path) -> Path:
    """Write a folder with the built-in base's architecture and random, reproducible weights."""
    torch.manual_seed(0)
    write_tokenizer(vocabulary(), folder / "words")
    tokenizer = load_tokenizer(folder / "words")
    basis = PatchBasis(torch.randn(3 * PATCH_PX**2, CHANNELS) / PATCH_PX, torch.zeros(CHANNELS))
    StableDiffusionPipeline(
        vae=build_autoencoder(basis), text_encoder=build_text_encoder(tokenizer), tokenizer=tokenizer,
        unet=build_unet(), scheduler=noise_schedule(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def add_base_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", default=BUILT_IN, help=f"{BUILT_IN}, {RANDOM} (its shapes), or a folder")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--device", default="cpu")


def base_settings(args: argparse.Namespace) -> dict[str, object]:
    """The options of `add_base_options` for the document: of a folder only its name."""
    return {"base": Path(args.base).name, "threads": args.threads, "device": args.device}


def open_base(args: argparse.Namespace) -> BaseModel:
    """The base of `add_base_options`, float32."""
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.base != RANDOM:
        return load_base(args.base, device=device, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        return load_base(str(build_random_base(Path(folder))), device=device, dtype=torch.float32)
