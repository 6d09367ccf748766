"""Fit the latents, train the decoder: python -m recipes.base_model.train_autoencoder --data DIR --out DIR

First run: the patch basis is fitted to the first two shards and an autoencoder with its exact encoder is written at
once, so that the U-Net can start. When there are `--min-shards` of them the decoder trains, on crops of those and of
images made by program; shards that come later are not read. The learning rate follows elapsed time, a checkpoint is
written every minute, and `--resume` goes on from it, also with more minutes; `--init` betters the decoder of an
autoencoder whose checkpoint was not kept. Its latents stay what they are. Runs on CPU or GPU.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from .autoencoder import build_autoencoder, decoder_loss, reconstruct
from .data import load_images, psnr_db, to_float, wait_for_shards
from .latents import fit_patch_basis
from .textures import colour_jitter, texture_images

PEAK_LEARNING_RATE = 2e-3
LATENT_NOISE = 0.05  # what will be decoded comes from a diffusion model, not from the encoder
TEXTURE_SHARE = 0.25
CROP_PX = 64
SAVE_S = 60
BASIS_SHARDS = 2
WAIT_S = 3600  # for shards: a renderer makes ten in some minutes


def learning_rate(done: float) -> float:
    """Warm-up over the first 2 % of the time, then a cosine to a twentieth; `done` in [0, 1]."""
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return PEAK_LEARNING_RATE * min(1.0, done / 0.02) * (0.05 + 0.95 * fall)


def random_crops(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` crops at any offset of random images (N, 3, H, W) uint8, as floats in [-1, 1]."""
    edge = images.shape[-1] - CROP_PX + 1
    picks = torch.randint(len(images), (count,), generator=generator).tolist()
    offsets = torch.randint(edge, (count, 2), generator=generator).tolist()
    crops = [images[i, :, y : y + CROP_PX, x : x + CROP_PX] for i, (y, x) in zip(picks, offsets, strict=True)]
    return to_float(torch.stack(crops))


@torch.no_grad()
def first_autoencoder(images: Tensor, textures: Tensor) -> AutoencoderTiny:
    """Basis fitted on renders and textures alike; the scaling factor gives the renders' latents unit variance."""
    basis = fit_patch_basis(to_float(torch.cat([images[:1500], textures[:500]])))
    model = build_autoencoder(basis)
    z = model.encode(to_float(images[:256])).latents
    model.register_to_config(scaling_factor=float(1 / z.std()))
    return model


def write_autoencoder(model: AutoencoderTiny, folder: Path) -> None:
    """`folder`/vae, of which a reader never sees a half-written file."""
    staged, place = folder / "vae.tmp", folder / "vae"
    model.save_pretrained(staged)
    if place.exists():
        for path in staged.iterdir():
            path.replace(place / path.name)
        staged.rmdir()
    else:
        staged.rename(place)


@dataclass(eq=False)
class Training:
    """What a checkpoint holds."""

    model: AutoencoderTiny
    optimizer: torch.optim.AdamW
    generator: torch.Generator
    step: int = 0
    elapsed_s: float = 0.0

    @classmethod
    def start(cls, model: AutoencoderTiny) -> "Training":
        rate = PEAK_LEARNING_RATE
        optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0)
        return cls(model, optimizer, torch.Generator().manual_seed(0))

    def update(self, batch: Tensor, rate: float) -> float:
        """One step on crops (B, 3, H, W) in [-1, 1]; returns their mean squared error."""
        device = batch.device
        with torch.no_grad():
            z = self.model.encode(batch).latents
            strength = LATENT_NOISE * torch.rand(len(batch), 1, 1, 1, generator=self.generator)
            z = z + (strength * torch.randn(z.shape, generator=self.generator)).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            loss, squared = decoder_loss(self.model, z, batch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.decoder.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return squared.item()

    def save(self, folder: Path) -> None:
        state = {
            "decoder": self.model.decoder.state_dict(), "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(), "step": self.step, "elapsed_s": self.elapsed_s,
        }  # fmt: skip
        torch.save(state, folder / "decoder.tmp.pt")
        (folder / "decoder.tmp.pt").replace(folder / "decoder.pt")
        write_autoencoder(self.model, folder)

    def resume(self, folder: Path) -> None:
        state = torch.load(folder / "decoder.pt", weights_only=True)
        self.model.decoder.load_state_dict(state["decoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]


def train(training: Training, images: Tensor, textures: Tensor, args: argparse.Namespace) -> None:
    """Until the minutes are over; the first 64 images are held back to measure on."""
    device = training.model.device
    held, images = to_float(images[:64]).to(device), images[64:]
    textured = int(args.batch * TEXTURE_SHARE)
    started = time.monotonic() - training.elapsed_s
    saved_s = training.elapsed_s
    while (done := (time.monotonic() - started) / (60 * args.minutes)) < 1:
        training.elapsed_s = done * 60 * args.minutes
        g = training.generator
        crops = [random_crops(images, args.batch - textured, g), random_crops(textures, textured, g)]
        batch = colour_jitter(torch.cat(crops), g).to(device, memory_format=torch.channels_last)
        squared = training.update(batch, learning_rate(done))
        if training.elapsed_s - saved_s > SAVE_S:
            saved_s = training.elapsed_s
            held_db = psnr_db(reconstruct(training.model, held), held).mean().item()
            line = {
                "s": round(training.elapsed_s), "step": training.step, "crops": training.step * args.batch,
                "train_db": round(10 * math.log10(4 / squared), 2), "held_db": round(held_db, 2),
            }  # fmt: skip
            print(json.dumps(line), flush=True)
            training.save(args.out)
    training.save(args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--min-shards", type=int, default=10, help="the decoder starts when so many are rendered")
    parser.add_argument("--max-shards", type=int, default=20, help="that are read, of those there are then")
    parser.add_argument("--textures", type=int, default=2000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--init", type=Path, help="an autoencoder to start from")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    fitted = load_images(wait_for_shards(args.data, BASIS_SHARDS, timeout_s=WAIT_S)[:BASIS_SHARDS])
    textures = texture_images(args.textures, size_px=fitted.shape[-1], seed=0)
    if args.resume or args.init:
        model = AutoencoderTiny.from_pretrained(args.out / "vae" if args.resume else args.init)
        model.encoder.requires_grad_(False)
    else:
        model = first_autoencoder(fitted, textures)
        write_autoencoder(model, args.out)
    images = load_images(wait_for_shards(args.data, args.min_shards, timeout_s=WAIT_S)[: args.max_shards])
    training = Training.start(model.to(args.device, memory_format=torch.channels_last))
    if args.resume:
        training.resume(args.out)
    train(training, images, textures, args)


if __name__ == "__main__":
    main()
