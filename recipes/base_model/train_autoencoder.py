"""Fit the latents and train the decoder: python -m recipes.base_model.train_autoencoder --data DIR --out DIR --minutes 30

First run: the patch basis is fitted and an autoencoder with its exact encoder is written at once, so that the U-Net
can start. Then the decoder trains, on crops of renders and of images made by program; the learning rate follows
elapsed time, a checkpoint is written every minute, and `--resume` goes on from it, also with more minutes.
Runs on CPU or GPU.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from .autoencoder import build_autoencoder, decoder_loss, reconstruct
from .data import load_images, psnr_db, shard_paths, to_float, wait_for_shards
from .latents import fit_patch_basis
from .textures import colour_jitter, texture_images

PEAK_LEARNING_RATE = 2e-3
LATENT_NOISE = 0.05  # what will be decoded comes from a diffusion model, not from the encoder
TEXTURE_SHARE = 0.25
CROP_PX = 64


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--min-shards", type=int, default=2, help="start when so many shards are rendered")
    parser.add_argument("--max-shards", type=int, default=20)
    parser.add_argument("--textures", type=int, default=2000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)

    wait_for_shards(args.data, args.min_shards, timeout_s=600)
    images = load_images(shard_paths(args.data)[: args.max_shards])
    held, images = to_float(images[:64]).to(device), images[64:]
    textures = texture_images(args.textures, size_px=images.shape[-1], seed=0)

    checkpoint = args.out / "decoder.pt"
    if args.resume:
        model = AutoencoderTiny.from_pretrained(args.out / "vae")
        model.encoder.requires_grad_(False)
    else:
        model = first_autoencoder(images, textures)
        model.save_pretrained(args.out / "vae")
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0)
    step, elapsed_s = 0, 0.0
    if args.resume:
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        step, elapsed_s = state["step"], state["elapsed_s"]

    def save(loss: float, squared: float) -> None:
        db = psnr_db(reconstruct(model, held), held).mean().item()
        print(json.dumps({"s": round(elapsed_s), "step": step, "crops": step * args.batch, "loss": round(loss, 5),
                          "train_db": round(10 * math.log10(4 / squared), 2), "held_db": round(db, 2)}), flush=True)  # fmt: skip
        state = {"decoder": model.decoder.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
                 "elapsed_s": elapsed_s, "generator": generator.get_state()}  # fmt: skip
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        model.save_pretrained(args.out / "vae")

    started, saved_s = time.monotonic() - elapsed_s, elapsed_s
    textured = int(args.batch * TEXTURE_SHARE)
    losses = (math.nan, math.nan)
    while (elapsed_s := time.monotonic() - started) < args.minutes * 60:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(elapsed_s / (args.minutes * 60))
        crops = [random_crops(images, args.batch - textured, generator), random_crops(textures, textured, generator)]
        batch = colour_jitter(torch.cat(crops), generator).to(device, memory_format=torch.channels_last)
        with torch.no_grad():
            z = model.encode(batch).latents
            strength = LATENT_NOISE * torch.rand(len(batch), 1, 1, 1, generator=generator)
            z = z + (strength * torch.randn(z.shape, generator=generator)).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            loss, squared = decoder_loss(model, z, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.decoder.parameters(), 1.0)
        optimizer.step()
        step += 1
        losses = (loss.item(), squared.item())
        if elapsed_s - saved_s > 60:
            saved_s = elapsed_s
            save(*losses)
    save(*losses)


if __name__ == "__main__":
    main()
